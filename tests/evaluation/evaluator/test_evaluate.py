"""The evaluation: every metric against a naive one-example-at-a-time implementation."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

import amnesis
from amnesis.contracts import EvaluationSettings, Subject
from amnesis.contracts.benchmark import check_values
from amnesis.data.templates import Template, encode
from amnesis.discovery.registry import default_registry
from amnesis.discovery.resolve import build_metrics
from amnesis.errors import DataError, PluginError, RecipeError
from amnesis_evaluation.evaluator.evaluate import evaluate
from amnesis_evaluation.evaluator.selection import select
from amnesis_evaluation.inference import answers
from amnesis_evaluation.inference.teacher_forcing import read_texts

ALL = (
    "probability",
    "choice_probability",
    "truth_ratio",
    "extraction_strength",
    "exact_memorization",
    "perplexity",
    "mia_loss",
    "mia_zlib",
    "mia_min_k",
    "mia_min_k_plus",
    "mia_gradient_norm",
    "rouge_l",
    "ngram_entropy",
)


@pytest.fixture
def subject(exact_llama: Any, tiny_tokenizer: Any) -> Subject:
    return Subject(exact_llama, tiny_tokenizer, Template())


@pytest.fixture
def own(rich_rows: list[dict[str, Any]]) -> Any:
    return amnesis.create(
        "benchmark", "own", forget=rich_rows[:3], retain=rich_rows[3:5], holdout=rich_rows[5:]
    )


def naive_logps(
    subject: Subject, row: dict[str, Any], answer: str
) -> tuple[list[float], list[bool]]:
    template = subject.template
    text = encode(template.prompt_of(row), answer, subject.tokenizer, max_length=128)
    with torch.no_grad():
        logits = subject.model(input_ids=torch.tensor([text.input_ids])).logits[0]
    every = logits.log_softmax(-1)
    places = range(text.prompt_length, len(text.input_ids))
    return (
        [float(every[i - 1, text.input_ids[i]]) for i in places],
        [int(logits[i - 1].argmax()) == text.input_ids[i] for i in places],
    )


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_every_metric_equals_a_naive_implementation(
    subject: Subject, own: Any, batch_size: int
) -> None:
    settings = EvaluationSettings(
        metrics=ALL, batch_size=batch_size, max_new_tokens=6, bootstrap=20
    )
    subject.model.eval()
    evaluated = own.evaluate(subject, settings)
    assert evaluated.notes == []
    recorded = {(r["set"], r["row"], r["metric"]): r["value"] for r in evaluated.examples}

    def close(key: tuple[str, int, str], expected: float | np.floating[Any]) -> None:
        assert recorded[key] == pytest.approx(expected, abs=1e-10, rel=1e-10), key

    tokens: list[float] = []
    for name, rows in own.sets().items():
        for index, row in enumerate(rows):
            logps, correct = naive_logps(subject, row, row["answer"])
            close((name, index, "probability"), np.exp(np.mean(logps)))
            close((name, index, "exact_memorization"), np.mean(correct))
            wrong = [np.mean(naive_logps(subject, row, w)[0]) for w in row["perturbed_answer"]]
            right = np.mean(naive_logps(subject, row, row["paraphrased_answer"])[0])
            close((name, index, "truth_ratio"), np.exp(np.mean(wrong) - right))
            share = np.exp(np.mean(logps))
            close((name, index, "choice_probability"), share / (share + np.exp(wrong).sum()))
            if name != "retain":
                lowest = sorted(logps)[: max(1, int(len(logps) * 0.4))]
                close((name, index, "min_k"), np.mean(lowest))
                close((name, index, "log_likelihood"), np.mean(logps))
            if name == "forget":
                tokens += logps
    assert evaluated.values["forget/perplexity"] == pytest.approx(np.exp(-np.mean(tokens)))
    for name in own.sets():
        mean = np.mean([v for (s, _, m), v in recorded.items() if (s, m) == (name, "probability")])
        assert evaluated.values[f"{name}/probability"] == pytest.approx(mean)
    pairs = [
        recorded["forget", i, "log_likelihood"] > recorded["holdout", j, "log_likelihood"]
        for i in range(3)
        for j in range(3)
    ]
    assert evaluated.values["mia_loss"] == pytest.approx(np.mean(pairs))
    for key, value in evaluated.values.items():
        low, high = evaluated.intervals[key]
        assert low <= high
        if key in ("forget/probability", "retain/truth_ratio"):
            assert low <= value <= high


def test_gradient_norms_equal_autograd_and_leave_grad_alone(subject: Subject, own: Any) -> None:
    evaluated = own.evaluate(
        subject, EvaluationSettings(metrics=("mia_gradient_norm",), bootstrap=0)
    )
    assert all(p.grad is None for p in subject.model.parameters())
    row = own.sets()["forget"][0]
    text = encode(subject.template.prompt_of(row), row["answer"], subject.tokenizer)
    labels = torch.tensor(
        [[-100] * text.prompt_length + list(text.input_ids[text.prompt_length :])]
    )
    subject.model(input_ids=torch.tensor([text.input_ids]), labels=labels).loss.backward()
    squares = sum(float(p.grad.square().sum()) for p in subject.model.parameters())
    assert evaluated.examples[0]["value"] == pytest.approx(-(squares**0.5), rel=1e-6)


def test_two_models_are_compared_on_the_same_parts(subject: Subject, own: Any) -> None:
    metrics = ("forget_quality", "mia_reference", "privleak")
    first = own.evaluate(subject, EvaluationSettings(bootstrap=0, metrics=(*ALL, "mia_min_k")))
    again = own.evaluate(
        subject, EvaluationSettings(bootstrap=10, metrics=metrics), retrained=first
    )
    assert again.values["forget_quality"] == pytest.approx(1)
    assert again.values["mia_reference"] == 0.5
    assert again.values["privleak"] == pytest.approx(0)


def test_the_benchmarks_own_metrics_note_what_is_missing(
    subject: Subject, qa_rows: list[dict[str, Any]]
) -> None:
    bare = amnesis.create("benchmark", "own", forget=qa_rows[:3], retain=qa_rows[3:])
    evaluated = bare.evaluate(subject, EvaluationSettings(max_new_tokens=2, bootstrap=0))
    assert {"forget/probability", "retain/rouge_l", "forget/perplexity"} <= set(evaluated.values)
    (note,) = (note for note in evaluated.notes if "of a text" not in note)
    assert note == (
        "not measured: choice_probability, truth_ratio, forget_quality (no field "
        "'perturbed_answer'); mia_loss, mia_zlib, mia_min_k, mia_min_k_plus, mia_reference, privleak "
        "(no set 'holdout')"
    )


def test_the_benchmarks_own_metrics_note_a_set_that_is_not_there(subject: Subject) -> None:
    sizes = {"forget_authors": 1, "retain_authors": 1, "questions_per_author": 2}
    few = amnesis.create("benchmark", "fictional", facts=0, holdout_authors=0, **sizes)
    settings = EvaluationSettings(max_new_tokens=2, bootstrap=0)
    few.check(settings, subject.template, subject.tokenizer)
    evaluated = few.evaluate(subject, settings)
    assert {"forget/rouge_l", "retain/rouge_l", "retain/probability"} <= set(evaluated.values)
    (note,) = (one for one in evaluated.notes if "facts" in one)
    assert note.startswith("not measured: ")
    assert "facts/rouge_l (no set 'facts')" in note
    with pytest.raises(RecipeError, match="no set is called 'facts'"):
        few.evaluate(subject, settings.model_copy(update={"metrics": ("facts/rouge_l",)}))


def test_a_set_s_name_may_have_slashes(subject: Subject, qa_rows: list[dict[str, Any]]) -> None:
    sets = {"request/a": qa_rows[:3], "b": qa_rows[3:]}
    chosen = build_metrics(("request/a/probability", "perplexity"), default_registry())
    selection = select(sets, chosen, retrained=False)
    evaluated = evaluate(subject, sets, selection, EvaluationSettings(bootstrap=20))
    assert set(evaluated.values) == {
        "request/a/probability",
        "request/a/perplexity",
        "b/perplexity",
    }
    assert set(evaluated.intervals) == set(evaluated.values)
    assert {one["set"] for one in evaluated.examples} == {"request/a"}


@pytest.mark.parametrize(
    ("metrics", "error", "line"),
    [
        (("truth_ratio",), RecipeError, "needs the field 'perturbed_answer' in every row"),
        (("retain/truth_ratio",), RecipeError, "which the set 'retain' lacks"),
        (("forgot/probability",), RecipeError, "no set is called 'forgot'; did you mean 'forget'"),
        (("recovery",), RecipeError, "is not read from sets"),
        (("probabilty",), PluginError, "did you mean 'probability'"),
        (("mia_loss",), RecipeError, "needs the set 'holdout'"),
        (("forget/model_utility",), RecipeError, "is made of several sets"),
        (("model_utility",), RecipeError, "'model_utility' needs the"),
        (({"name": "mia_min_k", "k": 2},), RecipeError, "less than or equal to 1"),
        (({"name": "rouge_l", "stem": True},), RecipeError, "metric 'rouge_l': stem: unknown key"),
    ],
)
def test_a_missing_need_of_a_metric_that_was_asked_for_is_one_line(
    subject: Subject, qa_rows: list[dict[str, Any]], metrics: Any, error: type, line: str
) -> None:
    bare = amnesis.create("benchmark", "own", forget=qa_rows[:3], retain=qa_rows[3:])
    with pytest.raises(error) as caught:
        bare.evaluate(subject, EvaluationSettings(metrics=metrics))
    assert line in str(caught.value)


def test_forget_quality_without_a_retrained_model_says_how_to_give_one(
    subject: Subject, own: Any
) -> None:
    with pytest.raises(RecipeError, match="--retrained"):
        own.evaluate(subject, EvaluationSettings(metrics=("forget_quality",)))


def test_generation_and_reading_can_be_cut_short(subject: Subject, own: Any) -> None:
    settings = EvaluationSettings(
        metrics=("rouge_l", "probability"), generate_rows=2, max_new_tokens=3, bootstrap=0, limit=2
    )
    evaluated = own.evaluate(subject, settings)
    rows = [(r["set"], r["row"]) for r in evaluated.examples if r["metric"] == "rouge_l"]
    assert rows == [(name, row) for name in ("forget", "retain", "holdout") for row in range(2)]
    none = own.evaluate(subject, settings.model_copy(update={"generate_rows": 0}))
    assert "forget/rouge_l" not in none.values
    assert "forget/probability" in none.values


def test_a_length_cap_follows_the_reference(subject: Subject, own: Any) -> None:
    lengths: list[int] = []
    model = subject.model
    handle = model.register_forward_pre_hook(
        lambda _, __, given: lengths.append(given["input_ids"].shape[1]), with_kwargs=True
    )
    own.evaluate(
        subject,
        EvaluationSettings(metrics=("forget/rouge_l",), length_cap=0.5, bootstrap=0),
    )
    handle.remove()
    longest = max(
        encode("", row["answer"], subject.tokenizer).label_count for row in own.sets()["forget"]
    )
    assert sum(length == 1 for length in lengths) < longest


def test_a_text_that_does_not_fit_leaves_its_example_out_and_says_so(
    subject: Subject, rich_rows: list[dict[str, Any]]
) -> None:
    long = {**rich_rows[0], "question": "why " * 200}
    bench = amnesis.create("benchmark", "own", forget=[long, rich_rows[1]], retain=rich_rows[2:])
    evaluated = bench.evaluate(subject, EvaluationSettings(metrics=("probability",), bootstrap=0))
    assert [r["row"] for r in evaluated.examples if r["set"] == "forget"] == [1]
    assert evaluated.notes == [
        "set 'forget': 1 of 2 examples left out, because nothing of a text fits into the model's "
        "128 positions"
    ]
    narrow = replace(subject, template=Template(max_length=100))
    told = bench.evaluate(narrow, EvaluationSettings(metrics=("probability",), bootstrap=0)).notes
    assert told[0].endswith("fits into the template's max_length, 100 tokens")
    only_long = amnesis.create("benchmark", "own", forget=[long], retain=rich_rows[2:])
    with pytest.raises(DataError, match="set 'forget' has no usable example"):
        only_long.evaluate(subject, EvaluationSettings(metrics=("probability",)))


def test_a_cut_answer_is_evaluated_by_its_beginning_and_noted(
    subject: Subject, rich_rows: list[dict[str, Any]]
) -> None:
    long = {**rich_rows[0], "answer": "because " * 200}
    wordy = {**rich_rows[1], "paraphrased_answer": "because " * 200}
    bench = amnesis.create("benchmark", "own", forget=[long, wordy], retain=rich_rows[2:])
    plain = EvaluationSettings(metrics=("probability",), bootstrap=0)
    noted = (
        "of 2 examples evaluated by the beginning of a text, because the whole does not fit into "
    )
    cut = f"set 'forget': {{}} {noted}the model's 128 positions"
    assert bench.evaluate(subject, plain).notes == [cut.format(1)]
    further = plain.model_copy(update={"metrics": ("truth_ratio",)})
    assert bench.evaluate(subject, further).notes == [cut.format(2)]


def test_what_generates_on_no_row_has_no_value_and_says_so(subject: Subject, own: Any) -> None:
    metrics = ("retain/rouge_l", "retain/probability")
    settings = EvaluationSettings(metrics=metrics, generate_rows=0, bootstrap=0)
    evaluated = own.evaluate(subject, settings)
    assert list(evaluated.values) == ["retain/probability"]
    said = "metric retain/rouge_l has no value: it reads generated answers, and generate_rows is 0"
    assert evaluated.notes == [said]
    alone = settings.model_copy(update={"metrics": metrics[:1]})
    nothing = own.evaluate(subject, alone)
    assert nothing.values == {}
    with pytest.raises(DataError, match=f"no metric has a value: {said}"):
        check_values(nothing)


def test_answers_without_a_word_to_rouge_are_counted(
    subject: Subject, qa_rows: list[dict[str, Any]]
) -> None:
    snow = [qa_rows[0], {"question": "雪?", "answer": "雪は白い。"}]
    bench = amnesis.create("benchmark", "own", forget=snow, retain=qa_rows[2:])
    metrics = ("rouge_l", "forget/rouge_l_f1")
    settings = EvaluationSettings(metrics=metrics, bootstrap=0, max_new_tokens=2)
    told = bench.evaluate(subject, settings).notes
    assert [note.split(" have ")[0] for note in told] == [
        "metric forget/rouge_l: 1 of 2 answers",
        "metric forget/rouge_l_f1: 1 of 2 answers",
    ]


def test_a_retrained_model_that_was_evaluated_on_other_rows_is_noted(
    subject: Subject, own: Any, rich_rows: list[dict[str, Any]]
) -> None:
    settings = EvaluationSettings(metrics=("forget_quality",), bootstrap=0)

    def notes_against(rows: list[dict[str, Any]], **other: Any) -> list[str]:
        bench = amnesis.create("benchmark", "own", forget=rows, retain=rich_rows[3:5])
        retrained = bench.evaluate(
            subject, EvaluationSettings(metrics=("truth_ratio", "probability"), bootstrap=0)
        )
        evaluated = own.evaluate(subject, settings, retrained=replace(retrained, **other))
        notes: list[str] = evaluated.notes
        return notes

    said = (
        "metric forget_quality: the retrained model was evaluated on other rows of the set 'forget'"
    )
    changed = [*rich_rows[:2], {**rich_rows[2], "question": "Which is the capital of France?"}]
    assert notes_against(rich_rows[:3]) == []
    assert notes_against(changed) == [f"{said}; evaluate it on the same data"]
    assert notes_against(changed, data={}) == [], "results of earlier releases do not tell"
    assert notes_against(rich_rows[:2], data={}) == [
        f"{said} (3 here, 2 there); evaluate it on the same data"
    ]
    assert notes_against(rich_rows[:3], examples=[]) == [
        "metric forget_quality failed: it is made of the example values of forget/truth_ratio, "
        "which the retrained model's results lack; evaluate that model with the same metrics"
    ]


def test_a_model_of_no_numbers_has_no_values(subject: Subject, own: Any) -> None:
    with torch.no_grad():
        subject.model.lm_head.weight[7] = torch.nan
    evaluated = own.evaluate(subject, EvaluationSettings(metrics=ALL, bootstrap=0))
    assert evaluated.values == {}
    assert evaluated.examples == []
    said = "has no value: the model's log-probabilities are not numbers (NaN) on 3 of 3 examples"
    for key in ("forget/exact_memorization", "forget/extraction_strength", "retain/rouge_l"):
        count = said.replace("3", "2") if key.startswith("retain") else said
        assert f"metric {key} {count}" in evaluated.notes
    with pytest.raises(DataError, match="no metric has a value"):
        check_values(evaluated)


def test_some_examples_of_no_numbers_are_not_left_out_of_a_mean(
    subject: Subject, own: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = read_texts

    def spoiled(*given: Any, **options: Any) -> Any:
        scores = read(*given, **options)
        return [replace(one, logps=one.logps * np.nan) for one in scores[:1]] + scores[1:]

    monkeypatch.setattr(answers, "read_texts", spoiled)
    metrics = ("forget/exact_memorization", "forget/ngram_entropy", "retain/exact_memorization")
    evaluated = own.evaluate(subject, EvaluationSettings(metrics=metrics, bootstrap=0))
    assert list(evaluated.values) == ["retain/exact_memorization"]
    assert [note.split(" (")[1] for note in evaluated.notes] == ["NaN) on 1 of 3 examples"] * 2


def test_a_metric_that_fails_is_noted_and_the_others_go_on(
    subject: Subject, own: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from amnesis_evaluation.metrics.probability import Probability

    def fail(self: Any, answer: Any) -> float:
        raise ZeroDivisionError("by nothing")

    monkeypatch.setattr(Probability, "value", fail)
    evaluated = own.evaluate(
        subject, EvaluationSettings(metrics=("probability", "exact_memorization"), bootstrap=0)
    )
    assert "forget/exact_memorization" in evaluated.values
    assert "forget/probability" not in evaluated.values
    assert "metric forget/probability failed: ZeroDivisionError: by nothing" in evaluated.notes


@pytest.mark.parametrize("wrong", [3, ["", "no"], ["no", None], {"a": "b"}])
def test_a_further_text_that_is_none_is_named_with_its_row(
    subject: Subject, rich_rows: list[dict[str, Any]], wrong: Any
) -> None:
    rows = [rich_rows[0], {**rich_rows[1], "perturbed_answer": wrong}]
    bench = amnesis.create("benchmark", "own", forget=rows, retain=rich_rows[2:])
    with pytest.raises(DataError) as caught:
        bench.evaluate(subject, EvaluationSettings(metrics=("truth_ratio",)))
    assert "set 'forget', row 1: field 'perturbed_answer' must be text" in str(caught.value)
