"""`amnesis suggest`: candidates tried out on disposable models, ranked at equal forgetting."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from amnesis.cli.app import main
from amnesis.contracts import Subject
from amnesis.data.templates import Template
from amnesis.discovery.registry import default_registry
from amnesis_evaluation.commands.suggest import trials as suggest_trials
from amnesis_evaluation.commands.suggest.trials import (
    Moment,
    Trial,
    candidate_of,
    disposable,
    rank,
    start_of,
    try_out,
)
from amnesis_plugins.g_effect import risk_value
from amnesis_plugins.g_effect.sets import encode_set


def trial(name: str, risks: list[float], harm: float) -> Trial:
    """A run that raises the forget risk so, and the retain risk ``harm`` times as much."""
    gained = [(risk, risk - risks[0]) for risk in risks]
    path = [Moment(k, r, harm * g, -g, -harm * g) for k, (r, g) in enumerate(gained)]
    return Trial(name, tuple(path))


def test_ranking_is_at_equal_forgetting_not_at_equal_steps() -> None:
    slow = trial("slow", [0.1, 0.2, 0.4, 0.8, 1.6], 0.1)
    fast = trial("fast", [0.1, 3.0, 6.0, 9.0, 12.0], 0.9)
    idle = trial("idle", [0.1, 0.1, 0.2], 0.0)
    for order in ([fast, slow, idle], [slow, fast, idle]):
        assert [t.name for t, _ in rank(order).ranked] == ["slow", "fast"]
    ranking = rank([fast, slow, idle])
    assert ranking.notes == ()
    assert ranking.probability == pytest.approx(math.exp(-0.1) / 2)
    assert [t.name for t, _ in ranking.ranked] == ["slow", "fast"]
    assert [t.name for t in ranking.short] == ["idle"]
    for own, moment in ranking.ranked:
        assert moment.forget_probability == pytest.approx(ranking.probability)
        assert moment.ratio == pytest.approx(0.1 if own.name == "slow" else 0.9)


def test_where_none_gets_there_all_that_moved_are_compared_and_it_says_so() -> None:
    a, b, c = trial("a", [0.1, 0.3], 0.5), trial("b", [0.1, 0.2], 0.1), trial("c", [0.1, 0.4], 0.3)
    idle = trial("idle", [0.1, 0.05], 0.0)
    ranking = rank([a, b, idle, c], 0.001)
    assert ranking.probability == pytest.approx(math.exp(-0.2))
    assert [t.name for t, _ in ranking.ranked] == ["b", "c", "a"]
    assert [t.name for t in ranking.short] == ["idle"]
    (note,) = ranking.notes
    assert note.startswith("no candidate got down to 0.001: compared at 0.819,")
    stuck = rank([idle], 0.001)
    assert (stuck.ranked, stuck.short) == ((), (idle,))
    assert "none lowered it at all" in stuck.notes[0]


@given(st.lists(st.floats(0.05, 4), min_size=1, max_size=6))
def test_every_candidate_that_moved_can_be_compared(gains: list[float]) -> None:
    trials = [trial(str(k), [0.1, 0.1 + gain], 0.5) for k, gain in enumerate(gains)]
    assert len(rank(trials, 1e-6).ranked) == len(trials)


def test_what_its_updates_did_not_unlearn_has_no_ratio_and_stands_last() -> None:
    good = trial("good", [0.1, 2.0], 0.9)
    lucky = Trial("lucky", (Moment(0, 0.1, 0.1, 0.0, 0.0), Moment(1, 2.0, 0.1, 0.5, 3.0)))
    ranking = rank([lucky, good])
    assert [t.name for t, _ in ranking.ranked] == ["good", "lucky"]
    assert ranking.ranked[1][1].ratio is None
    (note,) = ranking.notes
    assert note.startswith("lucky has no ratio and stands last")


@given(st.lists(st.floats(0.01, 5), min_size=2, max_size=8), st.floats(0.01, 0.99))
def test_a_crossing_is_the_first_one(risks: list[float], probability: float) -> None:
    moment = trial("t", risks, 0.3).at(probability)
    if math.exp(-max(risks)) > probability:
        assert moment is None
    else:
        assert moment is not None
        first = next(k for k, r in enumerate(risks) if math.exp(-r) <= probability)
        assert max(first - 1, 0) <= moment.steps <= first


@pytest.mark.parametrize("lora_rank", [None, 4])
def test_trials_measure_the_sets_and_leave_the_model_alone(
    tiny_llama: Any, tiny_tokenizer: Any, qa_rows: Any, lora_rank: int | None
) -> None:
    before = {name: t.clone() for name, t in tiny_llama.state_dict().items()}
    rows = {"forget": qa_rows[:4], "retain": qa_rows[4:]}
    subject = Subject(tiny_llama, tiny_tokenizer, Template())
    tried = try_out(
        subject,
        rows,
        [candidate_of("ga"), candidate_of("wga:beta=2+nll/pcgrad")],
        training={"steps": 3, "learning_rate": 1e-2, "batch_size": 2},
        examples=3,
        lora_rank=lora_rank,
        seed=0,
        registry=default_registry(),
        told=lambda what, done, total: None,
    )
    trials = tried.trials
    assert tried.failed == {}
    assert start_of(subject, rows, 3) == pytest.approx(trials[0].start, rel=1e-5)
    after = tiny_llama.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(p.requires_grad for p in tiny_llama.parameters())
    for name in ("forget", "retain"):
        probed = encode_set(tiny_llama, tiny_tokenizer, name, rows[name][:3], [], None, 8)
        risk = risk_value(tiny_llama, probed.batches)
        for one in trials:
            assert getattr(one.path[0], f"{name}_risk") == pytest.approx(risk, rel=1e-5)
    assert [len(one.path) for one in trials] == [4, 4]
    ascent = trials[0].path
    assert ascent[-1].forget_risk > ascent[0].forget_risk
    assert ascent[-1].unlearning < 0


def test_a_disposable_copy_is_a_copy(tiny_llama: Any) -> None:
    with disposable(tiny_llama, None, 0) as model:
        assert model is not tiny_llama
        assert next(model.parameters()).data_ptr() != next(tiny_llama.parameters()).data_ptr()


@pytest.fixture
def command(
    tmp_path: Path, tiny_folder: Path, qa_rows: Any, write_rows: Any, capsys: Any
) -> Callable[..., tuple[int, str, str]]:
    """Return a function that runs `amnesis suggest` and gives exit code, stdout and stderr."""
    files = write_rows(forget=qa_rows[:4], retain=qa_rows[4:])
    given = ["--device", "cpu", "--learning-rate", "0.01", "--batch-size", "2", "--steps", "2"]

    def command(*options: str) -> tuple[int, str, str]:
        sets = [word for name, path in files.items() for word in (f"--{name}", str(path))]
        code = main(["suggest", str(tiny_folder), *sets, *given, *options])
        said = capsys.readouterr()
        return code, " ".join(said.out.split()), said.err

    return command


def refused(answer: tuple[int, str, str], *said: str) -> None:
    code, out, error = answer
    assert (code, out) == (2, "")
    *progress, error = error.splitlines()
    assert all(" of " in line for line in progress)
    assert error.startswith("error: ")
    assert all(part in error for part in said), error


def test_the_command_writes_the_numbers_it_ranks_by(command: Any, tmp_path: Path) -> None:
    code, shown, error = command(
        "--candidates", "ga,wga+nll", "--out", str(tmp_path / "out"), "--limit", "3"
    )
    assert code == 0
    assert all(" of " in line for line in error.splitlines()), "progress, and nothing else"
    record = json.loads((tmp_path / "out" / "suggestion.json").read_text())
    named = [r["candidate"] for r in record["ranking"]] + record["not_reached"]
    assert sorted(named) == ["ga", "wga+nll"]
    ratios = [r["ratio"] for r in record["ranking"]]
    assert ratios == sorted(ratios)
    assert [f"{ratio:.4f}" in shown for ratio in ratios] == [True] * len(ratios)
    assert record["failed"] == {}
    assert all(f": {note}" in shown for note in record["notes"])


def test_the_command_tries_what_it_is_told_on_the_rows_it_is_told(
    command: Any, tmp_path: Path, tiny_llama: Any, tiny_tokenizer: Any, qa_rows: Any
) -> None:
    command("--candidates", "ga", "--limit", "3", "--seed", "4", "--out", str(tmp_path / "out"))
    record = json.loads((tmp_path / "out" / "suggestion.json").read_text())
    wanted = try_out(
        Subject(tiny_llama, tiny_tokenizer, Template()),
        {"forget": qa_rows[:3], "retain": qa_rows[4:7]},
        [candidate_of("ga")],
        training=record["training"],
        examples=16,
        lora_rank=None,
        seed=4,
        registry=default_registry(),
        told=lambda what, done, total: None,
    )
    found = [moment["retain_risk"] for moment in record["trials"]["ga"]]
    assert found == pytest.approx([m.retain_risk for m in wanted.trials[0].path], rel=1e-5)


def test_an_earlier_suggestion_is_kept_unless_it_may_go(command: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "suggestion.json").write_text("mine")
    (out / "other.txt").write_text("mine")
    refused(command("--candidates", "ga", "--out", str(out)), "--overwrite", "suggestion.json")
    assert (out / "suggestion.json").read_text() == "mine"
    assert command("--candidates", "ga", "--out", str(out), "--overwrite")[0] == 0
    assert json.loads((out / "suggestion.json").read_text())["trials"]
    assert (out / "other.txt").read_text() == "mine"


def unreached(*_: Any, **__: Any) -> None:
    raise AssertionError("a trial was begun")


def test_what_is_wrong_is_said_before_the_first_trial(
    command: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("amnesis_evaluation.commands.suggest.trials.try_out", unreached)
    file = tmp_path / "file"
    file.write_text("x")
    refused(command("--out", str(file)), str(file), "not a folder")
    refused(command("--out", "/proc/nope/x"), "/proc/nope/x", "cannot be made")
    refused(command("--candidates", "ga,nppo"), "candidate 'nppo'", "npo")
    refused(command("--candidates", "ga,npo+nll/sagoo"), "candidate 'npo+nll/sagoo'", "sago")
    refused(command("--candidates", "ga,ga"), "named twice")
    refused(command("--candidates", "ga/sago"), "a combiner needs a regularizer")
    refused(command("--at", "0.9"), "--at 0.9", "starts at a forget probability of 0.")
    code, _, error = command("--candidates", "ga,nppo,wga+kll")
    assert code == 2
    assert "2 problems" in error
    assert "nppo" in error
    assert "wga+kll" in error


def test_a_candidate_that_diverges_is_left_out_and_the_others_are_kept(
    command: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path_of = suggest_trials.path_of
    tried = iter(["wga", "ga", "wga"])  # in the order of the candidates below

    def path_that_may_be_lost(trajectory: Any) -> Any:
        path = path_of(trajectory)
        lost = replace(path[-1], forget_risk=math.nan)
        return (*path[:-1], lost) if next(tried) == "wga" else path

    monkeypatch.setattr(suggest_trials, "path_of", path_that_may_be_lost)
    code, shown, _ = command("--candidates", "wga,ga", "--out", str(tmp_path / "out"))
    record = json.loads((tmp_path / "out" / "suggestion.json").read_text())
    assert code == 0
    assert (list(record["trials"]), list(record["failed"])) == (["ga"], ["wga"])
    assert "warning: wga is left out: after step 2" in shown
    refused(command("--candidates", "wga"), "no candidate's run went to its end; wga:")


def test_a_loss_that_is_no_longer_finite_ends_one_candidate_only(
    command: Any, tmp_path: Path
) -> None:
    out = str(tmp_path / "out")
    code, shown, _ = command("--candidates", "ga,ga+nll:weight=1.0e+39", "--out", out)
    record = json.loads((tmp_path / "out" / "suggestion.json").read_text())
    assert code == 0
    assert list(record["trials"]) == ["ga"]
    assert "not a finite number" in record["failed"]["ga+nll:weight=1.0e+39"] or (
        "norm is" in record["failed"]["ga+nll:weight=1.0e+39"]
    )
    assert "is left out" in shown


def test_none_takes_the_place_of_a_ratio_in_the_record(
    command: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lucky = Trial("ga", (Moment(0, 0.1, 0.1, 0.0, 0.0), Moment(1, 2.0, 0.1, 0.5, 3.0)))
    monkeypatch.setattr(
        suggest_trials, "try_out", lambda *_, **__: suggest_trials.Tried((lucky,), {})
    )
    code, shown, _ = command("--candidates", "ga", "--out", str(tmp_path / "out"))
    record = json.loads((tmp_path / "out" / "suggestion.json").read_text())
    assert code == 0
    assert record["ranking"][0]["ratio"] is None
    assert "ga has no ratio" in shown


@pytest.mark.parametrize("at", ["0.0", "1.0", "1.5", "nan"])
def test_a_probability_is_between_0_and_1(command: Any, at: str) -> None:
    refused(command("--at", at), "--at must be a probability between 0 and 1")


def test_reading_candidates() -> None:
    found = candidate_of(" wga:beta=5+kl/sago ")
    assert found.name == "wga:beta=5+kl/sago"
    assert found.objective == {"name": "wga", "beta": 5}
    assert (found.regularizer, found.combiner) == ({"name": "kl"}, {"name": "sago"})
    assert candidate_of("ga").regularizer is None
