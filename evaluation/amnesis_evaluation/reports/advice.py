"""What to do after a run, read from its own trajectory and G-effect."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from itertools import pairwise
from statistics import median
from typing import TYPE_CHECKING

from amnesis_evaluation.reports.thresholds import UNSEEN

if TYPE_CHECKING:
    from amnesis.contracts import Evidence, Verdict
    from amnesis.runs.recipe import PartialRecipe
    from amnesis.runs.results import Results

RATIO = "g_effect/retain_over_unlearn"
# Adam's steps have one size, but a model that is certain has hardly any gradient: along short runs
# the fall of log p grew with the rate to a power between 1.4 and 2, of which this is the inverse.
POWER = 2 / 3
MOST, UNKNOWN_FACTOR = 100.0, 10.0
HIGH_RATIO, KEPT = 0.5, 0.95
NOTHING_KNOWN = (
    "see what the model does know: amnesis ask shows its answers, and whether the prompt (template)"
    " is that of its training, amnesis assess measures it; a model that never saw the rows has "
    "nothing to forget"
)


def advice_on(results: Results, verdict: Verdict, recipe: PartialRecipe | None) -> tuple[str, ...]:
    """Return what to do next, the most useful first; nothing where forgotten and kept."""
    lines: list[str] = []
    if verdict.forgetting is None and any(one.about == "forgetting" for one in verdict.because):
        lines.append(NOTHING_KNOWN)
    if verdict.retention in ("damaged", "broken"):
        lines += _gentler(results, verdict, recipe)
    if verdict.forgetting in ("not_at_all", "partly"):
        lines += _more(results, verdict)
    if verdict.forgetting == "too_much":
        lines += _less(results)
    if verdict.forgetting == "forgotten" and not results.attacks and results.steps:
        lines.append(
            "before you rely on it, see whether it comes back: attacks: [relearning, quantization]"
        )
    return tuple(lines)


# -- too little -----------------------------------------------------------------------------------


def _more(results: Results, verdict: Verdict) -> Iterator[str]:
    rate, steps = learning_rate_of(results), results.steps
    if steps is None or rate is None:
        return
    effects = [entry["g_effect/unlearn"] for entry in results.trajectory if _forgets_at(entry)]
    if effects and median(effects) >= 0:
        yield (
            "the objective's gradient does not raise the risk on the forget set (its unlearning "
            "G-effect is not negative): try another objective; amnesis suggest ranks them"
        )
        return
    if results.goal is not None and results.goal.advice is not None:
        yield results.goal.advice  # which knows the run's settings too
        return
    if results.goal is not None and results.goal.reached:
        yield _further(verdict, results.goal.limits)
        return
    factor = _factor(results, verdict)
    if verdict.forgetting == "not_at_all":
        moved = "nothing moved" if factor is None else "hardly anything moved"
        times = "too low" if factor is None else f"about {_rounded(factor):g} times too low"
        better = _rounded(rate * (factor or UNKNOWN_FACTOR))
        yield f"{moved}: the learning rate is {times}; try training.learning_rate={better:g}"
    elif factor is not None:
        yield (
            f"go on for longer, training.steps={2 * steps}, or faster, "
            f"training.learning_rate={_rounded(rate * max(factor, 1.5)):g}"
        )


def _further(verdict: Verdict, limits: Collection[str]) -> str:
    """Return what goal to name: a longer or faster run would end at the one that was reached."""
    bounds = {
        one.metric: bound
        for one in verdict.because
        if one.level in ("not_at_all", "partly")
        and (bound := UNSEEN.get(one.metric.rpartition("/")[2])) is not None
        and one.value >= bound
    }
    what = ", and not all is forgotten there: name a lower one in until"
    if others := [name for name in bounds if name not in limits]:
        is_part, them = ("is not a part", "it") if len(others) == 1 else ("are no parts", "them")
        what = f", of which {' and '.join(others)} {is_part}: add {them} to until"
    goals = "".join(f", {name}: {{below: {bound:g}}}" for name, bound in bounds.items())
    return f"the run ended at its goal{what}{goals}"


def _forgets_at(entry: dict[str, float]) -> bool:
    return "g_effect/unlearn" in entry


def learning_rate_of(results: Results) -> float | None:
    """Return the highest learning rate of a run's steps; None where none was logged."""
    rates = [entry["learning_rate"] for entry in results.trajectory if "learning_rate" in entry]
    return max(rates) if rates and max(rates) > 0 else None


