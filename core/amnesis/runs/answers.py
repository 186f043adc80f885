"""What a model says, kept beside a run's results: texts of what must be forgotten among them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from amnesis.distributed.processes import first_rank_only
from amnesis.errors import DataError
from amnesis.storage import write_table

if TYPE_CHECKING:
    from amnesis.runs.results import Phase

ANSWERS, REPORT = "answers.parquet", "report.html"
BOARD = (
    "tensorboard"  # the folder with TensorBoard's events, those of texts in folders of their own
)
# What every phase says of an example by itself; the rest of a record is the same in all of them.
_OF_A_PHASE = ("generated", "logps")
Records = list[dict[str, Any]]


def keep_answers(folder: Path, phase: Phase, answers: Sequence[Mapping[str, Any]]) -> None:
    """Keep a phase's answers until the run is done; of none nothing is kept."""
    if answers:
        write_table(_of_phase(folder, phase), answers)


def recall_answers(folder: Path, phase: Phase) -> Records:
    """Return the answers that were kept of a phase before the run was cut off."""
    file = _of_phase(folder, phase)
    return _read(file) if file.is_file() else []


def write_answers(folder: Path, answers: Mapping[Phase, Sequence[Mapping[str, Any]]]) -> None:
    """Write one record per example into a folder: what it asks, and what each phase says.

    The columns are set, row, prompt, reference and its tokens, then of each phase
    ``generated_<phase>`` and ``logps_<phase>``, the log-probability of each of the tokens.
    """
    records: dict[tuple[Any, ...], dict[str, Any]] = {}
    phases = [phase for phase, told in answers.items() if told]
    for phase in phases:
        for key, record in _numbered(answers[phase]):
            shared = {name: value for name, value in record.items() if name not in _OF_A_PHASE}
            whole = records.setdefault(key, {**shared, **_nothing(phases)})
            whole |= {f"{name}_{phase}": record[name] for name in _OF_A_PHASE}
    if records:
        write_table(folder / ANSWERS, list(records.values()))


def read_answers(folder: Path) -> Records:
    """Return the records of a folder's answers; none where none were kept.

    Raises:
        DataError: the file is not one of answers.
    """
    file = folder / ANSWERS
    return _read(file) if file.is_file() else []


def answers_texts(
    answers: Mapping[Phase, Sequence[Mapping[str, Any]]], rows: int = 3
) -> dict[str, str]:
    """Return Markdown of the first ``rows`` examples of every set, and what each phase said.

    The keys are the sets' names. Texts stand in blocks of code: whatever is in them is shown as it
    is, and followed by no reader's browser.
    """
    sets: dict[str, dict[tuple[Any, ...], list[str]]] = {}
    for phase, told in answers.items():
        for key, record in _numbered(told):
            of_set = sets.setdefault(record["set"], {})
            if key not in of_set and len(of_set) == rows:
                continue
            asked = [_block("asked", record["prompt"]), _block("reference", record["reference"])]
            lines = of_set.setdefault(key, [f"#### row {record['row']}", *asked])
            if record["generated"] is not None:
                lines.append(_block(phase, record["generated"]))
    return {
        name: "\n\n".join("\n\n".join(lines) for lines in examples.values())
        for name, examples in sets.items()
    }


def _block(title: str, text: str) -> str:
    indented = "\n".join(f"    {line}" for line in str(text).splitlines() or [""])
    return f"{title}:\n\n{indented}"


@first_rank_only
def forget_phases(folder: Path) -> None:
    """Delete the answers that :func:`keep_answers` kept of every phase."""
    for file in folder.glob("answers-*.parquet"):
        file.unlink()


def delete_shown_answers(folder: Path) -> None:
    """Delete the answers that TensorBoard shows, from the folder of a run's events."""
    for place in folder.glob("*/answers"):
        shutil.rmtree(place, ignore_errors=True)


def _of_phase(folder: Path, phase: Phase) -> Path:
    return folder / f"answers-{phase}.parquet"


def _numbered(
    answers: Sequence[Mapping[str, Any]],
) -> Iterator[tuple[tuple[Any, ...], Mapping[str, Any]]]:
    """Yield each record with its key: a long text's chunks have one row, and are numbered."""
    counts: dict[tuple[Any, Any], int] = {}
    for record in answers:
        place = record["set"], record["row"]
        counts[place] = counts.get(place, -1) + 1
        yield (*place, counts[place]), record


def _nothing(phases: Sequence[Phase]) -> dict[str, None]:
    return dict.fromkeys(f"{name}_{phase}" for phase in phases for name in _OF_A_PHASE)


def _read(file: Path) -> Records:
    from pyarrow import ArrowException, parquet

    try:
        records: Records = parquet.read_table(file).to_pylist()
    except (OSError, ArrowException) as error:
        raise DataError(f"{file}: not a Parquet file: {error}") from None
    needed = {"set", "row", "prompt", "reference", "tokens"}
    if records and (gaps := needed - set(records[0])):
        raise DataError(f"{file}: lacks the column {min(gaps)!r}")
    return records
