"""A model's card: what a stranger must know of it, in its folder, as the hub shows it.

What was forgotten is described by numbers and names, and never quoted; no path of the machine that
made the model is in it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from amnesis.contracts import Report
from amnesis.models.trainable import is_adapter
from amnesis.runs.folder import MODEL_CARD
from amnesis.runs.results import Results
from amnesis.storage import write_text
from amnesis_evaluation.pages.content import unmeasured
from amnesis_evaluation.pages.report import recipe_of

if TYPE_CHECKING:
    from huggingface_hub import ModelCardData

    from amnesis.runs.recipe import PartialRecipe

MARK = "<!-- written by amnesis: without this line it is yours, and never written over -->"
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+|[\w.-]+")
LIMITS = (
    "That a metric finds nothing does not show that nothing is left: what was forgotten may come "
    "back by further training, by quantization, by other words or by other attacks than those "
    "above. Values are of one run and one seed."
)


class ModelCard(Report):
    """Writes ``model/README.md``, from a run's results; one that is the owner's stays as it is."""

    formula: ClassVar[str] = "the results of the run, in words and tables"

    def write(self, folder: Path, results: Mapping[str, Any]) -> None:
        """Write the card of the model in a run's folder, if there is a model in it."""
        place = folder / "model" / MODEL_CARD
        if place.parent.is_dir() and is_ours(place):
            write_text(place, card_of(folder, Results.model_validate(results)))


def is_ours(card: Path) -> bool:
    """Whether a card may be written over: there is none, or one that bears our mark."""
    return not card.exists() or MARK in card.read_text(encoding="utf-8", errors="replace")


def card_of(folder: Path, results: Results) -> str:
    """Return the card of a run's model: the hub's metadata, and Markdown."""
    recipe = recipe_of(folder)
    name = (recipe.run_name if recipe is not None else None) or folder.resolve().name
    parts = [
        f"---\n{_metadata(folder, results, recipe).to_yaml()}\n---",
        MARK,
        f"# {_plain(name)}",
        *_verdict(results),
        "## What was forgotten",
        *_forgotten(results, recipe),
        "## Before and after",
        *_values(results),
        *_attacks(results),
        "## What was not measured",
        "\n".join(f"- {gap}" for gap in unmeasured(results, has_answers=True)),
        "## Limits",
        LIMITS,
        "## How it was made",
        *_how(results, recipe),
    ]
    return "\n\n".join(parts) + "\n"


def _metadata(folder: Path, results: Results, recipe: PartialRecipe | None) -> ModelCardData:
    from huggingface_hub import EvalResult, ModelCardData

    tags = ["unlearning", "amnesis"]
    if recipe is not None and isinstance(recipe.objective, str):
        tags.append(recipe.objective)
    benchmark = _benchmark(recipe)
    values = [
        EvalResult(
            task_type="text-generation",
            dataset_type=f"{benchmark}/{set_name}",
            dataset_name=f"{benchmark}, {set_name} set",
            metric_type=metric,
            metric_value=value,
        )
        for name, value in (results.after or {}).items()
        for set_name, _, metric in [name.rpartition("/")]
        if name.count("/") == 1
    ]
    metrics = list(dict.fromkeys(value.metric_type for value in values))
    return ModelCardData(
        base_model=_base_model(recipe),
        library_name="peft" if is_adapter(folder / "model") else "transformers",
        pipeline_tag="text-generation",
        tags=tags,
        metrics=metrics or None,
        model_name="unlearned" if values else None,
        eval_results=values or None,
    )


def _base_model(recipe: PartialRecipe | None) -> str | None:
    """Return the hub's name of the model before; None of a folder, which is nobody else's."""
    extra = {} if recipe is None else recipe.model_dump(mode="json")
    model = extra.get("model")
    path = model.get("path") if isinstance(model, dict) else model
    if not isinstance(path, str) or Path(path).exists() or not _HUB_NAME.fullmatch(path):
        return None
    return path


