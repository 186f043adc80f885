"""The chain: what was altered, removed, put in or reordered shows; nobody's append harms another's."""

from __future__ import annotations

import hashlib
import json
import math
import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.evaluation.commands.audit.bodies import body, write_history

from amnesis.errors import DataError, OutputError
from amnesis_evaluation.commands.audit.history import (
    append,
    check_whole,
    faults_of,
    parse_chain,
    read_chain,
    read_receipt,
    receipt_path,
)
from amnesis_evaluation.commands.audit.records import canonical, digest_of, ledger_of
from amnesis_evaluation.commands.audit.verification import verify_history

PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)
QUICK = settings(max_examples=60, deadline=None)
# The file is written once and only read by each example.
WRITTEN_ONCE = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def receipts(path: Path) -> list[Any]:
    receipt = read_receipt(receipt_path(path))
    return [] if receipt is None else [receipt]


@QUICK
@given(PLAIN)
def test_a_value_has_one_way_to_be_written(value: Any) -> None:
    text = canonical(value)
    assert canonical(json.loads(text)) == text
    assert b"\n" not in text
    assert text.isascii()
    assert json.loads(text) == value


@QUICK
@given(st.dictionaries(st.text(), PLAIN, max_size=6), st.randoms(use_true_random=False))
def test_a_digest_does_not_depend_on_the_order_of_keys(record: dict[str, Any], random: Any) -> None:
    items = list(record.items())
    random.shuffle(items)
    assert digest_of(dict(items)) == digest_of(record)
    further = {**dict(items), "digest": "x", "signature": {}}
    plain = {key: value for key, value in record.items() if key not in ("digest", "signature")}
    assert digest_of(further) == digest_of(plain)


def test_what_is_not_a_finite_number_is_not_written(tmp_path: Path) -> None:
    path = write_history(tmp_path / "audit.jsonl", 1)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="not JSON compliant"):
        append(path, body(values={"forget/probability": math.nan}))
    assert path.read_bytes() == before
    check_whole(path, read_chain(path))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_history(tmp_path_factory.mktemp("whole") / "audit.jsonl", 4)


def test_a_whole_history_has_no_faults(whole: Path) -> None:
    chain = read_chain(whole)
    assert faults_of(chain, receipts(whole)) == []
    assert [record.number for record in chain.records] == [1, 2, 3, 4]
    first, *others = chain.records
    assert first.previous is None
    assert [one.previous for one in others] == [one.digest for one in chain.records[:-1]]
    lines = whole.read_bytes().splitlines()
    for record, line in zip(chain.records, lines, strict=True):
        content = {k: v for k, v in json.loads(line).items() if k not in ("digest", "signature")}
        text = json.dumps(content, sort_keys=True, separators=(",", ":"))
        assert hashlib.sha256(text.encode()).hexdigest() == record.digest, "as documented"


@WRITTEN_ONCE
@given(place=st.integers(0, 10**9), change=st.integers(1, 255))
def test_one_altered_byte_is_found(whole: Path, place: int, change: int) -> None:
    content = bytearray(whole.read_bytes())
    content[place % len(content)] ^= change
    assert faults_of(parse_chain(bytes(content)), receipts(whole)) != []


@WRITTEN_ONCE
@given(order=st.lists(st.integers(0, 3), max_size=6))
def test_records_removed_repeated_or_reordered_are_found(whole: Path, order: list[int]) -> None:
    lines = whole.read_bytes().splitlines(keepends=True)
    faults = faults_of(parse_chain(b"".join(lines[i] for i in order)), receipts(whole))
    assert (faults == []) == (order == [0, 1, 2, 3])


@pytest.mark.parametrize(
    ("kept", "words"),
    [
        ([0, 2, 3], "record 3 follows record 1: record 2 is missing"),
        ([2, 3], "record 3 is the first: records 1 to 2 are missing"),
        ([0, 1], "ends with record 2, but the receipt is of record 4: records 3 to 4 are missing"),
        ([0, 2, 1, 3], "record 2 follows record 3: they are not in order, or one was put in"),
    ],
)
def test_what_is_missing_is_named(whole: Path, kept: list[int], words: str) -> None:
    lines = whole.read_bytes().splitlines(keepends=True)
    faults = faults_of(parse_chain(b"".join(lines[i] for i in kept)), receipts(whole))
    assert any(words in fault for fault in faults), faults


