"""A model to work on: a folder, a hub name, or what a run left, with the recipe beside it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from amnesis.contracts.benchmark import Subject
from amnesis.data.templates import Template
from amnesis.models.devices import check_device
from amnesis.models.loading import ModelSettings, load_model, load_tokenizer
from amnesis.runs.recipe import PartialRecipe


@dataclass(frozen=True, kw_only=True)
class ModelPlace:
    """Where a model is, and the recipe that belongs to it, if there is one."""

    path: str
    recipe: PartialRecipe | None

    @classmethod
    def of(cls, path: str, recipe: Path | None = None) -> ModelPlace:
        """Return the place that ``path`` means: a run's folder holds model and recipe.

        Raises:
            RecipeError: the recipe cannot be read, or something in it is wrong.
        """
        folder = Path(path)
        if recipe is None and (folder / "recipe.yaml").is_file():
            recipe = folder / "recipe.yaml"
        if (folder / "model" / "config.json").is_file():
            path = str(folder / "model")
        return cls(path=path, recipe=None if recipe is None else PartialRecipe.load(recipe))


@dataclass(frozen=True, kw_only=True)
class LoadedSubject:
    """A model with tokenizer and template, and where it came from."""

    subject: Subject
    place: ModelPlace
    device: str


def load_subject(
    place: ModelPlace | str, *, device: str | None = None, trust_remote_code: bool = False
) -> LoadedSubject:
    """Load a model, its tokenizer, and the template of its recipe (or the default).

    Raises:
        ModelError: there is no such model.
        RecipeError: its recipe cannot be read, or there is no such device here.
    """
    if isinstance(place, str):
        place = ModelPlace.of(place)
    device = check_device(device)
    settings = ModelSettings(path=place.path)
    tokenizer = load_tokenizer(settings, trust_remote_code=trust_remote_code)
    model = load_model(settings, device=device, trust_remote_code=trust_remote_code)
    template = Template() if place.recipe is None else place.recipe.template
    return LoadedSubject(subject=Subject(model, tokenizer, template), place=place, device=device)
