"""Metrics: numbers about what a model knows."""

import amnesis

_METRICS = {
    "probability": ("probability:Probability", "length-normalised probability of the answer"),
    "choice_probability": (
        "choice_probability:ChoiceProbability",
        "probability with options: the answer's share among wrong ones",
    ),
    "rouge_l": ("rouge_l:RougeL", "ROUGE-L recall of the greedy continuation"),
    "rouge_l_f1": ("rouge_l:RougeLF1", "ROUGE-L F1 of the greedy continuation, as in MUSE"),
    "extraction_strength": (
        "extraction_strength:ExtractionStrength",
        "share of the answer that comes by itself",
    ),
    "exact_memorization": (
        "exact_memorization:ExactMemorization",
        "share of label tokens that the model would have written",
    ),
    "truth_ratio": ("truth_ratio:TruthRatio", "R, wrong answers against a right one"),
    "truth_ratio_utility": ("truth_ratio:TruthRatioUtility", "max(0, 1−R), for retained sets"),
    "truth_ratio_forget": ("truth_ratio:TruthRatioForget", "min(R, 1/R), for the forget set"),
    "model_utility": ("model_utility:ModelUtility", "harmonic mean of nine parts on three sets"),
    "forget_quality": (
        "forget_quality:ForgetQuality",
        "KS test of truth ratios against a retrained model",
    ),
    "perplexity": ("perplexity:Perplexity", "of a set's answers"),
    "ngram_entropy": ("ngram_entropy:NgramEntropy", "fluency of what is generated"),
    "mia_loss": ("mia_loss:MiaLoss", "membership inference by loss"),
    "mia_zlib": ("mia_zlib:MiaZlib", "membership inference by loss over zlib length"),
    "mia_min_k": ("mia_min_k:MiaMinK", "membership inference by the least likely tokens"),
    "mia_min_k_plus": ("mia_min_k_plus:MiaMinKPlus", "membership inference by min-k++"),
    "mia_reference": ("mia_reference:MiaReference", "membership inference against a reference"),
    "mia_gradient_norm": (
        "mia_gradient_norm:MiaGradientNorm",
        "membership inference by the example's gradient norm",
    ),
    "recovery": ("recovery:Recovery", "what is left of a utility metric, after over before"),
    "privleak": ("privleak:PrivLeak", "privacy leakage against a retrained model"),
}


@amnesis.hookimpl
def register_metrics(register: amnesis.Register) -> None:
    """Register every metric of this family."""
    for name, (target, summary) in _METRICS.items():
        register(name, f"amnesis_evaluation.metrics.{target}", summary=summary)
