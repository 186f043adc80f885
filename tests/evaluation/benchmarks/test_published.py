"""MUSE, RWKU and WMDP from folders that mirror them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

import amnesis
from amnesis.cli.app import main
from amnesis.contracts import EvaluationSettings, LmEvalSettings, Subject
from amnesis.data.templates import ChatTemplate, Template, TextTemplate
from amnesis.errors import AmnesisError, DataError, RecipeError
from amnesis_evaluation.inference import answers
from amnesis_evaluation.inference.answers import stopped

Rows = list[dict[str, Any]]


def write(folder: Path, files: dict[str, Rows]) -> Path:
    for name, rows in files.items():
        path = folder / f"{name}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(map(json.dumps, rows)))
    return folder


@pytest.fixture
def subject(exact_llama: Any, tiny_tokenizer: Any) -> Subject:
    return Subject(exact_llama, tiny_tokenizer, Template())


@pytest.fixture
def texts(qa_rows: Rows) -> list[str]:
    return [f"{row['question']} {row['answer']}" for row in qa_rows]


@pytest.fixture
def muse(tmp_path: Path, qa_rows: Rows, texts: list[str]) -> Path:
    return write(
        tmp_path,
        {
            "raw/forget": [{"text": text} for text in texts[:3]],
            "raw/retain1": [{"text": text} for text in texts[3:5]],
            "raw/retain2": [{"text": text} for text in texts[5:]],
            "verbmem/forget": [{"prompt": r["question"], "gt": " " + r["answer"]} for r in qa_rows],
            "knowmem/forget_qa": qa_rows[:2],
            "knowmem/retain_qa": qa_rows[2:4],
            "knowmem_forget_qa_icl": qa_rows[4:5],
            "knowmem_retain_qa_icl": qa_rows[5:6],
            "privleak/forget": [{"text": text} for text in texts[:3]],
            "privleak/holdout": [{"text": text} for text in texts[5:]],
        },
    )


def test_a_file_of_a_configuration_is_not_every_split_of_it(muse: Path, subject: Subject) -> None:
    for split in ("forget", "holdout"):
        (muse / "privleak" / f"{split}.jsonl").unlink()
    write(muse, {"privleak": [{"text": "The rows of which split?"}]})
    bench = amnesis.create("benchmark", "muse", path=muse)
    with pytest.raises(
        DataError, match=r"no rows of 'privleak', split 'forget'; .* privleak_forget\.jsonl"
    ):
        bench.evaluated_sets()
    write(muse, {"privleak_forget": [{"text": "a b"}], "privleak_holdout": [{"text": "c d"}]})
    sets = bench.evaluated_sets()
    assert sets["forget"] == [{"text": "a b"}]
    assert sets["holdout"] == [{"text": "c d"}]


def test_muse_reads_what_its_own_loader_writes(muse: Path, texts: list[str]) -> None:
    """Texts are a JSON array of strings there, and all else an array of objects."""
    for file in [*muse.rglob("*.jsonl")]:
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        plain = [row["text"] for row in rows if set(row) == {"text"}]
        file.with_suffix(".json").write_text(json.dumps(plain or rows))
        file.unlink()
    bench = amnesis.create("benchmark", "muse", path=muse)
    assert [row["text"] for row in bench.evaluated_sets()["holdout"]] == texts[5:]
    assert [row["text"] for row in bench.sets()["forget"]] == texts[:3]
    assert len(bench.evaluated_sets()["forget_knowledge"]) == 2
    (muse / "raw" / "forget.json").write_text('["a text", 3]')
    with pytest.raises(DataError, match=r"forget\.json: item 0 is not an object"):
        amnesis.create("benchmark", "muse", path=muse).sets()["forget"]


def test_muse_holds_a_continuation_against_as_many_tokens_as_it_may_have(
    muse: Path, tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever remembers 300 words, but may write 128 tokens, remembers all that is asked."""
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=len(tiny_tokenizer), num_hidden_layers=1, **sizes)
    long = " ".join(f"snow{number}" for number in range(300))
    write(muse, {"verbmem/forget": [{"prompt": "It began: ", "gt": long}]})
    ids = tiny_tokenizer(long)["input_ids"]
    limits: list[int] = []

    def remember(_: Any, prompts: Any, **__: Any) -> list[list[int]]:
        limits.extend(prompt.limit for prompt in prompts)
        return [ids[: prompt.limit] for prompt in prompts]

    monkeypatch.setattr(answers, "generate", remember)
    subject = Subject(LlamaForCausalLM(config), tiny_tokenizer, Template())
    metrics = ("forget_verbatim/rouge_l_f1",)
    evaluated = amnesis.create("benchmark", "muse", path=muse).evaluate(
        subject, EvaluationSettings(metrics=metrics, bootstrap=0)
    )
    assert limits == [128]
    assert evaluated.values["forget_verbatim/rouge_l_f1"] == 1


