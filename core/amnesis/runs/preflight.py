"""Everything about a run that can be checked before a weight is loaded, said all at once."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from amnesis.config.problems import Problems
from amnesis.contracts.metric import ChosenMetric
from amnesis.contracts.stream import StreamLoss, check_columns
from amnesis.data.examples import ExampleSet, Mixture
from amnesis.discovery.registry import default_registry
from amnesis.discovery.resolve import Method, build, build_metrics, build_stream
from amnesis.errors import AmnesisError, PluginError, RecipeError, did_you_mean
from amnesis.models.devices import check_device
from amnesis.models.loading import check_model, empty_model
from amnesis.models.quantization import check_quantization
from amnesis.models.trainable import check_targets, matching
from amnesis.runs.checks.draft import draft_of
from amnesis.runs.checks.texts import check_texts
from amnesis.runs.cost import GIB, GOAL_EVERY, Cost, ModelSize, cost_of, size_of
from amnesis.runs.recipe import Recipe
from amnesis.training.monitoring.trackers import build_trackers
from amnesis.training.report import STEP_VALUES
from amnesis.training.stopping import goals_of, limits_of
from amnesis.training.unlearner import check_dtype

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from amnesis.contracts.benchmark import Benchmark
    from amnesis.contracts.probe import Probe
    from amnesis.data.sources import Source
    from amnesis.data.templates import AnyTemplate, Row
    from amnesis.discovery.registry import Registry

Sets = Mapping[str, Sequence["Row"]]


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A run whose inputs are in order.

    Attributes:
        method: every component that the recipe names.
        benchmark: what names the sets and evaluates.
        forget: what the forget stream draws from.
        retain: what the retain stream draws from; empty where there is none.
        device: where to compute.
        cost: what the run will take.
        evaluate_every: after how many steps the run is evaluated; None: never along the way.
        examples: both streams' rows as tokens, by the stream's name.
    """

    method: Method
    benchmark: Benchmark
    forget: Mixture
    retain: Mixture
    device: str
    cost: Cost
    evaluate_every: int | None
    examples: Mapping[str, ExampleSet]


def prepare(
    recipe: Recipe,
    *,
    device: str | None = None,
    out: Path | None = None,
    trust_remote_code: bool = False,
    registry: Registry | None = None,
) -> Prepared:
    """Check names, hyper-parameters, files, rows, model, device and disk; no weight is loaded.

    Raises:
        RecipeError: listing every problem.
    """
    problems = Problems()
    machine = _Machine(device, out, trust_remote_code, registry or default_registry())
    prepared = _checked(problems, recipe, machine)
    problems.raise_any("the run cannot start")
    assert prepared is not None  # noqa: S101  # no problem
    return prepared


def parse_recipe(
    document: Mapping[str, Any],
    where: str = "recipe",
    *,
    device: str | None = None,
    out: Path | None = None,
    trust_remote_code: bool = False,
    registry: Registry | None = None,
) -> Recipe:
    """Return a document as a recipe; of an invalid one, say all that :func:`prepare` would say too.

    Raises:
        RecipeError: listing every problem, those of names, files and models among them.
    """
    try:
        return Recipe.parse(document, where)
    except RecipeError as error:
        if not error.problems:  # it is no run's recipe at all
            raise
        problems = Problems(found=[text.removeprefix(f"{where}: ") for text in error.problems])
        draft, faulty = draft_of(document)
        first = len(problems.found)
        if faulty and not faulty & _FITTED and faulty <= set(Recipe.model_fields):
            problems.found += draft.misfits()
        machine = _Machine(device, out, trust_remote_code, registry or default_registry())
        _checked(problems, draft, machine, faulty)
        problems.notes.update(dict.fromkeys(_misplaced(draft, faulty, machine.registry)))
        if len(problems.found) == first and not problems.notes:
            raise
        problems.raise_any(where)
        raise


def _misplaced(draft: Recipe, faulty: frozenset[str], registry: Registry) -> Iterator[str]:
    """Yield where unknown keys belong that are hyper-parameters of a component of the recipe."""
    for kind in ("objective", "procedure", "regularizer", "combiner", "robust", "benchmark"):
        choice = getattr(draft, kind)
        for one in choice if isinstance(choice, list) else [choice]:
            name = one.get("name") if isinstance(one, Mapping) else one
            for entry in registry.find(str(name)) if name else ():
                hypers: Mapping[str, Any] = getattr(entry.load(), "model_fields", {})
                for key in sorted(faulty - set(Recipe.model_fields)):
                    if key in hypers:
                        yield f"{key!r} is of {name}: {kind}: {{name: {name}, {key}: …}}"


