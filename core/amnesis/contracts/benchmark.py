"""Benchmarks: the sets that a run forgets and retains, and how a model is evaluated on them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, InstanceOf

from amnesis.config.settings import Settings
from amnesis.contracts.component import Component
from amnesis.contracts.metric import ChosenMetric
from amnesis.data.templates import Row
from amnesis.errors import DataError
from amnesis.progress import ProgressCallback

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from amnesis.data.templates import AnyTemplate

# A name, a mapping with hyper-parameters, or, once names are resolved, the metric itself.
MetricChoice = str | dict[str, Any] | InstanceOf[ChosenMetric]
# What writes the answers that are evaluated.
Engine = Literal["builtin", "transformers", "vllm"]


@dataclass(frozen=True)
class Subject:
    """A model to evaluate, with the tokenizer and the template that prompts are made with."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    template: AnyTemplate


class LmEvalSettings(Settings):
    """Which tasks of lm-evaluation-harness to evaluate, and on which data."""

    tasks: tuple[str, ...] = Field(min_length=1, description="names, such as mmlu or wmdp_bio")
    data: dict[str, dict[str, Path]] = Field(
        default_factory=dict,
        description="local files by task and split: {mmlu_astronomy: {test: ..., dev: ...}}",
    )
    num_fewshot: int | None = Field(None, ge=0, description="None: as the task defines it")
    limit: int | None = Field(None, ge=1, description="the first k items of each task")
    batch_size: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        8, description="requests per forward pass"
    )
    chat_template: bool = Field(False, description="prompts in the tokenizer's chat template")


class EvaluationSettings(Settings):
    """What an evaluation computes: a recipe's section ``evaluate``."""

    metrics: tuple[MetricChoice, ...] | None = Field(
        None,
        description="names (`probability`, or `forget/probability` for one set only), or mappings "
        "with hyper-parameters; None: the benchmark's own",
    )
    every: int | None = Field(
        None, ge=1, description="evaluate every k-th step of a run too, into its trajectory"
    )
    during: tuple[MetricChoice, ...] | None = Field(
        None, description="the metrics of those evaluations, where not the same"
    )
    batch_size: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        32, description="texts per forward pass; auto: halved until it fits into memory"
    )
    generate_rows: int | None = Field(
        None, ge=0, description="generate on the first k rows of each set; None: on all"
    )
    max_new_tokens: int = Field(200, ge=1, description="longest generated answer, in tokens")
    length_cap: float | None = Field(
        None, gt=0, description="longest generated answer as a multiple of its reference's tokens"
    )
    engine: Engine = Field(
        "builtin",
        description="what writes the answers: builtin; transformers: its own generate, or its "
        "continuous batching on CUDA; vllm: vLLM, in a process of its own from the saved weights",
    )
    lm_eval: LmEvalSettings | None = Field(None, description="tasks of lm-evaluation-harness")
    limit: int | None = Field(None, ge=1, description="evaluate the first k rows of each set only")
    bootstrap: int = Field(
        1000,
        ge=0,
        description="resamples for the intervals, of examples or, where every row of a set names "
        "one as `group` or `author`, of groups; 0: no intervals",
    )
    confidence: float = Field(0.95, gt=0, lt=1, description="level of the intervals")
    seed: int = Field(0, description="of the bootstrap")
    retrained: Path | None = Field(
        None, description="results of a model that never saw the forget set (a folder or file)"
    )
    cache: Path | None = Field(None, description="a folder in which evaluations are kept")
    keep_answers: bool = Field(
        True, description="keep prompts and answers, texts to forget among them, with the results"
    )


@dataclass(frozen=True)
class Evaluation:
    """The result of evaluating one model.

    Attributes:
        values: the metrics' values by ``set/metric``.
        examples: one record per example and metric, for the table of examples.
        intervals: the interval of each value that has one, over examples or groups of them.
        notes: what could not be evaluated, and why.
        data: a digest of each set's rows, by which evaluations of the same data are recognised.
        answers: one record per example, where the settings keep them: ``set`` and ``row``,
            ``prompt`` as the tokens spell it, ``reference`` with its ``tokens`` and their
            ``logps``, and what was ``generated``, or None. They are texts of what must be
            forgotten, and stored nowhere but where a run keeps them.
    """

    values: dict[str, float] = field(default_factory=dict)
    examples: list[dict[str, Any]] = field(default_factory=list)
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    data: dict[str, str] = field(default_factory=dict)
    answers: list[dict[str, Any]] = field(default_factory=list, compare=False)


def check_values(evaluation: Evaluation) -> None:
    """Refuse an evaluation in which nothing has a value: an empty table is no result.

    Raises:
        DataError: with the reasons.
    """
    if not evaluation.values and evaluation.notes:
        raise DataError(f"no metric has a value: {'; '.join(evaluation.notes)}")


class Benchmark(Component):
    """A benchmark: named sets of rows, and the evaluation of a model on them.

    ``metrics`` are those of an evaluation whose settings name none. A metric of these that the sets
    do not allow is left out with a note; a metric that the settings name is then an error.
    """

    metrics: ClassVar[tuple[str | dict[str, Any], ...]] = ()

    @abstractmethod
    def sets(self) -> Mapping[str, Sequence[Row]]:
        """Return the rows of every set by name; a run trains on ``forget`` and ``retain``.

        Raises:
            DataError: a file is missing, or a row cannot be used.
        """

    def check(  # of a benchmark whose evaluation refuses nothing, nothing is to be checked
        self,
        settings: EvaluationSettings,
        template: AnyTemplate,
        tokenizer: PreTrainedTokenizerBase,
        *,
        retrained: bool = False,
    ) -> None:
        """Refuse what :meth:`evaluate` would refuse, as far as that is known without a model.

        ``template`` is the subject's, no longer than its positions; ``retrained`` says whether a
        retrained model will be evaluated beside it.

        Raises:
            AmnesisError: listing what is wrong.
        """
        return

    def cost(self, settings: EvaluationSettings) -> str | None:
        """Return in words what one evaluation takes, as ``--check`` shows it; None: nothing."""
        return None

    @abstractmethod
    def evaluate(
        self,
        subject: Subject,
        settings: EvaluationSettings,
        progress: ProgressCallback | None = None,
        *,
        retrained: Evaluation | None = None,
    ) -> Evaluation:
        """Return the evaluation of a model by the metrics that ``settings`` choose.

        ``progress(what, done, total)`` is called along the way. ``retrained`` is the evaluation of
        a model that never saw the forget set, for metrics that compare with one.
        """