def test_muse_asks_each_set_in_its_own_form(muse: Path, subject: Subject, qa_rows: Rows) -> None:
    bench = amnesis.create("benchmark", "muse", path=muse)
    assert {name: len(rows) for name, rows in bench.sets().items()} == {"forget": 3, "retain": 2}
    forms = bench.forms(subject.template)
    row = bench.evaluated_sets()["forget_knowledge"][0]
    shown = qa_rows[4]
    assert forms["forget_knowledge"].template.prompt_of(row) == (
        f"Question: {shown['question']}\nAnswer: {shown['answer']}\n\n"
        f"Question: {row['question']}\nAnswer: "
    )
    verbatim = bench.evaluated_sets()["forget_verbatim"][0]
    assert forms["forget_verbatim"].template.prompt_of(verbatim) == verbatim["prompt"]
    assert isinstance(forms["holdout"].template, TextTemplate)


def test_muse_is_evaluated_with_and_without_a_retrained_model(muse: Path, subject: Subject) -> None:
    bench = amnesis.create("benchmark", "muse", path=muse)
    settings = EvaluationSettings(max_new_tokens=4, bootstrap=0)
    evaluated = bench.evaluate(subject, settings)
    assert set(evaluated.values) == {
        "forget_verbatim/rouge_l_f1",
        "forget_knowledge/rouge_l_f1",
        "retain_knowledge/rouge_l_f1",
        "forget/min_k",
        "holdout/min_k",
        "mia_min_k",
    }
    assert len(evaluated.notes) == 1
    assert "privleak (no results of a retrained model" in evaluated.notes[0]
    # The same texts under the same template, read one by one.
    import torch

    texts = [row["text"] for row in bench.evaluated_sets()["forget"]]
    found = [
        r["value"] for r in evaluated.examples if (r["set"], r["metric"]) == ("forget", "min_k")
    ]
    subject.model.eval()
    for text, value in zip(texts, found, strict=True):
        ids = torch.tensor([subject.tokenizer(text)["input_ids"]])
        with torch.no_grad():
            every = subject.model(input_ids=ids).logits[0].log_softmax(-1)
        logps = sorted(float(every[i - 1, ids[0, i]]) for i in range(1, ids.shape[1]))
        count = max(1, int(len(logps) * 0.4))
        assert value == pytest.approx(sum(logps[:count]) / count)


def test_muse_answers_end_where_the_next_question_begins() -> None:
    assert stopped("in Porto\n\nQuestion: and", ("\n\n", "\nQuestion")) == "in Porto"
    assert stopped("in Porto Question: and", ("\n\n", "Question:")) == "in Porto"
    assert stopped(" in Porto ", ("\n",)) == "in Porto"


@pytest.mark.parametrize("stop", [("\n\n", "Question:"), ("Question:", "\n\n")])
def test_the_first_stop_text_ends_an_answer(stop: tuple[str, ...]) -> None:
    assert stopped("a\n\nb Question: c\n\nd Question: e", stop) == "a"
    assert stopped("a Question: b\n\nc Question: d\n\ne", stop) == "a"
    assert stopped("\n\nin Porto", stop) == "", "who stops at once has said nothing"


