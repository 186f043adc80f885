"""`amnesis probe`: tables, a page and a picture of a model in a folder."""

from __future__ import annotations

import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from amnesis.data import Template
from amnesis.errors import OutputError, RecipeError
from amnesis.g_effect import EffectTable
from amnesis_evaluation.commands.probe import choice_of, probe
from amnesis_evaluation.commands.probe_subject import load_subject


@pytest.fixture
def files(tmp_path: Path, tiny_folder: Path, qa_rows: Any, write_rows: Any) -> dict[str, Path]:
    marked = [{**row, "answer": row["answer"] + " <&>"} for row in qa_rows]
    rows = write_rows(forget=marked[:3], retain=marked[3:7])
    return {"model": tiny_folder, "out": tmp_path / "out", **rows}


def run(files: dict[str, Path], **options: Any) -> None:
    probe(
        str(files["model"]),
        forget=files["forget"],
        retain=files["retain"],
        out=files["out"],
        device="cpu",
        **options,
    )


class Page(HTMLParser):
    """Collects the page's text and whatever it would load."""

    def __init__(self) -> None:
        super().__init__()
        self.text, self.loads = "", []

    def handle_data(self, data: str) -> None:
        self.text += data

    def handle_starttag(self, tag: str, attributes: Any) -> None:
        self.loads += [v for k, v in attributes if k in {"src", "href"}] + [tag] * (tag == "script")


def test_everything_is_written_and_says_the_same(files: dict[str, Path], capsys: Any) -> None:
    run(files, objectives="ga,npo,rmu:layer=0:coefficient=2.0,nll", entanglement=2)
    coarse = EffectTable.read_parquet(files["out"] / "g_effect.parquet")
    fine = EffectTable.read_parquet(files["out"] / "tokens.parquet")
    assert coarse.objectives == ["ga", "npo", "rmu(coefficient=2.0, layer=0)", "nll"]
    assert fine.objectives == ["ga", "npo", "nll"]
    for name in fine.objectives:
        for set_name in ("forget", "retain"):
            chosen = {"objective": name, "set": set_name}
            assert fine.total(**chosen) == pytest.approx(coarse.total(**chosen), rel=1e-3)
    pairs = pq.read_table(files["out"] / "entanglement.parquet")
    assert set(pairs["retain_example"].to_pylist()) == {0, 1}
    assert (files["out"] / "g_effect.png").read_bytes().startswith(b"\x89PNG")
    page = Page()
    page.feed((files["out"] / "g_effect.html").read_text(encoding="utf-8"))
    assert page.loads == []
    ratio = f"{coarse.ratio('ga'):.4g}"
    for said in ("coincide", "tied_embedding", "<&>", "cannot go without", ratio):
        assert said in page.text
    shown = capsys.readouterr().out
    assert "coincide" in shown
    assert f"{coarse.total(objective='nll', set='forget'):.4g}" in shown


def test_one_table_where_layer_and_token_are_wanted_jointly(files: dict[str, Path]) -> None:
    run(files, objectives="ga", joint=True, by="layer,token")
    table = EffectTable.read_parquet(files["out"] / "g_effect.parquet")
    assert all(table.data[c].null_count == 0 for c in ("layer", "example", "token"))
    assert not (files["out"] / "tokens.parquet").exists()


def test_a_folder_that_holds_something_is_left_alone(files: dict[str, Path]) -> None:
    files["out"].mkdir()
    (files["out"] / "mine.txt").write_text("x")
    with pytest.raises(OutputError):
        run(files, objectives="ga", by="layer")
    run(files, objectives="ga", by="layer", overwrite=True)
    assert (files["out"] / "mine.txt").read_text() == "x"


def test_without_matplotlib_the_picture_is_left_out_and_it_says_so(
    files: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    for module in ("matplotlib.backends.backend_agg", "matplotlib.figure"):
        monkeypatch.setitem(sys.modules, module, None)
    run(files, objectives="ga", by="layer,example")
    assert "pip install 'amnesis[report]'" in " ".join(capsys.readouterr().out.split())
    assert not (files["out"] / "g_effect.png").exists()
    assert (files["out"] / "g_effect.html").exists()


def test_objectives_on_the_command_line() -> None:
    assert choice_of(" wga:beta=5 ") == {"name": "wga", "beta": 5}
    assert choice_of("npo") == {"name": "npo"}
    with pytest.raises(RecipeError, match="wga:beta=5"):
        choice_of("wga:beta")


def test_the_sets_must_be_named(files: dict[str, Path]) -> None:
    with pytest.raises(RecipeError, match="--retain FILE"):
        probe(str(files["model"]), forget=files["forget"])
    with pytest.raises(RecipeError, match="not both"):
        run(files, benchmark="fictional")


def test_a_runs_folder_brings_its_model_and_its_template(files: dict[str, Path]) -> None:
    folder = files["model"].parent  # holds model/, as a run's and a finetuning's folder do
    recipe = folder / "recipe.yaml"
    recipe.write_text("sets: [forget]\ntemplate: {prompt: 'Q {question} A ', eos: false}\n")
    subject = load_subject(str(folder), "cpu", False)
    assert (subject.template.prompt, subject.template.eos) == ("Q {question} A ", False)
    assert subject.model.config.hidden_size == 32
    recipe.write_text("template: {promt: x}\n")
    with pytest.raises(RecipeError, match="template cannot be read"):
        load_subject(str(folder), "cpu", False)
    recipe.unlink()
    assert load_subject(str(folder), "cpu", False).template == Template()
