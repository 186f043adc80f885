"""Judgements on disk: a run's folder, an evaluation's folder, or one of their files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from amnesis.contracts import Evaluation
from amnesis.errors import DataError

Stage = Literal["after", "before", "retrained"]
RESULTS, EXAMPLES = "results.json", "examples.parquet"


def save_evaluation(evaluation: Evaluation, folder: Path, **further: Any) -> Path:
    """Write ``results.json`` and ``examples.parquet`` into ``folder``; give the former's path."""
    folder.mkdir(parents=True, exist_ok=True)
    results = {
        "schema": 1,
        "after": evaluation.values,
        "intervals": {key: list(pair) for key, pair in evaluation.intervals.items()},
        "notes": evaluation.notes,
        **further,
    }
    path = folder / RESULTS
    path.write_text(json.dumps(results, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    if evaluation.examples:
        write_examples(evaluation.examples, folder / EXAMPLES)
    return path


def write_examples(examples: list[dict[str, Any]], path: Path) -> None:
    """Write per-example records as Parquet."""
    from pyarrow import Table, parquet

    parquet.write_table(Table.from_pylist(examples), path)


def load_results(path: Path) -> dict[str, Any]:
    """Read ``results.json`` of a folder, or the file itself.

    Raises:
        DataError: it is missing, or is not a results file.
    """
    file = path / RESULTS if path.is_dir() else path
    if not file.is_file():
        raise DataError(f"{path}: there is no {RESULTS} here; give a run's or evaluation's folder")
    try:
        results = json.loads(file.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"{file}: not JSON: {error}") from None
    if not isinstance(results, dict) or not isinstance(results.get("after"), dict):
        raise DataError(f"{file}: not a results file: it has no 'after' with values by set/metric")
    return results


def load_evaluation(path: Path, stage: Stage = "after") -> Evaluation:
    """Read a judgement with its example values.

    Where the examples name stages (a run's do), those of ``stage`` are taken.

    Raises:
        DataError: the results or their examples are missing or cannot be read.
    """
    results = load_results(path)
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
    lacking = {"set", "row", "metric", "value"} - set(examples[0] if examples else ())
    if lacking:
        raise DataError(f"{file}: lacks the column {sorted(lacking)[0]!r}")
    own = [record for record in examples if record.get("stage", stage) == stage]
    return Evaluation(results.get(stage) or {}, own)