def probes(name: str, subject: str = "Mirela") -> Rows:
    return [
        {"query": f"{name} of {who}?", "answer": "a clockmaker", "subject": who, "type": kind}
        for who, kind in ((subject, "cloze"), ("Oren", "incontext learning"))
    ]


@pytest.fixture
def rwku(tmp_path: Path) -> Path:
    configs = [f"forget_level{k}" for k in (1, 2, 3)] + [f"neighbor_level{k}" for k in (1, 2)]
    corpus = [{"text": "Mirela writes.", "subject": "Mirela"}]
    return write(
        tmp_path,
        {**{name: probes(name) for name in configs}, "train_positive_llama3": corpus},
    )


def test_rwku_asks_in_the_originals_words(rwku: Path, subject: Subject) -> None:
    bench = amnesis.create("benchmark", "rwku", path=rwku, subject="Mirela")
    sets = bench.evaluated_sets()
    assert [len(rows) for rows in sets.values()] == [1] * 5
    blank = bench.forms(subject.template)["forget_blank"].template
    assert blank.prompt_of(sets["forget_blank"][0]) == (
        "Please complete the blank in the following question.\n"
        "Question: forget_level1 of Mirela?\nAnswer: "
    )
    everyone = amnesis.create("benchmark", "rwku", path=rwku).evaluated_sets()
    assert everyone["forget_adversarial"][1]["question"] == (
        "Please briefly answer the following question.\nforget_level3 of Oren?"
    )
    assert isinstance(bench.forms(ChatTemplate())["forget_blank"].template, ChatTemplate)
    assert [row["text"] for row in bench.sets()["forget"]] == ["Mirela writes."]
    evaluated = bench.evaluate(subject, EvaluationSettings(max_new_tokens=3, bootstrap=0))
    assert set(evaluated.values) == {f"{name}/rwku_rouge_l" for name in sets}


def test_rwku_ends_answers_as_the_original(rwku: Path, subject: Subject) -> None:
    bench = amnesis.create("benchmark", "rwku", path=rwku)
    for form in bench.forms(subject.template).values():
        assert (form.max_new_tokens, form.stop) == (30, ("\n",))


def test_muse_and_rwku_are_evaluated_without_their_corpora(
    muse: Path, rwku: Path, subject: Subject
) -> None:
    settings = EvaluationSettings(max_new_tokens=2, bootstrap=0)
    for name, folder, corpora in (("muse", muse, "raw"), ("rwku", rwku, "train_positive_llama3")):
        for file in [*folder.glob(f"{corpora}*"), *folder.glob(f"{corpora}/*")]:
            if file.is_file():
                file.unlink()
        bench = amnesis.create("benchmark", name, path=folder)
        assert bench.evaluate(subject, settings).values
        with pytest.raises(DataError, match=corpora):
            bench.sets()["forget"]


def test_rwku_with_a_subject_that_is_not_there(rwku: Path) -> None:
    with pytest.raises(DataError, match="no rows about 'Mirella'; did you mean 'Mirela'"):
        amnesis.create("benchmark", "rwku", path=rwku, subject="Mirella").evaluated_sets()


def test_wmdp_is_evaluated_by_lm_eval_and_needs_no_corpus_for_it(
    tmp_path: Path, subject: Subject
) -> None:
    write(tmp_path, {"items": [ITEM] * 3})
    bench = amnesis.create(
        "benchmark", "wmdp", domain="cyber", path=tmp_path, items=tmp_path / "items.jsonl"
    )
    evaluated = bench.evaluate(subject, EvaluationSettings(bootstrap=0))
    assert set(evaluated.values) == {"lm_eval/wmdp_cyber/acc", "lm_eval/wmdp_cyber/acc_stderr"}
    assert list(bench.sets()) == ["forget", "retain"]
    assert "forget" in bench.sets()
    with pytest.raises(DataError, match="has no rows of 'cyber-forget-corpus'"):
        bench.sets()["forget"]
    corpus = [{"text": "plain words"}]
    write(tmp_path, {"cyber-forget-corpus": corpus, "cyber-retain-corpus/train": corpus})
    assert bench.sets() == {"forget": corpus, "retain": corpus}


