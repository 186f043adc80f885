"""What a run's page says, in the order in which it says it; templates only lay it out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median_low
from typing import TYPE_CHECKING, Any

from amnesis_evaluation.pages import charts
from amnesis_evaluation.pages.pacing import Pacing, pacing_of
from amnesis_evaluation.pages.samples import SampleSet, sample_sets
from amnesis_evaluation.reports.thresholds import is_forgotten_set
from amnesis_plugins.g_effect.layers import is_layer

if TYPE_CHECKING:
    from amnesis.contracts import Verdict
    from amnesis.runs.recipe import PartialRecipe
    from amnesis.runs.results import Results

RATIO = "g_effect/retain_over_unlearn"
_HEATS = {
    "unlearn": "On the forget set, by layer: each step's effect per unit of its forgetting",
    "retain": "On the retain set, by layer, per unit of forgetting",
}
WORDS = {
    "forgotten": ("Forgotten", "good", "✓"),
    "partly": ("Forgotten in part", "bad", "◐"),
    "not_at_all": ("Not forgotten", "bad", "✕"),
    "too_much": ("Forgotten too much", "bad", "!"),
    "kept": ("Kept", "good", "✓"),
    "damaged": ("Damaged", "bad", "◐"),
    "broken": ("Broken", "bad", "✕"),
    None: ("Not measured", "none", "?"),
}


@dataclass(frozen=True, kw_only=True)
class Row:
    """A metric's line: its values and intervals by phase, and their picture."""

    metric: str
    values: Mapping[str, float]
    ends: Mapping[str, tuple[float, float]]
    spots: Sequence[charts.Spot]


@dataclass(frozen=True, kw_only=True)
class Group:
    """The metrics of one set, and what its values should do."""

    name: str
    aim: str
    rows: Sequence[Row]


@dataclass(frozen=True, kw_only=True)
class Effects:
    """The G-effect along a run: in words first, then by step and by layer."""

    sentences: Sequence[Sequence[Any]]
    curves: Sequence[charts.Curves]
    heats: Sequence[charts.Heat]


@dataclass(frozen=True, kw_only=True)
class Content:
    """All that a run's page says."""

    name: str
    title: str
    results: Results
    verdict: Verdict | None
    words: Mapping[str | None, tuple[str, str, str]] = field(default_factory=lambda: WORDS)
    phases: Sequence[str]
    panels: Sequence[charts.Panel]
    samples: Sequence[SampleSet]
    groups: Sequence[Group]
    tasks: Sequence[Row]
    attacks: Mapping[str, Sequence[Row]]
    effects: Effects | None
    pacing: Pacing | None
    recipe: str
    method: str
    facts: Sequence[tuple[str, Any]]
    gaps: Sequence[str]


def content_of(
    results: Results,
    recipe: PartialRecipe | None,
    *,
    answers: Sequence[Mapping[str, Any]] = (),
    examples: Sequence[Mapping[str, Any]] = (),
    name: str = "",
) -> Content:
    """Return what the page of a run or an evaluation says."""
    method = (recipe.method_name if recipe is not None else None) or ""
    return Content(
        name=name,
        title=f"{method} · {name}" if method else name,
        results=results,
        verdict=results.verdict,
        phases=list(results.phases()),
        panels=charts.panels(results),
        samples=sample_sets(answers, examples),
        groups=_groups(results),
        tasks=_tasks(results),
        attacks=_attacks(results),
        effects=_effects(results),
        pacing=pacing_of(results.range_test),
        recipe="" if recipe is None else recipe.without_rows(),
        method=method,
        facts=_facts(results, recipe),
        gaps=unmeasured(results, has_answers=bool(answers)),
    )


# -- metrics --------------------------------------------------------------------------------------


def aim_of(set_name: str) -> str:
    """Return what a set's values should do, in words; an empty name is for several sets."""
    if is_forgotten_set(set_name):
        return "must go"
    if set_name == "holdout":
        return "never seen"
    return "must stay" if set_name else "of several sets"


