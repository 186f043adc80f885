"""Benchmarks: the sets that a run forgets and retains, and the judgement over them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from amnesis.contracts.component import Component

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from amnesis.data import Template

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Subject:
    """A model on trial, with the tokenizer and the template that its prompts are made by."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    template: Template


class EvaluationSettings(BaseModel):
    """What a judgement computes; part of a recipe, under ``evaluate``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    metrics: tuple[str, ...] | None = Field(None, description="names; None: the benchmark's own")
    batch_size: int = Field(32, ge=1, description="examples per forward pass")
    generate_rows: int | None = Field(
        None, ge=0, description="generate on the first k rows of each set; None: on all"
    )
    max_new_tokens: int = Field(200, ge=1, description="longest generated answer, in tokens")


@dataclass(frozen=True)
class Evaluation:
    """The judgement: ``values`` by ``set/metric``, and one record per example and metric."""

    values: dict[str, float] = field(default_factory=dict)
    examples: list[dict[str, Any]] = field(default_factory=list)


class Benchmark(Component):
    """Names the sets, and judges a model on them."""

    @abstractmethod
    def sets(self) -> Mapping[str, Sequence[Row]]:
        """Give every set's rows; ``forget`` and ``retain`` are what a run trains on.

        Raises:
            DataError: a file is missing or a row cannot be used.
        """

    @abstractmethod
    def evaluate(
        self,
        subject: Subject,
        settings: EvaluationSettings,
        progress: Callable[[str, int, int], None] | None = None,
    ) -> Evaluation:
        """Judge a model; ``progress(what, done, total)`` is called as it goes."""
