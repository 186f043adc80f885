"""The base of every record that a person writes, in YAML or in Python."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, BeforeValidator, ConfigDict

_SHORT = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


class Settings(BaseModel):
    """A frozen record, validated when it is created; unknown keys and NaN are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def _spelt_out(value: Any) -> Any:
    name = str(value)
    if not (isinstance(value, str) or name.startswith("torch.")):
        return value
    return _SHORT.get(name, name.removeprefix("torch."))


# Before a field's Literal of dtypes: bf16, bfloat16 and torch.bfloat16 are the same.
SpeltOut = BeforeValidator(_spelt_out)
