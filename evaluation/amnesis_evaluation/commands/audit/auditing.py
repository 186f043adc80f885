"""One audit: a model is loaded, recognised, evaluated, attacked, and compared with the policy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from amnesis.contracts import Evaluation
from amnesis.errors import AmnesisError, DataError, ModelError, one_line
from amnesis.runs.results import environment
from amnesis.runs.subject import load_subject
from amnesis_evaluation.commands.audit.identity import identity_of, stamp_of
from amnesis_evaluation.commands.audit.policy import REQUEST
from amnesis_evaluation.commands.audit.records import Outcome, RequestOutcome
from amnesis_evaluation.commands.audit.requirements import outcomes_of
from amnesis_evaluation.evaluator.evaluate import evaluate
from amnesis_evaluation.evaluator.selection import select

if TYPE_CHECKING:
    from amnesis.contracts import ProgressCallback, Subject
    from amnesis.runs.subject import ModelPlace
    from amnesis_evaluation.commands.audit.plan import Plan


@dataclass(frozen=True)
class Audited:
    """What an audit came to: all of its record that the history does not add, and notes.

    Notes may quote rows, so they are shown and not recorded.
    """

    body: dict[str, Any]
    outcomes: list[Outcome]
    notes: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether the model keeps the policy."""
        return bool(self.body["passed"])


def audit_model(
    plan: Plan,
    place: ModelPlace,
    command: str,
    *,
    device: str | None = None,
    trust_remote_code: bool = False,
    progress: ProgressCallback | None = None,
) -> Audited:
    """Measure a model by a plan; ``command`` is what was called.

    Raises:
        ModelError: it cannot be loaded, or its files changed meanwhile.
        DataError: a row cannot be asked.
    """
    template = plan.file.policy.template or place.template
    plan.check_rows(template)
    stamp = stamp_of(Path(place.path))
    loaded = load_subject(place, device=device, trust_remote_code=trust_remote_code)
    subject = replace(loaded.subject, template=template)
    identity = identity_of(subject, place.path)
    evaluation = _measured(plan, subject, progress)
    if stamp_of(Path(place.path)) != stamp:
        raise ModelError(f"{place.path}: its files changed while it was audited; audit it again")
    for name, digest in evaluation.data.items():
        if name in plan.sets and plan.sets[name] != plan.file.salted(digest):
            raise DataError(f"set {name!r}: its rows changed while it was audited; audit it again")
    values = {key: value for key, value in evaluation.values.items() if math.isfinite(value)}
    intervals = {
        key: ends
        for key, ends in evaluation.intervals.items()
        if key in values and all(map(math.isfinite, ends))
    }
    outcomes = outcomes_of(plan.required, values, intervals, plan.baselines)
    policy = plan.file.policy
    body = {
        "command": command,
        "environment": environment(loaded.device),
        "model": identity.model_dump(mode="json"),
        "policy": {
            "name": plan.file.name,
            "sha256": plan.file.sha256,
            "require": {
                key: one.model_dump(exclude_none=True) for key, one in policy.require.items()
            },
        },
        "data": {"salt": plan.file.salt_digest, "sets": dict(plan.sets)},
        "against": {name: {"digest": one.digest} for name, one in plan.baselines.items()},
        "values": values,
        "intervals": {key: list(ends) for key, ends in intervals.items()},
        "outcomes": [outcome.model_dump() for outcome in outcomes],
        "requests": [one.model_dump() for one in _requests(plan, outcomes)],
        "passed": all(outcome.passed for outcome in outcomes),
    }
    return Audited(body, outcomes, list(dict.fromkeys(evaluation.notes)))


def _measured(plan: Plan, subject: Subject, progress: ProgressCallback | None) -> Evaluation:
    """Return all values of the benchmark, under attacks and of requests, by their keys."""
    whole = Evaluation()
    own = plan.benchmark.evaluate(subject, plan.settings, progress)
    whole.data.update(own.data)
    _add(whole, own)
    for name, attack in plan.attacks.items():
        try:
            under = attack.attack(subject, plan.benchmark, plan.settings, progress)
        except AmnesisError as error:  # what it would have shown is then not measured
            whole.notes.append(f"{name} failed: {one_line(error)}")
            continue
        _add(whole, under, name)
    if plan.requests:
        selection = select(plan.requests, plan.request_metrics, retrained=False)
        # A request is about all of its rows, whatever is enough of the sets.
        settings = plan.settings.model_copy(update={"limit": None, "generate_rows": None})
        _add(whole, evaluate(subject, plan.requests, selection, settings, progress), REQUEST)
    return whole


def _add(whole: Evaluation, part: Evaluation, prefix: str = "") -> None:
    start, lead = (f"{prefix}/", f"{prefix}: ") if prefix else ("", "")
    whole.values.update({f"{start}{key}": value for key, value in part.values.items()})
    whole.intervals.update({f"{start}{key}": ends for key, ends in part.intervals.items()})
    whole.notes.extend(f"{lead}{note}" for note in part.notes)


def _requests(plan: Plan, outcomes: Sequence[Outcome]) -> list[RequestOutcome]:
    return [
        RequestOutcome(
            id=request.id,
            asked=request.asked.isoformat(),
            closed=None if request.closed is None else request.closed.isoformat(),
            data=plan.sets.get(request.set_name),
            passed=None
            if request.forget is None
            else all(o.passed for o in outcomes if o.key.startswith(f"{request.set_name}/")),
        )
        for request in plan.file.policy.requests
    ]
