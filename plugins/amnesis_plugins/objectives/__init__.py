"""Objectives: the terms of the forget stream."""

import amnesis


@amnesis.hookimpl
def register_objectives(register: amnesis.Register) -> None:
    """Register every objective of this family."""
    here = "amnesis_plugins.objectives"
    register("ga", f"{here}.ga:GradientAscent", summary="gradient ascent on the forget set")
    register("npo", f"{here}.npo:NPO", summary="negative preference optimization")
    register(
        "wga", f"{here}.wga:WGA", summary="gradient ascent weighted by the token's probability"
    )
