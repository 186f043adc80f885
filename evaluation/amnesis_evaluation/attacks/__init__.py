"""Attacks: attempts to recover what a model was made to forget."""

import amnesis


@amnesis.hookimpl
def register_attacks(register: amnesis.Register) -> None:
    """Register the attacks of this package."""
    here = "amnesis_evaluation.attacks"
    register(
        "relearning", f"{here}.relearning:Relearning", summary="a few steps on forget examples"
    )
    register("quantization", f"{here}.quantization:Quantization", summary="weights in 8 or 4 bits")
    register("paraphrase", f"{here}.paraphrase:Paraphrase", summary="the questions in other words")
    register("sampling", f"{here}.sampling:Sampling", summary="the worst of n sampled answers")
