"""Metrics: numbers about what a model knows."""

import amnesis


@amnesis.hookimpl
def register_metrics(register: amnesis.Register) -> None:
    """Register every metric of this family."""
    here = "amnesis_evaluation.metrics"
    register(
        "probability",
        f"{here}.probability:Probability",
        summary="length-normalised probability of the answer",
    )
    register(
        "rouge_l", f"{here}.rouge_l:RougeL", summary="ROUGE-L recall of the greedy continuation"
    )
    register(
        "extraction_strength",
        f"{here}.extraction_strength:ExtractionStrength",
        summary="share of the answer that comes by itself",
    )
