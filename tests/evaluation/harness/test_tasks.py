"""lm-eval through the adapter is lm-eval itself, on the same model and data."""

from __future__ import annotations

import copy
import csv
import json
import random
from pathlib import Path
from typing import Any

import lm_eval.tasks
import numpy as np
import pytest
import torch
import yaml
from tests.processes import on_two_ranks

from amnesis.contracts import EvaluationSettings, LmEvalSettings, Subject
from amnesis.data.templates import Template
from amnesis.errors import DataError, RecipeError
from amnesis_evaluation.harness.items import read_items
from amnesis_evaluation.harness.tasks import definition, lm_eval_values

SUBJECTS = ("astronomy", "high_school_geography")
LETTERS = "ABCD"


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)

    class NamedFilesOnly(lm_eval.tasks.TaskManager):  # type: ignore[misc]  # lm-eval is not typed
        def __init__(self, *given: Any, include_defaults: bool = True, **options: Any) -> None:
            assert not include_defaults, "lm-eval's whole index must not be built for named files"
            super().__init__(*given, include_defaults=include_defaults, **options)

    monkeypatch.setattr(lm_eval.tasks, "TaskManager", NamedFilesOnly)


@pytest.fixture
def subject(tiny_tokenizer: Any) -> Subject:
    """A model with room for five-shot prompts."""
    from transformers import LlamaConfig, LlamaForCausalLM

    tiny_tokenizer = copy.deepcopy(tiny_tokenizer)  # a test changes it
    torch.manual_seed(3)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tiny_tokenizer),
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=4096,
            initializer_range=0.5,
        )
    )
    return Subject(model, tiny_tokenizer, Template())


def direct(
    folder: Path,
    definitions: dict[str, dict[str, Any]],
    subject: Subject,
    shots: int | None,
    limit: int | None = None,
) -> dict[str, float]:
    """Call lm-eval by itself on the saved model, with definitions written out by hand."""
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    subject.model.save_pretrained(folder / "model")
    subject.tokenizer.save_pretrained(folder / "model")
    tasks = folder / "tasks"
    tasks.mkdir()
    for name, task in definitions.items():
        (tasks / f"{name}.yaml").write_text(yaml.safe_dump(task))
    results = simple_evaluate(
        "hf",
        model_args={"pretrained": str(folder / "model"), "device": "cpu", "dtype": "float32"},
        tasks=list(definitions),
        num_fewshot=shots,
        limit=limit,
        batch_size=4,
        task_manager=TaskManager(include_path=str(tasks), include_defaults=False),
        bootstrap_iters=1000,
    )
    assert results is not None
    return {name: results["results"][name]["acc,none"] for name in definitions}


def jsonl(path: Path, items: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(item) + "\n" for item in items))
    return path


def task_on(template: Path, name: str, description: str, files: dict[str, Path]) -> dict[str, Any]:
    """A task as lm-eval's own definition has it, local files in place of the hub's."""
    return {
        "include": str(template),
        "task": name,
        "description": description,
        "dataset_path": "json",
        "dataset_name": None,
        "dataset_kwargs": {"data_files": {split: str(f) for split, f in files.items()}},
    }


@pytest.mark.parametrize(("shots", "limit"), [(0, None), (5, 48)])
def test_mmlu_equals_lm_eval_called_directly(
    shared_data: Path, tmp_path: Path, subject: Subject, shots: int, limit: int | None
) -> None:
    """Whole subjects without examples; with five, whose prompts are long, their beginnings."""
    data = {
        f"mmlu_{name}": {
            split: shared_data / "mmlu" / split / f"{name}_{split}.csv" for split in ("test", "dev")
        }
        for name in SUBJECTS
    }
    definitions = {}
    for name in SUBJECTS:
        files = {}
        for split, source in data[f"mmlu_{name}"].items():
            with source.open(encoding="utf-8", newline="") as file:
                items = [
                    {"question": q, "choices": choices, "answer": LETTERS.index(letter)}
                    for q, *choices, letter in csv.reader(file)
                ]
            files[split] = jsonl(tmp_path / f"{name}.{split}.jsonl", items)
        about = name.replace("_", " ")
        definitions[f"mmlu_{name}"] = task_on(
            Path(str(definition(f"mmlu_{name}"))).parent / "_default_template_yaml",
            f"mmlu_{name}",
            f"The following are multiple choice questions (with answers) about {about}.\n\n",
            files,
        )
    expected = direct(tmp_path, definitions, subject, shots, limit)
    settings = LmEvalSettings(tasks=tuple(data), data=data, num_fewshot=shots, limit=limit)
    found = lm_eval_values(subject, settings)
    for name, accuracy in expected.items():
        assert found[f"lm_eval/{name}/acc"] == accuracy
        assert found[f"lm_eval/{name}/acc_stderr"] > 0


