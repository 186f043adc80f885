"""The device that a model computes on."""

from __future__ import annotations

from amnesis.errors import RecipeError


def default_device() -> str:
    """Return the accelerator where there is one (each rank has its own), else ``cpu``."""
    import torch

    from amnesis.distributed.processes import world

    if world()[1] > 1:
        from accelerate import PartialState

        return str(PartialState().device)
    if torch.accelerator.is_available():
        accelerator = torch.accelerator.current_accelerator()
        return str(accelerator) if accelerator is not None else "cpu"
    return "cpu"


def check_device(device: str | None) -> str:
    """Return the device to compute on: ``device``, or the default one for None.

    Raises:
        RecipeError: the device cannot be used on this machine.
    """
    import torch

    if device is None:
        return default_device()
    try:
        torch.empty(0, device=torch.device(device))
    except (RuntimeError, AssertionError) as error:
        first = str(error).splitlines()[0]
        raise RecipeError(f"{device!r} cannot be used here: {first}; say --device cpu") from None
    return device
