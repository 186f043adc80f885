"""Short disposable runs of candidate methods, and their ranking at equal forgetting."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from amnesis.errors import NonFiniteError, RecipeError
from amnesis_evaluation.commands.inputs import CANDIDATES, choice_of, parts_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from amnesis.contracts import Subject
    from amnesis.discovery.registry import Registry
    from amnesis.progress import ProgressCallback


@dataclass(frozen=True)
class Candidate:
    """A method: an objective, and optionally a regularizer and a combiner."""

    name: str
    objective: Mapping[str, Any]
    regularizer: Mapping[str, Any] | None
    combiner: Mapping[str, Any] | None


@dataclass(frozen=True)
class Moment:
    """The state of a run: both risks, in nats per token, and the summed effects of its updates.

    Effects are negative where the risk was raised, as the G-effect is.
    """

    steps: float
    forget_risk: float
    retain_risk: float
    unlearning: float
    retaining: float

    @property
    def ratio(self) -> float | None:
        """Retaining effect per unit of unlearning effect: damage where positive.

        None where the unlearning effect is not negative: nothing was forgotten.
        """
        return self.retaining / self.unlearning if self.unlearning < 0 else None

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
    """A candidate's run, step by step; ``path`` begins before the first step."""

    name: str
    path: tuple[Moment, ...]

    @property
    def start(self) -> float:
        """The forget probability before the first step."""
        return self.path[0].forget_probability

    @property
    def reached(self) -> float:
        """The lowest forget probability along the path."""
        return min(moment.forget_probability for moment in self.path)

    def at(self, probability: float) -> Moment | None:
        """Return the moment at which the forget probability first falls to this, or None.

        Between two steps every value is interpolated linearly in the forget risk.
        """
        # Comparing risks could miss a run's own lowest probability, by the rounding of exp and log.
        if self.start <= probability:
            return self.path[0]
        risk = -math.log(probability)
        for before, after in zip(self.path, self.path[1:], strict=False):
            if after.forget_probability <= probability:
                part = (risk - before.forget_risk) / (after.forget_risk - before.forget_risk)
                values = zip(_values(before), _values(after), strict=True)
                return Moment(*(a + part * (b - a) for a, b in values))
        return None


