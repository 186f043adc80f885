"""Probes along a run: what each is shown and when, and that a failing one stops only itself."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any, ClassVar
from unittest.mock import Mock

import pytest
import torch
from pydantic import PrivateAttr

from amnesis.contracts import Probe, RunView, StepContext
from amnesis.contracts.probe import Product
from amnesis.contracts.stream import Risk, StreamLoss, WeightedTerm
from amnesis.data.examples import encode_rows
from amnesis.data.sampling import StepPlan
from amnesis.data.templates import Template
from amnesis.training.probing import ProbeRunner, run_view
from amnesis.training.report import StepLog

LOSS = StreamLoss("forget", (WeightedTerm(Risk()),))
VIEW = RunView(
    forget=(),
    retain=(),
    forget_loss=LOSS,
    reference=None,
    batches=lambda step: {},
    pad_token_id=0,
    device=torch.device("cpu"),
)
MODEL: Any = Mock()
MOMENTS = ("report", "before_update", "after_update")


class Watching(Probe):
    """Counts what it saw, notes what it was shown, and fails at ``fails`` from a step on."""

    products: ClassVar[tuple[Product, ...]] = (("forget", "retain"),)
    logs: ClassVar[tuple[str, ...]] = ("watching/",)

    name: str = "watching"
    fails: str | None = None
    at: int = 0
    _shown: list[tuple[str, StepContext, Any]] = PrivateAttr(default_factory=list)

    @property
    def shown(self) -> list[tuple[str, int]]:
        """At which moments of which steps it was shown something."""
        return [(moment, context.step) for moment, context, _ in self._shown]

    def look(self, moment: str, context: StepContext, further: Any = None) -> None:
        self._shown.append((moment, context, further))
        if moment == self.fails and context.step >= self.at:
            raise RuntimeError("the sensor fell off")

    def initial_state(self) -> dict[str, int]:
        return {"seen": 0}

    def report(self, context: StepContext, state: Any) -> tuple[Mapping[str, float], Any]:
        self.look("report", context, state)
        return {f"{self.name}/seen": float(state["seen"] + 1)}, {"seen": state["seen"] + 1}

    @property
    def watches_update(self) -> bool:
        return True

    def before_update(self, context: StepContext) -> Any:
        self.look("before_update", context)
        return f"held at {context.step}"

    def after_update(self, context: StepContext, held: Any) -> Mapping[str, float]:
        self.look("after_update", context, held)
        return {f"{self.name}/updated": float(context.step)}


class Silent(Probe):
    """Does not watch the update."""

    def report(self, context: StepContext, state: Any) -> tuple[Mapping[str, float], Any]:
        return {"silent/step": float(context.step)}, state

    def before_update(self, context: StepContext) -> Any:
        raise AssertionError("nobody asked")


def make_step(runner: ProbeRunner, log: StepLog, step: int, *, skipped: bool = False) -> None:
    """Do with a runner what a step of the trainer does."""
    log.begin({"forget/loss": 1.0})
    runner.observe(step, MODEL, {("forget", "retain"): {"w": 0.5}})
    state = SimpleNamespace(global_step=step)
    runner.on_pre_optimizer_step(None, state, None, model=MODEL)
    if not skipped:
        runner.on_optimizer_step(None, state, None, model=MODEL)
    log.close(step + 1)


def steps_of(runner: ProbeRunner, log: StepLog, steps: Sequence[int]) -> list[dict[str, float]]:
    for step in steps:
        make_step(runner, log, step)
    return log.trajectory


def test_a_probe_sees_the_gradients_and_the_model_before_and_after_its_update() -> None:
    probe, log = Watching(), StepLog()
    trajectory = steps_of(ProbeRunner([probe], log, VIEW), log, range(2))
    assert probe.shown == [(moment, step) for step in range(2) for moment in MOMENTS]
    (_, report, state), (_, before, _), (_, after, held) = probe._shown[3:]
    assert state == {"seen": 1}
    assert held == "held at 1"
    assert report.products == {("forget", "retain"): {"w": 0.5}}
    assert before.products == after.products == {}
    assert report.values == {"forget/loss": 1.0}
    assert before.values == {"forget/loss": 1.0, "watching/seen": 2.0}
    for context in (report, before, after):
        assert context.model is MODEL
        assert context.run is VIEW
    assert trajectory[1] == {
        "step": 2, "forget/loss": 1.0, "watching/seen": 2.0, "watching/updated": 1.0,
    }  # fmt: skip


def test_what_it_is_shown_is_not_the_log_itself() -> None:
    class Scribbling(Probe):
        def report(self, context: StepContext, state: Any) -> tuple[Mapping[str, float], Any]:
            assert isinstance(context.values, dict)
            context.values["forget/loss"] = 0.0
            return {}, state

    log = StepLog()
    assert steps_of(ProbeRunner([Scribbling()], log, VIEW), log, [0])[0]["forget/loss"] == 1.0
    assert log.notes == []


def test_a_probe_that_does_not_watch_the_update_is_not_called_at_it() -> None:
    log = StepLog()
    steps_of(ProbeRunner([Silent()], log, VIEW), log, range(2))
    assert log.notes == []
    assert [values["silent/step"] for values in log.trajectory] == [0.0, 1.0]


def test_an_update_that_is_skipped_has_no_after() -> None:
    """What was held of it is not taken for the next step's."""
    probe, log = Watching(at=1, fails="before_update"), StepLog()
    runner = ProbeRunner([probe], log, VIEW)
    make_step(runner, log, 0, skipped=True)
    make_step(runner, log, 1)
    assert "after_update" not in [moment for moment, _ in probe.shown]


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_probe_that_fails_is_noted_and_off_and_the_others_go_on(moment: str) -> None:
    broken, sound = Watching(name="broken", fails=moment, at=1), Watching(name="sound")
    log = StepLog()
    runner = ProbeRunner([broken, sound], log, VIEW)
    trajectory = steps_of(runner, log, range(4))
    (note,) = log.notes
    assert note == (
        f"{broken.label} failed at step 1 and is off from there: RuntimeError: the sensor fell off"
    )
    until = MOMENTS.index(moment) + 1
    assert broken.shown == [(m, 0) for m in MOMENTS] + [(m, 1) for m in MOMENTS[:until]]
    assert sound.shown == [(m, step) for step in range(4) for m in MOMENTS]
    for step, values in enumerate(trajectory):
        assert values["sound/seen"] == step + 1
        assert values["sound/updated"] == step
        assert ("broken/seen" in values) == (step < 1 + (moment != "report"))
        assert ("broken/updated" in values) == (step < 1)


