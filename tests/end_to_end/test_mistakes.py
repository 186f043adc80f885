"""The mistakes of a newcomer: each answer says what is wrong, where, and what to do."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.conftest import QUESTIONS

from amnesis.cli.app import main

ROWS = [{"question": q, "answer": a} for q, a in QUESTIONS]
RUN = "run recipe.yaml"


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder such as a newcomer has: a model, files of rows, a recipe, another tokenizer."""
    from amnesis.models.creation import NewModelSettings, new_model, train_tokenizer

    place = tmp_path_factory.mktemp("newcomer")
    settings = NewModelSettings.model_validate(
        {"architecture": "llama", "config": {"hidden_size": 16, "num_hidden_layers": 2,
         "num_attention_heads": 2, "intermediate_size": 16, "max_position_embeddings": 128}}
    )  # fmt: skip
    for name, vocabulary in (("model", 400), ("other", 300)):
        tokenizer = train_tokenizer([f"{q} {a}" for q, a in QUESTIONS], vocabulary)
        new_model(settings, tokenizer, 0).save_pretrained(place / name)
        tokenizer.save_pretrained(place / name)
    for name, rows in (("forget", ROWS[:4]), ("retain", ROWS[4:])):
        (place / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    recipe = {
        "model": "model",
        "objective": "npo",
        "regularizer": "kl",
        "combiner": "sago",
        "benchmark": {"name": "own", "forget": "forget.jsonl", "retain": "retain.jsonl"},
        "training": {"steps": 1, "batch_size": 2},
        "evaluate": {"metrics": ["probability"], "bootstrap": 0},
    }
    finetune = {"model": "model", "benchmark": recipe["benchmark"], "sets": ["forget"]}
    for name, document in (("recipe", recipe), ("finetune", finetune)):
        (place / f"{name}.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
    return place


@pytest.fixture
def place(begun: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The newcomer's folder as the working directory, which a mistake leaves as it is."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(begun)
    before = {path: path.stat().st_mtime_ns for path in begun.rglob("*") if path.is_file()}
    yield begun
    after = {path: path.stat().st_mtime_ns for path in begun.rglob("*") if path.is_file()}
    for path in set(after) - set(before):
        path.unlink()
    shutil.rmtree(begun / "runs", ignore_errors=True)
    assert {path: time for path, time in after.items() if path in before} == before


# What is typed, a `;` before each change of the recipe, and what the answer must contain.
MISTAKES: list[tuple[str, list[str]]] = [
    # the command line
    ("rn recipe.yaml", ["no command is called 'rn'", "did you mean 'run'"]),
    ("run", ["Missing argument 'RECIPE'", "amnesis run --help"]),
    ("run recipy.yaml", ["recipy.yaml: there is no such recipe", "did you mean 'recipe.yaml'"]),
    ("run model", ["model: is not a file", "give a YAML file"]),
    ("run forget.jsonl", ["forget.jsonl: is a file of rows", "give a recipe, a YAML file"]),
    (f"{RUN} --steps 10", ["No such option: --steps", "without dashes, as in training.steps=10"]),
    (f"{RUN} steps=10", ["steps: unknown key here", "say training.steps"]),
    (f"{RUN} training.steps 10", ["override 'training.steps'", "write key.sub=value"]),
    (f"{RUN} training.steps=ten", ["recipe.yaml: training.steps", "should be a valid integer", "'ten'"]),
    (f"{RUN} training.learning_rate=1,0e-5", ["training.learning_rate", "should be a valid number", "'1,0e-5'"]),
    (f"{RUN} probes=[g_effect] probes.1.every=5", ["'probes.1.every=5'", "from 0 to 0"]),
    (f"{RUN} --resume", ["--resume needs --out"]),
    (f"{RUN} --out out --resume --overwrite", ["resume", "overwrite", "leave one out"]),
    (f"{RUN} --out model", ["model: is not empty", "--overwrite"]),
    (f"{RUN} --device gpu", ["'gpu' cannot be used here", "--device cpu"]),
    ("run finetune.yaml", ["finetune.yaml", "recipe of a finetuning", "amnesis finetune"]),
    ("finetune recipe.yaml", ["recipe.yaml", "recipe of a run", "amnesis run"]),
    ("plugins objectives", ["'objectives'", "amnesis plugins --kind objective"]),
    ("plugins sagoo", ["'sagoo'", "did you mean 'sago'"]),
    ("ask model", ["Missing argument 'question'", "amnesis ask --help"]),
    ("evaluate model", ["--benchmark", "--forget FILE"]),
    ("evaluate model --forget forget.jsonl", ["retain: is missing", "give --retain FILE"]),
    ("probe model --forget forget.jsonl", ["--retain FILE"]),
    ("probe ./modle --benchmark fictional", ["./modle: there is no such folder", "'model'"]),
    ("suggest model --benchmark fictional --candidates npo+kll", ["'kll'", "did you mean 'kl'"]),
    ("compare nowhere", ["nowhere", "results.json", "give a run's or evaluation's folder"]),
    ("report model", ["model", "results.json", "give a run's or evaluation's folder"]),
    # the recipe
    (f"{RUN};objectve=npo", ["objectve: unknown key", "did you mean 'objective'"]),
    (f"{RUN};objective=nop", ["no objective is called 'nop'", "did you mean 'npo'"]),
    (f"{RUN};beta=0.1", ["beta: unknown key", "objective: {name: npo, beta: …}"]),
    (f"{RUN};objective={{name: npo, bta: 1}}", ["bta", "did you mean 'beta'"]),
    (f"{RUN};regularizer=null", ["a combiner needs a retain stream", "'kl'"]),
    (f"{RUN};benchmark=null", ["recipe.yaml: benchmark: ", "should be", "(got None)"]),
    (f"{RUN};model=modle", ["modle: there is no such folder", "did you mean 'model'"]),
    (f"{RUN};model=model/model.safetensors", ["is a file", "a model is a folder"]),
    (f"{RUN};model={{path: model, quantize: int8}}", ["quantized weights", "lora: {r: 16}"]),
    (f"{RUN};training={{steps: 1, epochs: 2}}", ["give steps or epochs, not both"]),
    (f"{RUN};training.precision=fp16", ["float16 needs an accelerator", "bfloat16 or float32"]),
    (f"{RUN};trainable=[layer.0]", ["trainable", "layer.0", "model.layers"]),
    (f"{RUN};evaluate.metrics=[rouge]", ["no metric is called 'rouge'", "did you mean 'rouge_l'"]),
    (f"{RUN};evaluate.metrics=[forget_quality]", ["'forget_quality' needs the field 'perturbed_answer'", "'forget'", "add it there"]),
    (f"{RUN};evaluate.retrained=other", ["evaluate.retrained", "other", "retrained: other"]),
    (f"{RUN};retrained=other", ["retrained: other: its tokenizer makes other tokens", "same base"]),
    (f"{RUN};stop_when={{retain_over_unlearn: {{above: 1}}}}", ["stop_when", "probes: [g_effect"]),
    # the rows
    (f"{RUN};benchmark.forget=forgot.jsonl", ["forgot.jsonl", "did you mean 'forget.jsonl'"]),
    (f"{RUN};benchmark.forget=forget.xlsx", ["rows are read from", "'.xlsx'", ".csv"]),
    (f"{RUN};template.question=frage", ["no field 'frage'", "available: answer, question"]),
    (f"{RUN};template.format=chat", ["forget", "no chat template", "format: question_answer"]),
    (f"{RUN};template.max_length=4", ["forget", "nothing of their answers fits", "max_length"]),
]  # fmt: skip


@pytest.mark.parametrize(("typed", "said"), MISTAKES, ids=[typed for typed, _ in MISTAKES])
def test_an_answer_says_what_where_and_what_to_do(
    place: Path, typed: str, said: list[str], capfd: Any
) -> None:
    line, *changes = typed.split(";")
    code = main([*line.split(), *changes])
    answer = capfd.readouterr().err
    assert code == 2, answer
    assert "Traceback" not in answer
    assert answer.startswith("error: ")
    assert all(len(one) < 600 for one in answer.splitlines())
    for words in said:
        assert words in answer


def test_there_are_49_of_them() -> None:
    assert len({typed for typed, _ in MISTAKES}) == 49


def test_several_mistakes_of_different_kinds_are_all_said_at_once(place: Path, capfd: Any) -> None:
    changes = ["training.stepps=3", "objective=nop", "combiner=sagoo", "model=modle",
               "benchmark.retain=retian.jsonl", "training.batch_size=0"]  # fmt: skip
    assert main([*RUN.split(), *changes]) == 2
    answer = capfd.readouterr().err
    assert answer.startswith("error: recipe.yaml: 6 problems\n")
    for words in ("'steps'", "'nop'", "'sagoo'", "modle", "retian.jsonl", "batch_size"):
        assert words in answer


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("semicolon.csv", b"frage;antwort\nWer?;Ich\n", "no field 'question'"),
        ("latin.csv", "question;answer\nWer?;Müller\n".encode("latin-1"), "save it as UTF-8"),
        ("tab.yaml", b"model: x\n\tobjective: ga\n", "tab.yaml:2: not valid YAML"),
        ("colon.yaml", b"model: x\nprompt: Q: {question}\n", "colon.yaml:2: not valid YAML"),
        ("twice.yaml", b"model: x\nmodel: y\n", "'model' stands here twice"),
    ],
)
def test_a_file_as_it_comes_from_elsewhere(
    place: Path, file: str, content: bytes, said: str, capfd: Any
) -> None:
    (place / file).write_bytes(content)
    line = ["run", file] if file.endswith("yaml") else [*RUN.split(), f"benchmark.forget={file}"]
    assert main(line) == 2
    assert said in capfd.readouterr().err


def test_rows_of_messages_need_their_format(place: Path, capfd: Any) -> None:
    turns = [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "I."}]
    (place / "chats.jsonl").write_text(json.dumps({"messages": turns}), encoding="utf-8")
    assert main([*RUN.split(), "benchmark.forget=chats.jsonl"]) == 2
    assert "of rows with 'messages' say template.format=chat" in capfd.readouterr().err