# The keys that are fitted to one another: where one is wrong, the others may well be right.
_FITTED = {"model", "objective", "procedure", "regularizer", "combiner", "lora", "trainable"}


@dataclass(frozen=True)
class _Machine:
    """Where and with what a run is to take place."""

    device: str | None
    out: Path | None
    trust_remote_code: bool
    registry: Registry


def _checked(
    problems: Problems, recipe: Recipe, machine: _Machine, faulty: frozenset[str] = frozenset()
) -> Prepared | None:
    """Collect every problem of a recipe, and return the run where there is none.

    ``faulty`` are the keys of a draft that are wrong already: nothing that hangs on them is said.
    """
    registry, device, out = machine.registry, machine.device, machine.out
    before = len(problems.found)
    benchmark: Benchmark | None = None
    sets: Sets = {}
    if recipe.benchmark is not None:
        benchmark, sets = check_sets(problems, recipe.benchmark, (), recipe.template, registry)
    method = _build_method(problems, recipe, benchmark, registry, faulty)
    if method is not None:
        suited = problems.attempt("training", recipe.training.suited_to, method.combiner)
        recipe = recipe.model_copy(update={} if suited is None else {"training": suited})
    if method is not None and sets:
        problems.attempt("until", _check_goal_sets, recipe, method, sets)
    streams = {
        name: _check_sources(problems, name, sources, sets, recipe.template)
        for name, sources in (("forget", recipe.forget), ("retain", recipe.retain))
        if sets and (name == "forget" or recipe.regularizer is not None or recipe.procedure)
        if not {name, "template", "benchmark"} & faulty
    }
    _check_columns(problems, method, streams)
    rows_are_right = len(problems.found) == before
    usable = problems.attempt("device", check_device, device)
    problems.attempt("report_to", build_trackers, recipe.report_to or ())
    if usable is not None:
        problems.attempt("training.precision", recipe.training.check_on, usable)
    config, size = _check_models(problems, recipe, method, machine.trust_remote_code)
    if out is not None and size is not None:
        problems.attempt("disk", _check_disk, out, size.parameters, recipe)
    notes: list[str] = []
    examples: dict[str, ExampleSet] = {}
    can_tokenize = rows_are_right and "forget" in streams and "evaluate" not in faulty
    if config is not None and benchmark is not None and method is not None and can_tokenize:
        notes, examples = check_texts(
            problems, recipe, method, benchmark, streams, config, machine.trust_remote_code
        )
    if faulty or len(problems.found) > before or not (benchmark and method and usable):
        return None
    cost = cost_of(recipe, method, streams, size, usable, benchmark)
    return Prepared(
        method=method,
        benchmark=benchmark,
        forget=streams["forget"],
        retain=streams.get("retain", Mixture(())),
        device=usable,
        cost=replace(cost, remarks=(*cost.remarks, *notes)),
        evaluate_every=evaluated_every(recipe, method),
        examples=examples,
    )


# The keys of which each names one component, and of which kind: a method's field.
_SINGLE = {"procedure": "procedure", "combiner": "combiner", "robust": "perturbation"}


def _build_method(
    problems: Problems,
    recipe: Recipe,
    benchmark: Benchmark | None,
    registry: Registry,
    faulty: frozenset[str] = frozenset(),
) -> Method | None:
    """Build every component that the recipe names, each once; None where one cannot be built."""
    before = len(problems.found)
    forget: StreamLoss | None = StreamLoss("forget", ())
    retain = None
    if recipe.objective is not None:
        forget = problems.attempt(
            "objective", build_stream, "forget", "objective", recipe.objective, registry
        )
    if recipe.regularizer is not None:
        retain = problems.attempt(
            "regularizer", build_stream, "retain", "regularizer", recipe.regularizer, registry
        )
    single = {
        kind: problems.attempt(key, build, kind, choice, registry)
        for key, kind in _SINGLE.items()
        if (choice := getattr(recipe, key)) is not None
    }
    tried = [problems.attempt("probes", build, "probe", one, registry) for one in recipe.probes]
    built = [probe for probe in tried if probe is not None]
    attacks = [problems.attempt("attacks", build, "attack", a, registry) for a in recipe.attacks]
    metrics = during = None
    if recipe.evaluate.metrics is not None:
        metrics = problems.attempt(
            "evaluate.metrics", build_metrics, recipe.evaluate.metrics, registry
        )
    elif benchmark is not None and benchmark.metrics:
        metrics = problems.attempt(
            "benchmark", build_metrics, benchmark.metrics, registry, optional=True
        )
    if recipe.evaluate.during is not None:
        during = problems.attempt(
            "evaluate.during", build_metrics, recipe.evaluate.during, registry
        )
    if not faulty:  # what gives a value may be what is wrong
        problems.attempt("stop_when", _check_limits, recipe, built, registry)
        during = problems.attempt(
            "until", _metrics_along, recipe, built, metrics or (), during, registry
        )
    if len(problems.found) > before or forget is None:
        return None
    return Method(
        forget=forget,
        retain=retain,
        combiner=single.get("combiner"),
        perturbation=single.get("perturbation"),
        procedure=single.get("procedure"),
        probes=tuple(built),
        registry=registry,
        attacks=tuple(attack for attack in attacks if attack is not None),
        metrics=metrics,
        during=during,
    )