def test_without_a_receipt_a_missing_end_does_not_show_and_the_reader_is_told(
    tmp_path: Path,
) -> None:
    path = write_history(tmp_path / "audit.jsonl", 3)
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:2]))
    verification = verify_history(path, [], [])
    assert verification.faults == []
    assert any("missing at the end would not show" in note for note in verification.notes)


def test_a_record_written_anew_with_its_digest_does_not_continue_the_chain(whole: Path) -> None:
    lines = whole.read_bytes().splitlines()
    forged = json.loads(lines[1])
    forged["passed"] = True
    forged["values"] = {"forget/probability": 0.0}
    forged["digest"] = digest_of(forged)
    lines[1] = canonical(forged)
    [fault] = parse_chain(b"\n".join([*lines, b""])).faults
    assert fault.startswith("line 3: record 3 does not continue what stands before it")


def test_nothing_is_appended_to_a_history_that_was_altered(tmp_path: Path) -> None:
    path = write_history(tmp_path / "audit.jsonl", 3)
    content = path.read_bytes().replace(b"model-1", b"model-X")
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"record 2: was altered.*begin another history"):
        append(path, body())
    assert path.read_bytes() == content


def _append_many(path: Path, count: int, name: str) -> None:
    for number in range(count):
        append(path, body(f"{name}-{number}"))


def test_processes_that_append_at_once_wait_for_each_other(tmp_path: Path) -> None:
    path, fork = tmp_path / "audit.jsonl", multiprocessing.get_context("fork")
    members = [fork.Process(target=_append_many, args=(path, 25, name)) for name in "abc"]
    for member in members:
        member.start()
    for member in members:
        member.join(60)
    assert [member.exitcode for member in members] == [0, 0, 0]
    chain = read_chain(path)
    assert faults_of(chain, receipts(path)) == []
    names = sorted(record.model.name for record in chain.records)
    assert names == sorted(f"{name}-{number}" for name in "abc" for number in range(25))


