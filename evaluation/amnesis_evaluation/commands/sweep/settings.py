"""The sweep file: a base recipe, what is varied in it, and what the runs are compared by."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from amnesis.config.documents import read_document
from amnesis.config.settings import Settings
from amnesis.runs.recipe import BaseRecipe

_DOMAIN_KEYS = {"choices", "low", "high"}


class Range(Settings):
    """Numbers from ``low`` to ``high``; whole ones where both are."""

    low: int | float = Field(description="the lowest value")
    high: int | float = Field(description="the highest value, included")
    log: bool = Field(False, description="spread evenly over the logarithm")
    points: int | None = Field(None, ge=2, description="so many values, for a grid")

    @model_validator(mode="after")
    def _is_a_range(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"low ({self.low:g}) must be below high ({self.high:g})")
        if self.log and self.low <= 0:
            raise ValueError("a logarithm needs low above 0")
        return self

    @property
    def whole(self) -> bool:
        """Whether the values are whole numbers."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    def values(self) -> list[int | float]:
        """Return the points of a grid, both ends among them."""
        count = self.points or 0
        shares = [k / (count - 1) for k in range(count)]
        low, high = float(self.low), float(self.high)
        inner = [
            low * (high / low) ** share if self.log else low + share * (high - low)
            for share in shares[1:-1]
        ]
        if self.whole:
            return list(dict.fromkeys([self.low, *map(round, inner), self.high]))
        # Six digits are more than any hyper-parameter has, and read better than rounding errors.
        return [low, *(float(f"{value:.6g}") for value in inner), high]


class Choices(Settings):
    """Any values, one of which is taken."""

    choices: list[Any] = Field(min_length=1, description="the values")

    @field_validator("choices")
    @classmethod
    def _distinct(cls, choices: list[Any]) -> list[Any]:
        labels = [label_of(choice) for choice in choices]
        for label in labels:
            if labels.count(label) > 1:
                raise ValueError(f"{label} stands in the choices twice")
        return choices

    def values(self) -> list[Any]:
        """Return the choices."""
        return self.choices

    def labelled(self) -> dict[str, Any]:
        """Return the choices by how a study names them."""
        return {label_of(choice): choice for choice in self.choices}


def label_of(choice: Any) -> str:
    """Return a value as a short text: what a study can store, and a table show."""
    return choice if isinstance(choice, str) else json.dumps(choice, sort_keys=True, default=str)


def _as_domain(value: Any) -> Any:
    is_component = isinstance(value, dict) and "name" in value
    if isinstance(value, dict) and _DOMAIN_KEYS & {*value} and not is_component:
        return value
    return {"choices": value if isinstance(value, list) else [value]}


def _domain(value: Any) -> Range | Choices:
    if isinstance(value, (Range, Choices)):
        return value
    document = _as_domain(value)
    return (Choices if "choices" in document else Range).model_validate(document)


# A list of choices, {low: …, high: …}, or one fixed value.
Domain = Annotated[Range | Choices, BeforeValidator(_domain)]


class Goal(Settings):
    """A metric of the results, and whether low or high values are better."""

    metric: str = Field(description="its key in results, such as forget/probability")
    direction: Literal["minimize", "maximize"] | None = Field(
        None, description="None: low forgetting metrics and high retention metrics are better"
    )


AnyGoal = Annotated[
    Goal, BeforeValidator(lambda value: {"metric": value} if isinstance(value, str) else value)
]


class Sweep(BaseRecipe):
    """Many runs of one recipe, with what is varied in it."""

    recipe: dict[str, Any] = Field(
        description="the base recipe: its keys, or the path of its file from this file's folder"
    )
    methods: dict[str, dict[str, Domain]] = Field(
        default_factory=dict,
        description="by a name of your own: recipe keys that belong together, with their values",
    )
    space: dict[str, Domain] = Field(
        default_factory=dict,
        description="recipe keys (training.learning_rate) with choices or a range, for all methods",
    )
    search: Literal["grid", "random", "tpe"] = Field(
        "grid", description="all combinations, independent draws, or Optuna's TPE sampler"
    )
    trials: int | None = Field(
        None, ge=1, description="how many configurations to draw; of a grid: all"
    )
    search_seed: int = Field(0, ge=0, description="of the draws")
    seeds: list[int] = Field(
        default_factory=lambda: [0], min_length=1, description="repetitions of each configuration"
    )
    forgetting: AnyGoal | None = Field(None, description="default: the benchmark's first")
    retention: AnyGoal | None = Field(None, description="default: the benchmark's first")
    storage: str = Field(
        "sqlite",
        pattern=r"^(sqlite|journal|.+://.+)$",
        description="sqlite, journal (for shared file systems), or the URL of a database",
    )

    @classmethod
    def _read(cls, path: Path) -> dict[str, Any]:
        """Return the document with the base recipe in it, for overrides to reach into."""
        document = read_document(path)
        base = document.get("recipe")
        if isinstance(base, str):
            document["recipe"] = read_document(path.parent / base)
        return document

    @model_validator(mode="after")
    def _can_be_searched(self) -> Self:
        if not self.space and not self.methods:
            raise ValueError("nothing is varied: name recipe keys in space, or methods")
        if len(set(self.seeds)) < len(self.seeds) or min(self.seeds) < 0:
            raise ValueError("seeds must be distinct and not negative")
        if self.search == "grid" and self.trials is not None:
            raise ValueError("trials: a grid has as many as there are combinations; leave it out")
        if self.search != "grid" and self.trials is None:
            raise ValueError(f"trials: say how many configurations {self.search} is to draw")
        for key, domain in self.domains():
            if key == "seed":
                raise ValueError("space.seed: is not searched over; name the repetitions in seeds")
            if self.search == "grid" and isinstance(domain, Range) and domain.points is None:
                raise ValueError(
                    f"{key}: of a range a grid needs to know how many points: say points"
                )
        for name, keys in self.methods.items():
            for key in keys:
                if key in self.space:
                    raise ValueError(f"{key}: stands in space and in the method {name!r}")
        return self

    def domains(self) -> list[tuple[str, Range | Choices]]:
        """Return every recipe key that is varied anywhere, with its values."""
        return [
            *self.space.items(),
            *(item for keys in self.methods.values() for item in keys.items()),
        ]
