"""A history of audits: lines that are only ever appended, each chained to the one before."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from amnesis.errors import DataError, OutputError
from amnesis.storage import sync_folder, write_json
from amnesis_evaluation.commands.audit.records import SCHEMA, Record, canonical, digest_of
from amnesis_evaluation.commands.audit.signing import sign

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

Receipt = tuple[int, str | None]  # the number and the digest of the last record there was


@dataclass
class Chain:
    """What a history holds.

    Attributes:
        records: its records, in the order of the file.
        faults: what shows that it is not as it was written.
        notes: what a reader must know beside.
        remnants: what stands after the last record and is none: an append was cut off there, or a
            record was altered, which a receipt tells apart.
        is_ended: whether the last line has its end.
    """

    records: list[Record] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    remnants: list[bytes] = field(default_factory=list)
    is_ended: bool = True

    @property
    def head(self) -> tuple[int, str | None]:
        """The last record's number and digest; 0 and None of an empty history."""
        if not self.records:
            return 0, None
        return self.records[-1].number, self.records[-1].digest


def receipt_path(path: Path) -> Path:
    """Return where a history's receipt is: what its last record was, kept outside of the chain."""
    return path.with_name(f"{path.name}.head")


def read_chain(path: Path) -> Chain:
    """Return what a history holds, every fault included.

    Raises:
        DataError: there is no such file, or it cannot be read.
    """
    try:
        return parse_chain(path.read_bytes())
    except FileNotFoundError:
        raise DataError(
            f"{path}: there is no such history; an audit with --history begins one"
        ) from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None


def parse_chain(content: bytes) -> Chain:
    """Return what the bytes of a history hold."""
    *lines, last = content.split(b"\n")
    chain = Chain(is_ended=not last)
    if last:
        lines.append(last)
    number: int | None = 0  # of the record before; None: it cannot be told
    digest: str | None = None
    others: dict[int, tuple[bytes, str]] = {}  # lines before this one that are no records, and why
    for place, line in enumerate(lines, start=1):
        record, fault = _read_line(line)
        if record is None:
            others[place] = line, fault or ""
            continue
        if others and record.interrupted == _interruption([text for text, _ in others.values()]):
            chain.notes.append(
                f"line {min(others)} is what an interrupted append left; record {record.number} "
                f"says so, and nothing is missing"
            )
        elif others:
            chain.faults += [f"line {at}: {why}" for at, (_, why) in others.items()]
            number = None
        others = {}
        if fault is not None:
            chain.faults.append(f"line {place}, record {record.number}: {fault}")
        if number is not None and (gap := _gap(record, number, digest)):
            chain.faults.append(f"line {place}: {gap}")
        chain.records.append(record)
        number, digest = record.number, record.digest
    chain.remnants = [text for text, _ in others.values()]
    return chain


def _read_line(line: bytes) -> tuple[Record | None, str | None]:
    """Return the record on a line, if it is one, and what is wrong with it."""
    try:
        document = json.loads(line)
        record = Record.model_validate(document)
        is_canonical = canonical(document) == line
        right = digest_of(document)
    except ValidationError:
        return None, "is no record of an audit, or it was altered"
    except (ValueError, RecursionError):
        return None, "is not JSON: it was altered"
    if right != record.digest:
        return record, "was altered: its digest is not that of its content"
    if not is_canonical:
        return record, "was altered: it is not written as an audit writes it"
    return record, None


def _interruption(lines: Sequence[bytes]) -> list[dict[str, Any]]:
    return [{"bytes": len(line), "sha256": hashlib.sha256(line).hexdigest()} for line in lines]


def _gap(record: Record, number: int, digest: str | None) -> str | None:
    """Return what is wrong with a record in its place after another (0 and None: after none)."""
    before = f"follows record {number}" if number else "is the first"
    if record.number > number + 1:
        gap = range(number + 1, record.number)
        what = f"record {gap[0]} is" if len(gap) == 1 else f"records {gap[0]} to {gap[-1]} are"
        return f"record {record.number} {before}: {what} missing"
    if record.number <= number:
        return f"record {record.number} {before}: they are not in order, or one was put in"
    if record.previous != digest:
        return (
            f"record {record.number} does not continue what stands before it: a record there was "
            f"replaced"
        )
    return None


