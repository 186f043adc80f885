"""A record of one audit: what it holds, how it is written, and what all records together say."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from amnesis.runs.results import Values

SCHEMA = "amnesis.audit/1"
OUTSIDE = ("digest", "signature")  # of a record's digest

Bound = Literal["max", "min", "max_ratio", "min_ratio"]
By = Literal["interval", "value"]


class Part(BaseModel):
    """A part of a record; keys that a later version wrote are kept."""

    model_config = ConfigDict(extra="allow", frozen=True)


class FileDigest(Part):
    """A file of a model."""

    bytes: int
    sha256: str


class ModelIdentity(Part):
    """What an audited model is recognised by.

    Attributes:
        name: how it was called.
        revision: the commit of a model from the hub.
        fingerprint: SHA-256 of all that its forward pass depends on.
        tokenizer: a digest of its tokenizer.
        template: how it was asked.
        files: its files, by their names in its folder.
    """

    name: str
    revision: str | None = None
    fingerprint: str
    tokenizer: str
    template: dict[str, Any]
    files: dict[str, FileDigest] = Field(default_factory=dict)


class Outcome(Part):
    """Whether a value keeps one bound of the policy.

    Attributes:
        key: the value's name, as the evaluation has it.
        bound: the kind of bound.
        threshold: its number.
        by: whether the value was compared, or the worse end of its interval.
        of: the earlier values' name, where the bound is a ratio to one of them.
        reference: that earlier value.
        measured: what was compared, the ratio where it is one; None: it was not measured.
        passed: whether the bound is kept.
        reason: in words.
    """

    key: str
    bound: Bound
    threshold: float
    by: By
    of: str | None = None
    reference: float | None = None
    measured: float | None
    passed: bool
    reason: str


class RequestOutcome(Part):
    """What became of a request to forget; ``passed`` is None where its data are no longer kept."""

    id: str
    asked: str
    closed: str | None = None
    data: str | None = None
    passed: bool | None


class PolicyPart(Part):
    """The policy that was in force: its file's SHA-256, and what it requires."""

    name: str
    sha256: str
    require: dict[str, dict[str, Any]]


class DataPart(Part):
    """Salted digests of the rows of each set, and of the salt."""

    salt: str
    sets: dict[str, str]


class SignaturePart(Part):
    """An Ed25519 signature, and the public key that it is by; both hexadecimal."""

    key: str
    ed25519: str


class Record(Part):
    """One audit, as a line of a history holds it.

    ``number`` counts from 1, ``previous`` is the digest of the record before. ``interrupted`` says
    what appends that were cut off left on the lines before: how many bytes, with what SHA-256.
    """

    schema_: Literal["amnesis.audit/1"] = Field(alias="schema")
    number: int = Field(ge=1)
    time: str
    command: str
    environment: dict[str, str | int]
    model: ModelIdentity
    policy: PolicyPart
    data: DataPart
    against: dict[str, dict[str, Any]]
    values: Values
    intervals: dict[str, tuple[float, float]]
    outcomes: list[Outcome]
    requests: list[RequestOutcome]
    passed: bool
    interrupted: list[dict[str, Any]] | None = None
    previous: str | None
    digest: str
    signature: SignaturePart | None = None

    @property
    def violations(self) -> list[Outcome]:
        """The outcomes that violate the policy."""
        return [outcome for outcome in self.outcomes if not outcome.passed]


def canonical(value: Any) -> bytes:
    """Return the one way in which a JSON value is written: ASCII, keys sorted, without spaces.

    Floats are written as Python does: by the fewest digits that tell them from every other.

    Raises:
        ValueError: a number is not finite.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return text.encode("ascii")


def digest_of(record: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a record as plain values, but for its digest and its signature."""
    content = {key: value for key, value in record.items() if key not in OUTSIDE}
    return hashlib.sha256(canonical(content)).hexdigest()


@dataclass(frozen=True, kw_only=True)
class LedgerEntry:
    """A request to forget: when it was made, when it was first and last seen to be met.

    ``first`` and ``last`` are the records in which it passed, ``latest`` is the newest in which it
    was measured, ``closed`` is since when its data are no longer kept.
    """

    id: str
    asked: str
    closed: str | None
    first: Record | None
    last: Record | None
    latest: Record | None

    @property
    def status(self) -> Literal["closed", "open", "forgotten", "came back"]:
        """Where the request stands."""
        if self.closed is not None:
            return "closed"
        if self.first is None:
            return "open"
        return "forgotten" if self.last is self.latest else "came back"

    def document(self) -> dict[str, Any]:
        """Return the entry as plain values."""
        when: dict[str, Any] = {
            name: None
            if record is None
            else {
                "record": record.number,
                "time": record.time,
                "model": record.model.name,
                "fingerprint": record.model.fingerprint,
            }
            for name, record in (
                ("first_passed", self.first),
                ("last_passed", self.last),
                ("latest", self.latest),
            )
        }
        return {
            "id": self.id,
            "asked": self.asked,
            "closed": self.closed,
            "status": self.status,
            **when,
        }


def ledger_of(records: Sequence[Record]) -> list[LedgerEntry]:
    """Return what records say of every request to forget, in the order of their first mention."""
    mentions: dict[str, list[tuple[Record, RequestOutcome]]] = {}
    for record in records:
        for outcome in record.requests:
            mentions.setdefault(outcome.id, []).append((record, outcome))
    entries = []
    for name, mentioned in mentions.items():
        passes = [record for record, outcome in mentioned if outcome.passed]
        measured = [record for record, outcome in mentioned if outcome.passed is not None]
        newest = mentioned[-1][1]
        entries.append(
            LedgerEntry(
                id=name,
                asked=newest.asked,
                closed=newest.closed,
                first=passes[0] if passes else None,
                last=passes[-1] if passes else None,
                latest=measured[-1] if measured else None,
            )
        )
    return entries
