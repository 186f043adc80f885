"""Recipes: everything that decides a run, in one record that YAML and Python share."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, ConfigDict, Field, field_validator, model_validator

from amnesis.config.documents import parse_yaml, read_document
from amnesis.config.settings import Settings
from amnesis.config.validation import AND, validated
from amnesis.contracts.benchmark import EvaluationSettings
from amnesis.data.sources import Source
from amnesis.data.templates import AnyTemplate, Template
from amnesis.errors import RecipeError, did_you_mean
from amnesis.models.creation import NewModelSettings
from amnesis.models.loading import ModelSettings
from amnesis.models.trainable import LoraSettings
from amnesis.training.settings import TrainingSettings

# A bare text is the path of these; of everything else that an override reaches into, a name.
_PATHS = {"model", "retrained", "tokenizer", "forget", "retain"}
# What of training a table of runs shows.
_TOLD = (
    *("learning_rate", "steps", "epochs", "batch_size", "warmup_steps", "schedule", "optimizer"),
    *("weight_decay", "max_grad_norm", "precision"),
)
Named = str | dict[str, Any]  # "wga", or {"name": "wga", "beta": 1.0}

Sources = Annotated[list[Source], BeforeValidator(lambda v: v if isinstance(v, list) else [v])]

# Keys that a run's recipe and a finetuning's share.
_Seed = Annotated[int, Field(ge=0, description="of the order of rows, and of all that is drawn")]
_RunName = Annotated[
    str | None,
    Field(min_length=1, description="what TensorBoard, trackers and the model's card call it"),
]
_Trackers = Annotated[
    list[str] | None,
    Field(
        min_length=1,
        description="trackers that are told the run's numbers beside TensorBoard, of those that "
        "transformers knows: wandb, mlflow, trackio, …",
    ),
]


class BaseRecipe(Settings):
    """What a run and a finetuning have in common: reading, overriding and writing YAML."""

    @classmethod
    def load(cls, path: Path | str, overrides: Sequence[str] = ()) -> Self:
        """Read a recipe from YAML, then apply overrides such as ``training.steps=10``.

        Raises:
            RecipeError: the file cannot be read, or something in it is wrong; every problem found
                is listed, with the key it concerns.
        """
        return cls.parse(cls.read(path, overrides), str(path))

    @classmethod
    def read(cls, path: Path | str, overrides: Sequence[str] = ()) -> dict[str, Any]:
        """Return a recipe's document, as plain values, with overrides applied.

        Raises:
            RecipeError: the file cannot be read, or an override has no place in it.
        """
        document = cls._read(Path(path))
        for override in overrides:
            _apply(document, override)
        return document

    @classmethod
    def _read(cls, path: Path) -> dict[str, Any]:
        return read_document(path)

    @classmethod
    def parse(cls, document: Mapping[str, Any], where: str = "recipe") -> Self:
        """Validate a document of plain values.

        Raises:
            RecipeError: listing every problem, one to a line.
        """
        return validated(cls, document, where)

    def to_yaml(self) -> str:
        """Return the fully resolved recipe as YAML."""
        import yaml

        document = self.model_dump(mode="json", exclude_none=True)
        text: str = yaml.safe_dump(document, sort_keys=False, allow_unicode=True)
        return text

    def without_rows(self) -> str:
        """Return what the recipe says as YAML, with a number in place of rows that it holds."""
        import yaml

        document = self.model_dump(mode="json", exclude_none=True, exclude_unset=True)
        if isinstance(benchmark := document.get("benchmark"), dict):
            document["benchmark"] = {
                name: f"({len(value)} rows)" if _are_rows(value) else value
                for name, value in benchmark.items()
            }
        text: str = yaml.safe_dump(document, sort_keys=False, allow_unicode=True)
        return text

    def hyper_parameters(self) -> dict[str, str | float | bool]:
        """Return what decides the run in short, one value each: method, sizes, rates, seed."""
        document = self.model_dump(mode="json", exclude_none=True)
        chosen = {
            name: _names(document[name])
            for name in ("objective", "regularizer", "combiner", "robust", "procedure", "benchmark")
            if document.get(name)
        }
        training = document.get("training", {})
        numbers = {name: training[name] for name in _TOLD if name in training}
        lora = {f"lora_{name}": document["lora"][name] for name in ("r",) if document.get("lora")}
        return {**chosen, **numbers, **lora, "seed": document.get("seed", 0)}

    @property
    def run_name(self) -> str:
        """What the run is called where runs are watched: its own name, or what it does."""
        document = self.model_dump(include={"name"})
        return document.get("name") or _method_of(self) or "finetune"

    @property
    def folder_name(self) -> str:
        """Its name as one that a folder may have."""
        joined = self.run_name.replace(" + ", "+").replace(", ", "-")
        return re.sub(r"[^\w.+-]+", "-", joined).strip("-.")[:80] or "run"


class Recipe(BaseRecipe):
    """An unlearning run: a model, what it forgets and keeps, by what method, and its evaluation."""

    model: ModelSettings = Field(description="the model to unlearn; a bare text is its path")
    objective: Named | list[Named] | None = Field(
        None, description="the forget stream's term or terms"
    )
    procedure: Named | None = Field(
        None, description="what changes the model in place of an objective, such as task_vector"
    )
    regularizer: Named | list[Named] | None = Field(None, description="the retain stream's")
    combiner: Named | None = Field(None, description="how two gradients become one; None: added")
    robust: Named | None = Field(
        None, description="a perturbation: where the forget gradient is taken; None: at the weights"
    )
    probes: list[Named] = Field(
        default_factory=list, description="observers of the run, such as g_effect"
    )
    benchmark: Named = Field(description="names the sets, and evaluates before and after")
    forget: Sources = Field(
        default_factory=lambda: [Source(set="forget")],
        description="what the forget stream draws from; default: the benchmark's forget set",
    )
    retain: Sources = Field(
        default_factory=lambda: [Source(set="retain")],
        description="what the retain stream draws from; default: the benchmark's retain set",
    )
    lora: LoraSettings | None = Field(None, description="train a low-rank adapter alone")
    trainable: list[str] | None = Field(
        None, min_length=1, description="patterns of parameter names that train; None: all"
    )
    template: AnyTemplate = Field(
        default_factory=Template, description="how a row becomes a prompt and its answer"
    )
    training: TrainingSettings = Field(
        default_factory=TrainingSettings, description="steps, batches, optimizer, precision"
    )
    until: dict[str, dict[str, Any]] | None = Field(
        None,
        description="the goal at which the run ends, and then training's steps or epochs are the "
        "most that it makes: {value: {above | below: x, for_steps: n}}, all of which must hold, "
        "such as forget/probability; evaluated every 5th step, or as evaluate.every says",
    )
    stop_when: dict[str, dict[str, Any]] | None = Field(
        None,
        description="end early: {logged value: {above | below: x, for_steps: n}}, such as "
        "retain_over_unlearn, or forget/probability where evaluate.every is given",
    )
    evaluate: EvaluationSettings = Field(
        default_factory=EvaluationSettings, description="what is evaluated, before and after"
    )
    attacks: list[Named] = Field(
        default_factory=list, description="attempts to bring the forgotten back, before and after"
    )
    retrained: ModelSettings | None = Field(
        None, description="a model trained without the forget set, evaluated beside"
    )
    seed: _Seed = 0
    name: _RunName = None
    report_to: _Trackers = None

    @classmethod
    def parse(cls, document: Mapping[str, Any], where: str = "recipe") -> Self:
        """Validate a document of plain values, as every recipe's; a finetuning's is told apart."""
        if "sets" in document and not {"objective", "procedure"} & set(document):
            raise RecipeError(
                f"{where}: is the recipe of a finetuning (it has sets, and no objective): "
                f"amnesis finetune makes a model by it"
            )
        return super().parse(document, where)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if misfits := list(self.misfits()):
            raise ValueError(AND.join(misfits))
        return self

    def misfits(self) -> Iterator[str]:
        """Yield what of the recipe does not fit the rest of it."""
        if (self.objective is None) == (self.procedure is None):
            yield "name an objective, such as objective: npo, or else a procedure"
        if self.procedure is not None:
            yield from self._misfits_of_a_procedure()
        elif self.combiner is not None and self.regularizer is None:
            yield "a combiner needs a retain stream: name a regularizer, such as 'kl'"
        if self.lora is not None and self.trainable is not None:
            yield "give lora or trainable, not both: an adapter trains alone"
        if self.model is None or self.model.quantize is None:  # a draft may lack its model
            return
        if self.lora is None:
            yield "quantized weights do not train: give lora, such as lora: {r: 16}"
        elif self.lora.save == "merged":
            yield (
                "merging into quantized weights would round the update away: say lora.save=adapter"
            )

    def _misfits_of_a_procedure(self) -> Iterator[str]:
        for key in ("regularizer", "combiner", "robust", "probes", "lora", "until", "stop_when"):
            if getattr(self, key):
                yield f"{key}: is of training on two streams, which a procedure is not"
        if self.training.learning_rate == "auto":
            yield "training.learning_rate: auto is found on two streams; name a procedure's rate"
        if self.evaluate.every is not None:
            yield "evaluate.every: a procedure has no steps along which to evaluate"

    @property
    def merges(self) -> bool:
        """Whether what is left of the run is a whole model with the adapter in its weights."""
        save = "adapter" if self.model.quantize is not None else "merged"
        return self.lora is not None and (self.lora.save or save) == "merged"


class FinetuneRecipe(BaseRecipe):
    """A finetuning: a model, and the sets of a benchmark that it is to know."""

    model: ModelSettings | NewModelSettings = Field(
        description="the model to train, or the sizes of a new one"
    )
    tokenizer: ModelSettings | None = Field(None, description="where not the model's own")
    benchmark: Named = Field(description="names the sets")
    sets: list[str] = Field(min_length=1, description="the benchmark's sets to train on")
    tokenizer_sets: list[str] | None = Field(
        None, description="sets that a new tokenizer is trained on, where not the same"
    )
    template: AnyTemplate = Field(
        default_factory=Template, description="how a row becomes a prompt and its answer"
    )
    training: TrainingSettings = Field(
        default_factory=TrainingSettings, description="steps, batches, optimizer, precision"
    )
    seed: _Seed = 0
    name: _RunName = None
    report_to: _Trackers = None

    @classmethod
    def parse(cls, document: Mapping[str, Any], where: str = "recipe") -> Self:
        """Validate a document of plain values, as every recipe's; a run's is told apart."""
        if {"objective", "procedure"} & set(document) and "sets" not in document:
            raise RecipeError(
                f"{where}: is the recipe of a run (it has an objective, and no sets): amnesis run "
                f"unlearns by it"
            )
        return super().parse(document, where)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.tokenizer_sets is not None and self.tokenizer is not None:
            raise ValueError("give tokenizer or tokenizer_sets, not both")
        if self.training.learning_rate == "auto":
            raise ValueError("training.learning_rate: auto is of unlearning; name a rate")
        if isinstance(self.model, ModelSettings) and self.model.quantize is not None:
            raise ValueError("model.quantize: quantized weights do not train")
        return self


class PartialRecipe(BaseRecipe):
    """What a run's and a finetuning's recipe have in common, of a file that may be either.

    For who reads a recipe that belongs to a model or to results, and does not run it.
    """

    model_config = ConfigDict(extra="allow")

    objective: Named | list[Named] | None = None
    procedure: Named | None = None
    regularizer: Named | list[Named] | None = None
    combiner: Named | None = None
    robust: Named | None = None
    benchmark: Named | None = None
    template: AnyTemplate = Field(default_factory=Template)
    evaluate: EvaluationSettings = Field(default_factory=EvaluationSettings)

    @field_validator("objective", "procedure", "regularizer", "combiner", "robust", "benchmark")
    @classmethod
    def _with_names(cls, choice: Any) -> Any:
        for one in choice if isinstance(choice, list) else [choice]:
            if isinstance(one, dict) and not isinstance(one.get("name"), str):
                raise ValueError("has no name")
        return choice

    @model_validator(mode="after")
    def _known_keys(self) -> Self:
        known = {*Recipe.model_fields, *FinetuneRecipe.model_fields}
        for key in self.model_extra or {}:
            if key not in known:
                raise ValueError(f"{key}: unknown key; {did_you_mean(key, known)}")
        return self

    @property
    def method_name(self) -> str | None:
        """The method in short, ``wga + kl, sago``; None in a recipe that names none."""
        return _method_of(self)

    def but_the_seed(self) -> str:
        """Return everything but the seed as one text: runs that agree in it are repetitions.

        What a run is called, and who is told of it, does not matter either.
        """
        document = self.model_dump(mode="json", exclude_unset=True)
        idle = {"seed", "name", "report_to"}
        kept = {key: value for key, value in document.items() if key not in idle}
        return json.dumps(kept, sort_keys=True)


def _method_of(recipe: BaseRecipe) -> str | None:
    """Return a recipe's method in short; None where it names none."""
    keys = ("procedure", "objective", "regularizer", "combiner", "robust")
    procedure, objective, regularizer, *further = (getattr(recipe, key, None) for key in keys)
    if procedure is not None:
        return _names(procedure)
    if objective is None:
        return None
    terms = [_names(choice) for choice in (objective, regularizer) if choice]
    return ", ".join([" + ".join(terms), *(_names(choice) for choice in further if choice)])