def _row(results: Results, metric: str) -> Row:
    values: dict[str, float] = {
        phase: v[metric] for phase, v in results.phases().items() if metric in v
    }
    ends: dict[str, tuple[float, float]] = {
        phase: results.intervals[phase][metric]
        for phase in values
        if metric in results.intervals.get(phase, {})
    }
    return Row(metric=metric, values=values, ends=ends, spots=charts.spots(metric, values, ends))


def _names(results: Results) -> list[str]:
    return list(dict.fromkeys(name for values in results.phases().values() for name in values))


def _groups(results: Results) -> list[Group]:
    by_set: dict[str, list[Row]] = {}
    for name in _names(results):
        if name.count("/") <= 1:
            by_set.setdefault(name.rpartition("/")[0], []).append(_row(results, name))
    order = {"must go": 0, "must stay": 1, "of several sets": 2, "never seen": 3}
    groups = [Group(name=name, aim=aim_of(name), rows=rows) for name, rows in by_set.items()]
    return sorted(groups, key=lambda group: order[group.aim])


def _tasks(results: Results) -> list[Row]:
    return [_row(results, name) for name in _names(results) if name.startswith("lm_eval/")]


def _attacks(results: Results) -> dict[str, list[Row]]:
    """Return, by attack, the values of the model as it is and under it."""
    tables = {}
    for attack, phases in results.attacks.items():
        under = phases.get("after", {})
        tables[attack] = [
            Row(
                metric=name,
                values={
                    key: value
                    for key, value in (
                        ("before", phases.get("before", {}).get(name)),
                        ("without", (results.after or {}).get(name)),
                        ("after", under[name]),
                    )
                    if value is not None
                },
                ends={"after": results.intervals["after"][f"{attack}/{name}"]}
                if f"{attack}/{name}" in results.intervals.get("after", {})
                else {},
                spots=[],
            )
            for name in under
            if "@" not in name
        ]
    return {attack: rows for attack, rows in tables.items() if rows}


# -- the G-effect ---------------------------------------------------------------------------------


def _effects(results: Results) -> Effects | None:
    trajectory = results.trajectory
    raw = charts.curves(
        trajectory,
        {
            "g_effect/unlearn": ("on the forget set", "wanted"),
            "g_effect/retain": ("on the retain set", "damage"),
        },
        "G-effect of each step's objective",
    )
    effective = charts.curves(
        trajectory,
        {
            "g_effect/unlearn/effective": ("on the forget set", "wanted"),
            "g_effect/retain/effective": ("on the retain set", "damage"),
        },
        "effective G-effect of each update, in nats",
    )
    if raw is None and effective is None:
        return None
    heats = [
        charts.heat(grid, title, good=effect == "unlearn")
        for effect, title in _HEATS.items()
        if (grid := _by_layer(trajectory, effect))
    ]
    return Effects(
        sentences=_sentences(trajectory),
        curves=[curve for curve in (raw, effective) if curve is not None],
        heats=heats,
    )


def _by_layer(
    trajectory: Sequence[Mapping[str, float]], effect: str
) -> dict[str, dict[str, float]]:
    """Return an effect by layer and step, per unit of the step's forgetting."""
    prefix, total = f"g_effect/{effect}/", "g_effect/unlearn"
    steps = [entry for entry in trajectory if total in entry]
    names = [name for name in (steps[0] if steps else {}) if name.startswith(prefix)]
    layers = [name for name in names if is_layer(name.removeprefix(prefix))]
    return {
        name.removeprefix(prefix): {
            f"{entry['step']:g}": entry[name] / (abs(entry[total]) or 1.0)
            for entry in steps
            if name in entry
        }
        for name in layers
    }


