"""Checking a history, its signatures, and whether a model is the one that was audited."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from amnesis.runs.subject import load_subject
from amnesis_evaluation.commands.audit.history import Receipt, faults_of, read_chain
from amnesis_evaluation.commands.audit.identity import digests_of, identity_of, is_all_in_files
from amnesis_evaluation.commands.audit.records import Record
from amnesis_evaluation.commands.audit.signing import has_cryptography, is_signed_by

if TYPE_CHECKING:
    from amnesis.runs.subject import ModelPlace

# Another release of these may compute a model, and so its fingerprint, otherwise.
_LIBRARIES = ("torch", "transformers", "peft")


@dataclass
class Verification:
    """What was checked: the records, what is wrong, what is to be known beside.

    ``model`` is the newest record of the model that was asked about, ``model_fault`` the one of the
    faults that is the model's and not the history's.
    """

    records: list[Record]
    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    model: Record | None = None
    model_fault: str | None = None

    def blame_model(self, fault: str) -> None:
        """Add what is wrong with the model that was asked about."""
        self.model_fault = fault
        self.faults.append(fault)


def verify_history(
    path: Path, receipts: Sequence[Receipt], public_keys: Sequence[str]
) -> Verification:
    """Check a history: every byte, the order, the end as far as receipts tell, the signatures.

    Raises:
        DataError: there is no such file.
    """
    chain = read_chain(path)
    verification = Verification(chain.records, faults_of(chain, receipts), list(chain.notes))
    if not chain.records:
        verification.faults.append("it holds no record")
    if not receipts:
        verification.notes.append(
            "no receipt was given: that records are missing at the end would not show"
        )
    _check_signatures(verification, public_keys)
    return verification


def _check_signatures(verification: Verification, public_keys: Sequence[str]) -> None:
    """Add what is wrong with signatures; without public keys, whose they are is not checked."""
    signed = [record for record in verification.records if record.signature is not None]
    if signed and not has_cryptography():
        verification.notes.append(
            "signatures were not checked: that needs cryptography: pip install 'amnesis[audit]'"
        )
        return
    was_signed = False
    for record in verification.records:
        fault = _signature_fault(record, public_keys, was_signed)
        if fault is not None:
            verification.faults.append(f"record {record.number}: {fault}")
        was_signed = was_signed or record.signature is not None
    if public_keys:
        return
    if not signed:
        verification.notes.append(
            "no record is signed: whoever can write the file can write another history"
        )
        return
    keys = dict.fromkeys(one.signature.key[:16] for one in signed if one.signature is not None)
    verification.notes.append(
        f"signed by {', '.join(keys)}…: whose key that is was not checked; give --public-key"
    )


def _signature_fault(record: Record, public_keys: Sequence[str], was_signed: bool) -> str | None:
    if record.signature is None:
        if public_keys or was_signed:
            return "is not signed" + ("" if public_keys else ", but a record before it is")
        return None
    key = record.signature.key
    if not is_signed_by(record.number, record.digest, key, record.signature.ed25519):
        return "its signature is wrong"
    if public_keys and key not in public_keys:
        return f"is signed by another key, {key[:16]}…"
    return None


def verify_model(
    verification: Verification,
    place: ModelPlace,
    *,
    device: str | None = None,
    trust_remote_code: bool = False,
) -> None:
    """Find the newest record of a model: by its files, else by weights and tokenizer.

    That there is none, or that the model violated the policy then, is added to the faults.

    Raises:
        ModelError: the model cannot be loaded.
    """
    folder = Path(place.path)
    files = digests_of(folder)
    if files and is_all_in_files(folder):
        matches = [one for one in verification.records if one.model.files == files]
        if matches:
            _settle(verification, matches[-1], place.path, "file by file")
            return
    loaded = load_subject(place, device=device, trust_remote_code=trust_remote_code)
    identity = identity_of(loaded.subject, place.path)
    matches = [
        record
        for record in verification.records
        if (record.model.fingerprint, record.model.tokenizer)
        == (identity.fingerprint, identity.tokenizer)
    ]
    if matches:
        names = {*files, *matches[-1].model.files}
        others = sorted(n for n in names if files.get(n) != matches[-1].model.files.get(n))
        how = "by weights and tokenizer"
        if others:
            how += f"; these of its files are others: {', '.join(others)}"
        _settle(verification, matches[-1], place.path, how)
        return
    namesakes = [record for record in verification.records if record.model.name == place.path]
    text = f"{place.path}: is none of the models that were audited"
    if namesakes:
        text += f", though record {namesakes[-1].number} is of one by that name"
    verification.blame_model(text)
    if verification.records:
        verification.notes += _other_libraries((namesakes or verification.records)[-1])


def _settle(verification: Verification, record: Record, name: str, how: str) -> None:
    verification.model = record
    which = f"{name}: is the model of record {record.number}"
    kept = ", which passed" if record.passed else ""
    verification.notes.append(f"{which}, of {record.time}{kept} ({how})")
    if not record.passed:
        verification.blame_model(f"{which}, which violates the policy")


def _other_libraries(record: Record) -> list[str]:
    """Return a note where other releases alone may be why a fingerprint differs."""
    others = [
        f"{name} {record.environment[name]} there, {version(name)} here"
        for name in _LIBRARIES
        if name in record.environment and record.environment[name] != version(name)
    ]
    if not others:
        return []
    return [
        f"a model saved otherwise is recognised with the same libraries alone: {'; '.join(others)}"
    ]
