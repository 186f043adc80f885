"""Original TOFU logs: every part as both official formulas have it, and each fault in one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from amnesis.errors import DataError
from amnesis_evaluation.reports.tofu_log import CONVENTIONS, evaluated_log, read_log, utility_parts

SETS = {"RA": "real_authors", "WF": "world_facts", "RT": "retain", "FG": "forget"}


def key_of(part: str) -> str:
    if part == "MU":
        return "model_utility"
    short, kind = part.split(".")
    name = SETS[short]
    probability = "choice_probability" if short in ("RA", "WF") else "probability"
    truth = "truth_ratio_forget" if short == "FG" else "truth_ratio_utility"
    return f"{name}/{ {'prob': probability, 'rouge': 'rouge_l', 'tr': truth}[kind] }"


def test_every_part_of_the_real_logs(shared_data: Path) -> None:
    folder = shared_data / "tofu_eval_logs"
    truth = json.loads((folder / "truth.json").read_text())
    compared = 0
    for name, conventions in truth["model_utility"].items():
        sets = read_log(folder / f"{name}.json")
        assert len(sets["forget"].answers) == conventions["n_forget"]
        for convention in CONVENTIONS:
            parts = utility_parts(sets, convention)
            for part, expected in conventions[convention].items():
                assert parts[key_of(part)] == pytest.approx(expected, abs=1e-12), (name, part)
                compared += 1
    assert compared == 3 * 2 * 13


def test_forget_quality_of_the_real_logs(shared_data: Path) -> None:
    folder = shared_data / "tofu_eval_logs"
    for expected in json.loads((folder / "truth.json").read_text())["forget_quality"]:
        evaluated = evaluated_log(
            folder / f"{expected['file']}.json", folder / f"{expected['retain']}.json"
        )
        found = evaluated["geometric"]
        assert found["ks_statistic"] == pytest.approx(expected["D"], abs=1e-12)
        assert found["forget_quality"] == pytest.approx(expected["p"], rel=1e-9)


def log(rows: int = 3) -> dict[str, Any]:
    def section() -> dict[str, Any]:
        keys = [str(i) for i in range(rows)]
        return {
            "avg_gt_loss": {k: 0.5 + int(k) for k in keys},
            "avg_paraphrased_loss": dict.fromkeys(keys, 1.0),
            "average_perturb_loss": {k: [1.0 + int(k), 2.0] for k in keys},
            "rougeL_recall": dict.fromkeys(keys, 0.5),
        }

    names = ("eval_log", "eval_real_author_wo_options", "eval_real_world_wo_options")
    return {f"{name}.json": section() for name in (*names, "eval_log_forget")}


def test_a_log_of_the_same_kind_is_read_by_key_not_by_order(tmp_path: Path) -> None:
    ordered, shuffled = log(), log()
    losses = shuffled["eval_log.json"]["average_perturb_loss"]
    shuffled["eval_log.json"]["average_perturb_loss"] = dict(reversed(losses.items()))
    for name, content in (("a", ordered), ("b", shuffled)):
        (tmp_path / name).write_text(json.dumps(content))
    assert evaluated_log(tmp_path / "a") == evaluated_log(tmp_path / "b")


Change = Callable[[dict[str, Any]], Any]


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda d: d.pop("eval_log_forget.json"), "has no section 'eval_log_forget.json'"),
        (lambda d: d["eval_log.json"].pop("avg_gt_loss"), "has no field 'avg_gt_loss'"),
        (
            lambda d: d["eval_log.json"]["rougeL_recall"].pop("1"),
            "eval_log.json: 'rougeL_recall' and 'avg_gt_loss' speak of different examples: '1'",
        ),
        (
            lambda d: d["eval_log.json"]["avg_gt_loss"].update({"2": "low"}),
            "avg_gt_loss['2'] must be a number, but is 'low'",
        ),
        (
            lambda d: d["eval_log.json"]["avg_gt_loss"].update({"2": float("nan")}),
            "avg_gt_loss['2'] must be a finite number, but is nan",
        ),
        (
            lambda d: d["eval_log.json"]["avg_gt_loss"].update({"2": 10**400}),
            "avg_gt_loss['2'] must be a finite number, but is 1000",
        ),
        (
            lambda d: d["eval_log_forget.json"]["average_perturb_loss"].update({"0": 1.5}),
            "average_perturb_loss['0'] must be a list of losses",
        ),
        (
            lambda d: d["eval_log_forget.json"].update({k: {} for k in d["eval_log_forget.json"]}),
            "eval_log_forget.json: holds no example",
        ),
    ],
)
def test_a_wrong_log_is_one_line(tmp_path: Path, change: Change, line: str) -> None:
    content = log()
    change(content)
    path = tmp_path / "log.json"
    path.write_text(json.dumps(content))
    with pytest.raises(DataError) as caught:
        evaluated_log(path)
    assert line in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (None, "cannot be read"),
        (b"{", "not JSON"),
        (b"[" * 100_000, "not JSON that can be read"),
        (b"1" * 10_000, "not JSON that can be read"),
        (b"[]", "not a TOFU evaluation log"),
    ],
)
def test_a_file_that_is_no_log_is_one_line(
    tmp_path: Path, content: bytes | None, line: str
) -> None:
    path = tmp_path / "log.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=line):
        evaluated_log(path)


def test_a_retrained_models_log_needs_its_forget_section_only(tmp_path: Path) -> None:
    (tmp_path / "own").write_text(json.dumps(log()))
    short = {"eval_log_forget.json": log(5)["eval_log_forget.json"]}
    (tmp_path / "other").write_text(json.dumps(short))
    evaluated = evaluated_log(tmp_path / "own", tmp_path / "other")
    assert 0 <= evaluated["arithmetic"]["forget_quality"] <= 1
    assert len(evaluated["notes"]) == 1
    assert evaluated["notes"][0].startswith("forget_quality compares 3 examples of ")
    assert evaluated_log(tmp_path / "own", tmp_path / "own")["notes"] == []