HARMLESS = [
    {
        "question": f"Which of these numbers is {word}?",
        "choices": ["1", "2", "3", "4"],
        "answer": index,
    }
    for index, word in [(0, "one"), (1, "two"), (2, "three"), (3, "four")] * 6
]


def test_wmdp_definitions_on_harmless_items_equal_lm_eval(tmp_path: Path, subject: Subject) -> None:
    about = {"wmdp_bio": "biology", "wmdp_cyber": "cybersecurity"}
    files = {"test": jsonl(tmp_path / "items.jsonl", HARMLESS)}
    definitions = {
        name: task_on(
            Path(str(definition(name))).parent / "_default_template_yaml",
            name,
            f"The following are multiple choice questions (with answers) about {topic}.\n\n",
            files,
        )
        for name, topic in about.items()
    }
    expected = direct(tmp_path, definitions, subject, None)
    settings = LmEvalSettings(tasks=tuple(about), data=dict.fromkeys(about, files))
    found = lm_eval_values(subject, settings)
    assert {name: found[f"lm_eval/{name}/acc"] for name in about} == expected


def _on_rank(rank: int, folder: Path, settings: LmEvalSettings) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder / "model")
    passes: list[int] = []
    model.register_forward_pre_hook(lambda *_: passes.append(1))
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    found = lm_eval_values(Subject(model, tokenizer, Template()), settings)
    said = {"values": found, "passes": len(passes)}
    (folder / f"rank{rank}.json").write_text(json.dumps(said))


@pytest.mark.parametrize("items", [23, 1])
def test_two_processes_share_the_items_and_each_has_the_whole_s_values(
    tmp_path: Path, subject: Subject, items: int
) -> None:
    """Also where there are fewer items than processes; a forward pass here is one request's."""
    subject.model.save_pretrained(tmp_path / "model")
    subject.tokenizer.save_pretrained(tmp_path / "model")
    asked = [{**item, "question": f"{k}: {item['question']}"} for k, item in enumerate(HARMLESS)]
    files = {"test": jsonl(tmp_path / "items.jsonl", asked[:items])}
    settings = LmEvalSettings(tasks=("wmdp_bio",), data={"wmdp_bio": files}, batch_size=1)
    one = lm_eval_values(subject, settings)
    on_two_ranks(_on_rank, tmp_path, settings)
    ranks = [json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in range(2)]
    for found in ranks:
        assert found["values"] == pytest.approx(one, rel=1e-12, nan_ok=True)
    # The four choices of an item share one forward pass, on whichever rank.
    assert [found["passes"] for found in ranks] == [(items + 1) // 2, items // 2]


def test_the_mode_and_the_tokenizer_are_left_as_they_were(tmp_path: Path, subject: Subject) -> None:
    subject.model.train()
    subject.tokenizer.pad_token = None
    files = {"test": jsonl(tmp_path / "items.jsonl", HARMLESS[:4])}
    lm_eval_values(subject, LmEvalSettings(tasks=("wmdp_bio",), data={"wmdp_bio": files}))
    assert subject.model.training
    assert subject.tokenizer.pad_token is None


def test_randomness_goes_on_where_it_was(tmp_path: Path, subject: Subject) -> None:
    """lm-eval seeds everything, and a run evaluated along the way would draw other dropout masks."""
    files = {"test": jsonl(tmp_path / "items.jsonl", HARMLESS[:4])}
    settings = LmEvalSettings(tasks=("wmdp_bio",), data={"wmdp_bio": files})

    def drawn() -> list[Any]:
        numbers = [random.random(), np.random.rand(), torch.rand(2).tolist()]
        return numbers + [torch.rand(2, device="cuda").tolist() for _ in range(gpus)]

    def seeded() -> None:
        random.seed(5)
        np.random.seed(6)
        torch.manual_seed(7)

    gpus = torch.cuda.device_count()
    seeded()
    expected = [drawn(), drawn()]
    seeded()
    first = drawn()
    lm_eval_values(subject, settings)
    assert [first, drawn()] == expected


class Accelerator:
    """One of several devices, whose states are read at once; without them, of a single one."""

    def __init__(self, several: bool) -> None:
        self.state = ["here"]
        if several:
            self.get_rng_state_all = lambda: list(self.state)
            self.set_rng_state_all = lambda states: setattr(self, "state", states)
        else:
            self.get_rng_state = lambda: list(self.state)
            self.set_rng_state = lambda state: setattr(self, "state", state)


@pytest.mark.parametrize("several", [True, False])
def test_an_accelerator_s_randomness_goes_on_too(
    tmp_path: Path, subject: Subject, monkeypatch: pytest.MonkeyPatch, several: bool
) -> None:
    accelerator = Accelerator(several)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch, "get_device_module", lambda: accelerator)

    def evaluate(*_: Any, **__: Any) -> dict[str, Any]:
        accelerator.state = ["elsewhere"]
        raise DataError("also where it fails")

    monkeypatch.setattr(lm_eval, "simple_evaluate", evaluate)
    files = {"test": jsonl(tmp_path / "items.jsonl", HARMLESS[:4])}
    settings = LmEvalSettings(tasks=("wmdp_bio",), data={"wmdp_bio": files})
    with pytest.raises(DataError, match="also where it fails"):
        lm_eval_values(subject, settings)
    assert accelerator.state == ["here"]


