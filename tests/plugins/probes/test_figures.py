"""TensorBoard shows the figures that probes offer, whoever wrote the probe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.core.training.events import images, picture

from amnesis.contracts import Probe, StepContext
from amnesis.training.monitoring.board import TensorBoard


class Curve(Probe):
    """A stranger's probe: reports a number each step, and draws all of them so far."""

    drawn: list[list[float]]

    def report(self, context: StepContext, state: Any) -> tuple[Mapping[str, float], Any]:
        return {"curve/height": context.step**2.0}, state

    def figures(self, trajectory: Sequence[Mapping[str, float]]) -> Mapping[str, Any]:
        from matplotlib.figure import Figure

        heights = [values["curve/height"] for values in trajectory if "curve/height" in values]
        self.drawn.append(heights)
        figure = Figure()
        figure.subplots().plot(heights)
        return {"curve/heights": figure}


class Clumsy(Probe):
    """Observes well, and fails when it is to draw."""

    def report(self, context: StepContext, state: Any) -> tuple[Mapping[str, float], Any]:
        return {"clumsy/step": float(context.step)}, state

    def figures(self, trajectory: Sequence[Mapping[str, float]]) -> Mapping[str, Any]:
        raise ZeroDivisionError("no pencil")


class Scribbler(Clumsy):
    """Draws something that is no figure."""

    def figures(self, trajectory: Sequence[Mapping[str, float]]) -> Mapping[str, Any]:
        return {"scribbler/scribble": "a scribble"}


def test_a_figure_is_written_and_one_that_fails_stops_nothing(fit: Any, tmp_path: Path) -> None:
    curve = Curve(drawn=[], every=2)
    probes = [Clumsy(), Scribbler(), curve]
    tensorboard = TensorBoard(tmp_path, probes)
    result = fit(probes=probes, callbacks=[tensorboard], training={"steps": 8})
    assert [values.get("curve/height") for values in result.trajectory] == [
        *(0.0, 1.0, None, 9.0),
        *(None, 25.0, None, 49.0),
    ]
    heights = [0.0, 1.0, 9.0, 25.0, 49.0]
    assert curve.drawn == [heights[:count] for count in (2, 3, 4, 5)], "four times along the run"
    shown, pictures = picture(tmp_path), images(tmp_path, "curve/heights")
    assert [step for step, _ in pictures] == [2, 4, 6, 8]
    assert all(image.startswith(b"\x89PNG") for _, image in pictures)
    assert shown["clumsy/step"] == [(k + 1, float(k)) for k in range(8)]
    assert not [tag for tag in shown if tag.startswith("scribbler/scribble")]
    clumsy, scribbler = tensorboard.notes
    assert clumsy == f"{Clumsy().label} drew no figure: no pencil"
    assert "'str' object has no attribute" in scribbler


def test_without_the_probes_no_figure_is_asked_for(fit: Any, tmp_path: Path) -> None:
    curve = Curve(drawn=[])
    fit(probes=[curve], callbacks=[TensorBoard(tmp_path)])
    assert curve.drawn == []