def _are_rows(value: Any) -> bool:
    return isinstance(value, list) and any(isinstance(one, dict) for one in value)


def _names(choice: Any) -> str:
    listed = choice if isinstance(choice, list) else [choice]
    return " + ".join(str(one["name"] if isinstance(one, dict) else one) for one in listed)


def _apply(document: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not all(key.split(".")):
        raise RecipeError(f"override {override!r}: write key.sub=value")
    set_key(document, key, parse_yaml(text, f"override {override!r}"), f"override {override!r}")


def set_key(document: dict[str, Any], key: str, value: Any, where: str) -> None:
    """Set ``key``, dots and all, to a value in a document; ``where`` names it in messages.

    A part of it that is a number stands for an item of a list: ``probes.0.every``.

    Raises:
        RecipeError: a part of the key is no mapping, or no item of a list.
    """
    *parents, leaf = key.split(".")
    holder: dict[str, Any] | list[Any] = document
    for parent in parents:
        place = _place(holder, parent, where)
        child = holder[place] if isinstance(holder, list) else holder.get(place)
        if isinstance(child, str):  # a bare name becomes a mapping that can hold more
            child = {"path" if parents[0] in _PATHS else "name": child}
        if child is None:
            child = {}
        if not isinstance(child, dict | list):
            raise RecipeError(f"{where}: {parent!r} is not a mapping")
        holder[place] = child
        holder = child
    holder[_place(holder, leaf, where)] = value


def _place(holder: dict[str, Any] | list[Any], key: str, where: str) -> Any:
    """Return where a key stands: of a list, the number of an item that is there."""
    if isinstance(holder, dict):
        return key
    if not (key.isdecimal() and int(key) < len(holder)):
        raise RecipeError(
            f"{where}: a list stands before {key!r}; say which item of it is meant, by a number "
            f"from 0 to {len(holder) - 1}"
        )
    return int(key)
