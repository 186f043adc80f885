"""Names: who owns them, and what is said when one does not resolve."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.core.strangers import registry_with, stranger

import amnesis
import amnesis.cli
from amnesis.discovery.entry import KINDS
from amnesis.discovery.manager import Plugin, build_manager, installed_entry_points
from amnesis.discovery.registry import Registry, default_registry
from amnesis.errors import ContractError, PluginError, RecipeError, did_you_mean

METHODS = """
    from pydantic import Field
    import amnesis
    from amnesis.contracts import LikelihoodTerm

    class Halved(LikelihoodTerm):
        '''Half the log-likelihood.'''
        factor: float = Field(0.5, gt=0, le=1, description="of the log-likelihood")
        rounds: int = Field(1, ge=1)

        def terms(self, logps, mask, ref_logps=None):
            return self.factor * logps

    @amnesis.hookimpl
    def register_objectives(register):
        register("halved", "{module}:Halved", summary="half of it")
"""


def _registry(install: Any, module: str, source: str) -> Registry:
    return Registry(build_manager(install(module, source.replace("{module}", module))))


def _registering(registration: str, hook: str = "register_objectives") -> str:
    return f"""
    import amnesis

    @amnesis.hookimpl
    def {hook}(register):
        {registration}
    """


def test_a_registered_name_is_created_with_its_hyper_parameters(install: Any) -> None:
    registry = _registry(install, "some_methods", METHODS)
    term = registry.create("objective", "halved", factor=0.25)
    assert term.factor == 0.25
    assert term.registered_name == "halved"
    owner = "some-methods 1.0, entry point 'some_methods_entry'"
    assert term.label == f"objective 'halved' ({owner})"
    assert registry.names("objective") == ["halved"]
    assert [e.name for e in registry.find("halved")] == ["halved"]


def test_unknown_name_has_a_suggestion_and_the_faults(install: Any) -> None:
    points = install("some_methods", METHODS.replace("{module}", "some_methods"))
    registry = Registry(build_manager(points + install("bad_methods", "1 / 0")))
    with pytest.raises(PluginError) as raised:
        registry.get("objective", "HALVD")
    message = str(raised.value)
    assert message.startswith("no objective is called 'HALVD'; did you mean 'halved'? available:")
    assert "plugin bad-methods 1.0, entry point 'bad_methods_entry': importing" in message
    assert "\n" not in message
    assert registry.create("objective", "halved").factor == 0.5  # the fault stops nobody else


def test_unknown_kind_has_a_suggestion(install: Any) -> None:
    registry = _registry(install, "some_methods", METHODS)
    for ask in (registry.names, lambda kind: registry.get(kind, "halved")):
        with pytest.raises(PluginError, match="'objectives'; did you mean 'objective'"):
            ask("objectives")


def test_without_any_plugin_the_message_says_how_to_install() -> None:
    with pytest.raises(PluginError, match=r"no plugin is installed.*reinstall amnesis with pip"):
        Registry(build_manager([])).get("objective", "ga")


def test_duplicate_name_names_both_owners_and_stops_nothing_else(install: Any) -> None:
    first = METHODS.replace("{module}", "first_methods")
    second = _registering("register('halved', 'first_methods:Halved', summary='the same')")
    registry = Registry(
        build_manager(install("first_methods", first) + install("second_methods", second))
    )
    with pytest.raises(PluginError) as raised:
        registry.create("objective", "halved")
    message = str(raised.value)
    assert "first-methods 1.0, entry point 'first_methods_entry'" in message
    assert "second-methods 1.0, entry point 'second_methods_entry'" in message
    assert "say 'second-methods:halved', rename it" in message
    assert "--without-plugin second_methods_entry" in message
    for distribution, spelling in (("first-methods", "First_Methods"), ("second-methods",) * 2):
        term = registry.create("objective", f"{spelling}:halved")
        assert term.factor == 0.5
        assert term.registered_name == f"{distribution}:halved"
    with pytest.raises(PluginError, match="no objective is called 'third:halved'; did you mean"):
        registry.get("objective", "third:halved")
    (fault,) = registry.faults
    assert fault.plugin.distribution == "second-methods"
    assert "as plugin first-methods 1.0" in str(fault)


def test_equal_names_of_different_kinds_do_not_clash(install: Any) -> None:
    source = METHODS + (
        "\n    @amnesis.hookimpl\n    def register_regularizers(register):\n"
        "        register('halved', '{module}:Halved', summary='the same, to keep')\n"
    )
    registry = _registry(install, "both_streams", source)
    assert [e.kind for e in registry.find("halved")] == ["objective", "regularizer"]
    assert registry.faults == []


@pytest.mark.parametrize(
    ("registration", "said"),
    [
        ("register('no good', 'a:B', summary='x')", "'no good' is not a name"),
        ("register(3, 'a:B', summary='x')", "3 is not a name"),
        ("register('good', 'a.B', summary='x')", "write 'package.module:Class'"),
        ("register('good', 'a:', summary='x')", "write 'package.module:Class'"),
        ("register('good', 'a:B', summary=' ')", "must be one line of text"),
        ("register('good', 'a:B', summary='two\\nlines')", "must be one line of text"),
        ("register('good', 'a:B')", "missing 1 required keyword-only argument: 'summary'"),
        ("raise SystemExit('stop')", "failed with SystemExit: stop"),
        ("1 / 0", "failed with ZeroDivisionError"),
    ],
)
def test_failing_hook_is_a_fault_that_keeps_what_came_before(
    install: Any, registration: str, said: str
) -> None:
    source = _registering(
        f"register('before', 'a:B', summary='before'); {registration}".replace("\n", "\\n")
    )
    registry = _registry(install, "failing_hook", source)
    (fault,) = registry.faults
    assert "failing-hook 1.0, entry point 'failing_hook_entry': register_objectives" in str(fault)
    assert said in str(fault)
    assert registry.names("objective") == ["before"]


def test_the_core_s_commands_are_registered_by_the_hook_as_a_stranger_s_are() -> None:
    plugin = Plugin(amnesis.cli, "core", "amnesis", "0")
    registry = Registry(build_manager([], modules=[plugin]))
    names = ["cache", "finetune", "help", "new-plugin", "plugins", "recipe", "run"]
    assert registry.names("command") == names
    for entry in registry:
        assert entry.plugin is plugin
        assert entry.load().__module__.startswith("amnesis.cli.")
        assert entry == replace(default_registry().get("command", entry.name), plugin=plugin)
    without = Registry(build_manager(blocked=["core"]))
    assert not {"run", "plugins"} & set(without.names("command"))


@pytest.mark.parametrize("strangers_first", [False, True])
@pytest.mark.parametrize(
    ("kind", "name"),
    [(kind, default_registry().names(kind)[0]) for kind in KINDS] + [("command", "run")],
)
def test_a_name_of_amnesis_s_own_stays_its_own(
    install: Any, kind: str, name: str, strangers_first: bool
) -> None:
    hook = f"register_{kind}s"
    source = _registering(f"[register(n, 'a:B', summary='mine') for n in ('{name}', 'mine')]", hook)
    theirs = install("shadow_plugin", source)
    ours = [point for point in installed_entry_points() if point.module.startswith("amnesis")]
    registry = Registry(build_manager([*theirs, *ours] if strangers_first else [*ours, *theirs]))
    (fault,) = registry.faults
    assert fault.plugin.distribution == "shadow-plugin"
    assert str(fault) == (
        "plugin shadow-plugin 1.0, entry point 'shadow_plugin_entry': its "
        f"{kind} {name!r} is amnesis's own; give it another name, or say 'shadow-plugin:{name}'"
    )
    theirs = registry.get(kind, f"Shadow_Plugin:{name}")
    assert (theirs.name, theirs.target) == (f"shadow-plugin:{name}", "a:B")
    assert registry.get(kind, f"amnesis:{name}") == registry.get(kind, name)
    assert registry.get(kind, name) == default_registry().get(kind, name)
    assert registry.get(kind, name).load() is default_registry().get(kind, name).load()
    assert registry.get(kind, "mine").plugin.distribution == "shadow-plugin"  # its others stay


def test_a_name_of_amnesis_s_own_is_free_in_another_kind(install: Any) -> None:
    source = _registering("register('sago', 'a:B', summary='mine')", "register_metrics")
    registry = Registry(
        build_manager([*installed_entry_points(), *install("metric_plugin", source)])
    )
    assert registry.get("metric", "sago").plugin.distribution == "metric-plugin"
    assert registry.get("combiner", "sago").plugin.distribution == "amnesis"
    assert not any(fault.plugin.distribution == "metric-plugin" for fault in registry.faults)


def test_broken_target_is_told_when_it_is_used_and_not_before(install: Any) -> None:
    source = _registering("register('lost', 'nowhere_at_all:Lost', summary='lost')")
    registry = _registry(install, "lost_target", source)
    assert registry.faults == []
    with pytest.raises(PluginError, match=r"objective 'lost' \(lost-target 1.0, entry point "):
        registry.create("objective", "lost")
    source = _registering("register('gone', 'json:Gone', summary='gone')")
    with pytest.raises(PluginError, match=r"'json:Gone' failed with AttributeError.*reinstall"):
        _registry(install, "gone_target", source).create("objective", "gone")


def test_a_component_of_another_kind_is_refused(install: Any) -> None:
    source = METHODS.replace("register_objectives", "register_combiners")
    registry = _registry(install, "wrong_kind", source)
    with pytest.raises(
        ContractError, match=r"is not a subclass of amnesis.contracts.Combiner; derive it"
    ):
        registry.create("combiner", "halved")


def test_an_unfinished_component_is_refused(install: Any) -> None:
    source = METHODS.replace("def terms(", "def term(")
    with pytest.raises(ContractError, match="Halved does not implement terms; define"):
        _registry(install, "unfinished", source).create("objective", "halved")


def test_a_hyper_parameter_that_recipes_could_not_give_is_refused(install: Any) -> None:
    source = METHODS.replace("factor", "weight")
    with pytest.raises(ContractError, match=r"has a hyper-parameter 'weight'.*rename it"):
        _registry(install, "reserved_field", source).create("objective", "halved")


def test_hyper_parameters_are_refused_all_at_once(install: Any) -> None:
    registry = _registry(install, "some_methods", METHODS)
    with pytest.raises(
        RecipeError, match="objective 'halved': factr: unknown key; did you mean 'factor'"
    ):
        registry.create("objective", "halved", factr=1)
    with pytest.raises(RecipeError) as raised:
        registry.create("objective", "halved", factor=2, rounds=0)
    assert "factor: Input should be less than or equal to 1 (got 2)" in str(raised.value)
    assert "rounds: Input should be greater than or equal to 1 (got 0)" in str(raised.value)


def test_a_command_is_run_not_created(install: Any) -> None:
    source = _registering("register('greet', 'json:dumps', summary='x')", "register_commands")
    registry = _registry(install, "greeting", source)
    with pytest.raises(PluginError, match="not created but run: 'amnesis greet'"):
        registry.create("command", "greet")


def test_a_command_that_is_no_function_is_refused(install: Any) -> None:
    source = _registering("register('greet', 'json:__name__', summary='x')", "register_commands")
    with pytest.raises(ContractError, match="is not a function; register a function"):
        _registry(install, "greeting", source).get("command", "greet").load()


def test_a_registry_without_a_plugin_leaves_the_default_one_alone() -> None:
    default = default_registry()
    without = Registry(build_manager(blocked=["objectives"]))
    assert without.names("objective") == []
    with pytest.raises(PluginError, match=r"left out: plugin amnesis .*'objectives'"):
        without.create("objective", "wga")
    assert without.names("combiner") == default.names("combiner")
    assert default_registry() is default
    assert amnesis.create("objective", "wga").beta == 1.0


@given(st.text(max_size=12), st.lists(st.text(min_size=1, max_size=12), max_size=6))
def test_every_known_name_is_listed_whatever_was_asked_for(name: str, known: list[str]) -> None:
    said = did_you_mean(name, known)
    assert all(one in said for one in known) if known else said == "available: none"
    if name in known and name:
        assert said.startswith("did you mean ")


def test_every_kind_has_its_own_namespace() -> None:
    registry = default_registry()
    for entry in registry:
        assert entry.kind in KINDS
        assert entry in registry.find(entry.name, (entry.kind,))


def test_another_name_is_the_component_itself_and_says_so() -> None:
    for kind, name, real in (
        ("objective", "graddiff", "ga"),
        ("objective", "idk", "po"),
        ("regularizer", "gd", "nll"),
        ("perturbation", "rs", "random"),
        ("procedure", "task_arithmetic", "task_vector"),
    ):
        component, own = amnesis.create(kind, name), amnesis.create(kind, real)
        assert type(component) is type(own)
        assert component.registered_name == real
        assert not own.note
        assert component.note.startswith(f"{kind} {name!r} is {real!r}: ")


def test_a_run_says_what_another_name_stood_for(
    tiny_llama: Any, tiny_tokenizer: Any, qa_rows: Any
) -> None:
    training = {"steps": 1, "batch_size": 2}
    result = amnesis.Unlearner(
        tiny_llama, tiny_tokenizer, "graddiff", "gd", training=training, device="cpu"
    ).fit(qa_rows[:2], qa_rows[4:])
    assert [note.partition(":")[0] for note in result.notes] == [
        "objective 'graddiff' is 'ga'",
        "regularizer 'gd' is 'nll'",
    ]


def test_another_name_of_nothing_is_a_fault_and_the_rest_goes_on() -> None:
    registry = registry_with(
        stranger(objective={"theirs": "missing", "chained": "graddiff", "fine": "ga"})
    )
    assert registry.create("objective", "fine").registered_name == "ga"
    assert registry.find("theirs") == []
    assert any("'theirs' stands for 'missing', but no objective" in str(f) for f in registry.faults)