def _verdict(results: Results) -> Iterator[str]:
    if results.verdict is None:
        yield "There is no verdict: nothing was evaluated."
    else:
        yield f"**{_plain(results.verdict.sentence)}**"


def _forgotten(results: Results, recipe: PartialRecipe | None) -> Iterator[str]:
    forget, retain = (results.data.get(name, {}) for name in ("forget", "retain"))
    counts = [
        f"{rows.get('examples', rows.get('rows'))} examples {words}"
        for rows, words in ((forget, "had to be forgotten"), (retain, "had to be kept"))
        if rows.get("examples", rows.get("rows"))
    ]
    told = f"{' and '.join(counts)}, " if counts else ""
    yield f"{told}of the benchmark `{_benchmark(recipe)}`. Their texts are no part of this card."
    if results.sets:
        digests = ", ".join(f"`{name}` ({digest})" for name, digest in results.sets.items())
        yield f"The sets that were evaluated, with digests of their rows: {digests}."


def _values(results: Results) -> Iterator[str]:
    phases = results.phases()
    names = list(dict.fromkeys(name for values in phases.values() for name in values))
    if not names:
        yield "Nothing was evaluated."
        return
    rows = [
        [name, *(_cell(results, phase, values.get(name), name) for phase, values in phases.items())]
        for name in names
    ]
    yield _table(["metric", *phases], rows)
    if results.intervals:
        yield "Intervals, in parentheses, are over the rows."


def _cell(results: Results, phase: str, value: float | None, name: str) -> str:
    if value is None:
        return "–"
    ends = results.intervals.get(phase, {}).get(name)
    return f"{value:.4g}" + (f" ({ends[0]:.3g} to {ends[1]:.3g})" if ends else "")


def _attacks(results: Results) -> Iterator[str]:
    if not results.attacks:
        return
    yield "## Under attack"
    rows = [
        [attack, name, f"{value:.4g}"]
        for attack, phases in results.attacks.items()
        for name, value in phases.get("after", {}).items()
        if name.partition("/")[0] == "forget" or "/" not in name
    ]
    yield _table(["attack", "metric", "after"], rows)


def _how(results: Results, recipe: PartialRecipe | None) -> Iterator[str]:
    facts = {
        "finished": results.finished,
        "steps": results.steps,
        "seconds": results.seconds,
        "revision of the model before": results.revision,
        **results.environment,
        **{f"fingerprint, {name}": digest for name, digest in results.fingerprints.items()},
    }
    rows = [[name, str(value)] for name, value in facts.items() if value is not None]
    yield _table(["what", "value"], rows)
    if recipe is not None:
        yield "The recipe, without rows and without the paths of the machine that it ran on:"
        text = without_paths(recipe)
        yield "\n".join(f"    {line}" for line in text.splitlines())


def without_paths(recipe: PartialRecipe) -> str:
    """Return a recipe as YAML without rows, and with no path in it."""
    import yaml

    document = yaml.safe_load(recipe.without_rows())
    text: str = yaml.safe_dump(_pathless(document), sort_keys=False, allow_unicode=True)
    return text


def _pathless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _pathless(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_pathless(one) for one in value]
    return "(a local path)" if isinstance(value, str) and _is_path(value) else value


def _is_path(text: str) -> bool:
    if text.startswith(("/", "~", ".", "\\")) or re.match(r"[A-Za-z]:\\", text):
        return True
    try:
        return Path(text).exists() or Path(text).suffix in {".csv", ".json", ".jsonl", ".parquet"}
    except (OSError, ValueError):  # not a path that there could be
        return False


def _benchmark(recipe: PartialRecipe | None) -> str:
    choice = None if recipe is None else recipe.benchmark
    return str(choice.get("name") if isinstance(choice, dict) else choice or "unknown")


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(_plain, line))} |" for line in lines)


def _plain(text: str) -> str:
    """Return a text as Markdown shows it, on one line and in one cell."""
    return re.sub(r"([\\`*_\[\]<>|])", r"\\\1", " ".join(str(text).split()))
