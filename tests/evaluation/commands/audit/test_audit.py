"""``amnesis audit`` on real models: kept, violated, recorded, signed, watched, verified."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tests.conftest import ROOT
from tests.evaluation.commands.audit.models import FORGET, RETAIN, write_models
from tests.evaluation.pages.reading import Reader
from typer.testing import CliRunner, Result

from amnesis.cli.app import app
from amnesis.discovery.registry import default_registry
from amnesis.errors import AmnesisError
from amnesis_evaluation.commands.audit.history import read_chain
from amnesis_evaluation.commands.audit.policy import Policy, Request, Requirement
from amnesis_evaluation.commands.audit.records import canonical
from amnesis_evaluation.commands.audit.watching import complete_models
from amnesis_evaluation.evaluator.evaluate import digest_of

POLICY: dict[str, Any] = {
    "benchmark": {"name": "own", "forget": "forget.jsonl", "retain": "retain.jsonl"},
    "template": {"format": "question_answer"},
    "evaluate": {"metrics": ["probability", "extraction_strength"], "bootstrap": 200},
    "require": {
        "forget/extraction_strength": {"max": 0.4},
        "retain/probability": {"min": 0.5, "by": "value"},
    },
}
RELEARNING = {"name": "relearning", "rows": 1, "steps": 2, "every": 2, "learning_rate": 1e-4,
              "metrics": ["extraction_strength"]}  # fmt: skip


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Any) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_models(folder, tiny_tokenizer)
    return folder


@pytest.fixture
def place(
    models: Path,
    tmp_path: Path,
    write_rows: Callable[..., dict[str, Path]],
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """A working directory with the models, rows and a policy."""
    for model in models.iterdir():
        shutil.copytree(model, tmp_path / model.name)
    write_rows(forget=FORGET, retain=RETAIN, first=FORGET[:1], second=FORGET[1:])
    write_policy(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user-cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_policy(folder: Path, **changes: Any) -> None:
    (folder / "policy.yaml").write_text(yaml.safe_dump({**POLICY, **changes}), encoding="utf-8")


def invoke(*words: str) -> Result:
    return CliRunner().invoke(app, ["audit", *words], obj=default_registry())


def audit(*words: str, code: int = 0) -> str:
    result = invoke(*words)
    if isinstance(result.exception, AmnesisError | AssertionError):
        raise result.exception
    assert result.exit_code == code, result.output
    return result.stdout


ON_RECORD = ["--policy", "policy.yaml", "--history", "audit.jsonl"]


def test_a_model_that_forgot_passes_and_one_that_knows_or_came_back_does_not(place: Path) -> None:
    write_policy(
        place,
        require={**POLICY["require"], "relearning/forget/extraction_strength": {"max": 0.9},
                 "retain/extraction_strength": {"min_ratio": 0.5, "of": "before", "by": "value"},
                 "request/extraction_strength": {"max": 0.5}},
        attacks=[RELEARNING],
        requests=[{"id": "R-1", "asked": "2031-02-03", "forget": "first.jsonl"}],
    )  # fmt: skip
    # The earlier values are an evaluation's.
    evaluated = CliRunner().invoke(
        app,
        ["evaluate", "before", "--benchmark", "own", "--with", "forget=forget.jsonl", "--with",
         "retain=retain.jsonl", "--metrics", "extraction_strength", "--out", "earlier"],
        obj=default_registry(),
    )  # fmt: skip
    assert evaluated.exit_code == 0, evaluated.output
    words = [*ON_RECORD, "--against", "before=earlier"]
    shown = json.loads(audit("unlearned", *words, "--json", "--out", "page"))
    assert shown["passed"]
    assert {o["key"] for o in shown["outcomes"]} == {
        "forget/extraction_strength",
        "retain/probability",
        "relearning/forget/extraction_strength",
        "retain/extraction_strength",
        "request/R-1/extraction_strength",
    }
    assert "Violated: 3 of 5" in audit("before", *words, code=3)
    assert "✕" in audit("relearned", *words, code=3)
    chain = read_chain(place / "audit.jsonl")
    assert [record.passed for record in chain.records] == [True, False, False]
    first, second, third = chain.records
    assert len({record.model.fingerprint for record in chain.records}) == 3
    assert first.data == second.data == third.data
    assert first.command.startswith("amnesis audit unlearned --policy policy.yaml --history")
    assert [one.key for one in third.violations] == [
        "forget/extraction_strength",
        "relearning/forget/extraction_strength",
        "request/R-1/extraction_strength",
    ]
    text = (place / "audit.jsonl").read_text(encoding="utf-8")
    assert not any(
        word in text for row in FORGET for word in row["answer"].split() if len(word) > 5
    )
    ledger = json.loads(audit("--ledger", "--history", "audit.jsonl", "--json"))
    [entry] = ledger["requests"]
    assert (entry["id"], entry["asked"], entry["status"]) == ("R-1", "2031-02-03", "came back")
    assert entry["first_passed"]["record"] == entry["last_passed"]["record"] == 1
    assert "came back" in audit("--ledger", "--history", "audit.jsonl")
    _check_page(place / "page")


def _check_page(folder: Path) -> None:
    """Every number on the page is in the record beside it."""
    reader = Reader((folder / "audit.html").read_text(encoding="utf-8"))
    assert reader.unbalanced == []
    document = json.loads((folder / "audit.json").read_text(encoding="utf-8"))
    numbers = {*document["values"].values(), *(o["measured"] for o in document["outcomes"])}
    numbers |= {end for ends in document["intervals"].values() for end in ends}
    assert {value for value, _ in reader.numbers} <= numbers
    assert len(reader.numbers) >= len(document["values"])
    for text in ("Kept", "R-1", document["digest"], "The record is not signed"):
        assert text in reader.text


def test_values_are_those_that_an_evaluation_has_and_data_are_recognised_by_salt(
    place: Path,
) -> None:
    import amnesis
    from amnesis.cli import load_subject
    from amnesis.contracts import EvaluationSettings
    from amnesis.models.fingerprint import fingerprint

    audit("unlearned", *ON_RECORD)
    [record] = read_chain(place / "audit.jsonl").records
    subject = load_subject("unlearned").subject
    own = amnesis.create("benchmark", "own", forget="forget.jsonl", retain="retain.jsonl")
    settings = EvaluationSettings(**POLICY["evaluate"])
    direct = own.evaluate(subject, settings)
    assert record.values == direct.values
    assert record.intervals == direct.intervals
    assert record.model.fingerprint == fingerprint(subject.model, secure=True)
    assert set(record.data.sets) == {"forget", "retain"}
    salt = place / "policy.yaml.salt"
    assert salt.stat().st_mode & 0o777 == 0o600
    plain = digest_of(FORGET)
    assert plain not in (place / "audit.jsonl").read_text()
    salt.unlink()
    audit("unlearned", *ON_RECORD)
    first, second = read_chain(place / "audit.jsonl").records
    assert first.data.salt != second.data.salt
    assert first.data.sets["forget"] != second.data.sets["forget"]


def _refusal(*words: str) -> str:
    with pytest.raises(AmnesisError) as caught:
        audit(*words)
    return str(caught.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"require": {"forget/extraction_strenght": {"max": 1}}},
         "did you mean 'forget/extraction_strength'"),
        ({"require": {"forgot/probability": {"max": 1}}}, "did you mean 'forget/probability'"),
        ({"require": {"privleak": {"max": 1}}}, "is not evaluated"),
        ({"require": {"forget/probability": {"mx": 1}}}, "unknown key; did you mean 'max'"),
        ({"require": {"forget/probability": {}}}, "give a bound: max, min"),
        ({"require": {"forget/probability": {"min_ratio": 0.9}}}, "name the record"),
        ({"require": {"forget/probability": {"max": 1, "of": "before"}}}, "of belongs to"),
        ({"require": {}}, "require"),
        ({"require": {"forget/probability": {"max": float("nan")}}}, "finite number"),
        ({"require": {"forget/probability": {"min_ratio": 0.9, "of": "before"}}},
         "no earlier values are called so"),
        ({"require": {"relearning/forget/probability": {"max": 1}}, "attacks": [RELEARNING]},
         "the attack 'relearning' evaluates no 'probability'"),
        ({"require": {"leak_at_k/forget/leak_at_2": {"max": 1}}, "attacks": ["leak_at_k"]},
         "evaluates no 'leak_at_2'; did you mean"),
        ({"attacks": ["relerning"]}, "did you mean 'relearning'"),
        ({"require": {"lm_eval/mmlu/acc": {"min": 0.2}}}, "lm-eval's task 'mmlu'"),
        ({"evaluate": {"metrics": ["probability"], "bootstrap": 0},
          "require": {"forget/probability": {"max": 1}}}, "evaluate.bootstrap is 0"),
        ({"evaluate": {"keep_answers": True}}, "evaluate.keep_answers: has no place in a policy"),
        ({"benchmark": {"name": "own", "forget": FORGET, "retain": "retain.jsonl"}},
         "benchmark.forget: holds rows; name a file"),
        ({"requests": [{"id": "Jane Doe", "asked": "2031-02-03", "forget": "first.jsonl"}]},
         "letters, digits"),
        ({"requests": [{"id": "R-1", "asked": "2031-02-03"}]}, "give forget, the rows, or closed"),
        ({"requests": [{"id": "R-1", "asked": "2031-02-03", "forget": "first.jsonl"}]},
         "says nothing of requests"),
        ({"requests": [{"id": "R-1", "asked": "2031-02-03", "forget": "frist.jsonl"}],
          "require": {"request/extraction_strenght": {"max": 1}}},
         "did you mean 'extraction_strength'"),
        ({"requests": [{"id": "R-1", "asked": "soon", "forget": "first.jsonl"}]}, "asked"),
        ({"modle": "x"}, "modle"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_policy_is_said_before_a_model_is_loaded(
    place: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], words: str
) -> None:
    monkeypatch.setattr("amnesis_evaluation.commands.audit.auditing.load_subject", None)
    write_policy(place, **changes)
    assert words in _refusal("unlearned", *ON_RECORD)
    assert not (place / "audit.jsonl").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "name --policy"),
        (["--policy", "policy.yaml"], "name MODEL"),
        (["unlearned", "--policy", "polcy.yaml"], "there is no such policy"),
        (["unlearned", "--policy", "policy.yaml", "--once"], "--once: of no meaning for an audit"),
        (["unlearned", "--policy", "policy.yaml", "--key", "k"], "name one with --history"),
        (["--verify", "--ledger", "--history", "h"], "--ledger: of no meaning for --verify"),
        (["--verify"], "name --history"),
        (["--verify", "--history", "h"], "there is no such history"),
        (["--watch", ".", "--policy", "policy.yaml"], "name --history"),
        (["--watch", "nowhere", *ON_RECORD], "there is no such folder"),
        (["unlearned", *ON_RECORD, "--against", "before"], "write NAME=RECORD"),
        (["unlearned", *ON_RECORD, "--against", "before=x"], "no requirement is of 'before'"),
        (["nowhere/at/all", *ON_RECORD], "nowhere/at/all"),
    ],
)
def test_what_is_wrong_with_a_call_is_said(place: Path, words: list[str], message: str) -> None:
    assert message in _refusal(*words)


def test_a_ratio_is_to_the_same_rows_of_a_value_above_zero(place: Path) -> None:
    require = {"retain/probability": {"min_ratio": 0.5, "of": "first", "by": "value"}}
    audit("before", *ON_RECORD, code=3)
    write_policy(place, require=require, against={"first": "1"})
    audit("unlearned", *ON_RECORD)
    second = read_chain(place / "audit.jsonl").records[1]
    [outcome] = second.outcomes
    assert outcome.reference is not None
    assert outcome.measured == second.values["retain/probability"] / outcome.reference
    assert second.against["first"]["digest"] == read_chain(place / "audit.jsonl").records[0].digest
    assert "the history has no record 7" in _refusal(
        "unlearned", *ON_RECORD, "--against", "first=7"
    )
    rows = (place / "retain.jsonl").read_text()
    (place / "retain.jsonl").write_text(rows.replace("Eight.", "Nine."))
    assert "measured on other rows of 'retain'" in _refusal("unlearned", *ON_RECORD)
    (place / "retain.jsonl").write_text(rows)
    (place / "zero").mkdir()
    results = {"after": {"retain/probability": 0.0}, "sets": {"retain": digest_of(RETAIN)}}
    (place / "zero" / "results.json").write_text(json.dumps(results))
    assert "its earlier value is 0" in _refusal("unlearned", *ON_RECORD, "--against", "first=zero")
    (place / "policy.yaml.salt").unlink()
    assert "made with another salt" in _refusal("unlearned", *ON_RECORD)


def test_what_cannot_be_measured_is_violated(place: Path) -> None:
    from safetensors.torch import load_file, save_file

    file = place / "unlearned" / "model.safetensors"
    weights = {name: torch.full_like(one, torch.nan) for name, one in load_file(file).items()}
    save_file(weights, file, metadata={"format": "pt"})
    write_policy(place, require={"forget/probability": {"max": 1.0, "by": "value"}})
    assert "was not measured" in audit("unlearned", *ON_RECORD, code=3)
    [record] = read_chain(place / "audit.jsonl").records
    assert not record.passed
    assert record.values == {}
    assert record.outcomes[0].measured is None


def test_an_attack_that_fails_leaves_its_requirements_violated(place: Path) -> None:
    key = "relearning/forget/extraction_strength"
    attack = {**RELEARNING, "learning_rate": 1e30, "sgd_learning_rate": []}
    write_policy(place, attacks=[attack], require={key: {"max": 1.0, "by": "value"}})
    shown = audit("unlearned", *ON_RECORD, code=3)
    assert "relearning failed" in shown
    [record] = read_chain(place / "audit.jsonl").records
    assert [(o.key, o.measured, o.passed) for o in record.outcomes] == [(key, None, False)]


def test_earlier_requests_stay_and_keep_their_data(place: Path) -> None:
    require = {"request/extraction_strength": {"max": 0.6}}
    first = {"id": "R-1", "asked": "2031-02-03", "forget": "first.jsonl"}
    second = {"id": "R-2", "asked": "2031-03-04", "forget": ["second.jsonl", {"set": "forget"}]}
    write_policy(place, require=require, requests=[first])
    audit("unlearned", *ON_RECORD)
    write_policy(place, require=require, requests=[second])
    assert "R-1 is missing, which record 1 of the history has" in _refusal("unlearned", *ON_RECORD)
    changed = {**first, "forget": "retain.jsonl"}
    write_policy(place, require=require, requests=[changed, second])
    assert "the data of R-1 are not those of record 1" in _refusal("unlearned", *ON_RECORD)
    write_policy(place, require=require, requests=[first, second])
    audit("unlearned", *ON_RECORD)
    audit("relearned", *ON_RECORD, code=3)
    closed = {"id": "R-1", "asked": "2031-02-03", "closed": "2031-09-01"}
    write_policy(place, require=require, requests=[closed, second])
    audit("unlearned", *ON_RECORD)
    *_, third, fourth = read_chain(place / "audit.jsonl").records
    assert [(one.id, one.passed) for one in third.requests] == [("R-1", False), ("R-2", False)]
    assert [(one.id, one.passed) for one in fourth.requests] == [("R-1", None), ("R-2", True)]
    (place / "policy.yaml.salt").unlink()
    assert "was made with another salt" in _refusal("unlearned", *ON_RECORD)


@pytest.fixture
def keys(place: Path) -> None:
    """Keys made as the help says."""
    for name in ("audit", "other"):
        subprocess.run(
            ["openssl", "genpkey", "-algorithm", "ed25519", "-out", f"{name}.key"],
            cwd=place, check=True, capture_output=True,
        )  # fmt: skip
        subprocess.run(
            ["openssl", "pkey", "-in", f"{name}.key", "-pubout", "-out", f"{name}.pub"],
            cwd=place, check=True, capture_output=True,
        )  # fmt: skip
        (place / f"{name}.key").chmod(0o600)


VERIFY = ["--verify", "--history", "audit.jsonl"]


@pytest.mark.usefixtures("keys")
def test_a_third_party_verifies_signatures_and_the_model_without_the_data(place: Path) -> None:
    signed = [*ON_RECORD, "--key", "audit.key"]
    audit("unlearned", *signed)
    (place / "audit.key").chmod(0o644)
    assert "others can read this private key (mode 644)" in audit("before", *signed, code=3)
    there = place / "there"
    there.mkdir()
    for name in ("audit.jsonl", "audit.jsonl.head", "audit.pub", "other.pub"):
        shutil.copy(place / name, there)
    for row_file in place.glob("*.jsonl"):
        if row_file.name != "audit.jsonl":
            row_file.unlink()
    shutil.move(place / "unlearned", there / "delivered")
    os.chdir(there)
    assert "2 records, none altered" in audit(*VERIFY, "--public-key", "audit.pub")
    assert "whose key that is was not checked" in audit(*VERIFY)
    assert "is signed by another key" in audit(*VERIFY, "--public-key", "other.pub", code=3)
    said = audit("delivered", *VERIFY, "--public-key", "audit.pub", "--public-key", "other.pub")
    assert "is the model of record 1" in said
    assert ", which passed (file by file)" in said
    assert "no record names a request" in audit("--ledger", "--history", "audit.jsonl")
    shown = json.loads(audit("delivered", *VERIFY, "--public-key", "audit.pub", "--json"))
    assert shown["whole"]
    assert shown["model"] == 1

    shutil.copytree(there / "delivered", there / "saved-otherwise")
    config = there / "saved-otherwise" / "config.json"
    config.write_text(config.read_text() + "\n")
    said = audit("saved-otherwise", *VERIFY)
    assert "by weights and tokenizer; these of its files are others: config.json" in said
    shutil.copytree(place / "before", there / "knows")
    said = audit("knows", *VERIFY, code=3)
    assert "which violates the policy" in said
    assert "2 records, none altered" in said, "the history is not what is wrong"
    shutil.rmtree(there / "delivered")
    shutil.copytree(place / "relearned", there / "delivered")
    assert "is none of the models that were audited" in audit("delivered", *VERIFY, code=3)


@pytest.mark.usefixtures("keys")
def test_another_model_under_the_same_name_is_found(place: Path) -> None:
    audit("unlearned", *ON_RECORD)
    shutil.rmtree(place / "unlearned")
    shutil.copytree(place / "relearned", place / "unlearned")
    said = audit("unlearned", *VERIFY, code=3)
    assert "is none of the models that were audited, though record 1 is of one by that name" in said


@pytest.mark.usefixtures("keys")
def test_signatures_that_are_wrong_missing_or_moved_are_found(place: Path) -> None:
    from tests.evaluation.commands.audit.bodies import write_history

    from amnesis_evaluation.commands.audit.signing import read_private_key

    key, warning = read_private_key(place / "audit.key")
    assert warning is None
    path = write_history(place / "audit.jsonl", 3, key)
    lines = path.read_bytes().splitlines()
    documents = [json.loads(line) for line in lines]

    def rewritten(number: int, change: Callable[[dict[str, Any]], Any]) -> None:
        document = json.loads(lines[number])
        change(document)
        path.write_bytes(
            b"\n".join([*lines[:number], canonical(document), *lines[number + 1 :], b""])
        )

    rewritten(1, lambda d: d.update(signature=documents[0]["signature"]))
    assert "record 2: its signature is wrong" in audit(*VERIFY, code=3)
    rewritten(2, lambda d: d.pop("signature"))
    assert "record 3: is not signed, but a record before it is" in audit(*VERIFY, code=3)
    assert "record 3: is not signed" in audit(*VERIFY, "--public-key", "audit.pub", code=3)
    right = documents[1]["signature"]["ed25519"]
    for wrong in (right.upper(), right[:-2], "zz" + right[2:]):
        changed = {**documents[1]["signature"], "ed25519": wrong}
        rewritten(1, lambda d, changed=changed: d.update(signature=changed))  # type: ignore[misc]
        assert "record 2: its signature is wrong" in audit(*VERIFY, code=3)
    for file in ("audit.pub", "policy.yaml"):
        assert "no private key in PEM" in _refusal("unlearned", *ON_RECORD, "--key", file)
    assert "cannot be read" in _refusal("unlearned", *ON_RECORD, "--key", "nowhere.pem")
    assert "no public key in PEM" in _refusal(*VERIFY, "--public-key", "audit.key")


@pytest.mark.usefixtures("keys")
def test_openssl_verifies_a_signature_as_the_documentation_says(place: Path) -> None:
    from tests.evaluation.commands.audit.bodies import write_history

    from amnesis_evaluation.commands.audit.signing import read_private_key

    key, _ = read_private_key(place / "audit.key")
    record = json.loads(write_history(place / "audit.jsonl", 1, key).read_text())
    (place / "message").write_text(f"amnesis.audit/1 {record['number']} {record['digest']}")
    (place / "signature").write_bytes(bytes.fromhex(record["signature"]["ed25519"]))
    done = subprocess.run(
        ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", "audit.pub", "-rawin",
         "-in", "message", "-sigfile", "signature"],
        cwd=place, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "Verified Successfully" in done.stdout, done.stderr


def test_keys_of_other_kinds_are_refused(place: Path) -> None:
    for kind, file in (("rsa", "rsa.key"), ("x25519", "x.key")):
        subprocess.run(
            ["openssl", "genpkey", "-algorithm", kind, "-out", file],
            cwd=place, check=True, capture_output=True,
        )  # fmt: skip
        assert "is no Ed25519 key" in _refusal("unlearned", *ON_RECORD, "--key", file)
    subprocess.run(
        ["openssl", "genpkey", "-algorithm", "ed25519", "-aes256", "-pass", "pass:x", "-out", "e"],
        cwd=place, check=True, capture_output=True,
    )  # fmt: skip
    assert "is encrypted" in _refusal("unlearned", *ON_RECORD, "--key", "e")


def test_without_cryptography_the_extra_is_named(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "cryptography", None)
    said = _refusal("unlearned", *ON_RECORD, "--key", "audit.key")
    assert "pip install 'amnesis[audit]'" in said
    audit("unlearned", *ON_RECORD)
    assert "no record is signed" in audit(*VERIFY)


def test_a_receipt_kept_elsewhere_shows_that_the_end_was_removed(place: Path) -> None:
    from tests.evaluation.commands.audit.bodies import write_history

    path = write_history(place / "audit.jsonl", 2)
    shutil.copy(place / "audit.jsonl.head", place / "noted.head")
    old = path.read_bytes().splitlines(keepends=True)[0]
    path.write_bytes(old)
    (place / "audit.jsonl.head").unlink()
    assert "missing at the end would not show" in audit(*VERIFY)
    said = audit(*VERIFY, "--head", "noted.head", code=3)
    assert "ends with record 1, but the receipt is of record 2: record 2 is missing" in said
    assert "there is no such receipt" in _refusal(*VERIFY, "--head", "nowhere.head")


def test_a_folder_is_watched_and_each_new_model_is_audited_once(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("amnesis_evaluation.commands.audit.watching.QUIET", 0.0)
    runs = place / "runs"
    shutil.copytree(place / "unlearned", runs / "first" / "model")
    (runs / "first" / "recipe.yaml").write_text("objective: ga")
    shutil.copytree(place / "before", runs / "half-written")
    whole = (runs / "half-written" / "model.safetensors").read_bytes()
    (runs / "half-written" / "model.safetensors").write_bytes(whole[:-1])
    words = ["--watch", "runs", *ON_RECORD, "--once"]
    assert audit(*words) == "passed   runs/first/model (record 1)\n"
    assert audit(*words) == ""
    (runs / "half-written" / "model.safetensors").write_bytes(whole)
    said = audit(*words, code=3)
    assert said.startswith("violated runs/half-written (record 2): forget/extraction_strength 1 ")
    assert said.count("\n") == 1
    shutil.rmtree(runs / "first" / "model")
    shutil.copytree(place / "relearned", runs / "first" / "model")
    assert "violated runs/first/model (record 3)" in audit(*words, code=3)
    write_policy(place, require={"retain/probability": {"min": 0.1, "by": "value"}})
    lines = audit(*words).splitlines()
    assert [line.split()[:2] for line in lines] == [
        ["passed", "runs/first/model"],
        ["passed", "runs/half-written"],
    ]
    (runs / "half-written" / "config.json").write_text('{"model_type": "resnet"}')
    assert invoke(*words).stderr.startswith("error: runs/half-written: ")
    assert audit(*words, code=2) == ""
    assert len(read_chain(place / "audit.jsonl").records) == 5


def test_what_is_still_written_is_not_complete(place: Path, monkeypatch: Any) -> None:
    assert list(complete_models(place)) == [], "written a moment ago"
    late = 1e12
    everything = {place / name for name in ("before", "unlearned", "relearned")}
    assert set(complete_models(place, late)) == everything
    for file, content in (
        ("model.safetensors", b""),
        ("model.safetensors", b"\xff" * 16),
        ("config.json", b"{"),
        ("tokenizer.json", b'{"a": '),
        ("model.safetensors.index.json", b'{"weight_map": {"w": "model-2.safetensors"}}'),
        ("model.safetensors.index.json", b"[]"),
    ):
        path = place / "before" / file
        before = path.read_bytes() if path.exists() else None
        path.write_bytes(content)
        assert set(complete_models(place, late)) == everything - {place / "before"}, file
        path.unlink() if before is None else path.write_bytes(before)
    for file in ("model.safetensors", "config.json"):
        (place / "before" / file).rename(place / "kept")
        assert place / "before" not in set(complete_models(place, late))
        (place / "kept").rename(place / "before" / file)
    (place / ".before.amnesis-x").mkdir()
    (place / "before").rename(place / ".before.amnesis-x" / "before")
    assert set(complete_models(place, late)) == everything - {place / "before"}


def test_the_page_of_the_site_names_every_key_of_a_policy() -> None:
    page = (ROOT / "docs/how-to/audit.md").read_text(encoding="utf-8")
    for record in (Policy, Requirement, Request):
        for name, field in record.model_fields.items():
            assert re.search(rf"\b{name}\b", page), name
            assert field.description, name