def _factor(results: Results, verdict: Verdict) -> float | None:
    """Return by how much the learning rate is too low; None where next to nothing moved.

    What is compared is the way to go with the way gone: of probabilities in log p, of which steps
    make a sum, of other measures in their own units.
    """
    before, after = results.before or {}, results.after or {}
    names = [one.metric for one in verdict.because if one.level in ("not_at_all", "partly")]
    names.sort(key=lambda name: not name.endswith("/probability"))
    for name in names:
        if name not in before or name not in after:
            continue
        start, end, goal = before[name], after[name], _goal(results, name)
        if name.endswith("/probability") and min(start, end, goal) > 0:
            start, end, goal = math.log(start), math.log(end), math.log(goal)
        if start - end > 1e-3 and start > goal:
            return float(min(MOST, max(1.0, ((start - goal) / (start - end)) ** POWER)))
    return None


def _goal(results: Results, name: str) -> float:
    twin = f"holdout/{name.rpartition('/')[2]}"
    known = [
        values[key]
        for values, key in ((results.retrained or {}, name), (results.before or {}, twin))
        if key in values
    ]
    return max(known) if known else 0.1


def _rounded(value: float) -> float:
    """Return a positive number as 1, 2, 3, 5 or 7 times a power of ten: more would be feigned."""
    power = 10.0 ** math.floor(math.log10(value))
    choices = [digit * power for digit in (1, 2, 3, 5, 7, 10)]
    nearest = min(choices, key=lambda choice: abs(math.log(choice / value)))
    return float(f"{nearest:.0e}")


# -- too much -------------------------------------------------------------------------------------


def _less(results: Results) -> Iterator[str]:
    rate = learning_rate_of(results)
    goal = _goal(results, "forget/probability")
    yield (
        f"its absence shows: stop earlier, "
        f"until: {{forget/probability: {{below: {_rounded(goal):g}}}}}"
        + ("" if rate is None else f", or halve the rate, training.learning_rate={rate / 2:.2g}")
    )


# -- damage ---------------------------------------------------------------------------------------


def _gentler(results: Results, verdict: Verdict, recipe: PartialRecipe | None) -> Iterator[str]:
    if (turn := turned_at(results, verdict.because)) is not None:
        name, step = turn
        where = f"after step {step:g}" if step else "before the first evaluation along the run"
        enough = step > 0 and verdict.forgetting in ("forgotten", "too_much")
        yield f"{name} turned {where}" + (
            f": stop there, training.steps={step:g}" if enough else ", before all was forgotten"
        )
    elif results.steps:
        yield "evaluate along the run to see where it turned: evaluate.every=10"
    if recipe is not None and recipe.objective is not None:
        if recipe.regularizer is None:
            yield "nothing held the rest: add regularizer=kl combiner=sago"
        elif recipe.combiner is None or _name(recipe.combiner) in ("sum", "pcgrad"):
            yield "let retention come first where the two gradients conflict: combiner=sago"
    if (ratio := starting_ratio(results)) is not None and ratio >= HIGH_RATIO:
        yield (
            f"from the start the objective did the retain set {ratio:.2f} times the harm that it "
            f"did the forget set (G-effect): amnesis suggest finds one that does less"
        )


def turned_at(results: Results, because: Sequence[Evidence]) -> tuple[str, float] | None:
    """Return the damaged metric that turned first and its last good step, evaluated along the run.

    None where no damaged metric was evaluated along the run.
    """
    turns: list[tuple[float, str]] = []
    for one in because:
        path = [(e["step"], e[one.metric]) for e in results.trajectory if one.metric in e]
        start = (results.before or {}).get(one.metric)
        if one.level not in ("damaged", "broken") or not path or not start:
            continue
        points = [(0.0, start), *path]
        for (step, _), (_, value) in pairwise(points):
            share = start / value if one.metric.endswith("perplexity") else value / start
            if share < KEPT:
                turns.append((step, one.metric))
                break
    if not turns:
        return None
    step, name = min(turns)
    return name, step


def starting_ratio(results: Results) -> float | None:
    """Return the median ratio of the two G-effects over the first tenth of the steps, at least 5.

    None where it was not measured.
    """
    ratios = [entry[RATIO] for entry in results.trajectory if RATIO in entry]
    return median(ratios[: max(5, len(ratios) // 10)]) if ratios else None


def _name(choice: object) -> str:
    return str(choice["name"]) if isinstance(choice, dict) else str(choice)
