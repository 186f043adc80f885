"""Original TOFU evaluation logs: every part of model utility, and forget quality, from a file.

The logs are the ``eval_log_aggregated.json`` that locuslab/tofu writes. Its aggregation script and
its utils give two different truth ratios; both conventions are computed and named.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from amnesis.contracts import Answer, ExampleMetric, TokenScores
from amnesis.errors import DataError
from amnesis_evaluation.metrics.choice_probability import ChoiceProbability
from amnesis_evaluation.metrics.forget_quality import kolmogorov_smirnov
from amnesis_evaluation.metrics.model_utility import harmonic_mean
from amnesis_evaluation.metrics.probability import Probability
from amnesis_evaluation.metrics.truth_ratio import (
    Convention,
    TruthRatio,
    TruthRatioForget,
    TruthRatioUtility,
)

if TYPE_CHECKING:
    from numpy import float64
    from numpy.typing import NDArray

# The files' names inside a log, and the sets that they speak of. Real authors and world facts are
# evaluated with options.
SECTIONS = {
    "retain": "eval_log.json",
    "real_authors": "eval_real_author_wo_options.json",
    "world_facts": "eval_real_world_wo_options.json",
    "forget": "eval_log_forget.json",
}
_WITH_OPTIONS = ("real_authors", "world_facts")
CONVENTIONS: tuple[Convention, ...] = ("geometric", "arithmetic")


@dataclass(frozen=True)
class LoggedSet:
    """One set of a log: its examples as answers, and their ROUGE-L recalls."""

    answers: tuple[Answer, ...]
    rouge_l: NDArray[float64]

    def values(self, metric: ExampleMetric) -> NDArray[float64]:
        """Return a metric's example values."""
        return np.array([metric.value(answer) for answer in self.answers])


def read_log(path: Path, sections: tuple[str, ...] = tuple(SECTIONS)) -> dict[str, LoggedSet]:
    """Read the sets of a log.

    Raises:
        DataError: the file, a section, a field or a number of it is missing or not what it
            should be.
    """
    try:
        log = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:  # JSON may be nested, and numbers long, at will
        raise DataError(f"{path}: not JSON that can be read: {error}") from None
    if not isinstance(log, dict):
        raise DataError(f"{path}: not a TOFU evaluation log: an object with {_listed()} is wanted")
    found = {}
    for name in sections:
        section = log.get(SECTIONS[name])
        if not isinstance(section, dict):
            raise DataError(
                f"{path}: has no section {SECTIONS[name]!r}; give TOFU's eval_log_aggregated.json, "
                f"which has {_listed()}"
            )
        found[name] = _Section(path, SECTIONS[name], section).read()
    return found


def utility_parts(sets: Mapping[str, LoggedSet], convention: Convention) -> dict[str, float]:
    """Return each set's probability, ROUGE-L and truth ratio, and ``model_utility`` of nine."""
    parts: dict[str, float] = {}
    for name, logged in sets.items():
        probability = ChoiceProbability() if name in _WITH_OPTIONS else Probability()
        truth: type[TruthRatio] = TruthRatioForget if name == "forget" else TruthRatioUtility
        for metric in (probability, truth(convention=convention)):
            parts[f"{name}/{_BARE[type(metric)]}"] = float(logged.values(metric).mean())
        parts[f"{name}/rouge_l"] = float(logged.rouge_l.mean())
    utility = [value for key, value in parts.items() if not key.startswith("forget/")]
    return {**parts, "model_utility": harmonic_mean(utility)}


_BARE: dict[type[ExampleMetric], str] = {
    Probability: "probability",
    ChoiceProbability: "choice_probability",
    TruthRatioForget: "truth_ratio_forget",
    TruthRatioUtility: "truth_ratio_utility",
}