def test_an_earlier_record_is_never_rewritten(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    before, node = b"", None
    for number in range(4):
        append(path, body(f"model-{number}"))
        content = path.read_bytes()
        assert content.startswith(before)
        assert node in (None, path.stat().st_ino)
        before, node = content, path.stat().st_ino
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("records", [0, 2])
def test_a_kill_at_any_byte_of_an_append_leaves_a_history_that_goes_on(
    tmp_path: Path, records: int
) -> None:
    """Killed after so many bytes, and again in the append after that."""
    path = write_history(tmp_path / "audit.jsonl", records) if records else tmp_path / "audit.jsonl"
    before = path.read_bytes() if records else b""
    receipt = receipt_path(path).read_bytes() if records else None
    append(path, body("cut off"))
    line = path.read_bytes()[len(before) :]
    for end in (1, 2, len(line) // 2, len(line) - 2, len(line) - 1, len(line)):
        path.write_bytes(before + line[:end])
        receipt_path(path).unlink(missing_ok=True)
        if receipt is not None:
            receipt_path(path).write_bytes(receipt)
        is_whole = end >= len(line) - 1  # only its end of line is missing: nothing is lost
        record, notes = append(path, body("after it"))
        assert record.number == records + 1 + is_whole
        assert bool(record.interrupted) == bool(notes) == (not is_whole)
        assert path.read_bytes().startswith(before + line[:end])
        path.write_bytes(path.read_bytes() + b'\n{"sche')
        record, _ = append(path, body("after another"))
        assert [one["bytes"] for one in record.interrupted or ()] == [0, 6]
        verification = verify_history(path, receipts(path), [])
        assert verification.faults == []
        assert any("interrupted append" in note for note in verification.notes)


def test_a_process_killed_while_it_appends_leaves_a_history_that_goes_on(tmp_path: Path) -> None:
    path, fork = tmp_path / "audit.jsonl", multiprocessing.get_context("fork")
    for wait in (0.03, 0.05, 0.08):
        member = fork.Process(target=_append_many, args=(path, 10**6, "killed"))
        member.start()
        while not path.exists():
            time.sleep(0.01)
        time.sleep(wait)
        os.kill(member.pid or 0, signal.SIGKILL)
        member.join(60)
        append(path, body("after it"))
        assert faults_of(read_chain(path), receipts(path)) == []


def test_what_an_interrupted_append_left_cannot_be_exchanged(tmp_path: Path) -> None:
    path = write_history(tmp_path / "audit.jsonl", 1)
    path.write_bytes(path.read_bytes() + b'{"sche')
    append(path, body())
    path.write_bytes(path.read_bytes().replace(b'{"sche\n', b'{"schu\n'))
    assert any("line 2" in fault for fault in read_chain(path).faults)


def test_a_full_disk_leaves_the_history_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_history(tmp_path / "audit.jsonl", 2)
    before, write = path.read_bytes(), os.write

    def fail_after_some(descriptor: int, content: bytes) -> int:
        if len(content) < 100:
            raise OSError(28, "No space left on device")
        return write(descriptor, content[: len(content) // 2])

    monkeypatch.setattr(os, "write", fail_after_some)
    with pytest.raises(OutputError, match="No space left on device"):
        append(path, body())
    monkeypatch.undo()
    assert path.read_bytes() == before
    append(path, body())
    check_whole(path, read_chain(path))


def test_the_last_record_altered_is_not_taken_for_an_interrupted_append(tmp_path: Path) -> None:
    path = write_history(tmp_path / "audit.jsonl", 2)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataError, match="ends with record 1, but the receipt is of record 2"):
        append(path, body())
    receipt_path(path).unlink()
    with pytest.raises(DataError, match="what follows record 1 is no record"):
        append(path, body())


@pytest.mark.parametrize("content", ["[]", "{}", '{"number": "1", "digest": "a"}', "{", "\xff"])
def test_a_receipt_that_is_none_is_refused(tmp_path: Path, content: str) -> None:
    path = write_history(tmp_path / "audit.jsonl", 1)
    receipt_path(path).write_text(content, encoding="latin-1")
    with pytest.raises(DataError, match="is no receipt of an audit"):
        append(path, body())


@pytest.mark.parametrize(
    "line", [b"{}", b"[" * 100_000, b"9" * 5000, b"\xff", b'{"schema":"amnesis.audit/2"}', b"null"]
)
def test_a_line_that_is_no_record_is_a_fault(whole: Path, line: bytes) -> None:
    content = whole.read_bytes()
    assert parse_chain(line + b"\n" + content).faults != []
    assert faults_of(parse_chain(content + line), []) != []


def test_a_ledger_says_when_a_request_was_met_and_when_no_more(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"

    def requests(**passed: bool | None) -> list[dict[str, Any]]:
        return [
            {"id": name, "asked": "2031-02-03", "data": None, "passed": value,
             "closed": "2031-09-01" if value is None else None}
            for name, value in passed.items()
        ]  # fmt: skip

    for outcomes in (
        requests(A=False),
        requests(A=True, B=False),
        requests(A=True, B=True, C=True),
        requests(A=True, B=False, C=None, D=False),
    ):
        append(path, body(requests=outcomes))
    entries = {entry.id: entry for entry in ledger_of(read_chain(path).records)}
    assert {name: entry.status for name, entry in entries.items()} == {
        "A": "forgotten",
        "B": "came back",
        "C": "closed",
        "D": "open",
    }
    numbers = {
        name: [None if one is None else one.number for one in (e.first, e.last, e.latest)]
        for name, e in entries.items()
    }
    assert numbers == {"A": [2, 4, 4], "B": [3, 3, 4], "C": [3, 3, 3], "D": [None, None, 4]}
    assert entries["B"].document()["first_passed"]["fingerprint"] == "f0" * 32
