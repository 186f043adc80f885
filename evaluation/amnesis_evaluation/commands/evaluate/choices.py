"""What an evaluation is of: the command's options over what the model's run says."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from amnesis_evaluation.commands import inputs

if TYPE_CHECKING:
    from amnesis.contracts import Benchmark, EvaluationSettings
    from amnesis.discovery.registry import Registry
    from amnesis.runs.recipe import PartialRecipe
    from amnesis.runs.subject import ModelPlace


def own_rows(
    forget: list[str] | None, retain: list[str] | None, benchmark: str | None
) -> dict[str, Any]:
    """Return the hyper-parameters of the benchmark of one's own files, where rows are given."""
    inputs.check_one_place(forget, retain, benchmark)
    own: dict[str, Any] = {}
    for name, texts in (("forget", forget), ("retain", retain)):
        sources = inputs.sources_of(texts or ())
        if len(sources) == 1 and sources[0].path is not None and not sources[0].fields:
            own[name] = sources[0].path
        elif sources:
            own[name] = [row for one in sources if one.weight for row in one.rows({})]
    return own


def tasks_of(texts: list[str] | None, recipe: PartialRecipe | None) -> dict[str, Any] | None:
    """Return lm-eval's settings: the tasks and their files, and the recipe's further ones."""
    choices = [inputs.choice_of(text, "lm-eval task") for text in inputs.parts_of(texts)]
    if not choices:
        return None
    settings: dict[str, Any] = {}
    if recipe is not None and recipe.evaluate.lm_eval is not None:
        settings = recipe.evaluate.lm_eval.model_dump(exclude_unset=True)
    data = {choice.pop("name"): {k: str(v) for k, v in choice.items()} for choice in choices}
    before = settings.get("data", {})
    files = {name: before.get(name, {}) | splits for name, splits in data.items()}
    return settings | {"tasks": list(data), "data": {k: v for k, v in files.items() if v}}


def retrained_of(text: str | None) -> tuple[Path | None, ModelPlace | None]:
    """Return the results that ``--retrained`` names, or else the model that it names."""
    from amnesis.models.loading import located
    from amnesis.runs.results import EXAMPLES, RESULTS
    from amnesis.runs.subject import ModelPlace

    if text is None:
        return None, None
    path = Path(text)
    if path.is_file() or (path / EXAMPLES).is_file():
        return path, None
    if (path / RESULTS).is_file() and not (path / "model").is_dir():
        return path, None  # whose examples are missed when they are read
    return None, ModelPlace(path=located(text), recipe=None)


def benchmark_of(
    recipe: PartialRecipe | None,
    name: str | None,
    options: dict[str, Any],
    hyper: list[str],
    registry: Registry,
    *,
    alone: bool,
) -> Benchmark | None:
    """Return the benchmark; None where none is named, and lm-eval's tasks may be ``alone``."""
    from amnesis.config.documents import parse_yaml
    from amnesis.discovery.resolve import build
    from amnesis.errors import RecipeError

    choice: dict[str, Any] = {}
    if recipe is not None and recipe.benchmark is not None:
        default = recipe.benchmark
        choice = {"name": default} if isinstance(default, str) else dict(default)
    if name is not None:
        named = inputs.choice_of(name, "benchmark")
        choice = choice | named if named["name"] == choice.get("name") else named
    elif {"forget", "retain"} & set(options) and choice.get("name") != "own":
        choice = {"name": "own"}
    if not choice and alone:
        return None
    if not choice:
        raise RecipeError(
            "name a --benchmark, such as tofu, or --forget FILE and --retain FILE, or evaluate a "
            "run's folder"
        )
    choice |= {key: value for key, value in options.items() if value is not None}
    for pair in hyper:
        key, equals, text = pair.partition("=")
        if not (key and equals):
            raise RecipeError(f"--with {pair!r}: write key=value")
        try:
            choice[key] = parse_yaml(text, key)
        except RecipeError:
            raise RecipeError(f"--with {pair!r}: {text!r} is not a YAML value") from None
    if choice.get("name") == "own":
        for key in ("forget", "retain"):
            if key not in choice:
                raise RecipeError(f"benchmark 'own': {key}: is missing; give --{key} FILE")
    benchmark: Benchmark = build("benchmark", choice, registry)
    return benchmark


def settings_of(
    recipe: PartialRecipe | None, options: dict[str, Any], *, cache: bool
) -> EvaluationSettings:
    """Return the recipe's settings with the command's ``options`` in their place.

    Raises:
        RecipeError: naming the option that is none.
    """
    from pydantic import ValidationError

    from amnesis.cli.cache import cache_folder
    from amnesis.contracts import EvaluationSettings
    from amnesis.errors import RecipeError

    values = recipe.evaluate.model_dump(exclude_unset=True) if recipe is not None else {}
    values |= {key: value for key, value in options.items() if value is not None}
    if not cache:
        values["cache"] = None
    elif "cache" not in values:
        values["cache"] = cache_folder() / "evaluation"
    try:
        return EvaluationSettings(**values)
    except ValidationError as error:
        first = error.errors()[0]
        option = str(first["loc"][0]).replace("_", "-")
        raise RecipeError(f"--{option}: {first['msg']} (got {first['input']!r})") from None
