"""Everything about a run that can be checked before a weight is loaded, said all at once."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TYPE_CHECKING
from amnesis.contracts import Attack, Benchmark, Row
from amnesis.data.examples import Mixture
from amnesis.data.sources import Source
from amnesis.data.templates import AnyTemplate
from amnesis.discovery.registry import default_registry
from amnesis.discovery.resolve import attack_of, combiner_of, component_of, probes_of, stream_of
from amnesis.errors import AmnesisError, RecipeError, did_you_mean
from amnesis.models.quantization import examine_quantization
from amnesis.models.trainable import examine_targets, matching
from amnesis.runs.cost import GIB, Plan, plan_of
from amnesis.training.stopping import limits_of
from amnesis.config.problems import Problems
from amnesis.models.devices import examined_device
from amnesis.models.loading import empty_model, examined_model

if TYPE_CHECKING:
    from transformers import PretrainedConfig
    from amnesis.contracts.stream import StreamLoss
    from amnesis.discovery.registry import Registry
    from amnesis.runs.recipe import Recipe

@dataclass(frozen=True)
class Prepared:
    """A run whose inputs are in order."""

    benchmark: Benchmark
    forget: Mixture
    retain: Mixture
    attacks: tuple[Attack, ...]
    device: str
    plan: Plan


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
        RecipeError: listing every problem that was found.
    """
    registry = registry or default_registry()
    problems = Problems()
    forget = problems.attempt(
        "objective", lambda: stream_of("forget", "objective", recipe.objective, registry)
    )
    retain = None
    if recipe.regularizer is not None:
        wanted = recipe.regularizer
        retain = problems.attempt(
            "regularizer", lambda: stream_of("retain", "regularizer", wanted, registry)
        )
    if recipe.combiner is not None:
        combiner = recipe.combiner
        problems.attempt("combiner", lambda: combiner_of(combiner, registry))
    for choice in recipe.probes:
        problems.attempt("probes", lambda c=choice: probes_of([c], registry))  # type: ignore[misc]
    attacks: list[Attack | None] = []
    for choice in recipe.attacks:
        attacks.append(problems.attempt("attacks", lambda c=choice: attack_of(c, registry)))  # type: ignore[misc]
    for where, metrics in (
        ("evaluate.metrics", recipe.evaluate.metrics),
        ("evaluate.during", recipe.evaluate.during),
    ):
        for metric in metrics or ():
            name = metric if isinstance(metric, str) else str(metric.get("name"))
            problems.attempt(
                where,
                lambda n=name: registry.get("metric", n.rpartition("/")[2]),  # type: ignore[misc]
            )
    limits = problems.attempt("stop_when", lambda: limits_of(recipe.stop_when)) or {}
    if any(name.startswith("g_effect") for name in limits) and not recipe.probes:
        problems.found.append(
            "stop_when: a limit on the G-effect needs a probe: probes: [g_effect]"
        )
    benchmark, sets = examined_sets(problems, recipe.benchmark, (), recipe.template, registry)
    streams = {
        name: examined_sources(problems, name, sources, sets, recipe.template)
        for name, sources in (("forget", recipe.forget), ("retain", recipe.retain))
        if sets and (name == "forget" or recipe.regularizer is not None)
    }
    device = problems.attempt("device", lambda: examined_device(device))
    if device is not None:
        problems.attempt("training.precision", lambda d=device: recipe.training.examine_on(d))  # type: ignore[misc]
    quantized = {
        "model.quantize": recipe.model.quantize,
        "training.reference_copy": recipe.training.reference_copy,
    }
    for where, asked in quantized.items():
        problems.attempt(where, lambda a=asked, w=where: examine_quantization(a, w))  # type: ignore[misc]
    config = problems.attempt("model", lambda: examined_model(recipe.model, trust_remote_code))
    if recipe.retrained is not None:
        other = recipe.retrained
        problems.attempt("retrained", lambda: examined_model(other, trust_remote_code))
    if config is not None:
        for loss in (forget, retain):
            if loss is not None:
                problems.attempt(loss.name, lambda s=loss: _examine_blocks(s, config))  # type: ignore[misc]
    skeleton = None if config is None else empty_model(config)
    parameters = None if skeleton is None else sum(p.numel() for p in skeleton.parameters())
    if skeleton is not None and recipe.trainable is not None:
        patterns = recipe.trainable
        problems.attempt("trainable", lambda: matching(skeleton, patterns))
    if skeleton is not None and recipe.lora is not None:
        lora = recipe.lora
        problems.attempt("lora", lambda: examine_targets(skeleton, lora))
    if out is not None and parameters is not None:
        problems.attempt("disk", lambda: _examine_disk(out, parameters, recipe))
    problems.raise_any("the run cannot start")
    assert benchmark is not None  # noqa: S101  # no problem was found
    assert forget is not None  # noqa: S101
    assert device is not None  # noqa: S101
    plan = plan_of(recipe, forget, retain, streams, parameters)
    return Prepared(
        benchmark,
        streams["forget"],
        streams.get("retain", Mixture(())),
        tuple(a for a in attacks if a is not None),
        device,
        plan,
    )