@dataclass(frozen=True)
class Ranking:
    """Candidates ordered by ratio at one forget probability, and those that fell short of it.

    Candidates without a ratio come last; ``notes`` hold what else a reader must know.
    """

    probability: float
    ranked: tuple[tuple[Trial, Moment], ...]
    short: tuple[Trial, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Tried:
    """The completed runs, and the reasons why the others failed, by candidate."""

    trials: tuple[Trial, ...]
    failed: Mapping[str, str]


def rank(trials: Sequence[Trial], probability: float | None = None) -> Ranking:
    """Return the candidates ranked by retaining per unlearning effect at equal forgetting.

    ``probability`` defaults to half the initial one. If no candidate gets there, they are compared
    at the lowest probability that is reached by all of those that lower it.
    """
    target = trials[0].start / 2 if probability is None else probability
    level, notes = target, []
    if all(trial.at(target) is None for trial in trials):
        minima = [trial.reached for trial in trials if trial.reached < trial.start]
        level = max(minima, default=target)
        notes.append(
            f"no candidate got down to {target:.3g}: "
            + (
                f"compared at {level:.3g}, which all have reached that lowered it; with more steps "
                f"or a higher learning rate they get further"
                if minima
                else "none lowered it at all; try a higher learning rate"
            )
        )
    moments = [(trial, trial.at(level)) for trial in trials]
    order = [(trial, moment) for trial, moment in moments if moment is not None]
    order.sort(key=lambda pair: math.inf if pair[1].ratio is None else pair[1].ratio)
    notes += [
        f"{trial.name} has no ratio and stands last: its updates' effect on the forget risk is not "
        f"negative ({moment.unlearning:.3g})"
        for trial, moment in order
        if moment.ratio is None
    ]
    short = tuple(trial for trial, moment in moments if moment is None)
    return Ranking(level, tuple(order), short, tuple(notes))


def candidates_of(texts: Sequence[str] | None, registry: Registry) -> list[Candidate]:
    """Return the candidates that an option's values name, or those that are tried by default.

    Raises:
        RecipeError: some cannot be tried; the message lists all of them.
    """
    candidates = [candidate_of(text) for text in parts_of(texts) or CANDIDATES.split(",")]
    check_candidates(candidates, registry)
    return candidates


def check_candidates(candidates: Sequence[Candidate], registry: Registry) -> None:
    """Check every name and hyper-parameter before the first run starts.

    Raises:
        RecipeError: some candidates cannot be tried; the message lists all of them.
    """
    from amnesis.config.problems import Problems
    from amnesis.discovery.resolve import build, build_stream

    problems, names = Problems(), set[str]()
    for candidate in candidates:
        where = f"candidate {candidate.name!r}"
        regularizer, combiner = candidate.regularizer, candidate.combiner
        if candidate.name in names:
            problems.found.append(f"{where}: is named twice")
        names.add(candidate.name)
        problems.attempt(where, build_stream, "forget", "objective", candidate.objective, registry)
        if regularizer is not None:
            problems.attempt(where, build_stream, "retain", "regularizer", regularizer, registry)
        if combiner is not None:
            problems.attempt(where, build, "combiner", combiner, registry)
            if regularizer is None:
                problems.found.append(
                    f"{where}: a combiner needs a regularizer: objective+regularizer/combiner"
                )
    problems.raise_any("the candidates cannot be tried")


def start_of(subject: Subject, rows: Mapping[str, Sequence[Any]], examples: int) -> float:
    """Return the forget probability from which every trial starts, of the first ``examples``."""
    from amnesis_plugins.g_effect import risk_value
    from amnesis_plugins.g_effect.sets import build_measured_set, encode_set

    model, forget = subject.model, rows["forget"]
    encoded = encode_set(model, subject.tokenizer, "forget", forget, [], subject.template, 8)
    first = build_measured_set("forget", encoded.examples[:examples], 0, model.device)
    return math.exp(-risk_value(model, first.batches))


def try_out(
    subject: Subject,
    rows: Mapping[str, Sequence[Any]],
    candidates: Sequence[Candidate],
    *,
    training: Mapping[str, Any],
    examples: int,
    lora_rank: int | None,
    seed: int,
    registry: Registry,
    told: ProgressCallback,
) -> Tried:
    """Run each candidate on a disposable copy or adapter; the subject is left unchanged.

    ``training`` holds training settings, ``examples`` is the number of rows of each set on which
    effects are measured, and ``told`` is called as the candidates go by.

    Raises:
        NonFiniteError: every candidate's run became non-finite.
    """
    trials: list[Trial] = []
    failed: dict[str, str] = {}
    for count, candidate in enumerate(candidates):
        told("candidates", count, len(candidates))
        try:
            with disposable(subject.model, lora_rank, seed) as model:
                path = _run(model, subject, rows, candidate, training, examples, seed, registry)
        except NonFiniteError as error:  # at the same settings other candidates may be stable
            failed[candidate.name] = str(error)
        else:
            trials.append(Trial(candidate.name, path))
    told("candidates", len(candidates), len(candidates))
    if not trials:
        name, reason = next(iter(failed.items()))
        raise NonFiniteError(f"no candidate's run went to its end; {name}: {reason}")
    return Tried(tuple(trials), failed)


def _run(
    model: PreTrainedModel,
    subject: Subject,
    rows: Mapping[str, Sequence[Any]],
    candidate: Candidate,
    training: Mapping[str, Any],
    examples: int,
    seed: int,
    registry: Registry,
) -> tuple[Moment, ...]:
    from amnesis.training.unlearner import Unlearner

    result = Unlearner(
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
        registry=registry,
    ).fit(rows["forget"], rows["retain"])
    probe_notes = [note for note in result.notes if "g_effect_update" in note]
    if probe_notes:
        raise RecipeError(f"candidate {candidate.name}: {probe_notes[0]}")
    path = path_of(result.trajectory)
    for moment in path:
        if not all(map(math.isfinite, _values(moment))):
            raise NonFiniteError(
                f"after step {moment.steps:g} a risk or an effect is not a finite number; lower "
                f"the learning rate"
            )
    return path


def path_of(trajectory: Sequence[Mapping[str, float]]) -> tuple[Moment, ...]:
    """Return the path that the update probe's values add up to, from the start to the last step."""
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
    """Yield a model that may be spoilt: a copy, or the model under a temporary adapter."""
    import torch

    if lora_rank is None:
        yield copy.deepcopy(model)
        return
    from peft import LoraConfig, get_peft_model

    requires_grad = {name: p.requires_grad for name, p in model.named_parameters()}
    torch.manual_seed(seed)
    adapter = LoraConfig(r=lora_rank, lora_alpha=2 * lora_rank, target_modules="all-linear")
    wrapper = get_peft_model(model, adapter)
    try:
        yield wrapper
    finally:
        wrapper.unload()
        for name, p in model.named_parameters():
            p.requires_grad_(requires_grad[name])


def candidate_of(text: str) -> Candidate:
    """Return the candidate that a text such as ``npo+nll/sago`` or ``wga:beta=5+kl`` names.

    It is an objective, ``+`` a regularizer, ``/`` a combiner; the last two are optional.

    Raises:
        RecipeError: a hyper-parameter is not written as key=value, or its value is not YAML.
    """
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
