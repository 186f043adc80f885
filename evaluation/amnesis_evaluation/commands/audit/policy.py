"""``policy.yaml``: what a model must and must not know, and how that is measured."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, field_validator, model_validator

from amnesis.config.settings import Settings
from amnesis.contracts import EvaluationSettings
from amnesis.data.sources import Source
from amnesis.data.templates import AnyTemplate
from amnesis.errors import OutputError, RecipeError
from amnesis.runs.recipe import BaseRecipe, Named
from amnesis_evaluation.commands.audit.records import By

REQUEST = "request"  # what the keys of requirements on every request begin with
# Keys of `evaluate` that are a run's: an audit evaluates once, anew, and keeps no texts.
_OF_RUNS = ("every", "during", "cache", "keep_answers")
_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,63}", re.ASCII)


class Requirement(Settings):
    """The bounds that a value must keep."""

    max: float | None = Field(None, description="the value is at most this")
    min: float | None = Field(None, description="the value is at least this")
    max_ratio: float | None = Field(
        None, gt=0, description="the value is at most so many times the one that `of` names"
    )
    min_ratio: float | None = Field(
        None, gt=0, description="the value is at least so many times the one that `of` names"
    )
    of: str | None = Field(
        None, description="a name in `against`: the earlier record or results that a ratio is to"
    )
    by: By | None = Field(
        None,
        description="what is compared: the worse end of the value's interval, or the value alone; "
        "None: interval, so that chance in the rows passes nobody, but value of a request, whose "
        "rows are all that there are",
    )

    @model_validator(mode="after")
    def _bounds_something(self) -> Self:
        ratios = self.max_ratio is not None or self.min_ratio is not None
        if not ratios and self.max is None and self.min is None:
            raise ValueError("give a bound: max, min, max_ratio or min_ratio")
        if ratios and self.of is None:
            raise ValueError("a ratio is to an earlier value: name the record, as in of: before")
        if self.of is not None and not ratios:
            raise ValueError("of belongs to max_ratio or min_ratio")
        return self

    def compares(self, key: str) -> By:
        """Return what is compared of the value called ``key``."""
        return self.by or ("value" if key.startswith(f"{REQUEST}/") else "interval")


class Request(Settings):
    """Somebody's request that data be forgotten."""

    id: str = Field(description="what the request is called: no name or text of a person")
    asked: date = Field(description="when it was made, as 2026-03-02")
    forget: Annotated[list[Source], Field(min_length=1)] | None = Field(
        None, description="the rows to be forgotten: a file, or what a recipe's stream takes"
    )
    closed: date | None = Field(
        None, description="since when its data are no longer kept, so that nothing is measured"
    )

    @field_validator("id")
    @classmethod
    def _check_id(cls, name: str) -> str:
        if not _ID.fullmatch(name):
            raise ValueError("use letters, digits, '.', '_' and '-' alone, at most 64 of them")
        return name

    @field_validator("forget", mode="before")
    @classmethod
    def _as_list(cls, value: Any) -> Any:
        return value if value is None or isinstance(value, list) else [value]

    @model_validator(mode="after")
    def _has_data(self) -> Self:
        if (self.forget is None) == (self.closed is None):
            raise ValueError("give forget, the rows, or closed, the day on which they were deleted")
        return self

    @property
    def set_name(self) -> str:
        """What its rows are called in the evaluation."""
        return f"{REQUEST}/{self.id}"


class Policy(BaseRecipe):
    """What is required of a model, and the evaluation that shows whether it is so."""

    benchmark: Named = Field(description="names the sets, and evaluates; as in a recipe")
    template: AnyTemplate | None = Field(
        None, description="how rows become prompts; None: as the model's own recipe or card says"
    )
    evaluate: EvaluationSettings = Field(
        default_factory=EvaluationSettings, description="what is evaluated; as in a recipe"
    )
    attacks: list[Named] = Field(
        default_factory=list, description="attacks under which it is evaluated; as in a recipe"
    )
    require: dict[str, Requirement] = Field(
        min_length=1,
        description="bounds by value: set/metric, metric (of several sets), attack/set/metric, "
        "lm_eval/task/metric, or request/metric, of every request",
    )
    against: dict[str, str] = Field(
        default_factory=dict,
        description="earlier values that ratios are to: a run's or evaluation's folder, or a "
        "record's number in the history",
    )
    requests: list[Request] = Field(
        default_factory=list, description="requests to forget, each of which is evaluated"
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        for key in _OF_RUNS:
            if key in self.evaluate.model_fields_set:
                raise ValueError(
                    f"evaluate.{key}: has no place in a policy: an audit evaluates once, anew, and "
                    f"keeps no texts"
                )
        if isinstance(self.benchmark, dict):
            for key, value in self.benchmark.items():
                if isinstance(value, list) and any(isinstance(one, dict) for one in value):
                    raise ValueError(
                        f"benchmark.{key}: holds rows; name a file of them, for a policy is shown "
                        f"to whoever verifies an audit"
                    )
        names = [request.id for request in self.requests]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"requests: the id {twice!r} stands there twice")
        if any(one.forget for one in self.requests) and not self.request_keys():
            raise ValueError(
                f"require: says nothing of requests; add a bound such as "
                f"{REQUEST}/extraction_strength: {{max: 0.1}}"
            )
        return self

    def request_keys(self) -> dict[str, Requirement]:
        """Return the requirements on every request, by metric."""
        prefix = f"{REQUEST}/"
        return {
            key.removeprefix(prefix): requirement
            for key, requirement in self.require.items()
            if key.startswith(prefix)
        }


@dataclass(frozen=True, kw_only=True)
class PolicyFile:
    """A policy as it was read: the file's name and SHA-256, and the salt beside it."""

    policy: Policy
    name: str
    sha256: str
    salt: bytes

    def salted(self, digest: str) -> str:
        """Return a digest that only who has the salt can make of the data's own digest.

        Short rows could be guessed from an unsalted one, by trying.
        """
        return hmac.new(self.salt, digest.encode(), "sha256").hexdigest()

    @property
    def salt_digest(self) -> str:
        """What the salt is recognised by."""
        return hashlib.sha256(self.salt).hexdigest()


def read_policy(path: Path) -> PolicyFile:
    """Return a policy, with the salt beside it, which is made where there is none.

    Raises:
        RecipeError: the policy cannot be read, or something in it is wrong.
        OutputError: there is no salt, and none can be written.
    """
    if not path.exists():
        raise RecipeError(f"{path}: there is no such policy")
    policy = Policy.load(path)
    return PolicyFile(
        policy=policy,
        name=path.name,
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        salt=_salt(path.with_name(f"{path.name}.salt")),
    )


def _salt(path: Path) -> bytes:
    """Return the salt in a file, or a new one in it; of several processes all get the same."""
    try:
        if not path.exists():
            with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=f".{path.name}") as file:
                file.write(f"{secrets.token_hex(32)}\n")
                file.flush()
                os.fsync(file.fileno())
                with suppress(FileExistsError):
                    os.link(file.name, path)
        salt = bytes.fromhex(path.read_text(encoding="ascii"))
    except OSError as error:
        raise OutputError(
            f"{path}: the salt of the data's digests cannot be had: {error.strerror}"
        ) from error
    except ValueError:
        salt = b""
    if len(salt) < 16:
        raise RecipeError(
            f"{path}: is no salt of an audit; restore it, or delete it: the digests of data are "
            f"then others than before"
        )
    return salt
