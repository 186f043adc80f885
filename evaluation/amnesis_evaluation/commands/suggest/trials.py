"""Short disposable runs of candidate methods, and how they rank at equal forgetting."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from amnesis.errors import NonFiniteError, RecipeError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from amnesis.contracts import Subject
    from amnesis.discovery.registry import Registry

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
    def ratio(self) -> float | None:
        """Retaining effect per unit of unlearning effect: damage where positive.

        None where the unlearning effect is not negative: what did not forget has no price.
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
        """Return the moment at which the forget probability first falls to this, or None.

        Between two steps everything is taken to change with the forget risk, linearly.
        """
        # Probabilities are compared, not risks: a run must count as having reached its own lowest.
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
    """Candidates by ratio at one forget probability, and those that never reached it.

    Those without a ratio come last. ``notes`` say what a reader must know beside the order.
    """

    probability: float
    ranked: tuple[tuple[Trial, Moment], ...]
    short: tuple[Trial, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Tried:
    """The runs that went to their end, and why the others did not, by candidate."""

    trials: tuple[Trial, ...]
    failed: Mapping[str, str]


def rank(trials: Sequence[Trial], probability: float | None = None) -> Ranking:
    """Rank by retaining effect per unit of unlearning effect at equal forget probability.

    Without ``probability`` it is half of where the model starts. If no candidate gets there, it is
    what all have reached that lowered the probability at all.
    """
    mark = trials[0].start / 2 if probability is None else probability
    used, notes = mark, []
    if all(trial.at(mark) is None for trial in trials):
        lowered = [trial.reached for trial in trials if trial.reached < trial.start]
        used = max(lowered, default=mark)
        notes.append(
            f"no candidate got down to {mark:.3g}: "
            + (
                f"compared at {used:.3g}, which all have reached that lowered it; with more steps "
                f"or a higher learning rate they get further"
                if lowered
                else "none lowered it at all; try a higher learning rate"
            )
        )
    found = [(trial, trial.at(used)) for trial in trials]
    ranked = [(trial, moment) for trial, moment in found if moment is not None]
    ranked.sort(key=lambda pair: math.inf if pair[1].ratio is None else pair[1].ratio)
    notes += [
        f"{trial.name} has no ratio and stands last: its updates' effect on the forget risk is not "
        f"negative ({moment.unlearning:.3g})"
        for trial, moment in ranked
        if moment.ratio is None
    ]
    short = tuple(trial for trial, moment in found if moment is None)
    return Ranking(used, tuple(ranked), short, tuple(notes))


def check_candidates(candidates: Sequence[Candidate], registry: Registry) -> None:
    """Resolve every name and hyper-parameter, before the first run costs anything.

    Raises:
        RecipeError: listing every candidate that cannot be tried.
    """
    from amnesis.config.problems import Problems
    from amnesis.discovery.resolve import build, build_stream

    problems, known = Problems(), set[str]()
    for candidate in candidates:
        where = f"candidate {candidate.name!r}"
        regularizer, combiner = candidate.regularizer, candidate.combiner
        if candidate.name in known:
            problems.found.append(f"{where}: is named twice")
        known.add(candidate.name)
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
    """Return the forget probability that every trial will start from."""
    from amnesis_plugins.g_effect import risk_value
    from amnesis_plugins.g_effect.sets import encoded_for, probe_set

    model, forget = subject.model, rows["forget"]
    encoded = encoded_for(model, subject.tokenizer, "forget", forget, [], subject.template, 8)
    first = probe_set("forget", encoded.examples[:examples], 0, model.device)
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
    told: Told,
) -> Tried:
    """Run each candidate on a disposable adapter or copy; the subject is left as it was.

    Raises:
        NonFiniteError: no candidate's run went to its end.
    """
    trials: list[Trial] = []
    failed: dict[str, str] = {}
    for done, candidate in enumerate(candidates):
        told("candidates", done, len(candidates))
        try:
            with disposable(subject.model, lora_rank, seed) as model:
                path = _run(model, subject, rows, candidate, training, examples, seed, registry)
        except NonFiniteError as error:  # of this candidate only: the others may well be stable
            failed[candidate.name] = str(error)
        else:
            trials.append(Trial(candidate.name, path))
    told("candidates", len(candidates), len(candidates))
    if not trials:
        name, why = next(iter(failed.items()))
        raise NonFiniteError(f"no candidate's run went to its end; {name}: {why}")
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
        registry=registry,
    ).fit(rows["forget"], rows["retain"])
    unseen = [note for note in fitted.notes if "g_effect_update" in note]
    if unseen:
        raise RecipeError(f"candidate {candidate.name}: {unseen[0]}")
    path = path_of(fitted.trajectory)
    for moment in path:
        if not all(map(math.isfinite, _values(moment))):
            raise NonFiniteError(
                f"after step {moment.steps:g} a risk or an effect is not a finite number; lower "
                f"the learning rate"
            )
    return path


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
    """Return a model to spoil: a copy, or the model under an adapter that is taken off again."""
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
    from amnesis_evaluation.commands.probe.command import choice_of

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
