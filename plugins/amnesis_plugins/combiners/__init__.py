"""Combiners: one gradient of the forget and the retain gradient."""

import amnesis


@amnesis.hookimpl
def register_combiners(register: amnesis.Register) -> None:
    """Register every combiner of this family."""
    here = "amnesis_plugins.combiners"
    register("sum", f"{here}.sum:Sum", summary="the weighted sum, the field's baseline")
    register("pcgrad", f"{here}.pcgrad:PCGrad", summary="the forget gradient without its conflict")
    register("sago", f"{here}.sago:SAGO", summary="element by element, the retain sign wins")
