"""An objective, a combiner and a metric; nothing heavy is imported to list them."""

import amnesis

_HERE = "amnesis_plugin_example"


@amnesis.hookimpl
def register_objectives(register: amnesis.Register) -> None:
    """Register the inverted hinge loss."""
    target = f"{_HERE}.inverted_hinge:InvertedHinge"
    register("inverted_hinge", target, summary="prefer the runner-up to the true token")


@amnesis.hookimpl
def register_combiners(register: amnesis.Register) -> None:
    """Register agreement."""
    target = f"{_HERE}.agreement:Agreement"
    register("agreement", target, summary="the sum where both signs agree, else nothing")


@amnesis.hookimpl
def register_metrics(register: amnesis.Register) -> None:
    """Register first-token accuracy."""
    target = f"{_HERE}.first_token:FirstTokenAccuracy"
    register("first_token", target, summary="whether an answer would begin right")