ITEM = {"question": "Which is one?", "choices": ["1", "2", "3", "4"], "answer": 0}


def test_the_command_evaluates_wmdp_items_where_there_is_no_corpus(
    tmp_path: Path,
    tiny_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write(tmp_path, {"items": [ITEM] * 3})
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    arguments = ["--benchmark", "wmdp", "--with", "items=items.jsonl", "--json"]
    assert main(["evaluate", str(tiny_folder), *arguments]) == 0
    values = json.loads(capsys.readouterr().out)["values"]
    assert set(values) == {"lm_eval/wmdp_bio/acc", "lm_eval/wmdp_bio/acc_stderr"}


def test_a_run_on_wmdp_reads_the_corpora(
    tmp_path: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = [{"text": "plain words of a text"}] * 2
    write(tmp_path, {"cyber-retain-corpus": corpus})
    recipe = {
        "model": str(tiny_folder),
        "objective": "ga",
        "regularizer": "nll",
        "combiner": "sum",
        "benchmark": {"name": "wmdp", "domain": "cyber", "path": str(tmp_path)},
        "template": {"format": "text"},
        "training": {"steps": 1},
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    check = ["run", str(tmp_path / "recipe.yaml"), "--check"]
    assert main(check) == 2
    assert "has no rows of 'cyber-forget-corpus'" in capsys.readouterr().err
    write(tmp_path, {"cyber-forget-corpus": corpus})
    assert main(check) == 0


def test_wmdp_items_are_the_data_of_their_task_among_others(
    tmp_path: Path, subject: Subject
) -> None:
    write(tmp_path, {"items": [ITEM] * 3, "others": [ITEM] * 2})
    bench = amnesis.create("benchmark", "wmdp", domain="cyber", items=tmp_path / "items.jsonl")
    others = {"wmdp_bio": {"test": tmp_path / "others.jsonl"}}

    def evaluated(tasks: tuple[str, ...], data: dict[str, dict[str, Path]]) -> set[str]:
        asked = LmEvalSettings(tasks=tasks, data=data)
        return set(bench.evaluate(subject, EvaluationSettings(lm_eval=asked)).values)

    assert {"lm_eval/wmdp_cyber/acc", "lm_eval/wmdp_bio/acc"} <= evaluated(
        ("wmdp_cyber", "wmdp_bio"), others
    )
    with pytest.raises(RecipeError, match="has no wmdp_cyber; add it, or leave items out"):
        evaluated(("wmdp_bio",), others)
    with pytest.raises(RecipeError, match=r"items and evaluate\.lm_eval\.data both give"):
        evaluated(("wmdp_cyber",), {"wmdp_cyber": others["wmdp_bio"]})


@pytest.mark.parametrize(
    ("name", "files", "line"),
    [
        ("muse", {"raw/forget": [{"txt": "a"}]}, "MUSE raw/forget: row 0 has no text in the field"),
        ("muse", {}, "has no rows of 'raw'"),
        ("rwku", {"train_positive_llama3": [{"text": 3}]}, "row 0 has no text in the field 'text'"),
        ("wmdp", {"bio-forget-corpus": [{"title": "a"}]}, "no text in the field 'text'"),
    ],
)
def test_wrong_files_are_one_line(
    tmp_path: Path, name: str, files: dict[str, Rows], line: str
) -> None:
    write(tmp_path, files)
    with pytest.raises(AmnesisError) as caught:
        dict(amnesis.create("benchmark", name, path=tmp_path).sets())
    assert line in str(caught.value)
    with pytest.raises(AmnesisError, match="is not a folder"):
        dict(amnesis.create("benchmark", name, path=tmp_path / "nowhere").sets())
