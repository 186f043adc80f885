"""``amnesis audit``: does a model keep a policy, on the record; and is that record still whole."""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from amnesis_evaluation.commands import inputs

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from amnesis.contracts import ProgressCallback
    from amnesis.runs.subject import ModelPlace
    from amnesis_evaluation.commands.audit.auditing import Audited
    from amnesis_evaluation.commands.audit.plan import Plan
    from amnesis_evaluation.commands.audit.records import Record

T = TypeVar("T")

VIOLATED, WRONG_INPUT = 3, 2
# The options of each way to use the command, beside MODEL; the first that is given decides.
_ALWAYS = {"history", "as_json"}
_LOADING = {"device", "trust_remote_code"}
_USES = {
    "--verify": {"verify", "model", "public_key", "head", *_ALWAYS, *_LOADING},
    "--ledger": {"ledger", *_ALWAYS},
    "--watch": {"watch", "once", "interval", "policy", "against", "key", *_ALWAYS, *_LOADING},
    "an audit": {"model", "policy", "against", "key", "out", "overwrite", *_ALWAYS, *_LOADING},
}


def audit(  # long for its options: each is a line of --help
    context: typer.Context,
    model: Annotated[
        str | None, typer.Argument(help="A model's folder or hub name, or a run's folder.")
    ] = None,
    policy: Annotated[
        Path | None, typer.Option(help="What is required, and how it is measured (YAML).")
    ] = None,
    history: Annotated[
        Path | None, typer.Option(help="Append a record to this file (JSON Lines).")
    ] = None,
    against: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=RECORD",
            help="Earlier values that ratios are of: a run's or evaluation's folder, or the number "
            "of a record in the history; repeatable.",
        ),
    ] = None,
    key: Annotated[
        Path | None, typer.Option(help="Sign the record with this Ed25519 key (PEM).")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for audit.html and audit.json.")] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace an earlier page there.")] = False,
    watch: Annotated[
        Path | None,
        typer.Option(help="Audit every model in this folder that is complete and new."),
    ] = None,
    once: Annotated[
        bool, typer.Option("--once", help="With --watch: look once, then end (for cron and CI).")
    ] = False,
    interval: Annotated[
        float, typer.Option(min=1, help="With --watch: seconds between two looks.")
    ] = 30.0,
    verify: Annotated[
        bool,
        typer.Option(
            "--verify", help="Check a history, and whether MODEL is one of those audited in it."
        ),
    ] = False,
    public_key: Annotated[
        list[Path] | None,
        typer.Option(help="With --verify: whose signature records must have (PEM); repeatable."),
    ] = None,
    head: Annotated[
        Path | None,
        typer.Option(
            help="With --verify: the receipt of a record that must be there.",
            show_default="HISTORY.head, where there is one",
        ),
    ] = None,
    ledger: Annotated[
        bool, typer.Option("--ledger", help="List all requests to forget in a history.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    device: inputs.Device = None,
    trust_remote_code: inputs.TrustRemoteCode = False,
) -> None:
    """Check a model against a policy, and record the outcome so that others can verify it.

    The exit code is 0 where all requirements are kept and 3 where one is violated or was not
    measured; of --verify it is 3 where the history or the model is not what it should be. A key is
    made by 'openssl genpkey -algorithm ed25519 -out audit.key', its public one by 'openssl pkey -in
    audit.key -pubout -out audit.pub'.
    """
    use = _check_use(context)
    machine = {"device": device, "trust_remote_code": trust_remote_code}
    if use == "--verify":
        _verify(model, _needed(history, "--history"), public_key or [], head, as_json, machine)
    elif use == "--ledger":
        _show_ledger(_needed(history, "--history"), as_json)
    else:
        if use == "--watch":
            history = _needed(history, "--history")
        session = _Session.of(
            context, _needed(policy, "--policy"), history, against or [], key, machine
        )
        if watch is not None:
            _watch(session, watch, interval, once=once, as_json=as_json)
        else:
            _audit(session, _needed(model, "MODEL"), out, overwrite=overwrite, as_json=as_json)


def _check_use(context: typer.Context) -> str:
    """Return which way the command is used, having refused options that have no meaning in it."""
    from amnesis.errors import RecipeError

    texts: dict[str, str] = {}
    for parameter in context.command.params:
        name = str(parameter.name)
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            texts[name] = "MODEL" if name == "model" else str(parameter.opts[0])
    use = next((u for u in _USES if u.removeprefix("--") in texts), "an audit")
    if others := [text for name, text in texts.items() if name not in _USES[use]]:
        raise RecipeError(f"{', '.join(others)}: of no meaning for {use}; leave it out")
    if "key" in texts and "history" not in texts:
        raise RecipeError("--key signs the record in a history; name one with --history")
    return use


def _needed(value: T | None, what: str) -> T:
    from amnesis.errors import RecipeError

    if value is None:
        raise RecipeError(f"name {what}; see 'amnesis audit --help'")
    return value


def _command(context: typer.Context) -> str:
    """Return what was called, as a line for a shell."""
    words = ["amnesis", "audit"]
    for parameter in context.command.params:
        source = context.get_parameter_source(str(parameter.name))
        if source is None or source.name != "COMMANDLINE":
            continue
        value = context.params[str(parameter.name)]
        if parameter.param_type_name == "argument":
            words.append(str(value))
        elif isinstance(value, bool):
            words.append(str(parameter.opts[0]))
        else:
            for one in value if isinstance(value, list | tuple) else [value]:
                words += [str(parameter.opts[0]), str(one)]
    return shlex.join(words)


@dataclass(frozen=True, kw_only=True)
class _Session:
    """What all audits of one call share."""

    plan: Plan
    history: Path | None
    key: Ed25519PrivateKey | None
    command: str
    machine: dict[str, Any]
    notes: list[str]

    @classmethod
    def of(
        cls,
        context: typer.Context,
        policy: Path,
        history: Path | None,
        against: Sequence[str],
        key: Path | None,
        machine: dict[str, Any],
    ) -> _Session:
        """Read and check all that can be without a model.

        Raises:
            AmnesisError: something is wrong with it.
        """
        from amnesis.cli import quiet_libraries, registry_of
        from amnesis_evaluation.commands.audit.history import check_whole, read_chain
        from amnesis_evaluation.commands.audit.plan import prepare_audit
        from amnesis_evaluation.commands.audit.policy import read_policy
        from amnesis_evaluation.commands.audit.signing import read_private_key

        quiet_libraries()
        file = read_policy(policy)
        records: Sequence[Record] = []
        if history is not None and history.exists():
            chain = read_chain(history)
            check_whole(history, chain)
            records = chain.records
        private, warning = (None, None) if key is None else read_private_key(key)
        return cls(
            plan=prepare_audit(file, _pairs(against), records, registry_of(context)),
            history=history,
            key=private,
            command=_command(context),
            machine=machine,
            notes=[] if warning is None else [warning],
        )

    def audit(self, place: ModelPlace, progress: ProgressCallback | None) -> _Audit:
        """Audit a model, and append the record where there is a history."""
        from amnesis_evaluation.commands.audit.auditing import audit_model
        from amnesis_evaluation.commands.audit.history import append

        audited = audit_model(self.plan, place, self.command, progress=progress, **self.machine)
        if self.history is None:
            return _Audit(audited, None, audited.body, [*self.notes])
        record, notes = append(self.history, audited.body, self.key)
        document = record.model_dump(mode="json", by_alias=True, exclude_unset=True)
        return _Audit(audited, record, document, [*self.notes, *notes])


@dataclass(frozen=True)
class _Audit:
    """An audit, its record, that as plain values, and what is to be noted of it."""

    audited: Audited
    record: Record | None
    document: dict[str, Any]
    notes: list[str]


def _pairs(texts: Sequence[str]) -> dict[str, str]:
    from amnesis.errors import RecipeError

    pairs = {}
    for text in texts:
        name, equals, place = text.partition("=")
        if not (name and equals and place):
            raise RecipeError(f"--against {text!r}: write NAME=RECORD, as in before=runs/first")
        pairs[name] = place
    return pairs


def _audit(
    session: _Session, model: str, out: Path | None, *, overwrite: bool, as_json: bool
) -> None:
    from amnesis.cli import ProgressBars, console
    from amnesis.runs.subject import ModelPlace
    from amnesis_evaluation.commands.audit.shown import DOCUMENT, PAGE, print_audit, write_page

    place = ModelPlace.of(model)
    if out is not None:
        inputs.check_place(out, [DOCUMENT, PAGE], overwrite=overwrite)
        inputs.make_place(out)
    with ProgressBars() as progress:
        done = session.audit(place, progress)
    page = None
    if out is not None:
        page = write_page(out, done.document, done.audited.outcomes)
    if as_json:
        print(json.dumps(done.document, indent=1, ensure_ascii=False))
    else:
        print_audit(done.audited, done.record, done.notes)
        if page is not None:
            console().print(str(page), soft_wrap=True)
    if not done.audited.passed:
        raise typer.Exit(VIOLATED)


def _watch(session: _Session, folder: Path, interval: float, *, once: bool, as_json: bool) -> None:
    """Audit what is new in a folder, a line for each; once, or until interrupted."""
    from amnesis.errors import RecipeError

    if not folder.is_dir():
        raise RecipeError(f"--watch {folder}: there is no such folder")
    failures: dict[Path, Any] = {}  # models that could not be audited, as they were then
    while True:
        code = _look(session, folder, failures, as_json=as_json)
        if once:
            if code:
                raise typer.Exit(code)
            return
        time.sleep(interval)


def _look(session: _Session, folder: Path, failures: dict[Path, Any], *, as_json: bool) -> int:
    """Audit each new model in a folder; return the exit code that says how that went."""
    from amnesis.cli import console
    from amnesis.errors import AmnesisError, printable
    from amnesis.runs.subject import ModelPlace
    from amnesis_evaluation.commands.audit.history import read_chain
    from amnesis_evaluation.commands.audit.identity import stamp_of
    from amnesis_evaluation.commands.audit.shown import line_of
    from amnesis_evaluation.commands.audit.watching import complete_models, is_audited

    history = _needed(session.history, "--history")
    code = 0
    for model in complete_models(folder):
        records = read_chain(history).records if history.exists() else []
        policy = session.plan.file.sha256
        if is_audited(model, str(model), policy, records) or failures.get(model) == stamp_of(model):
            continue
        is_of_run = model.name == "model" and (model.parent / "recipe.yaml").is_file()
        try:
            place = ModelPlace.of(str(model.parent if is_of_run else model))
            done = session.audit(place, None)  # a line for each model, and nothing else
        except AmnesisError as error:
            failures[model] = stamp_of(model)
            print(f"error: {printable(f'{model}: {error}')}", file=sys.stderr, flush=True)
            code = max(code, WRONG_INPUT)
            continue
        if as_json:
            print(json.dumps(done.document, ensure_ascii=False), flush=True)
        elif done.record is not None:
            console().print(line_of(done.record), soft_wrap=True)
            sys.stdout.flush()
        code = max(code, 0 if done.audited.passed else VIOLATED)
    return code


def _verify(
    model: str | None,
    history: Path,
    public_keys: Sequence[Path],
    head: Path | None,
    as_json: bool,
    machine: dict[str, Any],
) -> None:
    from amnesis.cli import quiet_libraries
    from amnesis.errors import DataError
    from amnesis.runs.subject import ModelPlace
    from amnesis_evaluation.commands.audit.history import read_receipt, receipt_path
    from amnesis_evaluation.commands.audit.shown import print_verification, verification_document
    from amnesis_evaluation.commands.audit.signing import read_public_key
    from amnesis_evaluation.commands.audit.verification import verify_history, verify_model

    quiet_libraries()
    keys = [read_public_key(path) for path in public_keys]
    receipt = read_receipt(head or receipt_path(history))
    if head is not None and receipt is None:
        raise DataError(f"{head}: there is no such receipt")
    verification = verify_history(history, [] if receipt is None else [receipt], keys)
    if model is not None:
        verify_model(verification, ModelPlace.of(model), **machine)
    if as_json:
        print(json.dumps(verification_document(verification), indent=1, ensure_ascii=False))
    else:
        print_verification(history, verification)
    if verification.faults:
        raise typer.Exit(VIOLATED)


def _show_ledger(history: Path, as_json: bool) -> None:
    from amnesis.cli import console, print_notes
    from amnesis_evaluation.commands.audit.history import (
        faults_of,
        read_chain,
        read_receipt,
        receipt_path,
    )
    from amnesis_evaluation.commands.audit.records import ledger_of
    from amnesis_evaluation.commands.audit.shown import print_ledger

    chain = read_chain(history)
    entries = ledger_of(chain.records)
    receipt = read_receipt(receipt_path(history))
    faults = faults_of(chain, [] if receipt is None else [receipt])
    if as_json:
        document = {"requests": [entry.document() for entry in entries], "faults": faults}
        print(json.dumps(document, indent=1, ensure_ascii=False))
        return
    if entries:
        print_ledger(entries)
    else:
        console().print(f"{history}: no record names a request to forget", soft_wrap=True)
    print_notes(f"the history is not as it was written: {fault}" for fault in faults)
