"""What people see of audits: the terminal's lines and tables, and the page ``audit.html``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from amnesis.cli import console, print_notes
from amnesis.errors import printable
from amnesis.storage import write_json, write_text

if TYPE_CHECKING:
    from amnesis_evaluation.commands.audit.auditing import Audited
    from amnesis_evaluation.commands.audit.records import LedgerEntry, Outcome, Record
    from amnesis_evaluation.commands.audit.verification import Verification

PAGE, DOCUMENT = "audit.html", "audit.json"
_SHOWN = 3  # violations in a line


def print_audit(audited: Audited, record: Record | None, notes: Sequence[str]) -> None:
    """Print whether a model keeps the policy, by which numbers, and where that is recorded."""
    from rich.table import Table
    from rich.text import Text

    plain = console()
    plain.print(_sentence(audited.outcomes), style="bold", soft_wrap=True)
    table = Table("", "required", "bound", "measured")
    for one in sorted(audited.outcomes, key=lambda outcome: outcome.passed):
        sign = "✓" if one.passed else "✕"
        table.add_row(sign, Text(printable(one.key)), bound_of(one), Text(printable(one.reason)))
    plain.print(table)
    print_notes([*audited.notes, *notes])
    if record is not None:
        plain.print(f"record {record.number}, digest {record.digest}", soft_wrap=True)


def _sentence(outcomes: Sequence[Outcome]) -> str:
    violations = [one for one in outcomes if not one.passed]
    if violations:
        return f"Violated: {len(violations)} of {len(outcomes)} requirements."
    return f"Passed: all {len(outcomes)} requirements."


def bound_of(outcome: Outcome) -> str:
    """Return a bound as a policy says it."""
    of = f" of {outcome.of}" if outcome.of is not None else ""
    return f"{outcome.bound} {outcome.threshold:g}{of}, by {outcome.by}"


def line_of(record: Record) -> str:
    """Return an audit on one line, for logs."""
    violations = record.violations
    word = "passed  " if record.passed else "violated"
    details = [f"{one.key} {one.reason}" for one in violations[:_SHOWN]]
    if len(violations) > _SHOWN:
        details.append(f"{len(violations) - _SHOWN} more")
    end = f": {'; '.join(details)}" if details else ""
    return printable(f"{word} {record.model.name} (record {record.number}){end}")


def print_verification(path: Path, verification: Verification) -> None:
    """Print what a verification found."""
    plain = console()
    count = len(verification.records)
    records = "1 record" if count == 1 else f"{count} records"
    is_whole = all(fault == verification.model_fault for fault in verification.faults)
    said = f"{records}, none altered, missing or out of order"
    plain.print(
        f"{path}: {said if is_whole else 'not as it should be'}", style="bold", soft_wrap=True
    )
    for fault in verification.faults:
        plain.print(f"✕ {printable(fault)}", soft_wrap=True)
    print_notes(verification.notes)


def verification_document(verification: Verification) -> dict[str, Any]:
    """Return a verification as plain values."""
    return {
        "whole": not verification.faults,
        "records": len(verification.records),
        "head": verification.records[-1].digest if verification.records else None,
        "model": None if verification.model is None else verification.model.number,
        "faults": verification.faults,
        "notes": verification.notes,
    }


def print_ledger(entries: Sequence[LedgerEntry]) -> None:
    """Print every request to forget: when it was made, when it was met, by which model."""
    from rich.table import Table
    from rich.text import Text

    table = Table("request", "asked", "status", "first passed", "last passed", "latest model")
    for entry in entries:
        table.add_row(
            Text(entry.id),
            Text(entry.asked),
            entry.status if entry.closed is None else Text(f"closed {entry.closed}"),
            _when(entry.first),
            _when(entry.last),
            "–" if entry.latest is None else Text(_model(entry.latest)),
        )
    console().print(table)


def _when(record: Record | None) -> str:
    return "–" if record is None else f"{record.time[:10]}, record {record.number}"


def _model(record: Record) -> str:
    return printable(f"{record.model.name} ({record.model.fingerprint[:12]})")


def write_page(folder: Path, document: Mapping[str, Any], outcomes: Sequence[Outcome]) -> Path:
    """Write an audit as ``audit.json`` and ``audit.html`` into a folder; return the page's place.

    Raises:
        OutputError: they cannot be written.
    """
    write_json(folder / DOCUMENT, dict(document))
    write_text(folder / PAGE, page(document, outcomes))
    return folder / PAGE


def page(document: Mapping[str, Any], outcomes: Sequence[Outcome]) -> str:
    """Return the page of an audit, whose record's plain values are ``document``."""
    from amnesis_evaluation.pages.rendering import rendered

    violated = [one for one in outcomes if not one.passed]
    return rendered(
        "audit.html",
        page={
            "name": document["model"]["name"],
            "passed": document["passed"],
            "sentence": _sentence(outcomes),
            "outcomes": [(one, bound_of(one)) for one in [*violated, *_passed(outcomes)]],
            "requests": document["requests"],
            "values": [
                (key, value, tuple(ends) if (ends := document["intervals"].get(key)) else None)
                for key, value in document["values"].items()
            ],
            "facts": _facts(document),
            "files": sorted(document["model"]["files"].items()),
            "is_signed": "signature" in document,
            "is_recorded": "digest" in document,
            "require": json.dumps(document["policy"]["require"], indent=1, ensure_ascii=False),
            "document": DOCUMENT,
        },
    )


def _passed(outcomes: Sequence[Outcome]) -> list[Outcome]:
    return [one for one in outcomes if one.passed]


def _facts(document: Mapping[str, Any]) -> list[tuple[str, Any]]:
    model = document["model"]
    facts: list[tuple[str, Any]] = [
        ("model", model["name"]),
        ("revision", model.get("revision")),
        ("fingerprint, SHA-256", model["fingerprint"]),
        ("tokenizer, digest", model["tokenizer"]),
        ("policy", document["policy"]["name"]),
        ("policy, SHA-256", document["policy"]["sha256"]),
        ("command", document["command"]),
        ("time", document.get("time")),
        ("record", document.get("number")),
        ("digest", document.get("digest")),
        ("digest of the record before", document.get("previous")),
        ("signed by", document.get("signature", {}).get("key")),
    ]
    facts += [
        (f"rows of {name}, salted digest", digest)
        for name, digest in document["data"]["sets"].items()
    ]
    facts += list(document["environment"].items())
    return [(name, value) for name, value in facts if value is not None]