def evaluated_every(recipe: Recipe, method: Method) -> int | None:
    """Return after how many steps a run is evaluated: as it says, or as its goal needs it."""
    if recipe.evaluate.every is not None or not _measured_goals(recipe, method.probes):
        return recipe.evaluate.every
    return GOAL_EVERY


def _measured_goals(recipe: Recipe, probes: Sequence[Probe]) -> list[str]:
    """Return the goals on values that no step and no probe gives: metrics."""
    prefixes = (*STEP_VALUES, *(prefix for probe in probes for prefix in probe.logs))
    return [name for name in goals_of(recipe.until, probes) if not name.startswith(prefixes)]


def _metrics_along(
    recipe: Recipe,
    probes: Sequence[Probe],
    metrics: Sequence[ChosenMetric],
    during: Sequence[ChosenMetric] | None,
    registry: Registry,
) -> tuple[ChosenMetric, ...] | None:
    """Return the metrics of evaluations along the run, those of its goals among them.

    A goal alone is evaluated alone. None: all metrics are.

    Raises:
        RecipeError: a goal is on what nothing in the run gives.
    """
    names = _measured_goals(recipe, probes)
    for name in names:
        if "/" not in name and (giving := _probes_that_log(name, registry)):
            raise RecipeError(f"until: a probe gives {name!r}: probes: [{giving[0]}]")
    if recipe.evaluate.every is not None and during is None:
        return None
    chosen = list(during or ())
    for name in names:
        set_name, _, key = name.rpartition("/")
        match = [one for one in (*chosen, *metrics) if one.metric.key == key]
        fitting = [one for one in match if one.set_name in (None, set_name)]
        if any(one in chosen for one in fitting):
            continue
        if fitting:
            chosen.append(ChosenMetric(metric=fitting[0].metric, set_name=set_name or None))
        else:
            chosen += build_metrics([name], registry)
    return tuple(chosen) or None


def _check_goal_sets(recipe: Recipe, method: Method, sets: Sets) -> None:
    """Refuse a goal on a set that the benchmark does not have."""
    for name in _measured_goals(recipe, method.probes):
        set_name = name.rpartition("/")[0]
        if set_name and set_name not in sets:
            raise RecipeError(
                f"until: {name!r}: no set is called {set_name!r}; {did_you_mean(set_name, sets)}"
            )


def _check_limits(recipe: Recipe, probes: Sequence[Probe], registry: Registry) -> None:
    """Refuse a limit on a value that nothing in the run gives."""
    prefixes = (*STEP_VALUES, *(prefix for probe in probes for prefix in probe.logs))
    for name in limits_of(recipe.stop_when, probes):
        if name.startswith(prefixes) or ("/" in name and recipe.evaluate.every is not None):
            continue
        giving = _probes_that_log(name, registry)
        raise RecipeError(
            f"stop_when: nothing in this run gives {name!r}; "
            + (
                f"a probe does: probes: [{giving[0]}]"
                if giving
                else "for a metric, evaluate it along the run: evaluate.every"
            )
        )


def _probes_that_log(name: str, registry: Registry) -> list[str]:
    giving = []
    for entry in (entry for entry in registry if entry.kind == "probe"):
        try:
            probe: type[Probe] = entry.load()
        except PluginError:
            continue
        if name in probe.short_names or (probe.logs and name.startswith(probe.logs)):
            giving.append(entry.name)
    return giving