def test_nothing_is_computed_or_logged_for_a_probe_that_is_off() -> None:
    broken, sound = Watching(fails="report", every=2), Silent(every=3)
    log = StepLog()
    runner = ProbeRunner([broken, sound], log, VIEW)
    assert runner.products(1) == (("forget", "retain"),)
    assert runner.wants_log(1)
    make_step(runner, log, 0)
    assert runner.products(1) == ()
    assert not runner.wants_log(1)
    assert runner.wants_log(2)


@pytest.mark.parametrize(
    ("limited", "said"),
    [
        ((), False),
        (("forget/loss",), False),
        (("watching/seen",), True),
        (("forget/loss", "watching/x"), True),
    ],
)
def test_a_limit_that_ends_nothing_any_more_is_said(limited: Sequence[str], said: bool) -> None:
    log = StepLog()
    runner = ProbeRunner([Watching(fails="report")], log, VIEW, limited)
    make_step(runner, log, 0)
    (note,) = log.notes
    assert ("a limit of stop_when on what it logs ends nothing" in note) == said


def test_of_a_probe_that_logs_no_names_of_its_own_no_limit_is_said() -> None:
    class Nameless(Watching):
        logs: ClassVar[tuple[str, ...]] = ()

    log = StepLog()
    make_step(ProbeRunner([Nameless(fails="report")], log, VIEW, ["watching/seen"]), log, 0)
    assert "stop_when" not in log.notes[0]


def test_a_state_that_a_failing_report_did_not_return_stays_the_last_one() -> None:
    probe, log = Watching(fails="report", at=2), StepLog()
    runner = ProbeRunner([probe], log, VIEW)
    steps_of(runner, log, range(4))
    assert runner.state_dict() == {"states": [{"seen": 2}], "failed": [0]}