def _sentences(trajectory: Sequence[Mapping[str, float]]) -> list[list[Any]]:
    """Return what the effects say, as texts and numbers; a number is one that the run logged."""
    lines: list[list[Any]] = []
    steps = [entry for entry in trajectory if "g_effect/unlearn" in entry]
    if steps:
        forgot = sum(entry["g_effect/unlearn"] < 0 for entry in steps)
        lines.append(
            [
                f"At {forgot} of {len(steps)} steps the objective's gradient raised the risk on "
                f"the forget set, as it should."
            ]
        )
    harmed = [entry for entry in steps if "g_effect/retain" in entry]
    if harmed:
        count = sum(entry["g_effect/retain"] < 0 for entry in harmed)
        lines.append(
            [f"At {count} of {len(harmed)} it raised the risk on the retain set too: the damage."]
        )
    ratios = [(entry[RATIO], int(entry["step"])) for entry in trajectory if RATIO in entry]
    if ratios:
        middle = median_low([ratio for ratio, _ in ratios])
        worst, step = max(ratios)
        lines.append(
            [
                "Per unit of forgetting it did ",
                middle,
                " of harm at a middling step, and ",
                worst,
                f" at its worst, step {step}. 1 harms both sets alike; 0 or less harms nothing.",
            ]
        )
    return lines


# -- provenance -----------------------------------------------------------------------------------


def _facts(results: Results, recipe: PartialRecipe | None) -> list[tuple[str, Any]]:
    extra = {} if recipe is None else recipe.model_dump(mode="json")
    model = results.model or _path_of(extra.get("model"))
    facts: list[tuple[str, Any]] = [
        ("command", results.command),
        ("model", model),
        ("revision of the model", results.revision),
        ("retrained model", _path_of(extra.get("retrained"))),
        ("benchmark", _benchmark(results, recipe)),
        ("finished", results.finished),
        ("steps", results.steps),
        ("seconds", results.seconds),
    ]
    facts += [(name, value) for name, value in results.environment.items()]
    facts += [(f"fingerprint: {name}", digest) for name, digest in results.fingerprints.items()]
    facts += [(f"rows of {name}, digest", digest) for name, digest in results.sets.items()]
    return [(name, value) for name, value in facts if value is not None]


def _path_of(value: Any) -> str | None:
    if isinstance(value, dict):
        return str(value.get("path") or value.get("architecture") or "") or None
    return None if value is None else str(value)


def _benchmark(results: Results, recipe: PartialRecipe | None) -> str | None:
    choice = recipe.benchmark if recipe is not None else results.benchmark
    if choice is None:
        return None
    return choice if isinstance(choice, str) else str(choice.get("name"))


# -- what is not there ----------------------------------------------------------------------------


def unmeasured(results: Results, *, has_answers: bool) -> list[str]:
    """Return what a reader might take for measured and is not, with what would measure it."""
    names = _names(results)
    sets = {name.partition("/")[0] for name in names if name.count("/") == 1}
    others = {s for s in sets if not is_forgotten_set(s) and s not in ("retain", "holdout")}
    gaps = [
        (
            results.before is None,
            "how the model was before: nothing here says what changed.",
        ),
        (
            results.retrained is None,
            "a model trained without the forget set, the goal itself: give one as retrained.",
        ),
        (
            "holdout" not in sets,
            "rows that no model has seen, by which too much shows: give a holdout set.",
        ),
        (
            not any("mia_" in name or name == "privleak" for name in names),
            "membership: whether forgotten rows can be told from rows never seen.",
        ),
        (
            not results.attacks,
            "attacks: whether the forgotten comes back by relearning, quantisation, paraphrase "
            "or sampling.",
        ),
        (
            not others,
            "knowledge beside the retain set, which the regularizer does not train on: collateral "
            "damage would not show.",
        ),
        (
            not results.lm_eval,
            "general ability, such as MMLU: evaluate.lm_eval.",
        ),
        (
            not any("generated" in n or "rouge" in n or "ngram" in n for n in names),
            "what the model writes by itself: no metric here reads generated text.",
        ),
        (
            not any(name.endswith("/effective") for e in results.trajectory[:1] for name in e),
            "the effective G-effect, of what the optimizer made of the gradients: "
            "probes: [g_effect_update].",
        )
        if results.steps
        else (False, ""),
        (not has_answers, "answers: none were kept, so no text is shown."),
        (not results.intervals.get("after"), "intervals: how far a value would move by chance."),
        (True, "other seeds: this is one run, and another seed gives another model."),
    ]
    return [text for is_gap, text in gaps if is_gap]
