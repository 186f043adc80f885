"""The starter recipe: the best of the methods tried, at the learning rate that was found for it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Any

from amnesis.errors import printable
from amnesis_evaluation.commands.suggest.trials import candidate_of
from amnesis_evaluation.reports.thresholds import FORGOTTEN, UNSEEN

if TYPE_CHECKING:
    from amnesis.data.templates import AnyTemplate
    from amnesis.discovery.registry import Registry
    from amnesis_evaluation.commands.assess.record import Knowledge, Methods

WIDTH = 96  # characters of a comment's line


def recipe_of(
    model: str,
    material: Mapping[str, Any],
    template: AnyTemplate,
    goal: Mapping[str, Any],
    methods: Methods,
    batch_size: int,
    seed: int,
) -> dict[str, Any]:
    """Return the starter recipe, with nothing in it that the defaults say already.

    ``material`` is the part of it that names the sets, ``goal`` where it ends.
    """
    best = candidate_of(methods.best)
    named = {
        "objective": best.objective,
        "regularizer": best.regularizer,
        "combiner": best.combiner,
    }
    prompts = {
        "format": template.format,
        **template.model_dump(mode="json", exclude_defaults=True),
        **material.get("template", {}),
    }
    return {
        "model": str(Path(model).resolve()) if Path(model).is_dir() else model,
        **material,
        **{key: _short(choice) for key, choice in named.items() if choice is not None},
        **({"lora": {"r": methods.lora, "alpha": 2 * methods.lora}} if methods.lora else {}),
        **({"template": prompts} if prompts != {"format": "question_answer"} else {}),
        "training": {
            "steps": methods.steps,
            "batch_size": batch_size,
            "learning_rate": methods.learning_rate,
        },
        "until": dict(goal),
        **({"seed": seed} if seed else {}),
    }


def goal_of(knowledge: Knowledge) -> dict[str, Any]:
    """Return the goal at which a run ends, as ``until``: as good as forgotten.

    It is a little above the probability of the holdout rows, or else of the verdict's threshold, so
    that a run does not go on until the rows' absence shows.
    """
    now = knowledge.values["forget/probability"]
    end = knowledge.values.get("holdout/probability", UNSEEN["probability"])
    if end >= now:
        end = now / 2
    goal = end + (1 - FORGOTTEN) / 2 * (now - end)
    plain = float(f"{goal:.2g}")
    return {"forget/probability": {"below": plain if 0 < plain < now else goal}}


def checked_text(
    document: Mapping[str, Any], methods: Methods, registry: Registry, **machine: Any
) -> str:
    """Return a starter recipe as YAML, checked as ``amnesis run --check`` does.

    Above it stands what it rests on and what it will take.

    Raises:
        RecipeError: it would not run, with every reason.
    """
    import yaml

    from amnesis.runs.preflight import prepare
    from amnesis.runs.recipe import Recipe

    recipe = Recipe.parse(document, "the starter recipe")
    cost = prepare(recipe, registry=registry, **machine).cost
    seconds = methods.steps * methods.seconds_per_step
    duration = f"{seconds:.0f} seconds" if seconds < 120 else f"{seconds / 60:.0f} minutes"
    told = (
        f"A starter recipe by amnesis assess: the gentlest of the methods that it tried, at the "
        f"learning rate that it found on {_what_trained(methods.lora)}, which was thrown away. It "
        f"ends at its goal, and after {methods.steps} steps at the latest: then about "
        f"{duration} where it was assessed, without the evaluations."
    )
    lines = [part for text in (told, *cost.lines()) for part in wrap(printable(text), WIDTH)]
    head = "".join(f"# {line}\n" for line in lines)
    body: str = yaml.safe_dump(dict(document), sort_keys=False, allow_unicode=True)
    return f"{head}{body}"


def _what_trained(lora: int | None) -> str:
    return "a copy" if lora is None else f"an adapter of rank {lora}"


def _short(choice: Mapping[str, Any]) -> Any:
    return choice["name"] if set(choice) == {"name"} else dict(choice)
