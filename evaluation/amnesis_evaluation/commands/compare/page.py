"""The page of a comparison: its record in a picture, tables and words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from amnesis.errors import OutputError
from amnesis.runs.answers import REPORT
from amnesis.runs.results import RESULTS
from amnesis.storage import write_json, write_text
from amnesis_evaluation.pages.content import WORDS, aim_of
from amnesis_evaluation.pages.fronts import Front, front_of
from amnesis_evaluation.reports.pairs import LEVEL

RECORD = "comparison.json"
NAMES = (REPORT, RECORD)
MOST_CELLS, MOST_DIFFERENCES = 6000, 1500  # that a page shows; the record has them all


@dataclass(frozen=True, kw_only=True)
class Columns:
    """The metrics of one set, each a column of the table of its values."""

    set_name: str
    aim: str
    metrics: Sequence[str]

    @property
    def short(self) -> list[str]:
        """The metrics' names without that of the set."""
        return [name.rpartition("/")[2] for name in self.metrics]


@dataclass(frozen=True, kw_only=True)
class Content:
    """All that the page says beside the record itself."""

    record: Mapping[str, Any]
    title: str
    sentence: str
    picture: Front | None
    columns: Sequence[Columns]
    recoveries: Sequence[str]
    pairs: Sequence[Mapping[str, Any]]
    test_level: float
    omitted: Sequence[str]
    gaps: Sequence[str]


def check_page(folder: Path, runs: Iterable[Path], *, overwrite: bool) -> None:
    """Check that the page and its record may be written into ``folder``; nothing is changed.

    Raises:
        OutputError: it holds a run, one of the ``runs`` or other files, or cannot be written.
    """
    from amnesis_evaluation.commands.inputs import check_place

    check_place(folder, NAMES, overwrite=overwrite)
    for path in (folder / RESULTS, *(run.resolve() for run in runs)):
        if path.exists() and path.resolve().is_relative_to(folder.resolve()):
            raise OutputError(f"{folder}: holds {path}, whose page is its own; name another --out")


def write_page(record: Mapping[str, Any], folder: Path) -> Path:
    """Write the record and its page into ``folder``; return where the page is.

    Raises:
        OutputError: they cannot be written.
    """
    from amnesis_evaluation.commands.inputs import make_place

    make_place(folder)
    write_json(folder / RECORD, record)
    write_text(folder / REPORT, page(record))
    return folder / REPORT


def page(record: Mapping[str, Any]) -> str:
    """Return the page as one HTML text, of a record of :func:`.record.record_of`."""
    from amnesis_evaluation.pages.rendering import rendered

    return rendered("compare.html", page=content_of(record), words=WORDS)


def content_of(record: Mapping[str, Any]) -> Content:
    """Return what the page says of a record."""
    methods, sides = record["methods"], tuple(record["front"].values())
    names = list(dict.fromkeys(name for method in methods for name in method["values"]))
    most = max(len(sides), MOST_CELLS // max(1, len(methods)))
    pairs, room = [], MOST_DIFFERENCES
    for pair in record["pairs"]:
        pairs.append({**pair, "differences": pair["differences"][: max(0, room)]})
        room -= len(pair["differences"])
    omitted = []
    if len(names) > most:
        omitted.append(f"the values of {len(names) - most} further metrics")
    if room < 0:
        omitted.append(f"{-room} differences of two methods by one metric")
    return Content(
        record=record,
        title=_title(methods),
        sentence=_sentence(methods, *sides),
        picture=front_of(record),
        columns=list(_columns(names[:most])),
        recoveries=list(dict.fromkeys(key for method in methods for key in method["recovery"])),
        pairs=pairs,
        test_level=LEVEL,
        omitted=omitted,
        gaps=list(_gaps(record)),
    )


def _title(methods: Sequence[Mapping[str, Any]]) -> str:
    counts = ((len(methods), "method"), (sum(len(m["runs"]) for m in methods), "run"))
    return ", ".join(f"{count} {word}{'' if count == 1 else 's'}" for count, word in counts)


def _sentence(methods: Sequence[Mapping[str, Any]], forgetting: str, retention: str) -> str:
    best = [method["name"] for method in methods if method["on_front"]]
    what = f"the Pareto front of {forgetting}, the lower the better, against {retention}"
    if not best:
        return f"Nothing is on {what}: the table says why."
    verb = "is" if len(best) == 1 else "are"
    rest = len(methods) - len(best)
    beside = f"; {rest} {'is' if rest == 1 else 'are'} not" if rest else ""
    return f"{_listed(best)} {verb} on {what}{beside}."


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _columns(names: Sequence[str]) -> Iterator[Columns]:
    by_set: dict[str, list[str]] = {}
    for name in names:
        by_set.setdefault(name.rpartition("/")[0], []).append(name)
    for set_name, metrics in by_set.items():
        yield Columns(set_name=set_name, aim=aim_of(set_name), metrics=metrics)


def _gaps(record: Mapping[str, Any]) -> Iterator[str]:
    methods = record["methods"]
    if not record["retrained"]:
        yield (
            "a retrained model, the goal itself: where a model would be that never saw the forget "
            "set. Give one as retrained in a recipe."
        )
    if single := [method["name"] for method in methods if len(method["runs"]) == 1]:
        whose = "all of these" if len(single) == len(methods) else _listed(single)
        yield f"other seeds of {whose}: one run each says nothing of how another would end."
    if not record["pairs"] and len(methods) > 1:
        yield "which of two methods is better: the notes say why it was not tested."
    reached = {run["goal_reached"] for method in methods for run in method["runs"]}
    if record["equal"] is None and reached != {True}:
        yield (
            "equal forgetting: what methods retain can be compared only where they forgot as "
            "much. amnesis compare with --at does that, for runs that were evaluated on the way."
        )
