"""Combiners: how the forget and the retain gradient become one."""

import amnesis


@amnesis.hookimpl
def register_combiners(register: amnesis.Register) -> None:
    """Register the built-in combiners."""
    here = "amnesis_plugins.combiners"
    register("sum", f"{here}.sum:Sum", summary="the weighted sum, the field's baseline")
    register("pcgrad", f"{here}.pcgrad:PCGrad", summary="the forget gradient without its conflict")
    register("sago", f"{here}.sago:SAGO", summary="element by element, the retain sign wins")
    register("blur", f"{here}.blur:BLUR", summary="the retain gradient without its share in f")
    register("ngdiff", f"{here}.ngdiff:NGDiff", summary="both gradients at the same length")
    register("gru", f"{here}.gru:GRU", summary="forgetting alone, rectified by a running mean")
    register("cone", f"{here}.cone:CONE", summary="f inside a cone around r (experimental)")
    register("saliency", f"{here}.saliency:Saliency", summary="a rule where f is large at first")
    register("routing", f"{here}.routing:Routing", summary="a rule, each stream where it belongs")
    register("torchjd", f"{here}.torchjd:TorchJD", summary="torchjd's weightings (optional extra)")
