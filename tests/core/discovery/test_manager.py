"""Loading entry points: one fault stays one fault, and every message says what to do."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest

import amnesis
from amnesis.discovery.manager import Plugin, build_manager, installed_entry_points
from amnesis.errors import PluginError

GOOD = """
    import amnesis

    @amnesis.hookimpl
    def register_objectives(register):
        register("good", "nowhere:Good", summary="a good one")
"""


def _only_fault(points: Any) -> str:
    manager = build_manager(points)
    assert manager.plugins == ()
    (fault,) = manager.faults
    message = str(fault)
    assert "\n" not in message
    return message


def test_a_plugin_is_loaded_with_its_origin(install: Any) -> None:
    manager = build_manager(install("good_plugin", GOOD, version="2.5"))
    (plugin,) = manager.plugins
    assert str(plugin) == "good-plugin 2.5, entry point 'good_plugin_entry'"
    assert plugin.module is sys.modules["good_plugin"]
    assert manager.faults == ()


def test_one_fault_stays_one_fault(install: Any) -> None:
    points = install("bad_plugin", "1 / 0") + install("good_plugin", GOOD)
    manager = build_manager(points)
    assert [p.distribution for p in manager.plugins] == ["good-plugin"]
    assert [f.plugin.distribution for f in manager.faults] == ["bad-plugin"]


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("import not_there_at_all", "ModuleNotFoundError: No module named 'not_there_at_all'"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("def f(:", "SyntaxError: invalid syntax"),
        ("raise SystemExit('no GPU')", "SystemExit: no GPU"),
        ("raise ValueError('two\\nlines')", "ValueError: two lines"),
    ],
)
def test_failing_import(install: Any, source: str, said: str) -> None:
    message = _only_fault(install("broken_plugin", source))
    assert message.startswith("plugin broken-plugin 1.0, entry point 'broken_plugin_entry': ")
    assert f"importing 'broken_plugin' failed with {said}" in message
    assert message.endswith("repair it, reinstall it, or uninstall broken-plugin")


def test_misspelt_hook(install: Any) -> None:
    message = _only_fault(
        install("misspelt_plugin", GOOD.replace("register_objectives", "register_objektives"))
    )
    assert "misspelt-plugin 1.0, entry point 'misspelt_plugin_entry'" in message
    assert "unknown hook 'register_objektives'; did you mean 'register_objectives'?" in message
    assert message.endswith("rename the function")


def test_hook_unlike_any_other(install: Any) -> None:
    message = _only_fault(
        install("other_plugin", GOOD.replace("register_objectives", "announce_something"))
    )
    assert "unknown hook 'announce_something'" in message
    assert "register_commands" in message


def test_optional_hook_of_a_later_version_is_no_fault(install: Any) -> None:
    source = GOOD + "\n    @amnesis.hookimpl(optionalhook=True)\n    def register_oracles(x): ...\n"
    assert len(build_manager(install("early_plugin", source)).plugins) == 1


@pytest.mark.parametrize(
    "arguments", ["(registry)", "()", "(register, extra)", "(*, register)", "(*register)"]
)
def test_wrong_hook_argument(install: Any, arguments: str) -> None:
    message = _only_fault(install("argument_plugin", GOOD.replace("(register)", arguments)))
    assert "argument-plugin 1.0, entry point 'argument_plugin_entry'" in message
    assert f"takes one argument, 'register', but is defined with {arguments}" in message
    assert message.endswith("write def register_objectives(register)")


def test_hook_without_mark(install: Any) -> None:
    message = _only_fault(install("bare_plugin", GOOD.replace("@amnesis.hookimpl", "")))
    assert "defines register_objectives without a mark; decorate it" in message


def test_module_without_hooks(install: Any) -> None:
    message = _only_fault(install("empty_plugin", "x = 1"))
    assert "has no hook implementation; decorate a function" in message


def test_imported_hookspec_is_not_taken_for_a_hook(install: Any) -> None:
    source = GOOD + "\n    from amnesis.discovery.hookspecs import register_probes\n"
    assert len(build_manager(install("typed_plugin", source)).plugins) == 1


def test_computed_attributes_of_a_plugin_are_not_computed(install: Any) -> None:
    source = (
        GOOD
        + """
    def __dir__():
        return ["heavy", "register_objectives"]

    def __getattr__(name):
        raise RuntimeError(f"{name} was asked for")
    """
    )
    assert len(build_manager(install("lazy_plugin", source)).plugins) == 1


def test_the_same_module_twice_names_both_entry_points(install: Any) -> None:
    (point,) = install("twice_plugin", GOOD)
    again = type(point)("again", point.value, point.group)._for(point.dist)
    manager = build_manager([point, again])
    assert len(manager.plugins) == 1
    (fault,) = manager.faults
    assert "entry point 'again'" in str(fault)
    assert "the same module as plugin twice-plugin 1.0, entry point 'twice_plugin_entry'" in str(
        fault
    )


@pytest.mark.parametrize("name", ["good-plugin", "Good_Plugin", "good_plugin_entry"])
def test_a_blocked_plugin_is_not_even_imported(install: Any, name: str) -> None:
    points = install("good_plugin", "raise RuntimeError('imported')")
    manager = build_manager(points, blocked=[name])
    assert (manager.plugins, manager.faults) == ((), ())
    assert [p.distribution for p in manager.blocked] == ["good-plugin"]
    assert "good_plugin" not in sys.modules


def test_blocking_what_is_not_there_is_refused(install: Any) -> None:
    with pytest.raises(PluginError, match=r"no plugin 'good-plugni' .*did you mean 'good-plugin'"):
        build_manager(install("good_plugin", GOOD), blocked=["good-plugni"])


def test_a_module_can_be_given_directly() -> None:
    module = ModuleType("given")

    @amnesis.hookimpl
    def register_metrics(register: amnesis.Register) -> None:
        register("given", "nowhere:Given", summary="given directly")

    module.register_metrics = register_metrics  # type: ignore[attr-defined]
    manager = build_manager([], modules=[Plugin(module, "here", "a test", "0")])
    assert [str(p) for p in manager.plugins] == ["a test 0, entry point 'here'"]


def test_installed_entry_points_are_each_once_and_in_order() -> None:
    points = installed_entry_points()
    keys = [(p.name, p.value) for p in points]
    assert keys == sorted(set(keys))
    assert ("objectives", "amnesis_plugins.objectives") in keys
