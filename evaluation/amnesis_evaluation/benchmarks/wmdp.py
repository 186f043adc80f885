"""WMDP: corpora of hazardous knowledge for the streams, and accuracy through lm-eval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from amnesis.contracts import Evaluation, EvaluationSettings, LmEvalSettings, Row, Subject
from amnesis_evaluation.batching import Progress
from amnesis_evaluation.benchmarks.published import published, with_fields
from amnesis_evaluation.benchmarks.sets import SetsBenchmark

Domain = Literal["bio", "cyber"]


class Wmdp(SetsBenchmark):
    """A run trains on the domain's corpora as plain text: give it ``template.format: text``.

    Judged is the accuracy of ``wmdp_<domain>`` by lm-eval's own definition, or of the tasks that
    ``evaluate.lm_eval`` names (``mmlu`` beside it shows what else was lost). The corpora are read
    from a folder or the hub, where the forget corpus on biology is given on request only; the
    questions are hazard proxies and are nowhere kept here. Source: Li et al. 2024,
    arXiv 2403.03218.
    """

    source: ClassVar[str] = "Li et al. 2024, arXiv 2403.03218"
    metrics: ClassVar[tuple[str | dict[str, Any], ...]] = ()

    domain: Domain = Field("bio", description="biosecurity or cybersecurity")
    path: Path | None = Field(None, description="a folder with the corpora; None: the hub")
    items: Path | None = Field(None, description="the domain's questions; None: the hub")
    retain_corpus: str | None = Field(
        None, description="a configuration or file name; None: the domain's retain corpus"
    )

    def sets(self) -> Mapping[str, Sequence[Row]]:
        """Give the forget and the retain corpus."""
        forget = f"{self.domain}-forget-corpus"
        return {
            "forget": self._corpus(forget),
            "retain": self._corpus(self.retain_corpus or f"{self.domain}-retain-corpus"),
        }

    def evaluate(
        self,
        subject: Subject,
        settings: EvaluationSettings,
        progress: Progress | None = None,
        *,
        retrained: Evaluation | None = None,
    ) -> Evaluation:
        """Judge by lm-eval, and by metrics on the corpora where the settings name some."""
        if settings.lm_eval is None:
            task = f"wmdp_{self.domain}"
            data = {} if self.items is None else {task: {"test": self.items}}
            asked = LmEvalSettings(tasks=(task,), data=data)
            settings = settings.model_copy(update={"lm_eval": asked})
        return super().evaluate(subject, settings, progress, retrained=retrained)

    def _corpus(self, name: str) -> Sequence[Row]:
        if name == "bio-forget-corpus":  # a data set of its own, given on request
            rows = published(
                "cais/wmdp-bio-forget-corpus", self.path, name, "train", hub_config="default"
            )
        else:
            rows = published("cais/wmdp-corpora", self.path, name, "train")
        return with_fields(rows, f"WMDP {name}", "text")
