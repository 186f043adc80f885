"""Who waits is told how far it is: bars where they can be drawn, elsewhere lines, or nothing."""

from __future__ import annotations

import io
import sys
import types
from itertools import pairwise
from typing import Any

import pytest

from amnesis.progress import (
    Prefixed,
    ProgressBars,
    ProgressLines,
    in_notebook,
    quietly,
    shown_values,
    watched,
)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def lines_of(
    seconds_a_step: float, steps: int, work: str = "unlearning"
) -> list[tuple[float, str]]:
    """Each line with the second at which it was written, of a work at an even pace."""
    clock, stream = Clock(), io.StringIO()
    lines = ProgressLines(stream, clock)
    written: list[tuple[float, str]] = []
    for step in range(1, steps + 1):
        clock.now += seconds_a_step
        before = stream.tell()
        lines(work, step, steps)
        stream.seek(before)
        written += [(clock.now, line) for line in stream.read().splitlines()]
    return written


def test_the_first_line_comes_with_the_first_step() -> None:
    (at, first), *_ = lines_of(0.5, 100)
    assert (at, first) == (0.5, "unlearning: 1 of 100")


@pytest.mark.parametrize(("pace", "steps"), [(0.01, 1000), (0.5, 100), (3.0, 400), (50.0, 20)])
def test_lines_come_neither_too_often_nor_too_rarely(pace: float, steps: int) -> None:
    written = lines_of(pace, steps)
    gaps = [b - a for (a, _), (b, _) in pairwise(written)]
    assert all(gap >= 5.0 - 1e-9 for gap in gaps[:-1]), "but for the end, which is always said"
    assert all(gap <= 30.0 + 2 * pace for gap in gaps)
    total = pace * steps
    if total > 15:
        assert written[-1][1].startswith(f"unlearning: {steps} of {steps}, took")


def test_short_works_are_not_said_one_by_one() -> None:
    clock, stream = Clock(), io.StringIO()
    lines = ProgressLines(stream, clock)
    for number in range(100):
        for done in (1, 2, 3):
            clock.now += 0.1
            lines(f"before: set {number}", done, 3)
    assert len(stream.getvalue().splitlines()) <= 7, "in half a minute of a hundred little works"


def test_a_line_has_the_time_left_and_what_the_step_showed() -> None:
    clock, stream = Clock(), io.StringIO()
    lines = ProgressLines(stream, clock)
    lines("unlearning", 10, 100)
    clock.now = 60.0
    lines.tell(
        "unlearning", {"forget/loss": -0.5, "gradients/cosine": 1.0, "forget/probability": 0.25}
    )
    lines("unlearning", 40, 100)
    assert stream.getvalue().splitlines()[-1] == (
        "unlearning: 40 of 100, forget/loss -0.5, forget/probability 0.25, about 2 min 0 s left"
    )


def test_of_a_moment_s_work_no_time_is_told() -> None:
    clock, stream = Clock(), io.StringIO()
    lines = ProgressLines(stream, clock)
    lines("before: evaluating", 0, 16)
    clock.now = 10.0
    lines("after: evaluating", 0, 16)
    clock.now = 10.25
    lines("after: evaluating", 8, 16)
    assert stream.getvalue().splitlines()[-1] == "after: evaluating: 8 of 16"
    clock.now = 60.0
    lines("after: evaluating", 15, 16)
    assert stream.getvalue().splitlines()[-1].endswith("15 of 16, about 3 s left")
    quick = ProgressLines(stream, clock)
    quick("x", 0, 1000)
    clock.now = 90.0
    quick("x", 999, 1000)
    assert stream.getvalue().splitlines()[-1] == "x: 999 of 1000"


def test_values_that_tell_most_are_shown() -> None:
    values = {
        "learning_rate": 1e-5,
        "gradients/forget_norm": 3.0,
        "forget/loss": 1.0,
        "retain/loss": 2.0,
        "forget/probability": 0.5,
        "retain/probability": 0.75,
        "retain/rouge_l": 1.0,
        "forget/weight/a": 1.0,
    }
    assert shown_values(values) == (
        "forget/loss 1, retain/loss 2, forget/probability 0.5, retain/probability 0.75"
    )


def test_values_pass_headings_and_callbacks_that_take_none() -> None:
    calls: list[Any] = []
    Prefixed("target", lambda *call: calls.append(call)).tell("training", {"train/loss": 1.0})
    stream = io.StringIO()
    lines = ProgressLines(stream, Clock())
    heading = Prefixed("target", lines)
    heading.tell("training", {"train/loss": 1.0})
    heading("training", 1, 2)
    assert calls == []
    assert stream.getvalue() == "target: training: 1 of 2, train/loss 1\n"


def test_without_a_terminal_there_are_lines_and_quietly_none(capsys: Any) -> None:
    with ProgressBars() as progress:
        progress("unlearning", 1, 2)
    assert capsys.readouterr() == ("", "unlearning: 1 of 2\n")
    with quietly(), ProgressBars() as progress:
        progress("unlearning", 1, 2)
    assert capsys.readouterr() == ("", "")
    progress("after the end", 1, 2)
    assert capsys.readouterr() == ("", "")


def test_a_notebook_is_shown_progress_unasked(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    assert not in_notebook()
    with watched(None) as progress:
        progress("unlearning", 1, 2)
    assert capsys.readouterr() == ("", ""), "a program that calls us is told nothing unasked"

    class ZMQInteractiveShell:
        pass

    kernel = types.SimpleNamespace(get_ipython=ZMQInteractiveShell)
    monkeypatch.setitem(sys.modules, "IPython", kernel)
    assert in_notebook()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)  # no ipywidgets: lines
    with watched(None) as progress:
        progress("unlearning", 1, 2)
    assert capsys.readouterr().err == "unlearning: 1 of 2\n"
