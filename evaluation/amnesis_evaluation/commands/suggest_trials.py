"""Short disposable runs of candidate methods, and how they rank at equal forgetting."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from amnesis.errors import RecipeError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from amnesis.contracts import Subject

Told = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Candidate:
    """A method: an objective, and optionally a regularizer and a combiner."""

    name: str
    objective: Mapping[str, Any]
    regularizer: Mapping[str, Any] | None
    combiner: Mapping[str, Any] | None


@dataclass(frozen=True)
class Moment:
    """Where a run stands: both risks in nats, and what its updates added up to since the start.

    Effects are negative where the risk was raised, as the G-effect's sign is.
    """

    steps: float
    forget_risk: float
    retain_risk: float
    unlearning: float
    retaining: float

    @property
    def ratio(self) -> float:
        """Retaining effect per unit of unlearning effect: damage where positive."""
        return self.retaining / self.unlearning if self.unlearning else math.nan

    @property
    def forget_probability(self) -> float:
        """Geometric mean probability of a forget token."""
        return math.exp(-self.forget_risk)

    @property
    def retain_probability(self) -> float:
        """Geometric mean probability of a retain token."""
        return math.exp(-self.retain_risk)


@dataclass(frozen=True)
class Trial:
    """What a candidate went through, step by step, the start included."""

    name: str
    path: tuple[Moment, ...]

    @property
    def start(self) -> float:
        """The forget probability before the first step."""
        return self.path[0].forget_probability

    @property
    def reached(self) -> float:
        """The lowest forget probability on the way."""
        return min(moment.forget_probability for moment in self.path)

    def at(self, probability: float) -> Moment | None:
        """Give the moment at which the forget probability first falls to this, or None.

        Between two steps everything is taken to change with the forget risk, linearly.
        """
        risk = -math.log(probability)
        if self.path[0].forget_risk >= risk:
            return self.path[0]
        for before, after in zip(self.path, self.path[1:], strict=False):
            if after.forget_risk >= risk:
                part = (risk - before.forget_risk) / (after.forget_risk - before.forget_risk)
                values = zip(_values(before), _values(after), strict=True)
                return Moment(*(a + part * (b - a) for a, b in values))
        return None


@dataclass(frozen=True)
class Ranking:
    """Candidates by ratio at one forget probability, and those that never reached it."""

    probability: float
    ranked: tuple[tuple[Trial, Moment], ...]
    short: tuple[Trial, ...]


def rank(trials: Sequence[Trial], probability: float | None = None) -> Ranking:
    """Rank by retaining effect per unit of unlearning effect at equal forget probability.

    Without ``probability`` it is half of where the model starts; if no candidate gets there, the
    lowest that any of them reached.
    """
    if probability is None:
        probability = trials[0].start / 2
    if all(trial.at(probability) is None for trial in trials):
        probability = min(trial.reached for trial in trials)
    found = [(trial, trial.at(probability)) for trial in trials]
    ranked = [(trial, moment) for trial, moment in found if moment is not None]
    ranked.sort(key=lambda pair: pair[1].ratio)
    return Ranking(
        probability, tuple(ranked), tuple(trial for trial, moment in found if moment is None)
    )


def try_out(
    subject: Subject,
    rows: Mapping[str, Sequence[Any]],
    candidates: Sequence[Candidate],
    *,
    training: Mapping[str, Any],
    examples: int,
    lora_rank: int | None,
    seed: int,
    told: Told,
) -> list[Trial]:
    """Run each candidate on a disposable adapter or copy; the subject is left as it was."""
    from amnesis.unlearner import Unlearner

    trials: list[Trial] = []
    for done, candidate in enumerate(candidates):
        told("candidates", done, len(candidates))
        with disposable(subject.model, lora_rank, seed) as model:
            fitted = Unlearner(
                model,
                subject.tokenizer,
                candidate.objective,
                candidate.regularizer,
                candidate.combiner,
                [{"name": "g_effect_update", "on": "sets", "examples": examples}],
                training={**training, "log_every": 1},
                template=subject.template,
                seed=seed,
                device=str(subject.model.device),
            ).fit(rows["forget"], rows["retain"])
        failed = [note for note in fitted.notes if "g_effect_update" in note]
        if failed:
            raise RecipeError(f"candidate {candidate.name}: {failed[0]}")
        trials.append(Trial(candidate.name, path_of(fitted.trajectory)))
    told("candidates", len(candidates), len(candidates))
    return trials


def path_of(trajectory: Sequence[Mapping[str, float]]) -> tuple[Moment, ...]:
    """Add up what the probe of the updates saw, from the start to after the last step."""
    first = trajectory[0]
    path = [Moment(0, first["risk/forget"], first["risk/retain"], 0.0, 0.0)]
    for values in trajectory:
        last = path[-1]
        path.append(
            Moment(
                values["step"],
                values["risk/forget"] - values["g_effect/unlearn/measured"],
                values["risk/retain"] - values["g_effect/retain/measured"],
                last.unlearning + values["g_effect/unlearn/effective"],
                last.retaining + values["g_effect/retain/effective"],
            )
        )
    return tuple(path)


@contextmanager
def disposable(
    model: PreTrainedModel, lora_rank: int | None, seed: int
) -> Iterator[PreTrainedModel]:
    """Give a model to spoil: a copy, or the model under an adapter that is taken off again."""
    import torch

    if lora_rank is None:
        yield copy.deepcopy(model)
        return
    from peft import LoraConfig, get_peft_model

    trained = {name: p.requires_grad for name, p in model.named_parameters()}
    torch.manual_seed(seed)
    adapter = LoraConfig(r=lora_rank, lora_alpha=2 * lora_rank, target_modules="all-linear")
    adapted = get_peft_model(model, adapter)
    try:
        yield adapted
    finally:
        adapted.unload()
        for name, p in model.named_parameters():
            p.requires_grad_(trained[name])


def candidate_of(text: str) -> Candidate:
    """Read ``npo+nll/sago``: objective, then regularizer, then combiner; ``wga:beta=5+kl``."""
    from amnesis_evaluation.commands.probe import choice_of

    name = text.strip()
    streams, _, combiner = name.partition("/")
    objective, _, regularizer = streams.partition("+")
    return Candidate(
        name,
        choice_of(objective),
        choice_of(regularizer) if regularizer else None,
        choice_of(combiner) if combiner else None,
    )


def _values(moment: Moment) -> tuple[float, ...]:
    return (
        moment.steps,
        moment.forget_risk,
        moment.retain_risk,
        moment.unlearning,
        moment.retaining,
    )
