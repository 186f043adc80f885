"""``amnesis evaluate``: a model, a run's folder, an original log; and what may be wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from amnesis.cli.app import app
from amnesis.contracts import Subject
from amnesis.data.templates import Template
from amnesis.discovery.registry import default_registry
from amnesis.errors import AmnesisError, OutputError, RecipeError
from amnesis.runs.results import Results
from amnesis_evaluation.harness import tasks
from amnesis_evaluation.reports.stored import load_evaluation


@pytest.fixture
def place(rich_place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a saved model and files of rows."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(rich_place / "user-cache"))
    monkeypatch.chdir(rich_place)
    return rich_place


ROWS = ["--with", "forget=forget.jsonl", "--with", "retain=retain.jsonl"]
OWN = ["model", "--benchmark", "own", *ROWS]


def invoke(*words: str, **options: Any) -> Result:
    return CliRunner().invoke(app, words, obj=default_registry(), **options)


def evaluate(*arguments: str) -> str:
    result = invoke("evaluate", *arguments)
    if result.exception is not None:
        raise result.exception
    return result.stdout


def test_a_model_is_evaluated_and_its_results_are_written(
    place: Path, tiny_llama: Any, tiny_tokenizer: Any
) -> None:
    shown = json.loads(evaluate(*OWN, "--max-new-tokens", "4", "--out", "out", "--json"))
    results = Results.read(place / "out")
    assert results.after == shown["values"]
    assert {name: list(ends) for name, ends in results.intervals["after"].items()} == (
        shown["intervals"]
    )
    assert results.benchmark is not None
    assert results.benchmark["name"] == "own"
    (note,) = (note for note in shown["notes"] if "not measured: " in note)
    assert "mia_loss, " in note
    assert "(no set 'holdout')" in note
    import amnesis
    from amnesis.contracts import EvaluationSettings

    own = amnesis.create("benchmark", "own", forget="forget.jsonl", retain="retain.jsonl")
    direct = own.evaluate(
        Subject(tiny_llama, tiny_tokenizer, Template()), EvaluationSettings(max_new_tokens=4)
    )
    assert direct.values == pytest.approx(shown["values"])
    stored = load_evaluation(place / "out")
    assert len(stored.examples) == len(direct.examples)


def test_a_retrained_models_folder_completes_the_table(place: Path) -> None:
    arguments = [*OWN, "--with", "holdout=holdout.jsonl", "--max-new-tokens", "2"]
    evaluate(*arguments, "--out", "retrained")
    metrics = "forget_quality,privleak,forget/probability"
    evaluated = json.loads(
        evaluate(*arguments, "--retrained", "retrained", "--metrics", metrics, "--json")
    )
    assert evaluated["values"]["forget_quality"] == pytest.approx(1)
    assert evaluated["values"]["privleak"] == pytest.approx(0)
    # Three examples a set: a draw in which the retrained model's AUC is 1 is sure to come.
    assert [note.split(":")[0] for note in evaluated["notes"]] == [
        "metric privleak has no interval"
    ]
    table = evaluate(*arguments, "--metrics", "forget/probability")
    assert "forget/probability" in table


def test_retrained_results_say_what_rows_they_are_of(place: Path) -> None:
    evaluate(*OWN, "--max-new-tokens", "2", "--out", "retrained")
    file = place / "forget.jsonl"
    file.write_text(file.read_text().replace("Mirela", "Milena"))
    evaluated = evaluate(*OWN, "--retrained", "retrained", "--metrics", "forget_quality", "--json")
    assert json.loads(evaluated)["notes"] == [
        "metric forget_quality: the retrained model was evaluated on other rows of the set 'forget'; "
        "evaluate it on the same data"
    ]


def test_results_replace_results_and_nothing_else(place: Path) -> None:
    run = place / "run"
    run.mkdir()
    (place / "model").rename(run / "model")
    before = {path: path.read_bytes() for path in run.rglob("*.*")}
    assert before
    for out in ("run", "run/model", "."):
        with pytest.raises(OutputError, match="holds run/model, which is read here"):
            evaluate("run", *OWN[1:], "--out", out, "--overwrite")
    assert {path: path.read_bytes() for path in run.rglob("*.*")} == before

    quick = ["run", *OWN[1:], "--out", "out", "--metrics"]
    evaluate(*quick, "probability")
    (place / "out" / "thesis.tex").write_text("years of work")
    first = Results.read(place / "out")
    with pytest.raises(OutputError, match=r"is not empty; .* replace results"):
        evaluate(*quick, "probability")
    with pytest.raises(AmnesisError, match="did you mean 'probability'"):
        evaluate(*quick, "probabilty", "--overwrite")
    assert Results.read(place / "out") == first
    evaluate(*quick, "exact_memorization", "--overwrite")
    assert set(Results.read(place / "out").after or ()) == {
        "forget/exact_memorization",
        "retain/exact_memorization",
    }
    assert (place / "out" / "thesis.tex").read_text() == "years of work"
    retrained = ["forget_quality", "--retrained", "out", "--overwrite"]
    with pytest.raises(OutputError, match="out: holds out, which is read here"):
        evaluate(*quick, *retrained)
    (place / "out" / "recipe.yaml").write_text("objective: ga")
    with pytest.raises(OutputError, match="holds a run"):
        evaluate(*quick, "probability", "--overwrite")


def test_a_finetunings_folder_brings_what_an_evaluation_needs(place: Path) -> None:
    (place / "target").mkdir()
    (place / "model").rename(place / "target" / "model")
    recipe: dict[str, Any] = {
        "model": "model",
        "benchmark": {"name": "own", "forget": "forget.jsonl", "retain": "retain.jsonl"},
        "sets": ["forget", "retain"],
        "template": {"prompt": "{question} "},
        "training": {"epochs": 1},
        "seed": 0,
    }
    file = place / "target" / "recipe.yaml"
    file.write_text(yaml.safe_dump(recipe))
    quick = ["--metrics", "forget/probability", "--json"]
    evaluated = json.loads(evaluate("target", *quick))
    assert evaluated == json.loads(evaluate("target", *OWN[1:], *quick))
    plain = json.loads(evaluate("target/model", *OWN[1:], *quick))
    assert plain["values"] != evaluated["values"], "the finetuning's template is another"
    file.write_text(yaml.safe_dump({**recipe, "templat": {}}))
    with pytest.raises(RecipeError, match="templat: unknown key; did you mean 'template'"):
        evaluate("target", *quick)


def test_a_note_is_shown_as_it_is(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from amnesis_evaluation.metrics.probability import Probability

    def fail(*_: Any) -> float:
        raise ValueError("[bold]no[/red]")

    monkeypatch.setattr(Probability, "value", fail)
    shown = evaluate(*OWN, "--metrics", "probability,exact_memorization", "--no-cache")
    assert "warning: metric forget/probability failed: ValueError: [bold]no[/red]" in shown


def test_a_runs_folder_brings_its_benchmark_and_template(place: Path) -> None:
    (place / "run").mkdir()
    (place / "model").rename(place / "run" / "model")
    recipe = {
        "model": "model",
        "objective": "ga",
        "benchmark": {"name": "own", "forget": "forget.jsonl", "retain": "retain.jsonl"},
        "template": {"prompt": "{question} "},
        "evaluate": {"metrics": ["forget/probability"], "bootstrap": 0},
    }
    (place / "run" / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    evaluated = json.loads(evaluate("run", "--json"))
    assert list(evaluated["values"]) == ["forget/probability"]
    assert evaluated["intervals"] == {}
    other = json.loads(evaluate("run/model", *OWN[1:], "--metrics", "forget/probability", "--json"))
    assert other["values"] != evaluated["values"], "the run's template is another"


def test_an_evaluation_is_remembered_until_anything_changes(place: Path) -> None:
    cache = place / "user-cache" / "amnesis" / "evaluation"
    quick = [*OWN, "--metrics", "probability", "--json"]

    def evaluated(*more: str) -> tuple[Any, int]:
        values = json.loads(evaluate(*quick, *more))
        return values, len(list(cache.glob("*.json")))

    first, entries = evaluated()
    assert entries == 1
    assert evaluated() == (first, 1)
    assert evaluated("--batch-size", "1")[1] == 1, "the batch size does not decide what is said"
    assert evaluated("--limit", "1")[1] == 2
    file = place / "forget.jsonl"
    file.write_text(file.read_text().replace("Mirela", "Milena"))
    changed, entries = evaluated()
    assert entries == 3
    assert changed != first
    entry = max(cache.glob("*.json"), key=lambda path: path.stat().st_mtime)
    entry.write_text("{")
    again, entries = evaluated()
    assert entries == 3, "a broken entry is evaluated anew"
    assert again["values"] == changed["values"]
    assert [("was damaged" in note) for note in again["notes"]] == [True]


def test_values_under_attack_stand_beside_those_before(place: Path) -> None:
    quick = ["--metrics", "probability", "--max-new-tokens", "2"]
    evaluate(*OWN, *quick, "--attack", "paraphrase", "--out", "out")
    results = Results.read(place / "out")
    assert results.after is not None
    before, after = (results.attacks["paraphrase"][when] for when in ("before", "after"))
    assert before == {"forget/probability": results.after["forget/probability"]}
    assert set(after) == {
        f"forget/{metric}" for metric in ("probability", "extraction_strength", "rouge_l")
    }
    assert after == {key: results.after[f"paraphrase/{key}"] for key in after}
    assert after["forget/probability"] != before["forget/probability"]


def test_a_quantized_copy_is_evaluated_anew_each_time(place: Path) -> None:
    arguments = [*OWN, "--metrics", "probability", "--attack", "quantization", "--json"]
    first = json.loads(evaluate(*arguments))
    assert "quantization: quantised to 8 bits by torchao" in first["notes"]
    for name, value in first["values"].items():
        if not name.startswith("quantization/"):
            assert first["values"][f"quantization/{name}@8bit-torchao"] != value
        assert name in first["intervals"]
    cache = place / "user-cache" / "amnesis" / "evaluation"
    assert len(list(cache.iterdir())) == 1
    assert json.loads(evaluate(*arguments)) == first


def test_no_cache_writes_none(place: Path) -> None:
    evaluate(*OWN, "--metrics", "probability", "--no-cache")
    assert not (place / "user-cache").exists()
    recipe = {
        "model": "model",
        "objective": "ga",
        "benchmark": "own",
        "evaluate": {"cache": "mine"},
    }
    (place / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    named = [*OWN, "--metrics", "probability", "--recipe", "recipe.yaml"]
    evaluate(*named, "--no-cache")
    assert not (place / "mine").exists()
    evaluate(*named)
    assert len(list((place / "mine").iterdir())) == 1


def test_cached_evaluations_are_listed_and_deleted(place: Path) -> None:
    evaluate(*OWN, "--metrics", "probability")
    evaluate(*OWN, "--metrics", "exact_memorization")
    reference = place / "user-cache" / "amnesis" / "reference" / ("0123" * 8)
    reference.mkdir(parents=True)
    (reference / "scores.safetensors").write_bytes(b"1" * 1000)
    one, other = sorted((place / "user-cache" / "amnesis" / "evaluation").iterdir())
    listed = invoke("cache", env={"COLUMNS": "200"}).stdout
    assert all(name in listed for name in (one.stem, other.stem, reference.name))
    assert invoke("cache", one.stem, "--delete").exit_code == 0
    assert (one.exists(), other.exists(), reference.exists()) == (False, True, True)
    assert invoke("cache", "--delete").exit_code == 0
    assert (other.exists(), reference.exists()) == (False, False)


def test_real_tofu_rows(place: Path, shared_data: Path) -> None:
    evaluated = json.loads(
        evaluate(
            "model",
            "--benchmark",
            "tofu",
            "--split",
            "forget01",
            "--data",
            str(shared_data / "tofu"),
            "--limit",
            "4",
            "--max-new-tokens",
            "4",
            "--json",
        )
    )
    assert {
        "model_utility",
        "forget/truth_ratio",
        "retain/truth_ratio_utility",
        "real_authors/choice_probability",
        "world_facts/rouge_l",
    } <= set(evaluated["values"])
    # The tiny model has 128 positions.
    assert [note for note in evaluated["notes"] if "of a text" not in note] == [
        "not measured: forget_quality (no results of a retrained model; give them as --retrained, "
        "or evaluate.retrained)",
        *(
            f"set {name!r} has no intervals: its rows are all of one group, 'author 0 of the file',"
            f" and nothing tells how far another would differ"
            for name in ("forget", "retain")
        ),
    ]


def test_an_original_log(place: Path, shared_data: Path) -> None:
    folder = shared_data / "tofu_eval_logs"
    log = str(folder / "ft_epoch5_lr2e-05_phi_full_wd0.01.json")
    retain = str(folder / "ft_epoch5_lr2e-05_phi_retain90_wd0.01.json")
    truth = json.loads((folder / "truth.json").read_text())
    evaluated = json.loads(evaluate("--from-log", log, "--retain-log", retain, "--json"))
    expected = truth["model_utility"]["ft_epoch5_lr2e-05_phi_full_wd0.01"]
    for convention in ("geometric", "arithmetic"):
        utility = evaluated[convention]["model_utility"]
        assert utility == pytest.approx(expected[convention]["MU"], abs=1e-12)
    assert evaluated["geometric"]["ks_statistic"] == truth["forget_quality"][0]["D"]
    assert "model_utility" in evaluate("--from-log", log)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], "name a MODEL to evaluate"),
        (["model"], "name a --benchmark"),
        (["model", "--from-log", "x.json"], "give a MODEL or --from-log, not both"),
        (["--retain-log", "x.json"], "--retain-log belongs to --from-log"),
        (["--from-log", "x.json"], "x.json: cannot be read"),
        (
            [
                "--from-log",
                "x",
                "--out",
                "o",
                "--attack",
                "relearning",
                "--no-cache",
                "--overwrite",
            ],
            "--attack, --no-cache, --out, --overwrite: of no meaning with --from-log",
        ),
        (["model", "--benchmark", "tofoo"], "did you mean 'tofu'"),
        (["model", "--benchmark", "tofu", "--split", "forget02"], "'forget01', 'forget05' or"),
        (["model", "--benchmark", "tofu", "--data", "none"], "none is not a folder"),
        (["model", "--benchmark", "own"], "forget: is missing"),
        ([*OWN[:5], "--with", "retain=retian.jsonl"], "did you mean 'retain.jsonl'"),
        ([*OWN, "--with", "seed=3"], "benchmark 'own': seed: unknown key; available: "),
        ([*OWN, "--with", "holdout"], "--with 'holdout': write key=value"),
        ([*OWN, "--with", "facts=[1"], "'[1' is not a YAML value"),
        ([*OWN, "--metrics", "rouge"], "did you mean 'rouge_l'"),
        ([*OWN, "--metrics", "mia_loss"], "needs the set 'holdout'"),
        ([*OWN, "--batch-size", "0"], "--batch-size"),
        ([*OWN, "--batch-size", "many"], "--batch-size"),
        ([*OWN, "--limit", "0"], "--limit"),
        ([*OWN, "--retrained", "nowhere"], "the tokenizer 'nowhere' is neither a folder here"),
        ([*OWN, "--retrained", "./modle"], "./modle: there is no such folder; in .: did you mean"),
        (
            [*OWN, "--forget", "forget.jsonl"],
            "give --benchmark, or --forget and --retain, not both",
        ),
        (["model", "--forget", "forget.jsonl"], "benchmark 'own': retain: is missing"),
        (
            ["model", "--forget", "{pth: x}", "--retain", "x"],
            "pth: unknown key; did you mean 'path'",
        ),
        (["model", "--lm-eval", "wmdp_bio:test"], "no task 'wmdp_bio:test'"),
        (["model", "--lm-eval", "wmdp_bio:a=[:b=c"], "lm-eval task 'wmdp_bio:a=[:b=c': '['"),
        (
            ["model", "--lm-eval", "wmdp_bio", "--attack", "paraphrase"],
            "name a --benchmark: metrics",
        ),
        ([*OWN, "--attack", "relearning:stps=3"], "did you mean 'steps'"),
        ([*OWN, "--lm-eval", "wmdp_bo"], "lm-eval has no task 'wmdp_bo'"),
        ([*OWN, "--attack", "relerning"], "no attack is called 'relerning'"),
        (["no-such-model", *OWN[1:]], "no-such-model"),
        ([*OWN, "--device", "foo"], "'foo' cannot be used here"),
        ([*OWN, "--device", "cuda:99"], "'cuda:99' cannot be used here"),
        ([*OWN, "--out", "forget.jsonl"], "forget.jsonl: is a file"),
        ([*OWN, "--out", "model"], "model: "),
    ],
)
def test_wrong_input_is_one_line(
    place: Path, arguments: list[str], line: str, monkeypatch: pytest.MonkeyPatch
) -> None:

    class Index:
        all_tasks = ("wmdp_bio", "wmdp_chem")

    monkeypatch.setattr(tasks, "_index", Index)
    with pytest.raises(AmnesisError) as caught:
        evaluate(*arguments)
    assert line in str(caught.value)
    assert caught.value.exit_code == 2


def test_own_files_are_named_as_every_command_names_them(place: Path) -> None:
    quick = ["--metrics", "probability", "--json"]
    wanted = json.loads(evaluate(*OWN, *quick))["values"]
    files = ["--forget", "forget.jsonl", "--retain", "retain.jsonl"]
    assert json.loads(evaluate("model", *files, *quick))["values"] == wanted
    rows = [json.loads(line) for line in (place / "forget.jsonl").read_text().splitlines()]
    for name, part in (("one", rows[:1]), ("rest", rows[1:])):
        renamed = [{"frage": row["question"], "answer": row["answer"]} for row in part]
        (place / f"{name}.jsonl").write_text("\n".join(map(json.dumps, renamed)))
    sources = [f"{{path: {name}.jsonl, fields: {{question: frage}}}}" for name in ("one", "rest")]
    split = [word for text in sources for word in ("--forget", text)]
    evaluate("model", *split, *files[2:], *quick, "--out", "out")
    results = Results.read(place / "out")
    assert results.after == pytest.approx(wanted)
    assert (results.benchmark or {})["forget"] == f"{len(rows)} rows", "no text of them is kept"


def test_metrics_are_listed_with_commas_or_one_by_one(place: Path) -> None:
    commas = evaluate(*OWN, "--metrics", "probability,perplexity", "--json")
    assert evaluate(*OWN, "--metrics", "probability", "--metrics", "perplexity", "--json") == commas


def test_a_retrained_model_is_as_good_as_its_results(place: Path) -> None:
    holdout = ["--with", "holdout=holdout.jsonl", "--max-new-tokens", "2"]
    evaluated = evaluate(
        *OWN,
        *holdout,
        "--retrained",
        "model",
        "--metrics",
        "forget_quality",
        "--out",
        "out",
        "--json",
    )
    values = json.loads(evaluated)["values"]
    assert values["forget_quality"] == pytest.approx(1)
    assert (Results.read(place / "out").retrained or {}).keys() >= {"forget/truth_ratio"}


def test_lm_eval_needs_no_benchmark_and_takes_files(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []

    def values(subject: Subject, settings: Any) -> dict[str, float]:
        seen.append(settings)
        return {"lm_eval/wmdp_bio/acc": 0.25}

    monkeypatch.setattr(tasks, "lm_eval_values", values)
    files = "wmdp_bio:test=bio.jsonl:dev=dev.jsonl,mmlu"
    shown = evaluate("model", "--lm-eval", files, "--lm-eval", "arc_easy", "--out", "out", "--json")
    assert json.loads(shown)["values"] == {"lm_eval/wmdp_bio/acc": 0.25}
    assert Results.read(place / "out").benchmark is None
    (settings,) = seen
    assert settings.tasks == ("wmdp_bio", "mmlu", "arc_easy")
    assert settings.data == {"wmdp_bio": {"test": Path("bio.jsonl"), "dev": Path("dev.jsonl")}}
