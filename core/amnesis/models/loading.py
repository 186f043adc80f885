"""Models and tokenizers, loaded from a folder or the hub."""

from __future__ import annotations

import re
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator

from amnesis.config.settings import Settings, SpeltOut
from amnesis.errors import ModelError, did_you_mean, first_line
from amnesis.models.devices import default_device
from amnesis.models.quantization import (
    Bits,
    check_quantization,
    keep_differentiable,
    loading_options,
)

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase


MAX_PARTS = 10_000  # layers or experts


class ModelSettings(Settings):
    """Where a model comes from and how it is loaded; a bare text is its path."""

    path: str = Field(min_length=1, description="a local folder or a hub name")
    revision: str | None = Field(None, description="a branch, tag or commit of the hub")
    dtype: Annotated[Literal["auto", "float32", "bfloat16", "float16"], SpeltOut] = Field(
        "auto", description="of the weights; auto: as they were saved"
    )
    attention: Literal["sdpa", "eager", "flash_attention_2"] | None = Field(
        None, description="attention implementation; None: the library's choice"
    )
    quantize: Bits | None = Field(
        None, description="load the weights in 8 or 4 bits (bitsandbytes); only with lora"
    )

    @model_validator(mode="before")
    @classmethod
    def _path(cls, value: Any) -> Any:
        return {"path": value} if isinstance(value, str) else value


def load_tokenizer(
    settings: ModelSettings, *, trust_remote_code: bool = False
) -> PreTrainedTokenizerBase:
    """Return the tokenizer of a model.

    Raises:
        ModelError: the model has no tokenizer, or it cannot be read.
    """
    from transformers import AutoTokenizer

    place = located(settings.path)
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            place, revision=settings.revision, trust_remote_code=trust_remote_code
        )
    except Exception as error:  # transformers and the hub raise many kinds
        raise ModelError(_loading_failure("tokenizer", settings, error)) from error
    return tokenizer


def load_model(
    settings: ModelSettings,
    *,
    device: torch.device | str | None = None,
    trust_remote_code: bool = False,
) -> PreTrainedModel:
    """Return a causal language model, loaded from safetensors weights.

    ``device`` None is :func:`~amnesis.models.devices.default_device`.

    Raises:
        ModelError: the model does not exist, is not causal, has no safetensors weights, or cannot
            be read.
    """
    from transformers import AutoModelForCausalLM

    options: dict[str, Any] = {"dtype": settings.dtype, "use_safetensors": True}
    if settings.attention is not None:
        options["attn_implementation"] = settings.attention
    if settings.quantize is not None:
        check_quantization(settings.quantize, "model.quantize")
        options |= loading_options(settings.quantize, device or default_device())
    place = located(settings.path)
    with suppress(_UnreadableError):  # an adapter's folder, or loading says why
        check_size(_read_config(settings, trust_remote_code), settings.path)
    try:
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            place,
            revision=settings.revision,
            trust_remote_code=trust_remote_code,
            **options,
        )
    except Exception as error:  # transformers and the hub raise many kinds
        raise ModelError(_loading_failure("model", settings, error)) from error
    if settings.quantize is not None:
        keep_differentiable(model)
        return model  # its loading options have put it on its device
    return model.to(device or default_device())


def _loading_failure(what: str, settings: ModelSettings, error: Exception) -> str:
    if Path(located(settings.path)).is_dir():
        return f"the {what} in {settings.path} cannot be loaded: {first_line(error)}"
    return (
        f"the {what} {settings.path!r} is neither a folder here nor could it be had from the hub: "
        f"{first_line(error)}"
    )


def located(path: str) -> str:
    """Return the folder of a model, or a hub name: of a run's folder, the model in it.

    Raises:
        ModelError: it is a file, or can only mean a folder that is not there; near names are said,
            before any hub is asked.
    """
    folder = Path(path).expanduser()
    if folder.is_dir():
        inside = folder / "model"
        holds_one = (inside / "config.json").is_file() or (inside / "adapter_config.json").is_file()
        return str(inside if holds_one and not (folder / "config.json").is_file() else folder)
    if folder.exists():
        raise ModelError(f"{path}: is a file; a model is a folder, give that")
    beside = folder.parent
    near = [place.name for place in _folders(beside) if _looks_like_model(place)]
    is_hub_name = re.fullmatch(r"[\w.-]+(/[\w.-]+)?", path) and not path.startswith(".")
    close = get_close_matches(folder.name, near, n=1, cutoff=0.75)
    if is_hub_name and not close and (beside == Path() or not beside.is_dir()):
        return path
    there = next(parent for parent in (beside, *beside.parents) if parent.is_dir())
    part = folder.relative_to(there).parts[0]
    names = near if there == beside and near else [place.name for place in _folders(there)]
    raise ModelError(f"{path}: there is no such folder; in {there}: {did_you_mean(part, names)}")


def _folders(place: Path) -> list[Path]:
    try:
        return [p for p in place.iterdir() if p.is_dir() and not p.name.startswith(".")]
    except OSError:
        return []


def _looks_like_model(folder: Path) -> bool:
    return any((folder / name).is_file() for name in ("config.json", "model/config.json"))


def check_model(settings: ModelSettings, trust_remote_code: bool) -> PretrainedConfig:
    """Return a model's configuration, having checked that its weights and tokenizer exist.

    Of a model on the hub only the configuration is read.

    Raises:
        ModelError: something is missing, the weights are pickled, or the model is endless.
    """
    folder = Path(located(settings.path))
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise ModelError(f"{settings.path}: is no model's folder, it holds no config.json")
        if not any(file.is_file() for file in folder.glob("*.safetensors")):
            pickled = any(folder.glob("*.bin"))
            why = "pickled weights only (*.bin), which are not read" if pickled else "no weights"
            raise ModelError(f"{settings.path}: holds {why}; save the model as safetensors")
        if not any((folder / n).is_file() for n in ("tokenizer.json", "tokenizer_config.json")):
            raise ModelError(f"{settings.path}: holds no tokenizer; save it beside the model")
    config = _read_config(settings, trust_remote_code)
    check_size(config, settings.path)
    return config


class _UnreadableError(ModelError):
    """There is no configuration, or it cannot be read."""


def _read_config(settings: ModelSettings, trust_remote_code: bool) -> PretrainedConfig:
    from transformers import AutoConfig

    try:
        config: PretrainedConfig = AutoConfig.from_pretrained(
            located(settings.path),
            revision=settings.revision,
            trust_remote_code=trust_remote_code,
        )
    except Exception as error:  # transformers and the hub raise many kinds
        raise _UnreadableError(_loading_failure("model", settings, error)) from None
    return config


def check_size(config: PretrainedConfig, where: str) -> None:
    """Refuse a model of so many layers or experts that it would be built without an end.

    Raises:
        ModelError: naming ``where`` its configuration is, and the key.
    """
    values = config.to_dict()
    for name, part in {"": values, **values}.items():
        for key, value in part.items() if isinstance(part, dict) else ():
            counts = re.match(r"(n|num)_.*(layer|expert)", str(key))
            if counts and isinstance(value, int) and value > MAX_PARTS:
                raise ModelError(
                    f"{where}: its configuration says {key} {value}, and no model has more than "
                    f"{MAX_PARTS}{f' (in {name})' if name else ''}"
                )


def empty_model(config: PretrainedConfig) -> Any:
    """Return a model on the meta device, without memory for weights; None if that fails."""
    import torch
    from transformers import AutoModelForCausalLM

    try:
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config)
    except Exception:  # such a model is checked when it is loaded
        return None
