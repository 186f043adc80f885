"""Probes: observers of a run's gradients."""

import amnesis


@amnesis.hookimpl
def register_probes(register: amnesis.Register) -> None:
    """Register every probe of this family."""
    here = "amnesis_plugins.probes"
    register("g_effect", f"{here}.g_effect:GEffect", summary="what a step does to both risks")
