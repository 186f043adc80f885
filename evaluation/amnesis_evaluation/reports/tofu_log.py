"""Original TOFU evaluation logs: every part of model utility, and forget quality, from a file.

The logs are the ``eval_log_aggregated.json`` that locuslab/tofu writes. Its aggregation script and
its utils define the truth ratio differently; values are computed by both conventions.
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

# The section of a log for each set. The probability of real authors and world facts is taken with
# options.
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
    """One set of a log: its examples as answers, and their ROUGE-L recalls, ``(examples,)``."""

    answers: tuple[Answer, ...]
    rouge_l: NDArray[float64]

    def values(self, metric: ExampleMetric) -> NDArray[float64]:
        """Return the values of a metric, ``(examples,)``."""
        return np.array([metric.value(answer) for answer in self.answers])


def read_log(path: Path, sections: tuple[str, ...] = tuple(SECTIONS)) -> dict[str, LoggedSet]:
    """Return the sets of a log by name.

    Raises:
        DataError: the file cannot be read, or a section, field or number in it is missing or
            malformed.
    """
    try:
        log = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:  # deep nesting, or an endless integer
        raise DataError(f"{path}: not JSON that can be read: {error}") from None
    if not isinstance(log, dict):
        raise DataError(
            f"{path}: not a TOFU evaluation log, which is an object with {_section_list()}"
        )
    sets = {}
    for name in sections:
        section = log.get(SECTIONS[name])
        if not isinstance(section, dict):
            raise DataError(
                f"{path}: has no section {SECTIONS[name]!r}; give TOFU's eval_log_aggregated.json, "
                f"which has {_section_list()}"
            )
        sets[name] = _Section(path, SECTIONS[name], section).read()
    return sets


def utility_parts(sets: Mapping[str, LoggedSet], convention: Convention) -> dict[str, float]:
    """Return probability, ROUGE-L and truth ratio of each set, and ``model_utility`` of nine.

    The keys are ``set/metric``; the parts of the forget set do not enter model utility.
    """
    parts: dict[str, float] = {}
    for name, log_set in sets.items():
        probability = ChoiceProbability() if name in _WITH_OPTIONS else Probability()
        truth: type[TruthRatio] = TruthRatioForget if name == "forget" else TruthRatioUtility
        for metric in (probability, truth(convention=convention)):
            parts[f"{name}/{_METRIC_NAMES[type(metric)]}"] = float(log_set.values(metric).mean())
        parts[f"{name}/rouge_l"] = float(log_set.rouge_l.mean())
    utility = [value for key, value in parts.items() if not key.startswith("forget/")]
    return {**parts, "model_utility": harmonic_mean(utility)}


# Without the convention, which a metric's key would name.
_METRIC_NAMES: dict[type[ExampleMetric], str] = {
    Probability: "probability",
    ChoiceProbability: "choice_probability",
    TruthRatioForget: "truth_ratio_forget",
    TruthRatioUtility: "truth_ratio_utility",
}


def forget_quality_of(
    own: LoggedSet, retrained: LoggedSet, convention: Convention
) -> dict[str, float]:
    """Return D and p of the Kolmogorov–Smirnov test between the truth ratios of two models.

    The keys are ``ks_statistic`` and ``forget_quality``.
    """
    ratio = TruthRatio(convention=convention)
    statistic, p = kolmogorov_smirnov(own.values(ratio), retrained.values(ratio))
    return {"ks_statistic": statistic, "forget_quality": p}


def evaluated_log(log: Path, retain_log: Path | None = None) -> dict[str, Any]:
    """Return the values of a log by convention, with its notes and numbers of examples.

    Forget quality is among them where the log of a retrained model is given.

    Raises:
        DataError: a log cannot be read.
    """
    sets = read_log(log)
    evaluation: dict[str, Any] = {name: utility_parts(sets, name) for name in CONVENTIONS}
    evaluation["notes"] = []
    if retain_log is not None:
        retrained = read_log(retain_log, ("forget",))
        for name in CONVENTIONS:
            evaluation[name] |= forget_quality_of(sets["forget"], retrained["forget"], name)
        count, other_count = (len(log_sets["forget"].answers) for log_sets in (sets, retrained))
        if count != other_count:
            evaluation["notes"].append(
                f"forget_quality compares {count} examples of {log} with {other_count} of "
                f"{retain_log}: these are logs of different forget sets"
            )
    evaluation["examples"] = {name: len(log_set.answers) for name, log_set in sets.items()}
    return evaluation


def _section_list() -> str:
    return ", ".join(SECTIONS.values())


@dataclass(frozen=True)
class _Section:
    path: Path
    name: str
    fields: Mapping[str, Any]

    def read(self) -> LoggedSet:
        answer_losses = self._numbers("avg_gt_loss")
        paraphrase_losses = self._numbers("avg_paraphrased_loss", answer_losses)
        perturbation_losses = self._lists("average_perturb_loss", answer_losses)
        recalls = self._numbers("rougeL_recall", answer_losses)
        if not answer_losses:
            raise DataError(f"{self.path}: {self.name}: holds no example")
        answers = tuple(
            Answer(
                {},
                np.array([-loss]),
                np.array([False]),
                further={
                    "paraphrased_answer": (_mean_scores(paraphrase_losses[key]),),
                    "perturbed_answer": tuple(map(_mean_scores, perturbation_losses[key])),
                },
            )
            for key, loss in answer_losses.items()
        )
        rouge_l = np.array([recalls[key] for key in answer_losses], dtype=np.float64)
        return LoggedSet(answers, rouge_l)

    def _field(self, field: str, keys: Mapping[str, Any] | None) -> Mapping[str, Any]:
        values = self.fields.get(field)
        if not isinstance(values, dict):
            raise DataError(f"{self.path}: {self.name}: has no field {field!r}")
        if keys is not None and values.keys() != keys.keys():
            odd = sorted(values.keys() ^ keys.keys())[0]
            raise DataError(
                f"{self.path}: {self.name}: {field!r} and 'avg_gt_loss' speak of different "
                f"examples: {odd!r} is in one of them only"
            )
        return values

    def _numbers(self, field: str, keys: Mapping[str, Any] | None = None) -> dict[str, float]:
        return {
            key: self._number(field, key, value) for key, value in self._field(field, keys).items()
        }

    def _lists(self, field: str, keys: Mapping[str, Any]) -> dict[str, list[float]]:
        lists = {}
        for key, values in self._field(field, keys).items():
            if not isinstance(values, list) or not values:
                raise DataError(
                    f"{self.path}: {self.name}: {field}[{key!r}] must be a list of losses, one per "
                    f"perturbed answer, but is {values!r:.60}"
                )
            lists[key] = [self._number(field, key, value) for value in values]
        return lists

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


def _mean_scores(loss: float) -> TokenScores:
    """Return scores that stand for a text of which only the mean loss per token is known."""
    return TokenScores(np.array([-loss]), np.array([False]))