def forget_quality_of(
    own: LoggedSet, retrained: LoggedSet, convention: Convention
) -> dict[str, float]:
    """Return D and p of the Kolmogorov-Smirnov test between both models' truth ratios."""
    ratio = TruthRatio(convention=convention)
    statistic, p = kolmogorov_smirnov(own.values(ratio), retrained.values(ratio))
    return {"ks_statistic": statistic, "forget_quality": p}


def evaluated_log(log: Path, retain_log: Path | None = None) -> dict[str, Any]:
    """Evaluate a log, and compare it with that of a retrained model where one is given."""
    sets = read_log(log)
    evaluated: dict[str, Any] = {name: utility_parts(sets, name) for name in CONVENTIONS}
    evaluated["notes"] = []
    if retain_log is not None:
        retrained = read_log(retain_log, ("forget",))
        for name in CONVENTIONS:
            evaluated[name] |= forget_quality_of(sets["forget"], retrained["forget"], name)
        own, other = (len(read["forget"].answers) for read in (sets, retrained))
        if own != other:
            evaluated["notes"].append(
                f"forget_quality compares {own} examples of {log} with {other} of {retain_log}: "
                f"these are logs of different forget sets"
            )
    evaluated["examples"] = {name: len(logged.answers) for name, logged in sets.items()}
    return evaluated


def _listed() -> str:
    return ", ".join(SECTIONS.values())


@dataclass(frozen=True)
class _Section:
    path: Path
    name: str
    fields: Mapping[str, Any]

    def read(self) -> LoggedSet:
        own = self._numbers("avg_gt_loss")
        paraphrased = self._numbers("avg_paraphrased_loss", own)
        perturbed = self._lists("average_perturb_loss", own)
        rouge = self._numbers("rougeL_recall", own)
        if not own:
            raise DataError(f"{self.path}: {self.name}: holds no example")
        answers = tuple(
            Answer(
                {},
                np.array([-own[key]]),
                np.array([False]),
                further={
                    "paraphrased_answer": (_averaged(paraphrased[key]),),
                    "perturbed_answer": tuple(map(_averaged, perturbed[key])),
                },
            )
            for key in own
        )
        return LoggedSet(answers, np.array([rouge[key] for key in own], dtype=np.float64))

    def _field(self, field: str, keys: Mapping[str, Any] | None) -> Mapping[str, Any]:
        found = self.fields.get(field)
        if not isinstance(found, dict):
            raise DataError(f"{self.path}: {self.name}: has no field {field!r}")
        if keys is not None and found.keys() != keys.keys():
            odd = sorted(found.keys() ^ keys.keys())[0]
            raise DataError(
                f"{self.path}: {self.name}: {field!r} and 'avg_gt_loss' speak of different "
                f"examples: {odd!r} is in one of them only"
            )
        return found

    def _numbers(self, field: str, keys: Mapping[str, Any] | None = None) -> dict[str, float]:
        return {
            key: self._number(field, key, value) for key, value in self._field(field, keys).items()
        }

    def _lists(self, field: str, keys: Mapping[str, Any]) -> dict[str, list[float]]:
        found = {}
        for key, values in self._field(field, keys).items():
            if not isinstance(values, list) or not values:
                raise DataError(
                    f"{self.path}: {self.name}: {field}[{key!r}] must be a list of losses, one per "
                    f"perturbed answer, but is {values!r:.60}"
                )
            found[key] = [self._number(field, key, value) for value in values]
        return found

    def _number(self, field: str, key: str, value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise DataError(
                f"{self.path}: {self.name}: {field}[{key!r}] must be a number, but is {value!r:.60}"
            )
        try:
            number = float(value)
        except OverflowError:  # an integer beyond all floats
            number = math.inf
        if not math.isfinite(number):
            raise DataError(
                f"{self.path}: {self.name}: {field}[{key!r}] must be a finite number, but is "
                f"{value!r:.60}"
            )
        return number


def _averaged(loss: float) -> TokenScores:
    """Return a text of which only the mean loss per token is known."""
    return TokenScores(np.array([-loss]), np.array([False]))
