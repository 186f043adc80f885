"""What an assessment says, as ``assess.json`` holds it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from amnesis.config.settings import Settings
from amnesis.contracts import Evidence

SCHEMA = "amnesis.assessment/1"
Level = Literal["known", "partly", "unknown"]
Interval = tuple[float, float]


class Memorised(Settings):
    """How many rows come back: from at most half of their answer the model gives the rest."""

    rows: int = Field(description="how many")
    of: int = Field(description="of how many")
    share: float = Field(description="the share that they are")
    interval: Interval | None = Field(None, description="of the share")


class Remembered(Settings):
    """How well one row of the forget set is remembered."""

    row: int = Field(description="its index in the forget set")
    values: dict[str, float] = Field(description="of each measure")


class Knowledge(Settings):
    """Whether the model knows the forget set at all."""

    level: Level
    sentence: str
    values: dict[str, float] = Field(description="by `set/metric`")
    intervals: dict[str, Interval] = Field(description="of those that have one")
    memorised: Memorised
    because: tuple[Evidence, ...] = Field(description="what each number says by itself")
    best: tuple[Remembered, ...] = Field((), description="the rows that it knows best")


class Alignment(Settings):
    """To what extent the two sets are learned, and so lost, in the same direction."""

    cosine: float = Field(description="of ∇R(forget) and ∇R(retain)")
    ratio: float = Field(description="⟨∇R(forget), ∇R(retain)⟩ / ‖∇R(forget)‖²: GA's harm")
    layers: dict[str, float | None] = Field(description="the cosine in each group of parameters")
    risks: dict[str, float] = Field(description="R of each set, nats per token")
    sentence: str


class Pair(Settings):
    """A row to forget and the row to retain that is most like it."""

    forget: int = Field(description="index in the forget set")
    retain: int = Field(description="index in the retain set")
    share: float = Field(description="of the shorter one's n-grams that both have; 1: all")


class Overlap(Settings):
    """What of the forget set is in the retain set."""

    exact: tuple[Pair, ...] = Field(description="the same text, but for case and spaces")
    near: tuple[Pair, ...] = Field(description="at least half of the n-grams")
    sentence: str


class Tried(Settings):
    """A candidate method where all of them have forgotten as much."""

    names: tuple[str, ...] = Field(description="several where they did the same")
    ratio: float | None = Field(description="retaining per unlearning effect: damage")
    retain_probability: float = Field(description="of a retain token, geometric mean")
    steps: float = Field(description="until there")


class Methods(Settings):
    """Which methods suit, at which learning rate, as short disposable runs tell."""

    best: str = Field(description="the candidate that damaged least at equal forgetting")
    learning_rate: float = Field(description="of the best, found by a range test")
    steps: int = Field(description="of the starter recipe at most; its goal ends it earlier")
    seconds_per_step: float = Field(description="as the range test went here")
    lora: int | None = Field(description="rank of the adapter that was trained; None: all weights")
    at: float = Field(description="the forget probability at which candidates are compared")
    start: float = Field(description="the forget probability before")
    ranking: tuple[Tried, ...]
    not_reached: tuple[str, ...] = Field((), description="candidates that did not get there")
    failed: dict[str, str] = Field(default_factory=dict, description="candidates that failed: why")
    trial_learning_rate: float = Field(description="at which all candidates were tried")
    range_test: tuple[dict[str, float], ...] = Field(
        description="both risks after a step at each rate, in nats per token"
    )
    ended: str = Field(description="what ended the range test")
    sentence: str


class Candidate(Settings):
    """A passage that the model gives back; its text is in the CSV file alone."""

    file: str
    place: int = Field(description="the line or row at which it begins, from 1")
    extraction_strength: float
    probability: float = Field(description="of its second half given the first")
    kinds: tuple[str, ...] = Field((), description="of personal data in it")


class Candidates(Settings):
    """What of a corpus the model gives back, most of all first."""

    passages: int = Field(description="how many were looked at")
    candidates: tuple[Candidate, ...]
    sentence: str
    notes: tuple[str, ...] = ()


class Assessment(Settings):
    """All that an assessment found; what it did not look at is None."""

    schema_: str = Field(SCHEMA, alias="schema")
    model: str
    finished: str = Field(description="when, in ISO 8601 with the offset from UTC")
    rows: dict[str, int] = Field(description="of each set")
    digests: dict[str, str] = Field(description="of each set's rows")
    knowledge: Knowledge
    alignment: Alignment | None = None
    overlap: Overlap | None = None
    methods: Methods | None = None
    recipe: dict[str, Any] | None = Field(None, description="the starter recipe")
    notes: tuple[str, ...] = ()
    environment: dict[str, str | int] = Field(default_factory=dict)

    def document(self) -> Mapping[str, Any]:
        """Return the record as plain values, as ``assess.json`` holds it."""
        document: dict[str, Any] = self.model_dump(mode="json", by_alias=True)
        return document
