"""Judgements on disk: a run's folder, an evaluation's folder, or one of their files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from amnesis import artifacts
from amnesis.contracts import Evaluation
from amnesis.errors import DataError

Phase = Literal["before", "after", "retrained"]
RESULTS, EXAMPLES = "results.json", "examples.parquet"
SCHEMA = "amnesis.results/1"


def save_evaluation(evaluation: Evaluation, folder: Path, **further: Any) -> None:
    """Write a judgement into ``folder`` in the form of a run's results, as the phase ``after``."""
    results = {
        "schema": SCHEMA,
        "after": evaluation.values,
        "intervals": {"after": {key: list(pair) for key, pair in evaluation.intervals.items()}},
        "notes": evaluation.notes,
        **further,
    }
    artifacts.write_json(folder / RESULTS, results)
    if evaluation.examples:
        records = [{"phase": "after", **record} for record in evaluation.examples]
        artifacts.write_table(folder / EXAMPLES, records)


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


def load_evaluation(path: Path, phase: Phase = "after") -> Evaluation:
    """Read one phase's judgement with its example values.

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
    lacking = {"phase", "set", "row", "metric", "value"} - set(examples[0] if examples else ())
    if lacking:
        raise DataError(f"{file}: lacks the column {sorted(lacking)[0]!r}")
    own = [record for record in examples if record["phase"] == phase]
    return Evaluation(results.get(phase) or {}, own)
