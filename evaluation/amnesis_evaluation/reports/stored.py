"""Evaluations on disk: written into folders of their own, and read for comparisons."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from amnesis.contracts import Evaluation
from amnesis.errors import DataError, OutputError
from amnesis.runs.folder import check_empty
from amnesis.runs.results import EXAMPLES, RESULTS, Phase, Results, write_examples


def check_place(folder: Path, inputs: Iterable[Path], *, overwrite: bool = False) -> None:
    """Check that an evaluation may be written into ``folder``; nothing is changed.

    Raises:
        OutputError: ``folder`` is a file, holds a run or one of the evaluation's ``inputs``, cannot
            be written, or is not empty while ``overwrite`` is false.
    """
    advice = f"name another --out, or say --overwrite to replace {RESULTS} and {EXAMPLES} there"
    check_empty(folder, advice, overwrite=overwrite)
    if (folder / "recipe.yaml").exists():
        raise OutputError(f"{folder}: holds a run, whose results are its own; name another --out")
    for path in inputs:
        if path.resolve().is_relative_to(folder.resolve()):
            raise OutputError(f"{folder}: holds {path}, which is read here; name another --out")
    nearest = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not os.access(nearest, os.W_OK):
        raise OutputError(f"{folder}: cannot be written: no permission; name another --out")


def save_evaluation(evaluation: Evaluation, results: Results, folder: Path) -> None:
    """Write an evaluation's results and examples into ``folder``, in place of earlier ones.

    Other files in the folder are left alone.
    """
    # The results come last: where they are, after whatever interruption, their examples are too.
    for name in (RESULTS, EXAMPLES):
        (folder / name).unlink(missing_ok=True)
    write_examples(folder, {"after": evaluation})
    results.write(folder)


def load_evaluation(path: Path, phase: Phase = "after") -> Evaluation:
    """Return the evaluation of one phase, with its example values, from a folder or results file.

    Raises:
        DataError: the results or their examples are missing or cannot be read.
    """
    if (path / "config.json").is_file() and not (path / RESULTS).is_file():
        raise DataError(
            f"{path}: is a model, not the results of one; to evaluate it beside the run say "
            f"retrained: {path} (of results, give the folder that amnesis evaluate --out wrote)"
        )
    results = Results.read(path)
    folder = path if path.is_dir() else path.parent
    file = folder / EXAMPLES
    if not file.is_file():
        raise DataError(
            f"{folder}: there is no {EXAMPLES}, which holds the values that a comparison with a "
            f"retrained model reads; evaluate that model again with --out"
        )
    from pyarrow import ArrowException, parquet

    try:
        examples = parquet.read_table(file).to_pylist()
    except (OSError, ArrowException) as error:
        raise DataError(f"{file}: not a Parquet file: {error}") from None
    columns = set(examples[0] if examples else ())
    gaps = sorted({"phase", "set", "row", "metric", "value"} - columns)
    if gaps:
        raise DataError(f"{file}: lacks the column {gaps[0]!r}")
    records = [record for record in examples if record["phase"] == phase]
    return Evaluation(results.phases().get(phase, {}), records, data=results.sets)