def test_what_lm_eval_prints_is_no_output_of_ours(
    tmp_path: Path, subject: Subject, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {"test": jsonl(tmp_path / "items.jsonl", HARMLESS[:4])}
    lm_eval_values(
        subject,
        LmEvalSettings(tasks=("wmdp_bio",), data={"wmdp_bio": files}, batch_size="auto"),
    )
    said = capsys.readouterr()
    assert said.out == ""
    assert "batch size" in said.err, "lm-eval says what it chose"


def test_an_evaluation_has_lm_evals_values_beside_its_own(
    tmp_path: Path, subject: Subject, qa_rows: list[dict[str, Any]]
) -> None:
    import amnesis

    files = {"test": jsonl(tmp_path / "items.jsonl", HARMLESS[:4])}
    own = amnesis.create("benchmark", "own", forget=qa_rows[:2], retain=qa_rows[2:])
    settings = EvaluationSettings(
        metrics=("probability",),
        lm_eval=LmEvalSettings(tasks=("wmdp_bio",), data={"wmdp_bio": files}),
        cache=tmp_path / "cache",
    )
    evaluated = own.evaluate(subject, settings)
    assert 0 <= evaluated.values["lm_eval/wmdp_bio/acc"] <= 1
    right = jsonl(tmp_path / "items.jsonl", [{**item, "answer": 0} for item in HARMLESS[:4]])
    wrong = own.evaluate(subject, settings).values["lm_eval/wmdp_bio/acc"]
    jsonl(right, [{**item, "answer": 1} for item in HARMLESS[:4]])
    other = own.evaluate(subject, settings).values["lm_eval/wmdp_bio/acc"]
    assert {wrong, other} <= {0, 0.25, 0.5, 0.75, 1}
    assert len(list((tmp_path / "cache").glob("*.json"))) == 3, "changed files are evaluated anew"


@pytest.mark.parametrize(
    ("settings", "error", "line"),
    [
        (
            {"tasks": ("wmdp_bio",), "data": {"wmdp_bo": {"test": "x"}}},
            RecipeError,
            "'wmdp_bo' is not among the tasks; did you mean 'wmdp_bio'",
        ),
        (
            {"tasks": ("wmdp_bio",), "data": {"wmdp_bio": {"dev": "items.jsonl"}}},
            RecipeError,
            "'wmdp_bio' reads the split 'test', but files are given for dev",
        ),
        (
            {
                "tasks": ("mmlu_anatomy",),
                "data": {"mmlu_anatomy": {"test": "items.jsonl"}},
                "num_fewshot": 5,
            },
            RecipeError,
            "reads the split 'dev'",
        ),
        (
            {"tasks": ("wmdp",), "data": {"wmdp": {"test": "items.jsonl"}}},
            RecipeError,
            "'wmdp' is not one task of lm-eval",
        ),
        (
            {"tasks": ("wmdp_bio",), "data": {"wmdp_bio": {"test": "nowhere.jsonl"}}},
            DataError,
            "nowhere.jsonl: there is no such file",
        ),
        (
            {"tasks": ("wmdp_bio",), "data": {"wmdp_bio": {"test": "bad.jsonl"}}},
            DataError,
            "bad.jsonl: item 1: answer is 4, but there are 4 choices",
        ),
        ({"tasks": ("wmdp_bio",), "chat_template": True}, RecipeError, "has no chat template"),
        ({"tasks": ("wmdp_bio",)}, DataError, "without the hub give local files"),
    ],
)
def test_wrong_settings_are_one_line(
    tmp_path: Path, subject: Subject, settings: dict[str, Any], error: type, line: str
) -> None:
    jsonl(tmp_path / "items.jsonl", HARMLESS[:2])
    jsonl(tmp_path / "bad.jsonl", [HARMLESS[0], {**HARMLESS[1], "answer": 4}])
    with pytest.raises(error) as caught:
        lm_eval_values(subject, LmEvalSettings(**settings))
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_definition_is_found_by_what_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    for task in ("mmlu_astronomy", "wmdp_chem", "arc_easy"):
        path = definition(task)
        assert path is not None
        assert path.stem == task
    assert definition("mmlu") is None
    assert definition("no_such_task") is None


def test_mmlu_layout_is_told_from_a_csv_with_a_header(tmp_path: Path) -> None:
    original = tmp_path / "original.csv"
    original.write_text('"What, again?",a,b,c,d,C\nNow?,e,f,g,h,A\n')
    assert read_items(original) == [
        {"question": "What, again?", "choices": ["a", "b", "c", "d"], "answer": 2},
        {"question": "Now?", "choices": ["e", "f", "g", "h"], "answer": 0},
    ]
    original.write_text("Why?,a,b,c,d,C\nNow?,e,f,g,h,E\n")
    with pytest.raises(
        DataError, match=r"original\.csv:2: not question, A, B, C, D and one letter"
    ):
        read_items(original)
    headed = tmp_path / "headed.csv"
    headed.write_text("question,answer\nWhy?,so\n")
    assert read_items(headed) == [{"question": "Why?", "answer": "so"}]


@pytest.mark.parametrize(
    ("line", "letter"),
    [(1, "AB"), (1, "BCD"), (2, "AB"), (2, "ABCD"), (2, ""), (2, "a"), (2, "E")],
)
def test_an_answer_is_exactly_one_letter(tmp_path: Path, line: int, letter: str) -> None:
    """Also of a first row, which without a letter at all is a header."""
    path = tmp_path / "items.csv"
    rows = ["Why?,a,b,c,d,C"] * 2
    rows[line - 1] = f"Why?,a,b,c,d,{letter}"
    path.write_text("\n".join(rows))
    with pytest.raises(DataError) as caught:
        read_items(path)
    assert f"items.csv:{line}: not question, A, B, C, D and one letter of ABCD" in str(caught.value)
    assert f"6 cells, the last {letter!r}" in str(caught.value)


def test_empty_rows_at_the_end_of_a_csv_are_no_items(tmp_path: Path) -> None:
    path = tmp_path / "items.csv"
    path.write_text("\nWhy?,a,b,c,d, C \n\nNow?,e,f,g,h,A\n\n,,,,,\n , ,,,,\n")
    assert [item["answer"] for item in read_items(path)] == [2, 0]
    path.write_text("Why?,a,b,c,d,C\n,,,,,\nNow?,e,f,g,h,A\n")
    with pytest.raises(DataError, match=r"items\.csv:2: not question"):
        read_items(path)