def test_the_state_round_trips_through_a_checkpoint() -> None:
    """Cut off anywhere, the rest of the run is the same, also of a probe that had failed."""

    def probes() -> list[Probe]:
        return [Watching(name="a", fails="after_update", at=1), Silent(), Watching(name="b")]

    log = StepLog()
    runner = ProbeRunner(probes(), log, VIEW)
    whole = steps_of(runner, log, range(4))
    for cut in range(1, 4):
        first, second = StepLog(), StepLog()
        before = ProbeRunner(probes(), first, VIEW)
        steps_of(before, first, range(cut))
        kept = json.loads(json.dumps(before.state_dict()))
        after = ProbeRunner(probes(), second, VIEW)
        after.load_state_dict(kept)
        assert after.state_dict() == before.state_dict()
        steps_of(after, second, range(cut, 4))
        assert first.trajectory + second.trajectory == whole
        assert first.notes + second.notes == log.notes
        assert after.state_dict() == runner.state_dict()


@pytest.mark.parametrize(
    ("every", "due"), [(1, [0, 1, 2, 3, 4, 5, 6]), (2, [0, 1, 3, 5]), (3, [0, 2, 5]), (9, [0])]
)
def test_a_probe_is_due_on_the_first_and_then_every_k_th_step(every: int, due: list[int]) -> None:
    probe, log = Watching(every=every), StepLog()
    assert [step for step in range(7) if probe.due(step)] == due
    runner = ProbeRunner([probe], log, VIEW)
    for step in range(7):
        assert runner.products(step) == (Watching.products if step in due else ())
        # What is seen on every step is logged as often as the rest.
        assert runner.wants_log(step) == (step in due and every > 1)
    steps_of(runner, log, range(7))
    assert probe.shown == [(moment, step) for step in due for moment in MOMENTS]


def test_a_product_that_several_probes_read_is_asked_for_once() -> None:
    class Further(Watching):
        products: ClassVar[tuple[Product, ...]] = (("forget", "forget"), ("forget", "retain"))

    runner = ProbeRunner([Watching(), Further(every=2), Silent()], StepLog(), VIEW)
    assert runner.products(1) == (("forget", "retain"), ("forget", "forget"))
    assert runner.products(2) == (("forget", "retain"),)


# -- what probes may read of a run ----------------------------------------------------------------


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("trains_on_retain", [True, False])
def test_every_rank_may_read_the_whole_run_and_the_step_after_it(
    qa_rows: Any, tiny_tokenizer: Any, rank: int, trains_on_retain: bool
) -> None:
    forget = encode_rows(qa_rows[:5], tiny_tokenizer, Template())
    retain = encode_rows(qa_rows[5:], tiny_tokenizer, Template())
    trained = retain if trains_on_retain else None
    plan = StepPlan(forget, trained, 3, 4, 2, 1, forget_draws=10, seed=3, rank=rank, world=2)
    view = run_view(plan, retain, LOSS, None, torch.device("cpu"))
    assert view.forget == forget.examples
    assert view.retain == retain.examples
    assert view.forget_loss is LOSS
    assert (view.reference, view.pad_token_id, view.device.type) == (None, 1, "cpu")
    whole = StepPlan(forget, retain, 4, 4, 2, 1, seed=3)
    for step in range(4):
        batches = view.batches(step)
        assert set(batches) == {"forget", "retain"}
        for name, expected in (("forget", whole[step].forget), ("retain", whole[step].retain)):
            keys = [key for batch in expected for key in batch.keys]
            assert [key for batch in batches[name] for key in batch.keys] == keys
            assert len(keys) == 4


def test_where_there_is_no_retain_set_there_is_none_to_read(
    qa_rows: Any, tiny_tokenizer: Any
) -> None:
    forget = encode_rows(qa_rows, tiny_tokenizer, Template())
    view = run_view(StepPlan(forget, None, 2, 4, 4, 1), None, LOSS, None, torch.device("cpu"))
    assert view.retain == ()
    assert list(view.batches(0)["retain"]) == []
