"""What a run found, as one record: every ``results.json`` is written and read here."""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    WithJsonSchema,
)

from amnesis.config.validation import validated
from amnesis.contracts.report import Verdict
from amnesis.errors import DataError
from amnesis.storage import write_json, write_table
from amnesis.training.pacing.choice import RangeTest
from amnesis.training.pacing.goal import GoalReport

if TYPE_CHECKING:
    from amnesis.contracts.benchmark import Evaluation

SCHEMA = "amnesis.results/1"
RESULTS, EXAMPLES = "results.json", "examples.parquet"
LIBRARIES = ("amnesis", "torch", "transformers", "accelerate", "peft", "datasets", "lm-eval")

Phase = Literal["before", "after", "retrained"]
PHASES: tuple[Phase, ...] = ("before", "after", "retrained")


def _finite(value: Any) -> int | float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("must be a number")
    try:
        finite = math.isfinite(value)
    except OverflowError:  # an integer that no float holds
        finite = False
    if not finite:
        raise ValueError("must be a finite number")
    return value


def _count(value: Any) -> int:
    if _finite(value) != int(value):
        raise ValueError("must be a whole number")
    return int(value)


# Numbers stay as they were written: 1 is not 1.0, and a text is no number.
Number = Annotated[int | float, PlainValidator(_finite), WithJsonSchema({"type": "number"})]
Count = Annotated[int, PlainValidator(_count), WithJsonSchema({"type": "integer"})]
Values = dict[str, Number]


def _with_step(values: dict[str, float]) -> dict[str, float]:
    if "step" not in values:
        raise ValueError("must be values with their step")
    return values


StepValues = Annotated[Values, AfterValidator(_with_step)]


class Results(BaseModel):
    """What a run, a finetuning or an evaluation found; ``after`` is what an evaluation found.

    A finetuning has no phases, an evaluation no steps. Keys that a later version wrote are kept.
    """

    model_config = ConfigDict(extra="allow", frozen=True, populate_by_name=True)

    schema_: str = Field(SCHEMA, alias="schema", description="version of this record")
    before: Values | None = Field(None, description="values by `set/metric` before the run")
    after: Values | None = Field(None, description="the same after it")
    retrained: Values | None = Field(
        None, description="the same of a model trained without the forget set"
    )
    verdict: Verdict | None = Field(
        None, description="whether it forgot and kept the rest, why, and what to do"
    )
    intervals: dict[str, dict[str, tuple[Number, Number]]] = Field(
        default_factory=dict, description="confidence intervals of those values, by phase"
    )
    sets: dict[str, str] = Field(
        default_factory=dict, description="a digest of each evaluated set's rows"
    )
    trajectory: list[StepValues] = Field(
        default_factory=list, description="logged values of each step, with its `step`"
    )
    attacks: dict[str, dict[str, Values]] = Field(
        default_factory=dict, description="values under each attack, by phase"
    )
    lm_eval: dict[str, Values] = Field(
        default_factory=dict, description="lm-eval's values by `task/metric`, by phase"
    )
    goal: GoalReport | None = Field(
        None, description="whether the run reached what `until` names, and when"
    )
    range_test: RangeTest | None = Field(
        None, description="how `training.learning_rate: auto` found the rate, with its curve"
    )
    steps: Count | None = Field(None, description="optimizer steps")
    seconds: Number | None = Field(None, description="duration")
    finished: str | None = Field(None, description="when, in ISO 8601 with the offset from UTC")
    data: dict[str, dict[str, Count]] = Field(
        default_factory=dict, description="examples of each stream: kept, cut, left out"
    )
    notes: list[str] = Field(default_factory=list, description="what a reader must know beside")
    environment: dict[str, str | int] = Field(
        default_factory=dict,
        description="versions, device, platform, and the `engine` that generates answers",
    )
    model: str | None = Field(None, description="the model that was evaluated")
    benchmark: dict[str, Any] | None = Field(None, description="what it was evaluated by")
    command: str | None = Field(None, description="the command line that made it")
    revision: str | None = Field(
        None, description="commit of the hub that the model before was loaded from"
    )
    fingerprints: dict[str, str] = Field(
        default_factory=dict,
        description="digests by which to recognise what was used: the models `before` and "
        "`retrained`; of `after` the SHA-256 of the file with its weights; `forget rows` and "
        "`retain rows` of the two streams, or a finetuning's `rows`",
    )

    @classmethod
    def of(
        cls,
        evaluations: Mapping[Phase, Evaluation],
        attacks: Mapping[str, Mapping[str, Mapping[str, float]]],
        notes: Sequence[str] = (),
        **further: Any,
    ) -> Results:
        """Return the results that evaluations and attacks come to, and ``further`` ones."""
        prefix = "lm_eval/"
        lm_eval = {
            phase: {
                name.removeprefix(prefix): value
                for name, value in one.values.items()
                if name.startswith(prefix)
            }
            for phase, one in evaluations.items()
        }
        return cls(
            **{phase: one.values for phase, one in evaluations.items()},
            intervals={phase: dict(one.intervals) for phase, one in evaluations.items()},
            sets={
                name: digest for one in evaluations.values() for name, digest in one.data.items()
            },
            attacks={name: dict(phases) for name, phases in attacks.items()},
            lm_eval={phase: values for phase, values in lm_eval.items() if values},
            notes=list(notes),
            **further,
        )

    @classmethod
    def read(cls, path: Path) -> Results:
        """Read the results in a folder, or a results file itself.

        Raises:
            DataError: there are none, or they are not of this form; the wrong keys are named.
        """
        file = path / RESULTS if path.is_dir() else path
        if not file.is_file():
            raise DataError(
                f"{path}: there is no {RESULTS} here; give a run's or evaluation's folder"
            )
        try:
            document = json.loads(file.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise DataError(f"{file}: not JSON that can be read: {error}") from None
        if not isinstance(document, dict):
            raise DataError(f"{file}: not a results file, but {document!r:.60}")
        return validated(cls, document, str(file), error=DataError)

    def write(self, folder: Path) -> None:
        """Write ``results.json`` into a folder, atomically; what was not found is not in it."""
        write_json(folder / RESULTS, self.document())

    def recognisable(self, fingerprints: Mapping[str, str]) -> Results:
        """Return the results with further fingerprints."""
        return self.model_copy(update={"fingerprints": {**self.fingerprints, **fingerprints}})

    def document(self) -> dict[str, Any]:
        """Return the record as plain values, as ``results.json`` holds it."""
        known = self.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_unset=True)
        return {"schema": self.schema_, **known}

    def phases(self) -> dict[Phase, dict[str, float]]:
        """Return the values of each phase that there is."""
        found = {phase: getattr(self, phase) for phase in PHASES}
        return {phase: values for phase, values in found.items() if values is not None}


@dataclass(frozen=True)
class RunResult:
    """A finished run: its folder, and what ``results.json`` there says."""

    folder: Path
    results: Results


def write_examples(folder: Path, evaluations: Mapping[Phase, Evaluation]) -> None:
    """Write one record per phase, example and metric into a folder, atomically."""
    records = [
        {"phase": phase, **record}
        for phase, evaluation in evaluations.items()
        for record in evaluation.examples
    ]
    if records:
        write_table(folder / EXAMPLES, records)


def environment(device: str) -> dict[str, str | int]:
    """Return what a run ran on: versions, platform and device."""
    import torch

    return {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "device": device,
        "threads": torch.get_num_threads(),
        **{library: version(library) for library in LIBRARIES},
    }
