"""Comparing what was measured with what is required; what was not measured never passes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from amnesis.errors import did_you_mean
from amnesis_evaluation.commands.audit.policy import Requirement
from amnesis_evaluation.commands.audit.records import Bound, Outcome

Intervals = Mapping[str, tuple[float, float]]
BOUNDS: tuple[Bound, ...] = ("max", "min", "max_ratio", "min_ratio")


@dataclass(frozen=True)
class Baseline:
    """Earlier values, the digest of where they are from, and salted digests of the sets."""

    values: Mapping[str, float]
    digest: str
    sets: Mapping[str, str]


def outcomes_of(
    required: Iterable[tuple[str, Requirement]],
    values: Mapping[str, float],
    intervals: Intervals,
    baselines: Mapping[str, Baseline],
) -> list[Outcome]:
    """Return for each bound whether it is kept."""
    return [
        _outcome(key, requirement, bound, values, intervals, baselines)
        for key, requirement in required
        for bound in BOUNDS
        if getattr(requirement, bound) is not None
    ]


def _outcome(
    key: str,
    requirement: Requirement,
    bound: Bound,
    values: Mapping[str, float],
    intervals: Intervals,
    baselines: Mapping[str, Baseline],
) -> Outcome:
    threshold = float(getattr(requirement, bound))
    is_upper = bound.startswith("max")
    reference = None
    if bound.endswith("ratio") and requirement.of is not None:
        reference = baselines[requirement.of].values[key]
    measured, reason = _measured(key, requirement, is_upper, values, intervals)
    if measured is not None and reference is not None:
        measured = measured / reference
    passed = False
    if measured is not None:
        passed = measured <= threshold if is_upper else measured >= threshold
        sign = {(True, True): "≤", (True, False): ">", (False, True): "≥", (False, False): "<"}
        what = "" if reference is None else f" × {requirement.of} ({reference:.4g})"
        end = (
            ""
            if requirement.compares(key) == "value"
            else f" (its interval's {_end(is_upper)} end)"
        )
        shown, limit = _apart(measured, threshold)
        reason = f"{shown}{what}{end} {sign[is_upper, passed]} {limit}"
    return Outcome(
        key=key,
        bound=bound,
        threshold=threshold,
        by=requirement.compares(key),
        of=requirement.of if reference is not None else None,
        reference=reference,
        measured=measured,
        passed=passed,
        reason=reason,
    )


def _measured(
    key: str,
    requirement: Requirement,
    is_upper: bool,
    values: Mapping[str, float],
    intervals: Intervals,
) -> tuple[float | None, str]:
    """Return the number that is compared; None, and why, where there is none."""
    value = values.get(key, math.nan)
    if not math.isfinite(value):
        return None, f"was not measured; {_near(key, values)}"
    if requirement.compares(key) == "value":
        return value, ""
    ends = intervals.get(key)
    if ends is None or not all(map(math.isfinite, ends)):
        return None, "has no interval; by: value would compare the value alone"
    # A resampled interval need not hold the value itself.
    return (max(value, ends[1]) if is_upper else min(value, ends[0])), ""


def _near(key: str, values: Mapping[str, float]) -> str:
    siblings = [name for name in values if name.partition("/")[0] == key.partition("/")[0]]
    return did_you_mean(key, siblings or values)


def _end(is_upper: bool) -> str:
    return "upper" if is_upper else "lower"


def _apart(first: float, second: float) -> tuple[str, str]:
    """Return two numbers by the fewest digits, 4 or more, that show which is larger."""
    for digits in range(4, 17):
        texts = f"{first:.{digits}g}", f"{second:.{digits}g}"
        if texts[0] != texts[1]:
            break
    return texts if first != second else (f"{first:.4g}", f"{second:.4g}")


def required_keys(
    require: Mapping[str, Requirement], prefix: str, names: Sequence[str]
) -> list[tuple[str, Requirement]]:
    """Return the requirements by value, with ``prefix/metric`` once for each of ``names``."""
    concrete = []
    for key, requirement in require.items():
        if key.startswith(f"{prefix}/"):
            metric = key.removeprefix(f"{prefix}/")
            concrete += [(f"{name}/{metric}", requirement) for name in names]
        else:
            concrete.append((key, requirement))
    return concrete