def check_whole(path: Path, chain: Chain) -> None:
    """Refuse to go on with a history that is not as it was written.

    Raises:
        DataError: it is not, or its receipt says that records are missing at its end.
    """
    receipt = read_receipt(receipt_path(path))
    if faults := faults_of(chain, [] if receipt is None else [receipt]):
        raise DataError(
            f"{path}: is not as it was written, and nothing is appended to it: {faults[0]}; "
            f"restore it, or begin another history"
        )


def faults_of(chain: Chain, receipts: Sequence[Receipt]) -> list[str]:
    """Return all that shows that a history is not as it was written, by these receipts too."""
    faults = [*chain.faults, *(fault for one in receipts for fault in _receipt_faults(chain, one))]
    # Whoever knows what the last record was knows that what follows it never was one.
    is_explained = not chain.records or chain.head in receipts
    if chain.remnants and not is_explained:
        faults.append(
            f"what follows record {chain.head[0]} is no record: an append was interrupted, or a "
            f"record was altered; its receipt, the file beside it that ends in .head, tells which"
        )
    return faults


def read_receipt(path: Path) -> Receipt | None:
    """Return a receipt; None where there is no such file.

    Raises:
        DataError: it cannot be read, or is no receipt.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(document["number"], int) and isinstance(document["digest"], str):
            return document["number"], document["digest"]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        pass
    raise DataError(f"{path}: is no receipt of an audit; restore it, or delete it if you know why")


def _receipt_faults(chain: Chain, receipt: Receipt) -> list[str]:
    """Return what a receipt shows of a history: records missing at the end, or another chain."""
    number, _ = receipt
    if any((record.number, record.digest) == receipt for record in chain.records):
        return []
    last, _ = chain.head
    if last < number:
        gap = f"record {number} is" if last == number - 1 else f"records {last + 1} to {number} are"
        return [f"it ends with record {last}, but the receipt is of record {number}: {gap} missing"]
    return [f"record {number} is not the one that the receipt is of: it was replaced"]


def append(
    path: Path, body: Mapping[str, Any], key: Ed25519PrivateKey | None = None
) -> tuple[Record, list[str]]:
    """Append the record of an audit to a history, which begins with it if there is none.

    What ``body`` lacks is added here: time, number, the digests and the signature. Appends wait
    for each other. Return the record, and notes.

    Raises:
        DataError: the history is not as it was written.
        OutputError: it cannot be written.
    """
    try:
        with _locked(path) as descriptor:
            with os.fdopen(os.dup(descriptor), "rb") as file:
                file.seek(0)
                chain = parse_chain(file.read())
            check_whole(path, chain)
            number, previous = chain.head
            document: dict[str, Any] = {
                **body,
                "schema": SCHEMA,
                "number": number + 1,
                "time": datetime.now(UTC).isoformat(timespec="seconds"),
                "previous": previous,
            }
            notes = []
            if chain.remnants:
                document["interrupted"] = _interruption(chain.remnants)
                notes = ["an append before this one was interrupted; the record says so"]
            document["digest"] = digest_of(document)
            if key is not None:
                document["signature"] = sign(number + 1, document["digest"], key)
            line = canonical(document) + b"\n"
            _append(descriptor, line if chain.is_ended else b"\n" + line)
            sync_folder(path.parent)
            receipt = {name: document.get(name) for name in ("number", "digest", "signature")}
            write_json(receipt_path(path), {k: v for k, v in receipt.items() if v is not None})
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror}") from error
    return Record.model_validate(document), notes


@contextmanager
def _locked(path: Path) -> Iterator[int]:
    """Yield a descriptor of the history, which nobody else appends to meanwhile."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Names of sets and scores may tell something of what had to go: readable by the owner alone.
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)


def _append(descriptor: int, content: bytes) -> None:
    """Write at the end, through to the disk; what cannot be written whole is not written."""
    end = os.fstat(descriptor).st_size
    try:
        while content:
            content = content[os.write(descriptor, content) :]
        os.fsync(descriptor)
    except OSError:
        os.ftruncate(descriptor, end)  # nothing but our own beginning goes
        raise
