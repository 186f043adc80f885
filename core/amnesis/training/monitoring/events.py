"""TensorBoard's event files: values that say what they are, texts, figures and hyper-parameters."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

# {category: {chart: tags}}; the tags of a chart are drawn in one picture. Each is a text and the
# regular expression of what may follow it.
Layout = Mapping[str, Mapping[str, Sequence[tuple[str, str]]]]
_FLUSH_SECONDS = 10  # who watches a run waits no longer than this


class EventFile:
    """The events of one run in one folder, which is made with the first of them."""

    def __init__(self, folder: Path) -> None:
        """Write into ``folder``."""
        self._folder = folder
        self._descriptions: dict[str, str] = {}
        self._file: SummaryWriter | None = None
        self._described: set[str] = set()

    @property
    def is_open(self) -> bool:
        """Whether anything was written since it was made or closed."""
        return self._file is not None

    @property
    def exists(self) -> bool:
        """Whether there are events of anyone in the folder."""
        return self._folder.is_dir() and any(self._folder.glob("events.out.*"))

    def describe(self, descriptions: Mapping[str, str]) -> None:
        """Say what values are, by the beginnings of their tags."""
        self._descriptions.update(descriptions)

    def open(self, since: int, *, private: bool = False) -> None:
        """Begin to write events of step ``since`` and later ones.

        Those that an earlier process left of these steps are as if they had not been. Nobody else
        may read a folder that is made as a ``private`` one.
        """
        from torch.utils.tensorboard import SummaryWriter

        self._wait_for_a_later_name()
        self._folder.parent.mkdir(parents=True, exist_ok=True)
        self._folder.mkdir(mode=0o700 if private else 0o777, exist_ok=True)
        # TensorBoard takes the first beginning for the run's own, and purges at those after it.
        self._file = SummaryWriter(
            log_dir=str(self._folder), flush_secs=_FLUSH_SECONDS, purge_step=since
        )
        for file in self._folder.glob("events.*") if private else ():
            file.chmod(0o600)

    def scalar(self, tag: str, value: float, step: int) -> None:
        """Write a value."""
        from tensorboard.compat.proto.summary_pb2 import SummaryMetadata
        from torch.utils.tensorboard.summary import scalar

        summary = scalar(tag, value)  # type: ignore[no-untyped-call]
        if tag not in self._described:
            self._described.add(tag)
            plugin = SummaryMetadata.PluginData(plugin_name="scalars")
            metadata = SummaryMetadata(
                plugin_data=plugin, summary_description=self._description_of(tag)
            )
            summary.value[0].metadata.CopyFrom(metadata)
        self._add(summary, step)

    def histogram(self, tag: str, values: Sequence[float], step: int) -> None:
        """Write the distribution of values."""
        import torch

        self._writer().add_histogram(tag, torch.tensor(values), step)

    def text(self, tag: str, markdown: str, step: int) -> None:
        """Write a text."""
        self._writer().add_text(tag, markdown, step)

    def figure(self, tag: str, figure: Any, step: int) -> None:
        """Write a picture of a matplotlib figure."""
        self._writer().add_figure(tag, figure, step)

    def layout(self, layout: Layout) -> None:
        """Write which values are drawn together."""
        self._writer().add_custom_scalars(
            {
                category: {
                    chart: ["Multiline", [f"{_escaped(tag)}{more}$" for tag, more in tags]]
                    for chart, tags in charts.items()
                }
                for category, charts in layout.items()
            }
        )

    def hyper_parameters(
        self, values: Mapping[str, str | float | bool], metrics: Sequence[str], *, done: bool
    ) -> None:
        """Write what the run was told, and which tags' last values are what came of it."""
        from torch.utils.tensorboard.summary import hparams

        told: Any = hparams
        experiment, started, ended = told(dict(values), dict.fromkeys(metrics, 0.0))
        for summary in (ended,) if done else (experiment, started):
            self._add(summary, 0)

    def flush(self) -> None:
        """Have everything so far on disk, whatever happens to this process."""
        if self._file is not None:
            self._file.flush()

    def close(self) -> None:
        """Close the file; what is written afterwards goes into another."""
        if self._file is not None:
            self._file.close()
        self._file = None
        self._described.clear()

    def _writer(self) -> SummaryWriter:
        if self._file is None:
            self.open(0)
        assert self._file is not None  # noqa: S101  # just opened
        return self._file

    def _wait_for_a_later_name(self) -> None:
        """Let a second pass that an earlier file is named after: files are read by their names."""
        names = [file.name.split(".")[3] for file in self._folder.glob("events.out.tfevents.*")]
        newest = max((int(name) for name in names if name.isdecimal()), default=0)
        if newest == int(time.time()):
            time.sleep(newest + 1 - time.time())

    def _add(self, summary: Any, step: int) -> None:
        file: Any = self._writer().file_writer
        file.add_summary(summary, step)

    def _description_of(self, tag: str) -> str:
        beginnings = [name for name in self._descriptions if tag.startswith(name)]
        return self._descriptions[max(beginnings, key=len)] if beginnings else ""


def _escaped(tag: str) -> str:
    """Return a tag as TensorBoard's regular expressions take it: re.escape says too much there."""
    return "".join(f"\\{letter}" if letter in r"\.^$*+?{}[]|()" else letter for letter in tag)
