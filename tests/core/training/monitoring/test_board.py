"""What TensorBoard shows of a run: its beginning, the way, what came of it, and in which words."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.core.training.events import accumulated, descriptions, picture

import amnesis
from amnesis.contracts import Probe
from amnesis.training.monitoring.units import Units

ROW = "Mirela Dantes"


@pytest.fixture
def made(tiny_folder: Path, qa_rows: Any) -> dict[str, Any]:
    return {
        "name": "My first: run!",
        "model": str(tiny_folder),
        "retrained": str(tiny_folder),
        "objective": "wga",
        "regularizer": "kl",
        "probes": [{"name": "g_effect", "every": 1}],
        "benchmark": {"name": "own", "forget": qa_rows[:4], "retain": qa_rows[4:]},
        "training": {"steps": 4, "batch_size": 4, "learning_rate": 1e-3},
        "evaluate": {
            "metrics": ["probability", "rouge_l"],
            "generate_rows": 2,
            "max_new_tokens": 4,
            "every": 2,
            "during": ["forget/probability"],
        },
        "attacks": ["quantization"],
    }


def run_of(folder: Path) -> Path:
    (run,) = (path for path in (folder / "tensorboard").iterdir() if path.is_dir())
    return run


def test_a_run_is_shown_whole(made: dict[str, Any], tmp_path: Path) -> None:
    results = amnesis.run(made, tmp_path / "out", device="cpu").results
    run = run_of(tmp_path / "out")
    assert run.name == "My-first-run"
    shown = picture(run)
    assert results.before is not None
    assert results.after is not None
    assert results.retrained is not None
    for name, value in results.before.items():
        steps = [0, 2, 4] if name == "forget/probability" else [0, 4]
        assert [step for step, _ in shown[name]] == steps, name
        assert shown[name][0][1] == pytest.approx(value)
        assert shown[name][-1][1] == pytest.approx(results.after[name])
        assert shown[f"retrained/{name}"] == [
            (step, pytest.approx(results.retrained[name])) for step in (0, 4)
        ]
    for attack, phases in results.attacks.items():
        for name, value in phases["after"].items():
            assert shown[f"attacks/{attack}/{name}"][-1] == (4, pytest.approx(value))
    (told,) = shown["recipe/text_summary"]
    assert told[0] == 0
    assert "objective:" in told[1]
    assert "(4 rows)" in told[1]
    assert ROW not in "".join(map(str, shown.values())), "rows are no part of this file"


def test_every_curve_says_what_it_is(made: dict[str, Any], tmp_path: Path) -> None:
    amnesis.run(made, tmp_path / "out", device="cpu")
    words = descriptions(run_of(tmp_path / "out"))
    undescribed = [tag for tag, text in words.items() if not text and "attacks/" not in tag]
    assert undescribed == []
    assert words["retrained/forget/probability"].endswith(
        "on the forget set, of the retrained model"
    )
    effect = next(tag for tag in words if tag.startswith("g_effect/unlearn"))
    assert "∇" in words[effect]


def test_the_table_of_runs_has_what_was_told_and_what_came(
    made: dict[str, Any], tmp_path: Path
) -> None:
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    amnesis.run(made, tmp_path / "out", device="cpu")
    events = accumulated(run_of(tmp_path / "out"))
    contents = {
        tag: HParamsPluginData.FromString(content)
        for tag, content in events.PluginTagToContent("hparams").items()
    }
    told = contents["_hparams_/session_start_info"].session_start_info.hparams
    assert told["objective"].string_value == "wga"
    assert told["learning_rate"].number_value == 1e-3
    assert contents["_hparams_/session_end_info"].session_end_info.status  # it came to its end
    metrics = {m.name.tag for m in contents["_hparams_/experiment"].experiment.metric_infos}
    assert {"forget/probability", "retain/rouge_l"} <= metrics <= set(events.Tags()["tensors"])


def test_one_layout_draws_a_metric_s_sets_together(made: dict[str, Any], tmp_path: Path) -> None:
    import re

    from tensorboard.plugins.custom_scalar.layout_pb2 import Layout

    amnesis.run(made, tmp_path / "out", device="cpu")
    events = accumulated(run_of(tmp_path / "out"))
    (tensor,) = events.Tensors("custom_scalars__config__")
    layout = Layout.FromString(tensor.tensor_proto.string_val[0])
    charts = {chart.title: chart.multiline.tag for c in layout.category for chart in c.chart}
    tags = descriptions(run_of(tmp_path / "out"))
    drawn = {
        title: [tag for tag in tags if any(re.match(pattern, tag) for pattern in patterns)]
        for title, patterns in charts.items()
    }
    probability = {"forget/probability", "retain/probability"}
    assert probability | {f"retrained/{name}" for name in probability} == set(drawn["probability"])
    assert len(drawn["G-effect of the objective"]) == 2
    assert set(drawn["losses"]) == {"forget/loss", "retain/loss"}


def test_answers_are_apart_and_for_the_owner_s_eyes(made: dict[str, Any], tmp_path: Path) -> None:
    amnesis.run(made, tmp_path / "kept", device="cpu")
    folder = run_of(tmp_path / "kept") / "answers"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    (before, text), (after, later) = picture(folder)["forget/text_summary"]
    assert (before, after) == (0, 4)
    assert ROW in text
    assert "before:" in text
    assert "after:" not in text
    assert "after:" in later
    made["evaluate"]["keep_answers"] = False
    amnesis.run(made, tmp_path / "not", device="cpu")
    assert not (run_of(tmp_path / "not") / "answers").exists()
    for file in (tmp_path / "not" / "tensorboard").rglob("*"):
        assert file.is_dir() or ROW.encode() not in file.read_bytes()


def test_deleting_the_answers_deletes_tensorboard_s_too(
    made: dict[str, Any], tmp_path: Path, capfd: Any
) -> None:
    from amnesis.cli.app import main

    amnesis.run(made, tmp_path / "out", device="cpu")
    assert main(["report", str(tmp_path / "out"), "--delete-answers"]) == 0
    for file in (tmp_path / "out").rglob("*"):
        if file.is_file() and file.name not in ("recipe.yaml",):
            assert ROW.encode() not in file.read_bytes(), file
    assert run_of(tmp_path / "out").is_dir()


def test_hostile_rows_are_shown_as_they_are(
    made: dict[str, Any], qa_rows: Any, tmp_path: Path
) -> None:
    hostile = "```\n</pre>![seen](http://example.org/x.png) <img src=x onerror=alert(1)>\r\n| a |\u2028# b"
    made["benchmark"]["forget"] = [{"question": hostile, "answer": "yes"}, *qa_rows[:3]]
    made["template"] = {"max_length": 200}
    amnesis.run(made, tmp_path / "out", device="cpu")
    (_, text), *_ = picture(run_of(tmp_path / "out") / "answers")["forget/text_summary"]
    lines = [line for line in text.splitlines() if "example.org" in line or "# b" in line]
    assert lines
    assert all(line.startswith("    ") for line in lines), "a block of code, whatever it holds"


def test_finetuning_and_unlearning_share_no_tag(
    made: dict[str, Any], tiny_folder: Path, tmp_path: Path
) -> None:
    training = {"steps": 2, "batch_size": 4}
    amnesis.finetune(
        {
            "model": str(tiny_folder),
            "benchmark": made["benchmark"],
            "sets": ["forget"],
            "training": training,
        },
        tmp_path / "finetuned",
        device="cpu",
    )
    amnesis.run(made, tmp_path / "unlearned", device="cpu")
    one, other = (picture(run_of(tmp_path / name)) for name in ("finetuned", "unlearned"))
    assert run_of(tmp_path / "finetuned").name == "finetune"
    assert {step for step, _ in one["train/learning_rate"]} == {1, 2}
    assert set(one) & set(other) == {"recipe/text_summary"}
    assert json.dumps(one)  # nothing but numbers and texts


class Effects(Probe):
    one_unit = ("effect/a", "effect/b")

    def report(self, context: Any, state: Any) -> Any:
        return {}, state


SMALL = st.floats(1e-12, 1e3).flatmap(lambda size: st.sampled_from([size, -size]))


@given(st.lists(st.dictionaries(st.sampled_from(["effect/a", "effect/b/x"]), SMALL), min_size=1))
def test_a_unit_is_said_is_one_for_all_and_loses_nothing(steps: list[dict[str, float]]) -> None:
    units = Units([Effects()])
    tags = set()
    for values in steps:
        units.see(values)
        for name, value in values.items():
            shown = units.shown(name, value)
            assert shown is not None
            tag, number = shown
            unit = tag.removeprefix(name).removeprefix("_in_")
            tags.add(unit)
            assert number * float(unit or 1) == pytest.approx(value, rel=1e-9)
    assert len(tags) <= 1
    first = max(map(abs, next((s for s in steps if s), {"": 1.0}).values()))
    shown = units.shown("effect/a", -first) if tags else None
    if shown is not None:
        assert abs(shown[1]) >= 0.1, "TensorBoard prints this, and not −0"


def test_what_is_no_effect_keeps_its_name() -> None:
    units = Units([Effects()])
    assert units.shown("effect/a", 0.0) is None, "until an effect is not 0, its unit is not known"
    units.see({"effect/a": 3e-7})
    assert units.shown("effect/abc", 1e-9) == ("effect/abc", 1e-9)
    shown = units.shown("effect/b/layer", -3e-8)
    assert shown is not None
    assert shown[0] == "effect/b/layer_in_1e-8"
    assert shown[1] == pytest.approx(-3.0)
