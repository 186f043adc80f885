"""What TensorBoard reads from a folder of events."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def pictures(folder: Path) -> dict[str, dict[str, Any]]:
    """Return what TensorBoard shows of every run below a folder, by tag, with each point's step."""
    runs = {file.parent for file in folder.rglob("events.out.*")}
    return {str(run.relative_to(folder)): picture(run) for run in sorted(runs)}


def picture(run: Path) -> dict[str, Any]:
    """Return a run's scalars as (step, value), texts as (step, text), and the steps of the rest."""
    from tensorboard.util.tensor_util import make_ndarray

    events = accumulated(run)
    shown: dict[str, Any] = {}
    for tag in events.Tags()["tensors"]:
        plugin = events.SummaryMetadata(tag).plugin_data.plugin_name
        points = [(event.step, event.tensor_proto) for event in events.Tensors(tag)]
        if plugin == "scalars":
            shown[tag] = [(step, make_ndarray(tensor).item()) for step, tensor in points]
        elif plugin == "text":
            shown[tag] = [(step, tensor.string_val[0].decode()) for step, tensor in points]
        elif plugin in ("images", "histograms"):
            shown[tag] = [step for step, _ in points]
    return shown


def images(run: Path, tag: str) -> list[tuple[int, bytes]]:
    """Return the pictures of a tag with their steps."""
    return [(e.step, e.tensor_proto.string_val[2]) for e in accumulated(run).Tensors(tag)]


def descriptions(run: Path) -> dict[str, str]:
    """Return what TensorBoard says of each curve."""
    events = accumulated(run)
    words = {tag: events.SummaryMetadata(tag) for tag in events.Tags()["tensors"]}
    return {
        tag: one.summary_description
        for tag, one in words.items()
        if one.plugin_data.plugin_name == "scalars"
    }


def accumulated(run: Path) -> Any:
    """Return all events of one run's folder, as TensorBoard reads them: what is purged is gone."""
    from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator

    return EventAccumulator(str(run), size_guidance={"tensors": 0}).Reload()
