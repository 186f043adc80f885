"""Recipes: everything that decides a run, in one record that YAML and Python share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self
from pydantic import Field, model_validator
from amnesis.config.settings import Settings
from amnesis.config.validation import validated
from amnesis.contracts.benchmark import EvaluationSettings
from amnesis.data.sources import Source
from amnesis.data.templates import AnyTemplate, Template
from amnesis.errors import RecipeError
from amnesis.models.loading import ModelSettings
from amnesis.models.trainable import LoraSettings
from amnesis.training.settings import TrainingSettings

Named = str | dict[str, Any]  # "wga", or {"name": "wga", "beta": 1.0}


class BaseRecipe(Settings):
    """What a run and a finetuning have in common: reading, overriding and writing YAML."""

    @classmethod
    def load(cls, path: Path | str, overrides: Sequence[str] = ()) -> Self:
        """Read a recipe from YAML, then apply overrides such as ``training.steps=10``.

        Raises:
            RecipeError: the file cannot be read, or something in it is wrong; every problem found
                is listed, with the key it concerns.
        """
        import yaml

        path = Path(path)
        try:
            document = yaml.safe_load(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise RecipeError(f"{path}: there is no such recipe") from None
        except (OSError, UnicodeDecodeError) as error:
            raise RecipeError(f"{path}: cannot be read as UTF-8 text: {error}") from None
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            where = f"{path}:{mark.line + 1}" if mark else str(path)
            problem = getattr(error, "problem", None) or str(error).splitlines()[0]
            raise RecipeError(f"{where}: not valid YAML: {problem}") from None
        if not isinstance(document, dict):
            raise RecipeError(f"{path}: a recipe is a mapping of keys to values")
        for override in overrides:
            _apply(document, override)
        return cls.parse(document, str(path))

    @classmethod
    def parse(cls, document: Mapping[str, Any], where: str = "recipe") -> Self:
        """Validate a document of plain values.

        Raises:
            RecipeError: listing every problem, one to a line.
        """
        return validated(cls, document, where)

    def to_yaml(self) -> str:
        """Give the fully resolved recipe as YAML."""
        import yaml

        document = self.model_dump(mode="json", exclude_none=True)
        text: str = yaml.safe_dump(document, sort_keys=False, allow_unicode=True)
        return text


class Recipe(BaseRecipe):
    """An unlearning run: a model, what it forgets and keeps, how, and how that is judged."""

    model: ModelSettings
    objective: Named | list[Named] = Field(description="the forget stream's term or terms")
    regularizer: Named | list[Named] | None = Field(None, description="the retain stream's")
    combiner: Named | None = Field(None, description="how two gradients become one; default sum")
    probes: list[Named] = Field(default_factory=list)
    benchmark: Named = Field(description="names the sets, and judges before and after")
    forget: list[Source] = Field(
        default_factory=lambda: [Source(set="forget")],
        description="what the forget stream draws from; default: the benchmark's forget set",
    )
    retain: list[Source] = Field(
        default_factory=lambda: [Source(set="retain")],
        description="what the retain stream draws from; default: the benchmark's retain set",
    )
    lora: LoraSettings | None = Field(None, description="train a low-rank adapter alone")
    trainable: list[str] | None = Field(
        None, min_length=1, description="patterns of parameter names that train; None: all"
    )
    template: AnyTemplate = Field(default_factory=Template)
    training: TrainingSettings = Field(default_factory=TrainingSettings)
    stop_when: dict[str, dict[str, Any]] | None = Field(
        None,
        description="end early: {logged value: {above | below: x, for_steps: n}}, such as "
        "retain_over_unlearn, or forget/probability where evaluate.every is given",
    )
    evaluate: EvaluationSettings = Field(default_factory=EvaluationSettings)
    attacks: list[Named] = Field(
        default_factory=list, description="attempts to bring the forgotten back, before and after"
    )
    retrained: ModelSettings | None = Field(
        None, description="a model that never knew the forget set, judged beside"
    )
    seed: int = Field(0, ge=0)

    @model_validator(mode="before")
    @classmethod
    def _paths(cls, document: Any) -> Any:
        if not isinstance(document, dict):
            return document
        named = {k: {"path": v} for k, v in document.items() if _is_path(k, v)}
        one = {k: [v] for k, v in document.items() if k in _STREAMS and isinstance(v, (dict, str))}
        paths = {k: [{"path": v} if isinstance(v, str) else v for v in vs] for k, vs in one.items()}
        return {**document, **named, **paths}

    @model_validator(mode="after")
    def _combiner_has_two(self) -> Self:
        if self.combiner is not None and self.regularizer is None:
            raise ValueError("a combiner needs a retain stream: name a regularizer, such as 'kl'")
        if self.lora is not None and self.trainable is not None:
            raise ValueError("give lora or trainable, not both: an adapter trains alone")
        if self.model.quantize is not None and self.lora is None:
            raise ValueError("quantized weights do not train: give lora, such as lora: {r: 16}")
        if self.model.quantize is not None and self.lora and self.lora.save == "merged":
            raise ValueError(
                "merging into quantized weights would round the update away: say lora.save=adapter"
            )
        return self

    @property
    def merges(self) -> bool:
        """Whether what is left of the run is a whole model with the adapter in its weights."""
        save = "adapter" if self.model.quantize is not None else "merged"
        return self.lora is not None and (self.lora.save or save) == "merged"


_STREAMS = ("forget", "retain")


def _is_path(key: str, value: Any) -> bool:
    return key in {"model", "retrained"} and isinstance(value, str)


def _apply(document: dict[str, Any], override: str) -> None:
    import yaml

    key, equals, text = override.partition("=")
    if not equals or not all(key.split(".")):
        raise RecipeError(f"override {override!r}: write key.sub=value")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise RecipeError(f"override {override!r}: {text!r} is not a YAML value") from None
    *parents, leaf = key.split(".")
    for parent in parents:
        child = document.get(parent)
        if isinstance(child, str):  # a bare name becomes a mapping that can hold more
            child = {"path" if _is_path(parent, child) else "name": child}
        if child is None:
            child = {}
        if not isinstance(child, dict):
            raise RecipeError(f"override {override!r}: {parent!r} is not a mapping")
        document[parent] = document = child
    document[leaf] = value
