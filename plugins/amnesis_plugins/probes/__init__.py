"""Probes: observers of a run's gradients and updates."""

import amnesis


@amnesis.hookimpl
def register_probes(register: amnesis.Register) -> None:
    """Register the built-in probes."""
    here = "amnesis_plugins.probes"
    register(
        "g_effect", f"{here}.g_effect:GEffect", summary="what a step's loss does to both risks"
    )
    register(
        "g_effect_update",
        f"{here}.g_effect_update:UpdateGEffect",
        summary="what the update that was applied does to both risks",
    )
    register(
        "g_effect_sets",
        f"{here}.g_effect_sets:SetGEffect",
        summary="what the objective does to both risks on fixed examples, one by one",
    )