def _check_models(
    problems: Problems, recipe: Recipe, method: Method | None, trust_remote_code: bool
) -> tuple[PretrainedConfig | None, ModelSize | None]:
    """Check all models that the recipe names; return configuration and size of the trained one."""
    if recipe.model is None:  # of a draft
        return None, None
    for where, bits in (
        ("model.quantize", recipe.model.quantize),
        ("training.reference_copy", recipe.training.reference_copy),
    ):
        problems.attempt(where, check_quantization, bits, where)
    config = problems.attempt("model", check_model, recipe.model, trust_remote_code)
    if recipe.retrained is not None:
        problems.attempt("retrained", check_model, recipe.retrained, trust_remote_code)
    if config is None:
        return None, None
    for loss in (method.forget, method.retain) if method is not None else ():
        if loss is not None:
            problems.attempt(loss.name, _check_blocks, loss, config)
    skeleton = empty_model(config)
    if skeleton is None:
        return config, None
    faults = len(problems.found)
    if recipe.trainable is not None:
        problems.attempt("trainable", matching, skeleton, recipe.trainable)
    if recipe.lora is not None:
        problems.attempt("lora", check_targets, skeleton, recipe.lora)
    if len(problems.found) > faults:
        return config, None
    size = size_of(recipe, config, skeleton)
    problems.attempt("model.dtype", check_dtype, size.dtype, recipe.training.optimizer)
    return config, size


def check_sets(
    problems: Problems,
    choice: Any,
    names: Sequence[str],
    template: AnyTemplate,
    registry: Registry,
) -> tuple[Benchmark | None, Sets]:
    """Return the benchmark and its sets, having looked at every row of those called ``names``."""
    benchmark: Benchmark | None = problems.attempt(
        "benchmark", build, "benchmark", choice, registry
    )
    sets: Sets = {} if benchmark is None else problems.attempt("benchmark", benchmark.sets) or {}
    for name in dict.fromkeys(names):
        if sets and name not in sets:
            problems.found.append(f"benchmark: has no set {name!r}; {did_you_mean(name, sets)}")
        elif sets:
            problems.found += _row_problems(f"set {name!r}", sets[name], template)
    return benchmark, sets


def _check_sources(
    problems: Problems,
    stream: str,
    sources: Sequence[Source],
    sets: Sets,
    template: AnyTemplate,
) -> Mixture:
    """Return what a stream draws from, having looked at every row."""
    parts: list[tuple[float, Sequence[Row]]] = []
    for source in sources:
        rows = problems.attempt(f"{stream} stream", source.rows, sets)
        if rows is not None:
            problems.found += _row_problems(str(source), rows, template)
            parts.append((source.weight, rows))
    return problems.attempt(f"{stream} stream", Mixture, tuple(parts)) or Mixture(())


def _check_columns(
    problems: Problems, method: Method | None, streams: Mapping[str, Mixture]
) -> None:
    """Collect what rows lack of what the method's terms read of them."""
    for loss in (method.forget, method.retain) if method is not None else ():
        if loss is not None and loss.name in streams:
            rows = [row for _, part in streams[loss.name].parts for row in part]
            problems.attempt(loss.name, check_columns, loss, rows)


def _row_problems(name: str, rows: Sequence[Row], template: AnyTemplate) -> list[str]:
    faults: list[str] = []
    for index, row in enumerate(rows):
        try:
            template.check(row)
        except AmnesisError as error:
            faults.append(f"{name}, row {index}: {error}{_other_form(row, template)}")
    if len(faults) > 1:
        faults = [f"{faults[0]} ({len(faults) - 1} more rows there have faults)"]
    return faults if rows else [f"{name}: is empty"]


def _other_form(row: Row, template: AnyTemplate) -> str:
    """Return a hint where a row has the field of another template's."""
    for key, form in (("messages", "chat"), ("text", "text")):
        if isinstance(row, Mapping) and key in row and template.format != form:
            return f"; of rows with {key!r} say template.format={form}"
    return ""


def _check_blocks(loss: StreamLoss, config: PretrainedConfig) -> None:
    blocks = getattr(config, "num_hidden_layers", None)
    for weighted in loss.terms:
        read = weighted.term.needs.hidden | weighted.term.needs.ref_hidden
        if blocks is not None and read and max(read) >= blocks:
            raise RecipeError(
                f"{weighted.term.label} reads block {max(read)}, but the model has {blocks} "
                f"(0 to {blocks - 1})"
            )


def _check_disk(out: Path, parameters: int, recipe: Recipe) -> None:
    place = next(parent for parent in (out, *out.parents) if parent.exists())
    copies = 1 + (3 * (recipe.training.keep_checkpoints + 1) if recipe.training.save_every else 0)
    needed, free = 4 * parameters * copies, shutil.disk_usage(place).free
    if needed > free:
        raise RecipeError(
            f"the model and its checkpoints take about {needed / GIB:.1f} GiB, but {place} has "
            f"{free / GIB:.1f} GiB free; name another --out, or lower training.keep_checkpoints"
        )
