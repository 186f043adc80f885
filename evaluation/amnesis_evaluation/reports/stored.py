"""Judgements on disk: a run's folder, an evaluation's folder, or one of their files."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, Field

from amnesis.contracts import Evaluation, EvaluationSettings
from amnesis.data.templates import AnyTemplate, Template
from amnesis.errors import DataError, OutputError, RecipeError, did_you_mean
from amnesis.runs.folder import refuse_if_full
from amnesis.runs.recipe import BaseRecipe, Named, Recipe
from amnesis.storage import write_json, write_table


class FurtherRecipe(BaseRecipe):
    """What a judgement takes from a recipe that is no run's, such as a finetuning's."""

    model_config = ConfigDict(extra="allow")

    benchmark: Named | None = None
    template: AnyTemplate = Field(default_factory=Template)
    evaluate: EvaluationSettings = Field(default_factory=EvaluationSettings)


Phase = Literal["before", "after", "retrained"]
RESULTS, EXAMPLES = "results.json", "examples.parquet"
SCHEMA = "amnesis.results/1"


def refuse_place(folder: Path, inputs: Iterable[Path], *, overwrite: bool = False) -> None:
    """See whether a judgement may be written into ``folder``; nothing is changed.

    Raises:
        OutputError: it is a file, holds a run or one of the judgement's ``inputs``, cannot be
            written, or holds something and ``overwrite`` was not asked for.
    """
    replaced = f"name another --out, or say --overwrite to replace {RESULTS} and {EXAMPLES} there"
    refuse_if_full(folder, replaced, overwrite=overwrite)
    if (folder / "recipe.yaml").exists():
        raise OutputError(f"{folder}: holds a run, whose results are its own; name another --out")
    for path in inputs:
        if path.resolve().is_relative_to(folder.resolve()):
            raise OutputError(f"{folder}: holds {path}, which is read here; name another --out")
    nearest = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not os.access(nearest, os.W_OK):
        raise OutputError(f"{folder}: cannot be written: no permission; name another --out")


def save_evaluation(evaluation: Evaluation, folder: Path, **further: Any) -> None:
    """Write a judgement into ``folder`` in the form of a run's results, as the phase ``after``.

    An earlier judgement there is replaced; whatever else is there is left alone.
    """
    results = {
        "schema": SCHEMA,
        "after": evaluation.values,
        "intervals": {"after": {key: list(pair) for key, pair in evaluation.intervals.items()}},
        "notes": evaluation.notes,
        "sets": evaluation.data,
        **further,
    }
    # Never new results beside old examples, wherever this is cut off.
    (folder / EXAMPLES).unlink(missing_ok=True)
    write_json(folder / RESULTS, results)
    if evaluation.examples:
        records = [{"phase": "after", **record} for record in evaluation.examples]
        write_table(folder / EXAMPLES, records)


def recipe_of(path: Path) -> Recipe | FurtherRecipe:
    """Read the recipe that a judgement follows: a run's, or what is of use of another.

    Raises:
        RecipeError: it cannot be read, something in it is wrong, or a key means nothing.
    """
    from amnesis.runs.finetune import FinetuneRecipe

    found = FurtherRecipe.load(path)
    further = found.model_extra or {}
    if "objective" in further:
        return Recipe.load(path)
    known = {*Recipe.model_fields, *FinetuneRecipe.model_fields}
    if strangers := [key for key in further if key not in known]:
        raise RecipeError(
            f"{path}: {strangers[0]}: unknown key; {did_you_mean(strangers[0], known)}"
        )
    return found


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
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file}: not JSON that can be read: {error}") from None
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
    digests = results.get("sets")
    return Evaluation(
        results.get(phase) or {}, own, data=digests if isinstance(digests, dict) else {}
    )