def examined_sets(
    problems: Problems,
    choice: Any,
    names: Sequence[str],
    template: AnyTemplate,
    registry: Registry | None,
) -> tuple[Benchmark | None, Mapping[str, Sequence[Row]]]:
    """Make the benchmark's sets, and look at every row of those called ``names``."""
    benchmark = problems.attempt(
        "benchmark", lambda: component_of(("benchmark",), choice, registry)
    )
    if benchmark is None:
        return None, {}
    if not isinstance(benchmark, Benchmark):
        problems.found.append(f"benchmark: {benchmark.label} is not a benchmark")
        return None, {}
    sets = problems.attempt("benchmark", benchmark.sets) or {}
    for name in dict.fromkeys(names):
        if sets and name not in sets:
            problems.found.append(f"benchmark: has no set {name!r}; {did_you_mean(name, sets)}")
        elif sets:
            problems.found += _row_faults(f"set {name!r}", sets[name], template)
    return benchmark, sets


def examined_sources(
    problems: Problems,
    stream: str,
    sources: Sequence[Source],
    sets: Mapping[str, Sequence[Row]],
    template: AnyTemplate,
) -> Mixture:
    """Read what a stream draws from, and look at every row."""
    parts: list[tuple[float, Sequence[Row]]] = []
    for source in sources:
        rows = problems.attempt(f"{stream} stream", lambda s=source: s.rows(sets))  # type: ignore[misc]
        if rows is not None:
            problems.found += _row_faults(str(source), rows, template)
            parts.append((source.weight, rows))
    return Mixture(tuple(parts))


def _row_faults(name: str, rows: Sequence[Row], template: AnyTemplate) -> list[str]:
    faults: list[str] = []
    for index, row in enumerate(rows):
        try:
            template.examine(row)
        except AmnesisError as error:
            faults.append(f"{name}, row {index}: {error}")
    if len(faults) > 1:
        faults = [f"{faults[0]} ({len(faults) - 1} more rows there have faults)"]
    return faults if rows else [f"{name}: is empty"]


def _examine_blocks(loss: StreamLoss, config: PretrainedConfig) -> None:
    blocks = getattr(config, "num_hidden_layers", None)
    for weighted in loss.terms:
        asked = weighted.term.needs.hidden | weighted.term.needs.ref_hidden
        if blocks is not None and asked and max(asked) >= blocks:
            raise RecipeError(
                f"{weighted.term.label} reads block {max(asked)}, but the model has {blocks} "
                f"(0 to {blocks - 1})"
            )


def _examine_disk(out: Path, parameters: int, recipe: Recipe) -> None:
    place = next(parent for parent in (out, *out.parents) if parent.exists())
    copies = 1 + (3 * (recipe.training.keep_checkpoints + 1) if recipe.training.save_every else 0)
    needed, free = 4 * parameters * copies, shutil.disk_usage(place).free
    if needed > free:
        raise RecipeError(
            f"the model and its checkpoints take about {needed / GIB:.1f} GiB, but {place} has "
            f"{free / GIB:.1f} GiB free; name another --out, or lower training.keep_checkpoints"
        )
