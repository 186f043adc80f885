"""`amnesis probe`: tables, a page and a picture of a model in a folder."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
import yaml
from tests.evaluation.commands.page_reader import Page
from tests.evaluation.pages.reading import as_number

from amnesis.cli import load_subject
from amnesis.cli.app import main
from amnesis.contracts import Subject
from amnesis.data.templates import Template
from amnesis.discovery.resolve import Choice
from amnesis.errors import RecipeError
from amnesis_evaluation.commands.inputs import choice_of
from amnesis_evaluation.commands.probe import command as commands
from amnesis_evaluation.commands.probe.picture import shares_by_layer
from amnesis_evaluation.pages.numbers import number
from amnesis_plugins import g_effect
from amnesis_plugins.g_effect import EffectTable, measure_entanglement
from amnesis_plugins.g_effect.sets import encode_set

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def rows(qa_rows: Any) -> dict[str, list[Any]]:
    marked = [{**row, "answer": row["answer"] + " <&>"} for row in qa_rows]
    return {"forget": marked[:3], "retain": marked[3:7]}


@pytest.fixture
def files(tmp_path: Path, tiny_folder: Path, rows: Any, write_rows: Any) -> dict[str, Path]:
    return {"model": tiny_folder, "out": tmp_path / "out", **write_rows(**rows)}


@pytest.fixture
def command(files: dict[str, Path], capsys: Any) -> Command:
    """Return a function that runs `amnesis probe` and gives exit code, stdout and stderr."""

    def command(*options: str, model: Path = files["model"]) -> tuple[int, str, str]:
        given = [word for k in ("forget", "retain", "out") for word in (f"--{k}", str(files[k]))]
        code = main(["probe", str(model), *given, "--device", "cpu", *options])
        said = capsys.readouterr()
        return code, " ".join(said.out.split()), said.err

    return command


@pytest.fixture
def reference(tmp_path: Path, tiny_llama: Any, tiny_tokenizer: Any, tiny_folder: Path) -> Path:
    """A model's folder, of other weights than the tiny one's, which is saved already."""
    with torch.no_grad():
        for p in tiny_llama.parameters():
            p.add_(torch.randn_like(p), alpha=0.05)
    folder = tmp_path / "reference"
    tiny_llama.save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    return folder


def loaded(folder: Path) -> Subject:
    return load_subject(str(folder), device="cpu").subject


def read(files: dict[str, Path]) -> Page:
    return Page((files["out"] / "g_effect.html").read_text(encoding="utf-8"))


def test_everything_is_written_and_says_the_same(command: Command, files: dict[str, Path]) -> None:
    code, shown, error = command(
        "--objectives", "ga,npo,rmu:layer=0:coefficient=2.0,nll", "--entanglement", "2"
    )
    assert code == 0
    assert all(" of " in line for line in error.splitlines()), "progress, and nothing else"
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
    assert {path.name for path in files["out"].iterdir()} == set(commands.NAMES)
    page = read(files)
    assert page.loads == []
    ratio = number(coarse.ratio("ga"), 4)
    for said in ("coincide", "tied_embedding", "<&>", "cannot go without", ratio):
        assert said in page.text
    assert "coincide" in shown
    assert f"{coarse.total(objective='nll', set='forget'):.4g}" in shown


def test_the_command_measures_what_the_function_does_with_the_same_arguments(
    command: Command, files: dict[str, Path], rows: Any, reference: Path
) -> None:
    run = files["model"].parent  # holds model/, as a run's folder does
    (run / "recipe.yaml").write_text("template: {prompt: 'Q {question} A ', eos: false}\n")
    code, shown, _ = command(
        *("--objectives", "npo,wga:beta=2,nll,kl", "--reference", str(reference)),
        *("--limit", "2", "--batch-size", "1", "--entanglement", "1"),
        model=run,
    )
    assert code == 0
    assert "coincide" not in shown
    model, other = map(loaded, (files["model"], reference))
    choices: list[Choice] = ["npo", {"name": "wga", "beta": 2}, "nll"]
    template = Template(prompt="Q {question} A ", eos=False)
    forget, retain = (
        encode_set(model.model, model.tokenizer, name, rows[name][:k], [], template, 1)
        for name, k in (("forget", 2), ("retain", 1))
    )
    paired = pq.read_table(files["out"] / "entanglement.parquet")["value"].to_pylist()
    pairs = measure_entanglement(model.model, forget, retain, 1).pairs
    assert paired == pytest.approx([pair[3] for pair in pairs], rel=1e-5, abs=1e-9)
    for name, asked, by in (
        ("g_effect", [*choices, "kl"], ("layer", "example")),
        ("tokens", choices, ("example", "token")),
    ):
        wanted = g_effect.measure(
            model.model,
            model.tokenizer,
            rows["forget"][:2],
            rows["retain"][:2],
            asked,
            other.model,
            by,
            template=template,
            batch_size=1,
        )
        found = EffectTable.read_parquet(files["out"] / f"{name}.parquet")
        assert found.risks == pytest.approx(wanted.risks, rel=1e-6)
        assert (found.by, found.texts, found.notes) == (wanted.by, wanted.texts, ())
        keys = [{k: v for k, v in row.items() if k != "value"} for row in wanted]
        assert [{k: v for k, v in row.items() if k != "value"} for row in found] == keys
        values = [row["value"] for row in wanted]
        assert [row["value"] for row in found] == pytest.approx(values, rel=1e-5, abs=1e-9)


def test_page_and_picture_show_the_tables_that_lie_beside_them(
    command: Command, files: dict[str, Path], rows: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: dict[str, Any] = {}
    monkeypatch.setattr("amnesis_evaluation.commands.probe.picture.heat_maps", drawn.update)
    assert command("--objectives", "nll,ga,wga:beta=3")[0] == 0
    coarse = EffectTable.read_parquet(files["out"] / "g_effect.parquet")
    fine = EffectTable.read_parquet(files["out"] / "tokens.parquet")
    forget, retain = drawn.values()
    assert (forget, retain) == tuple(shares_by_layer(coarse, d) for d in ("forget", "retain"))
    for name in ("ga", "wga(beta=3.0)"):
        assert sum(forget[name].values()) == pytest.approx(-1, rel=1e-6)
        ratio = -sum(retain[name].values())
        assert ratio == pytest.approx(coarse.ratio(name), rel=1e-6)
    page = read(files)
    order = [row[0].text for row in page.table("Objectives")[1:]]
    ratios = [coarse.ratio(name) for name in order]
    priced = [ratio for ratio in ratios if ratio == ratio]
    assert priced == sorted(priced)
    assert len(priced) >= 2
    by_example = coarse.totals("example", objective="ga", set="retain")
    hurting = sorted((v, e) for e, v in by_example.items() if v < 0)
    shown = page.table("Examples that hurt", "ga")[1:]
    assert [row[1].text for row in shown] == [number(value) for value, _ in hurting]
    for row, (_, example) in zip(shown, hurting, strict=True):
        assert row[0].text.startswith(rows["forget"][example]["question"])
    shares = fine.totals("example", "token", objective="ga", set="retain")
    worst = sorted((v, place) for place, v in shares.items() if v < 0)[:8]
    shown = page.table("Tokens that hurt", "ga")[1:]
    assert [row[1].text for row in shown] == [number(value) for value, _ in worst]
    own = [fine.texts["forget"][example][token] for _, (example, token) in worst]
    assert [row[0].bold for row in shown] == own
    coloured = page.texts["Tokens by their share of the retaining effect", "ga"]
    tokens = [token for text in coloured for token in text]
    assert sorted(t.title for t in tokens) == sorted(number(v) for v in shares.values())
    largest = max(map(abs, shares.values()))
    visible = [t for t in tokens if abs(as_number(t.title)[0]) > largest / 15]
    assert {t.tone for t in visible} == {"damage", "wanted"}
    assert all(t.tone == ("damage" if t.title.startswith("−") else "wanted") for t in visible)


@pytest.mark.parametrize("by", ["layer", "layer,position", "layer,example,token"])
def test_entanglement_is_shown_by_its_own_tokens_however_effects_are_split(
    command: Command, files: dict[str, Path], rows: Any, by: str
) -> None:
    command("--objectives", "ga", "--by", by, "--entanglement", "2")
    pairs = pq.read_table(files["out"] / "entanglement.parquet").to_pylist()
    strongest = sorted(pairs, key=lambda pair: -pair["value"])[:24]
    subject = loaded(files["model"])
    answers = {}
    for k, row in enumerate(rows["forget"]):
        prompt = f"Question: {row['question']}\nAnswer:"
        whole = subject.tokenizer(f"{prompt} {row['answer']}").input_ids
        answers[k] = [*whole[len(subject.tokenizer(prompt).input_ids) :], 0]  # 0 is <eos>
    shown = read(files).table("Entanglement")[1:]
    assert [row[0].bold for row in shown] == [
        subject.tokenizer.decode([answers[p["forget_example"]][p["token"]]]) for p in strongest
    ]
    for row, pair in zip(shown, strongest, strict=True):
        assert row[1].text.startswith(rows["retain"][pair["retain_example"]]["question"])
        assert row[2].text == number(pair["value"])


def test_what_vanishes_at_its_own_reference_is_no_finding(
    command: Command, files: dict[str, Path], reference: Path
) -> None:
    _, shown, _ = command("--objectives", "ga,kl", "--by", "layer,example,token")
    assert "note: kl has no effect beyond rounding" in shown
    page = read(files)
    assert "kl has no effect beyond rounding" in page.text
    assert [c.text for c in page.table("Objectives")[2]] == ["kl", "–", "–", "–"]
    for heading in ("Layers, on the forget set", "Layers, on the retain set"):
        ga, kl = page.table(heading)[1:]
        assert {c.tone for c in kl[1:]} == {"none"}
        assert {"wanted", "damage"} & {c.tone for c in ga[1:]}
        assert [c.text for c in kl] == ["kl", *["–"] * (len(ga) - 1)]
    assert page.under("Examples that hurt") == ["ga"]
    command("--objectives", "ga,kl", "--reference", str(reference), "--overwrite")
    page = read(files)
    assert "–" not in [c.text for c in page.table("Layers, on the retain set")[2]]
    assert page.under("Examples that hurt") == ["ga", "kl"]


def test_one_table_where_layer_and_token_are_wanted_jointly(
    command: Command, files: dict[str, Path]
) -> None:
    assert command("--objectives", "ga", "--joint", "--by", "layer,token")[0] == 0
    table = EffectTable.read_parquet(files["out"] / "g_effect.parquet")
    assert all(table.data[c].null_count == 0 for c in ("layer", "example", "token"))
    assert not (files["out"] / "tokens.parquet").exists()


def test_overwriting_leaves_nothing_of_the_earlier_probe_and_all_else(
    command: Command, files: dict[str, Path]
) -> None:
    command("--objectives", "ga")
    assert (files["out"] / "entanglement.parquet").exists(), "it belongs to a probe"
    (files["out"] / "mine.txt").write_text("x")
    code, _, error = command("--objectives", "ga", "--by", "layer")
    assert code == 2
    assert error.count("\n") == 1
    assert "--overwrite to replace g_effect.parquet, tokens.parquet" in error
    assert "--resume" not in error
    assert (files["out"] / "tokens.parquet").exists()
    fewer = ["--by", "layer", "--entanglement", "0", "--overwrite"]
    assert command("--objectives", "ga", *fewer)[0] == 0
    left = {path.name for path in files["out"].iterdir()}
    names = {"g_effect.parquet", "g_effect.json", "g_effect.html", "g_effect.png"}
    assert left == {*names, "mine.txt"}


def unreached(*_: Any, **__: Any) -> None:
    raise AssertionError("it was measured")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--objectives", "wga:beta=["], "objective 'wga:beta=[': '[' is not a YAML value"),
        (["--objectives", "wga:beta"], "write name:key=value"),
        (["--objectives", "ga,nppo"], "npo"),
        (["--device", "foo"], "'foo' cannot be used here"),
        (["--out", "/proc/nope/x"], "/proc/nope/x: cannot be made"),
        (["--out", "{forget}"], "is a file, not a folder; name another --out"),
        (["--out", "{forget}/below"], "cannot be made"),
        (["--forget", "/nope.jsonl"], "/nope.jsonl"),
        (["--benchmark", "fictional"], "not both"),
    ],
)
def test_what_is_wrong_is_said_in_one_line_before_anything_is_measured(
    command: Command,
    files: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    said: str,
) -> None:
    monkeypatch.setattr(commands, "measure", unreached)
    code, out, error = command(*(word.format(**files) for word in options))
    assert (code, out) == (2, "")
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert said in error


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_is_not_here_is_no_defect(command: Command) -> None:
    code, _, error = command("--device", "cuda")
    assert (code, error.count("\n")) == (2, 1)
    assert "'cuda' cannot be used here" in error


def test_without_matplotlib_the_picture_is_left_out_and_it_says_so(
    command: Command, files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("matplotlib.backends.backend_agg", "matplotlib.figure"):
        monkeypatch.setitem(sys.modules, module, None)
    code, shown, _ = command("--objectives", "ga", "--by", "layer,example")
    assert (code, "pip install 'amnesis[report]'" in shown) == (0, True)
    assert not (files["out"] / "g_effect.png").exists()
    assert (files["out"] / "g_effect.html").exists()


def test_objectives_on_the_command_line() -> None:
    assert choice_of(" wga:beta=5 ") == {"name": "wga", "beta": 5}
    assert choice_of("npo") == {"name": "npo"}
    theirs = {"name": "their-methods:wga", "beta": 5}
    assert choice_of("their-methods:wga:beta=5", "objective") == theirs
    with pytest.raises(RecipeError, match="wga:beta=5"):
        choice_of("wga:beta=5:gamma")


def test_the_sets_must_be_named(files: dict[str, Path], capsys: Any) -> None:
    assert main(["probe", str(files["model"]), "--forget", str(files["forget"])]) == 2
    assert "--retain FILE" in capsys.readouterr().err


def test_a_runs_folder_brings_its_model_and_its_template(files: dict[str, Path]) -> None:
    folder = files["model"].parent  # holds model/, as a run's and a finetuning's folder do
    recipe = folder / "recipe.yaml"
    recipe.write_text("sets: [forget]\ntemplate: {prompt: 'Q {question} A ', eos: false}\n")
    subject = loaded(folder)
    assert subject.template == Template(prompt="Q {question} A ", eos=False)
    assert subject.model.config.hidden_size == 32
    recipe.write_text("template: {promt: x}\n")
    with pytest.raises(RecipeError, match=r"recipe\.yaml: template\.promt: unknown key"):
        loaded(folder)
    recipe.unlink()
    assert loaded(folder).template == Template()


def test_a_run_s_folder_brings_the_rows_of_the_run(
    command: Command, files: dict[str, Path], tmp_path: Path, capsys: Any
) -> None:
    assert command("--objectives", "ga", "--entanglement", "0")[0] == 0
    wanted = (files["out"] / "g_effect.json").read_text(encoding="utf-8")
    run = tmp_path / "run"
    run.mkdir()
    (tmp_path / "model").rename(run / "model")
    own = {name: str(files[name]) for name in ("forget", "retain")}
    recipe = {"objective": "ga", "benchmark": {"name": "own", **own}}
    line = ["probe", str(run), "--objectives", "ga", "--entanglement", "0", "--device", "cpu"]

    def of_the_run(out: str, *options: str, **changes: Any) -> str:
        (run / "recipe.yaml").write_text(yaml.safe_dump({**recipe, **changes}), encoding="utf-8")
        assert main([*line, "--out", str(tmp_path / out), *options]) == 0, capsys.readouterr().err
        return (tmp_path / out / "g_effect.json").read_text(encoding="utf-8")

    assert of_the_run("as-it-is") == wanted
    swapped = {"forget": {"set": "retain"}, "retain": [{"path": own["forget"]}]}
    other = of_the_run("swapped", **swapped)
    assert other != wanted
    named = ["--forget", own["forget"], "--retain", own["retain"]]
    assert of_the_run("named", *named, **swapped) == wanted
    half = ["--forget", own["retain"]]
    assert of_the_run("half", *half, retain={"path": own["forget"]}) == other
