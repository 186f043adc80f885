"""The parts of an assessment: known or not, entangled or not, in both sets or not, same or not."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from amnesis.contracts import Evaluation, Subject
from amnesis.data.templates import ChatTemplate, Template, TextTemplate
from amnesis.errors import DataError, RecipeError
from amnesis_evaluation.commands.assess.alignment import alignment_of, cosine, sentence
from amnesis_evaluation.commands.assess.knowledge import knowledge_of
from amnesis_evaluation.commands.assess.material import Material, fitting, material_of
from amnesis_evaluation.commands.assess.methods import coinciding, length_of
from amnesis_evaluation.commands.assess.overlap import N, _nearest, overlap_of, row_text
from amnesis_evaluation.commands.assess.recipe import goal_of
from amnesis_evaluation.commands.assess.record import Knowledge, Memorised
from amnesis_evaluation.commands.suggest.trials import Moment, Trial
from amnesis_plugins.g_effect import layers_of
from amnesis_plugins.g_effect.sets import encode_set

ROWS = [{"question": f"q{k}", "answer": f"a{k}"} for k in range(20)]


def nothing(*_: Any) -> None:
    """Progress that nobody watches."""


def evaluation(
    forget: dict[str, float], holdout: dict[str, float] | None = None, **further: float
) -> Evaluation:
    """An evaluation of 20 rows, each of which has the value of its set."""
    sets = {"forget": forget, **({"holdout": holdout} if holdout else {})}
    values = {f"{s}/{m}": v for s, metrics in sets.items() for m, v in metrics.items()}
    return Evaluation(
        values={**values, **further},
        intervals={
            name: (max(0.0, v - 0.02), min(1.0, v + 0.02))
            for name, v in {**values, **further}.items()
        },
        examples=[
            {"set": s, "row": row, "group": None, "metric": m, "value": v}
            for s, metrics in sets.items()
            for m, v in metrics.items()
            for row in range(20)
        ],
    )


def memory(strength: float, probability: float, exact: float) -> dict[str, float]:
    return {
        "extraction_strength": strength, "probability": probability, "exact_memorization": exact
    }  # fmt: skip


@pytest.mark.parametrize(
    ("known", "holdout", "auc", "level"),
    [
        (memory(1.0, 0.99, 1.0), None, None, "known"),
        (memory(1.0, 0.99, 1.0), memory(0.05, 0.1, 0.3), 1.0, "known"),
        (memory(0.02, 0.9, 0.95), None, None, "partly"),
        (memory(0.02, 0.05, 0.3), None, None, "unknown"),
        (memory(0.02, 0.05, 0.3), memory(0.02, 0.05, 0.3), 0.52, "unknown"),
        (memory(0.02, 0.05, 0.3), memory(0.02, 0.05, 0.3), 0.95, "partly"),
        # What everybody knows by heart, the holdout rows too, was not learned from the rows.
        (memory(0.6, 0.8, 0.9), memory(0.62, 0.81, 0.91), 0.5, "unknown"),
    ],
)
def test_whether_it_knows_goes_by_the_rules_of_the_verdict(
    known: dict[str, float], holdout: dict[str, float] | None, auc: float | None, level: str
) -> None:
    further = {} if auc is None else {"mia_loss": auc}
    found = knowledge_of(evaluation(known, holdout, **further), ROWS)
    assert found.level == level
    assert found.memorised.rows == (20 if known["extraction_strength"] >= 0.5 else 0)
    assert ("trained on them" in found.sentence) == (auc == 0.95)


def test_few_rows_whose_interval_reaches_everything_are_no_doubt_of_their_own() -> None:
    wide = evaluation(memory(1.0, 0.99, 1.0))
    wide.intervals["forget/exact_memorization"] = (0.34, 1.0)
    assert knowledge_of(wide, ROWS).level == "known"


def test_a_text_in_chunks_is_remembered_as_its_best_chunk() -> None:
    one = evaluation(memory(0.0, 0.1, 0.1))
    one.examples.append(
        {"set": "forget", "row": 7, "group": None, "metric": "extraction_strength", "value": 0.9}
    )
    found = knowledge_of(one, ROWS)
    assert found.memorised.rows == 1
    assert found.memorised.of == 20
    assert found.best[0].row == 7


def test_alignment_is_the_cosine_of_whole_gradients(
    exact_llama: Any, tiny_tokenizer: Any, qa_rows: Any
) -> None:
    subject = Subject(exact_llama, tiny_tokenizer, Template())
    found = alignment_of(subject, {"forget": qa_rows[:3], "retain": qa_rows[3:]}, 2, nothing)
    gradients = []
    for rows in (qa_rows[:3], qa_rows[3:]):
        exact_llama.zero_grad()
        logps = []
        encoded = encode_set(exact_llama, tiny_tokenizer, "s", rows, [], None, 8)
        for example in encoded.examples:
            text = example.sequences["answer"]
            ids = torch.tensor([text.input_ids])
            every = exact_llama(input_ids=ids).logits[0].log_softmax(-1)
            logps += [every[k - 1, ids[0, k]] for k in range(text.prompt_length, ids.shape[1])]
        loss: Any = -torch.stack(logps).mean()
        loss.backward()
        gradients.append({n: p.grad.clone() for n, p in exact_llama.named_parameters()})
    layers = layers_of(exact_llama)
    for layer in {*layers.values(), None}:
        f, r = (
            torch.cat([g.flatten() for n, g in one.items() if layer in (None, layers[n])])
            for one in gradients
        )
        value = found.cosine if layer is None else found.layers[layer]
        assert value == pytest.approx((f @ r / (f.norm() * r.norm())).item(), rel=1e-9)
    f, r = (torch.cat([g.flatten() for g in one.values()]) for one in gradients)
    assert found.ratio == pytest.approx((f @ r / (f @ f)).item(), rel=1e-9)
    same = alignment_of(subject, {"forget": qa_rows, "retain": qa_rows}, 3, nothing)
    assert same.cosine == pytest.approx(1, abs=1e-12)
    assert "closely entangled" in same.sentence


def test_a_direction_that_is_nowhere_has_no_cosine() -> None:
    assert cosine(0.0, 0.0, 2.0) is None
    assert cosine(-4.0, 4.0, 4.0) == -1
    assert "not entangled" in sentence(-0.1, {"head": None})


Grams = st.frozensets(st.integers(0, 12).map(lambda k: (k,)), min_size=1, max_size=6)


@given(st.lists(Grams, min_size=1, max_size=6), st.lists(Grams, min_size=1, max_size=6))
def test_the_nearest_row_is_that_which_shares_most(forget: Any, retain: Any) -> None:
    found = {pair.forget: pair for pair in _nearest(forget, retain)}
    for place, grams in enumerate(forget):
        shares = [len(grams & other) / min(len(grams), len(other)) for other in retain]
        if max(shares) == 0:
            assert place not in found
        else:
            assert found[place].share == pytest.approx(max(shares))
            assert found[place].retain == shares.index(max(shares))


def test_overlap_reads_what_the_template_reads(tiny_tokenizer: Any) -> None:
    long = "one two three four five six seven eight nine ten eleven twelve"
    sets = {
        "forget": [{"text": long, "file": "a"}, {"text": "hm"}],
        "retain": [{"text": f"{long.upper()}  ", "file": "b"}, {"text": f"zero {long} thirteen"}],
    }
    found = overlap_of(sets, TextTemplate(), tiny_tokenizer, nothing)
    assert [(pair.forget, pair.retain) for pair in found.exact] == [(0, 0)]
    assert found.near == ()
    sets["retain"].pop(0)
    found = overlap_of(sets, TextTemplate(), tiny_tokenizer, nothing)
    assert found.exact == ()
    assert [(pair.forget, pair.retain) for pair in found.near] == [(0, 0)]
    assert found.near[0].share > 0.9
    chat = {"messages": [{"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}]}
    assert row_text(chat, ChatTemplate()) == "u\na"
    assert row_text({"question": "q", "answer": "a"}, Template()) == "q\na"
    with pytest.raises(DataError, match="answer"):
        row_text({"question": "q"}, Template())
    assert N == 5


def trial(name: str, *risks: tuple[float, float]) -> Trial:
    return Trial(name, tuple(Moment(k, f, r, -f, -r) for k, (f, r) in enumerate(risks)))


def test_trials_that_went_the_same_way_are_one() -> None:
    a = trial("a", (0.1, 0.1), (1.0, 0.2), (2.0, 0.3))
    b = trial("b", (0.1, 0.1), (1.001, 0.2001), (2.01, 0.3005))
    c = trial("c", (0.1, 0.1), (1.0, 0.25), (2.0, 0.3))
    d = trial("d", (0.1, 0.1), (1.0, 0.2))
    assert [[one.name for one in group] for group in coinciding([a, c, b, d])] == [
        ["a", "b"],
        ["c"],
        ["d"],
    ]


@given(st.integers(1, 10**6), st.integers(1, 64))
def test_a_starter_recipe_is_neither_short_nor_endless(rows: int, batch_size: int) -> None:
    assert 100 <= length_of(rows, batch_size) <= 600


@given(st.floats(1e-6, 1), st.none() | st.floats(0, 1))
def test_the_goal_lies_between_what_is_and_what_was_never_seen(
    now: float, holdout: float | None
) -> None:
    values = {"forget/probability": now}
    if holdout is not None:
        values["holdout/probability"] = holdout
    knowledge = Knowledge(
        level="known", sentence="", values=values, intervals={},
        memorised=Memorised(rows=1, of=1, share=1.0), because=(),
    )  # fmt: skip
    goal = goal_of(knowledge)["forget/probability"]["below"]
    assert 0 < goal < now
    end = 0.2 if holdout is None else holdout
    if end < now:
        assert goal >= 0.94 * end
    assert math.isfinite(goal)


def test_texts_are_asked_as_texts(tiny_llama: Any, tiny_tokenizer: Any) -> None:
    subject = Subject(tiny_llama, tiny_tokenizer, Template())
    texts: dict[str, Any] = {"forget": [{"text": "t"}], "retain": [{"text": "u", "kinds": ""}]}
    fitted, material = fitting(subject, Material(sets=texts, document=None))
    assert isinstance(fitted.template, TextTemplate)
    assert material.notes == ()
    plain = Material(sets={"forget": ROWS[:2], "retain": ROWS}, document=None)
    assert fitting(subject, plain) == (subject, plain)
    with pytest.raises(DataError, match="retain: has no column 'text', which the rows to forget"):
        fitting(subject, Material(sets={**texts, "retain": ROWS}, document=None))


def test_columns_of_other_names_are_read(tiny_llama: Any, tiny_tokenizer: Any) -> None:
    subject = Subject(tiny_llama, tiny_tokenizer, Template())
    renamed = [{"nr": 1, "Frage": row["question"], "Antwort": row["answer"]} for row in ROWS]
    fitted, material = fitting(subject, Material(sets={"forget": renamed}, document=None))
    assert fitted.template == Template(question="Frage", answer="Antwort")
    assert material.notes == ("the columns are read as question_answer: Frage, Antwort",)
    articles = [{"nr": 1, "Body": "t"}, {"nr": 2, "Body": "u"}]
    fitted, _ = fitting(subject, Material(sets={"forget": articles}, document=None))
    assert fitted.template == TextTemplate(text="Body", eos=False)


def test_material_names_files_that_a_recipe_can_name(tmp_path: Any, write_rows: Any) -> None:
    from amnesis.discovery.registry import default_registry

    files = {name: str(path) for name, path in write_rows(forget=ROWS[:3], retain=ROWS[3:]).items()}
    registry = default_registry()
    one = material_of([files["forget"]], [files["retain"]], None, None, 2, registry, None)
    assert {name: len(rows) for name, rows in one.sets.items()} == {"forget": 2, "retain": 2}
    assert one.document == {"benchmark": {"name": "own", **files}}
    both = [files["forget"], files["retain"]]
    joined = material_of(both, None, None, None, None, registry, None)
    assert len(joined.sets["forget"]) == 20
    assert joined.document is None
    with pytest.raises(RecipeError, match="not both"):
        material_of(None, None, [files["retain"]], "fictional", None, registry, None)


def test_a_run_names_its_sets(tmp_path: Any, write_rows: Any) -> None:
    from amnesis.discovery.registry import default_registry
    from amnesis.runs.recipe import PartialRecipe

    files = {name: str(p) for name, p in write_rows(forget=ROWS[:3], retain=ROWS[3:]).items()}
    path = tmp_path / "recipe.yaml"
    document = {
        "benchmark": {"name": "own", **files},
        "objective": "ga",
        "forget": [{"set": "retain"}],
    }
    path.write_text(json.dumps(document), encoding="utf-8")
    registry, recipe = default_registry(), PartialRecipe.load(path)
    found = material_of(None, None, None, None, None, registry, recipe)
    assert [len(rows) for rows in found.sets.values()] == [17, 17]
    assert found.document == {"benchmark": document["benchmark"], "forget": [{"set": "retain"}]}
    other = material_of([files["forget"]], None, None, None, None, registry, recipe)
    assert {name: len(rows) for name, rows in other.sets.items()} == {"forget": 3}
