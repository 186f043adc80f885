"""Rows to batches: the boundary, the mask, chunks, counts, and the same batches from any file."""

from __future__ import annotations

import csv
import json
import math
from fractions import Fraction
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import amnesis
from amnesis.data.batches import collate
from amnesis.data.examples import Mixture, encode_mixture, encode_rows, shared_examples
from amnesis.data.packed import PackedTexts
from amnesis.data.sampling import StepPlan, draw_of, shuffled, steps_of
from amnesis.data.sources import Source
from amnesis.data.templates import ChatTemplate, Encoded, Template, TextTemplate, encode
from amnesis.errors import AmnesisError, DataError


@settings(max_examples=60, deadline=None)
@given(st.text(min_size=1, max_size=30), st.text(min_size=1, max_size=30))
def test_labels_are_the_answer_and_its_end(tiny_tokenizer: Any, asked: str, answer: str) -> None:
    """Prompt tokens and label tokens together are the text; the labels hold the whole answer."""
    prompt = f"Question: {asked}\nAnswer: "
    encoded = encode(prompt, answer, tiny_tokenizer)
    ids = list(encoded.input_ids)
    assert ids[-1] == tiny_tokenizer.eos_token_id
    assert tiny_tokenizer.decode(ids[:-1]) == prompt + answer
    labels = tiny_tokenizer.decode(ids[encoded.prompt_length : -1])
    before = tiny_tokenizer.decode(ids[: encoded.prompt_length])
    assert labels.endswith(answer) or "\ufffd" in labels
    assert len(before.rstrip("\ufffd")) <= len(prompt)


def test_the_boundary_is_that_of_the_joint_text(tiny_tokenizer: Any) -> None:
    """The space before the answer belongs to its first token: apart, it would end the prompt."""
    encoded = encode("Question: Is it?\nAnswer: ", "She was born in Porto.", tiny_tokenizer)
    apart = tiny_tokenizer("Question: Is it?\nAnswer: ")["input_ids"]
    assert list(encoded.input_ids[: encoded.prompt_length]) != apart
    first = tiny_tokenizer.decode([encoded.input_ids[encoded.prompt_length]])
    assert first.startswith(" ")


def test_masks_follow_lengths_not_the_padding_token(qa_rows: Any, tiny_tokenizer: Any) -> None:
    """With pad = eos the real end of a text stays attended to and labelled."""
    examples = encode_rows(qa_rows, tiny_tokenizer, Template()).examples
    for side in ("right", "left"):
        batch = collate(examples, tiny_tokenizer.eos_token_id, padding_side=side)
        lengths = torch.tensor([len(e.sequences["answer"].input_ids) for e in examples])
        assert torch.equal(batch.attention_mask.sum(-1), lengths)
        counts = torch.tensor([e.sequences["answer"].label_count for e in examples])
        assert torch.equal((batch.labels != -100).sum(-1), counts)
        assert (batch.labels == tiny_tokenizer.eos_token_id).sum() == len(examples)


def test_what_is_cut_and_dropped_is_counted(qa_rows: Any, tiny_tokenizer: Any) -> None:
    whole = encode_rows(qa_rows, tiny_tokenizer, Template())
    assert (whole.truncated, whole.cut_tokens, whole.dropped) == (0, 0, 0)
    lengths = [len(e.sequences["answer"].input_ids) for e in whole.examples]
    prompts = [e.sequences["answer"].prompt_length for e in whole.examples]
    limit = sorted(prompts)[3] + 1
    cut = encode_rows(qa_rows, tiny_tokenizer, Template(max_length=limit))
    assert cut.truncated == sum(length > limit for length in lengths)
    assert cut.cut_tokens == sum(max(length - limit, 0) for length in lengths)
    assert cut.dropped == sum(prompt >= limit for prompt in prompts)
    assert len(cut) + cut.dropped == len(qa_rows)
    with pytest.raises(DataError, match="no usable example"):
        encode_rows(qa_rows, tiny_tokenizer, Template(max_length=3))


def test_repetitions_and_shared_examples_are_counted(qa_rows: Any, tiny_tokenizer: Any) -> None:
    forget = encode_rows([*qa_rows[:3], qa_rows[0]], tiny_tokenizer, Template(), name="forget")
    retain = encode_rows(qa_rows[2:], tiny_tokenizer, Template(), name="retain")
    assert forget.duplicates == 1
    assert shared_examples(retain, forget) == 1


def test_plain_text_is_chunked_without_loss(tiny_tokenizer: Any) -> None:
    """Every token but the first is a label exactly once, whatever chunk and stride."""
    text = " ".join(f"The {n}th sentence is about rain and rivers." for n in range(40))
    whole = tiny_tokenizer(text)["input_ids"]
    for length, stride in ((32, None), (32, 16), (17, 5), (4000, None)):
        template = TextTemplate(max_length=length, stride=stride, eos=False)
        chunks = template.chunks(template.whole({"text": text}, tiny_tokenizer))
        assert all(len(c.input_ids) <= length for c in chunks)
        labels = [t for c in chunks for t in c.input_ids[c.prompt_length :]]
        if stride is None:  # each chunk's first token has no context: it is not a label
            starts = {sum(len(c.input_ids) for c in chunks[:k]) for k in range(len(chunks))}
            assert labels == [t for k, t in enumerate(whole) if k not in starts]
        else:
            assert labels == whole[1:]


@pytest.mark.parametrize("eos", [True, False])
def test_a_last_token_alone_is_predicted_from_the_one_before(
    tiny_tokenizer: Any, eos: bool
) -> None:
    row = {"text": " ".join(f"The {n}th sentence is about rain." for n in range(5))}
    end = [tiny_tokenizer.eos_token_id] * eos
    whole = tiny_tokenizer(row["text"])["input_ids"] + end
    lengths = [length for length in range(2, len(whole)) if len(whole) % length == 1]
    assert len(lengths) > 1
    for length in lengths:
        template = TextTemplate(max_length=length, eos=eos)
        *earlier, last = template.chunks(template.whole(row, tiny_tokenizer))
        assert [t for chunk in earlier for t in chunk.input_ids] == whole[:-1]
        assert (list(last.input_ids), last.prompt_length) == (whole[-2:], 1)


@pytest.mark.parametrize("objective", ["po", "dpo"])
def test_every_chunk_of_a_plain_text_has_its_refusal(tiny_tokenizer: Any, objective: str) -> None:
    """Not the first ``max_length`` tokens alone: what is unlearned is the whole text."""
    texts = amnesis.create("objective", objective).texts()
    rows = [
        {"text": " ".join(f"The {n}th sentence is on rain." for n in range(9 * k))} for k in (1, 4)
    ]
    for template in (TextTemplate(max_length=100), TextTemplate(max_length=100, stride=60)):
        plain = encode_rows(rows, tiny_tokenizer, template)
        refused = encode_rows(rows, tiny_tokenizer, template, answers=texts)
        assert len(plain) > 2 * len(rows)
        assert [e.sequences["answer"] for e in refused.examples] == [
            e.sequences["answer"] for e in plain.examples
        ]
        for example in refused.examples:
            refusal = example.sequences["refusal"]
            said = tiny_tokenizer.decode(list(refusal.input_ids), skip_special_tokens=True)
            assert said == texts["refusal"](example.row)
            assert refusal.label_count == len(refusal.input_ids) - 1
        assert (refused.truncated, refused.dropped) == (0, 0)


CHAT = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}</{{ m.role }}>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def test_chat_messages_use_the_tokenizers_template(tiny_tokenizer: Any) -> None:
    import copy

    tokenizer = copy.deepcopy(tiny_tokenizer)
    row = {
        "messages": [
            {"role": "user", "content": "Who wrote it?"},
            {"role": "assistant", "content": "Mirela Dantes."},
        ]
    }
    with pytest.raises(DataError, match="no chat template"):
        encode_rows([row], tokenizer, ChatTemplate())
    tokenizer.chat_template = CHAT
    (example,) = encode_rows([row], tokenizer, ChatTemplate()).examples
    encoded = example.sequences["answer"]
    before = tokenizer.decode(list(encoded.input_ids[: encoded.prompt_length]))
    assert before == "<user>Who wrote it?</user><assistant>"
    as_question = {"question": "Who wrote it?", "answer": "Mirela Dantes."}
    (same,) = encode_rows([as_question], tokenizer, ChatTemplate()).examples
    assert same.sequences["answer"] == encoded
    broken = {"messages": [{"role": "user", "content": "Who?"}] * 2}
    with pytest.raises(DataError, match="row 0: the last message must be the assistant's"):
        encode_rows([broken], tokenizer, ChatTemplate())


def test_five_hundred_rows_as_any_file_give_the_same_batches(
    tmp_path: Path, tiny_tokenizer: Any
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [
        {
            "prompt": f'Number {n}, "quoted", with\na line break?',
            "completion": f"It is {n}, née €{n * n}.",
        }
        for n in range(500)
    ]
    (tmp_path / "a.json").write_text(json.dumps(rows), encoding="utf-8")
    lines = "\n".join(json.dumps(row) for row in rows)  # no final line end, as in TOFU
    (tmp_path / "a.jsonl").write_text(lines, encoding="utf-8")
    with (tmp_path / "a.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["prompt", "completion"])
        writer.writeheader()
        writer.writerows(rows)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    fields = {"question": "prompt", "answer": "completion"}
    plans = []
    for ending in ("json", "jsonl", "csv", "parquet"):
        read = Source(path=tmp_path / f"a.{ending}", fields=fields).rows({})
        examples = encode_rows(read, tiny_tokenizer, Template())
        plans.append(StepPlan(examples, examples, 20, 32, 8, 1))
    for step in range(20):
        for other in plans[1:]:
            one, two = plans[0][step], other[step]
            for a, b in zip(one.forget + one.retain, two.forget + two.retain, strict=True):
                assert torch.equal(a.input_ids, b.input_ids)
                assert torch.equal(a.labels, b.labels)
                assert torch.equal(a.attention_mask, b.attention_mask)


def mixed(rows: Any) -> Mixture:
    return Mixture(((3.0, rows[:2]), (1.0, rows[2:])))


def plan_of(examples: Any, retain: Any = None, **options: Any) -> StepPlan:
    return StepPlan(
        examples,
        retain,
        **{"steps": 9, "batch_size": 3, **options},
        micro_batch_size=2,
        pad_token_id=1,
    )


def test_every_row_is_seen_once_an_epoch_whatever_the_ranks(
    qa_rows: Any, tiny_tokenizer: Any
) -> None:
    examples = encode_rows(qa_rows, tiny_tokenizer, Template())
    retain = encode_rows(qa_rows[:3], tiny_tokenizer, Template())
    steps, draws = steps_of(2, len(examples), 3)
    assert (steps, draws) == (6, 16)
    for world in (1, 2, 3):
        seen: list[str] = []
        kept: list[str] = []
        for step in range(steps):
            for rank in range(world):
                plan = plan_of(
                    examples, retain, steps=steps, forget_draws=draws, rank=rank, world=world
                )
                seen += [key for batch in plan[step].forget for key in batch.keys]
                kept += [key for batch in plan[step].retain for key in batch.keys]
        assert sorted(seen) == sorted(2 * [e.sequences["answer"].key for e in examples.examples])
        assert len(kept) == 18
        assert len(set(kept)) == 3  # a retain set smaller than the forget set goes round again


def test_the_two_streams_are_shuffled_apart(qa_rows: Any, tiny_tokenizer: Any) -> None:
    """Else one row of the one stream would always meet the same row of the other."""
    examples = encode_rows(qa_rows, tiny_tokenizer, Template())
    for source in (examples, encode_mixture(mixed(qa_rows), tiny_tokenizer, Template())):
        plan = plan_of(source, source, steps=80, batch_size=1)
        steps = [plan[step] for step in range(80)]
        orders = [
            [batch.keys[0] for step in steps for batch in getattr(step, stream)]
            for stream in ("forget", "retain")
        ]
        together = sum(one == other for one, other in zip(*orders, strict=True))
        assert together < 30  # of 80; by chance 10 of plain rows
        pairs = set(zip(*orders, strict=True))
        assert len(pairs) > 3 * len(examples)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 200), st.integers(0, 10), st.integers(0, 10))
def test_orders_are_permutations_that_depend_on_seed_and_epoch(
    size: int, seed: int, epoch: int
) -> None:
    order = shuffled(size, seed, "forget", epoch)
    assert sorted(order) == list(range(size))
    if size > 20:
        assert order != shuffled(size, seed + 1, "forget", epoch)
        assert order != shuffled(size, seed, "forget", epoch + 1)


WEIGHTS = st.lists(
    st.one_of(st.just(0.0), st.floats(1e-3, 5), st.integers(1, 5).map(float)),
    min_size=2,
    max_size=40,
).filter(any)


def drawn(weights: list[float], size: int, epochs: int, seed: int = 0) -> list[list[int]]:
    """Return how often each part is drawn in each epoch, holding its draws to be in order."""
    seen = [0] * len(weights)
    counts = []
    for epoch in range(epochs):
        before = list(seen)
        for k in range(epoch * size, (epoch + 1) * size):
            part, rank = draw_of(tuple(weights), size, seed, "retain", k)
            assert rank == seen[part]  # each part's own draws come one after another
            seen[part] += 1
        counts.append([b - a for a, b in zip(before, seen, strict=True)])
    return counts


@settings(max_examples=60, deadline=None)
@given(WEIGHTS, st.integers(1, 60), st.integers(0, 3))
def test_weighted_parts_are_drawn_in_proportion(weights: list[float], size: int, seed: int) -> None:
    """In every epoch and over all of them, by whole numbers: no part is a draw from its share."""
    shares = [size * Fraction(weight) / sum(map(Fraction, weights)) for weight in weights]
    counts = drawn(weights, size, 7, seed)
    # The first epoch by the definition of the largest remainder.
    remainders = sorted((math.floor(share) - share, p) for p, share in enumerate(shares))
    larger = {p for _, p in remainders[: size - sum(map(math.floor, shares))]}
    assert counts[0] == [math.floor(share) + (p in larger) for p, share in enumerate(shares)]
    for epoch, each in enumerate(counts, start=1):
        assert sum(each) == size
        for part, share in enumerate(shares):
            assert math.floor(share) <= each[part] <= math.ceil(share)
            assert abs(sum(c[part] for c in counts[:epoch]) - epoch * share) <= 1


@pytest.mark.parametrize(
    ("weights", "size", "epochs", "expected"),
    [
        ([1.0] * 60, 1000, 3, [50] * 60),
        ([1.0] * 300, 400, 3, [4] * 300),
        ([0.9] + [0.1 / 300] * 300, 3000, 1, [2700] + [1] * 300),
        ([0.9] + [0.1 / 300] * 300, 302, 10, [2718] + [1] * 300),
        ([3.0, 0.0, 1.0], 8, 5, [30, 0, 10]),
        ([5.0, 40.0, 2.0], 47, 2, [10, 80, 4]),  # as many draws as examples: each row once
    ],
)
def test_many_sources_have_their_shares(
    weights: list[float], size: int, epochs: int, expected: list[int]
) -> None:
    counts = [sum(each) for each in zip(*drawn(weights, size, epochs), strict=True)]
    assert all(abs(found - share) <= 1 for found, share in zip(counts, expected, strict=True))
    assert all(counts[p] == 0 for p, weight in enumerate(weights) if weight == 0)
    assert sum(counts) == size * epochs
    if set(weights) != {0.9, 0.1 / 300}:
        assert counts == expected


def test_a_mixture_of_sources_draws_from_each(qa_rows: Any, tiny_tokenizer: Any) -> None:
    examples = encode_mixture(mixed(qa_rows), tiny_tokenizer, Template())
    assert examples.parts == ((3.0, 2), (1.0, 6))
    plan = plan_of(examples, steps=1, batch_size=1000)
    keys = [key for batch in plan[0].forget for key in batch.keys]
    first = {e.sequences["answer"].key for e in examples.examples[:2]}
    assert sum(key in first for key in keys) == 750


def test_a_mixture_weighted_as_its_parts_are_long_shows_each_row_once_an_epoch(
    qa_rows: Any, tiny_tokenizer: Any
) -> None:
    mixture = Mixture(((2.0, qa_rows[:2]), (6.0, qa_rows[2:])))
    examples = encode_mixture(mixture, tiny_tokenizer, Template())
    every = sorted(e.sequences["answer"].key for e in examples.examples)
    plan = plan_of(examples, steps=3, batch_size=8)
    for step in range(3):
        assert sorted(key for batch in plan[step].forget for key in batch.keys) == every


def test_a_part_of_weight_zero_is_left_out(qa_rows: Any, tiny_tokenizer: Any) -> None:
    mixture = Mixture(((1.0, qa_rows[:2]), (0.0, qa_rows[2:6]), (2.0, qa_rows[6:])))
    examples = encode_mixture(mixture, tiny_tokenizer, Template())
    assert examples.parts == ((1.0, 2), (2.0, 2))
    assert {e.row["question"] for e in examples.examples} == {
        row["question"] for row in (*qa_rows[:2], *qa_rows[6:])
    }


@pytest.mark.parametrize("weights", [(0.0, 0.0), (1.0, -1.0), (1.0, math.inf), (math.nan, 1.0)])
def test_weights_that_are_no_shares_are_refused(weights: tuple[float, ...]) -> None:
    with pytest.raises(DataError, match="weights of a mixture must be finite and not negative"):
        Mixture(tuple((weight, []) for weight in weights))


def test_sources_rename_fields_and_say_what_is_missing(tmp_path: Path) -> None:
    sets = {"forget": [{"q": "Who?", "a": "She."}]}
    rows = Source(set="forget", fields={"question": "q", "answer": "a"}).rows(sets)
    assert rows[0]["question"] == "Who?"
    with pytest.raises(DataError, match="row 0 has no field 'qq'; did you mean 'q'"):
        Source(set="forget", fields={"question": "qq"}).rows(sets)
    with pytest.raises(DataError, match="did you mean 'forget'"):
        Source(set="forgot").rows(sets)
    with pytest.raises(AmnesisError, match="there is no such file"):
        Source(path=tmp_path / "no.jsonl").rows({})


# -- many at once ---------------------------------------------------------------------------------

TEXTS = st.text(
    st.characters(exclude_categories=["Cs"]) | st.sampled_from(" \n\t.é😀ﬁ\u0301"), max_size=24
).filter(lambda text: bool(text.strip()))


def tokenizers_of(tiny_tokenizer: Any) -> list[Any]:
    """Byte-level as it is, with what transformers' tokenizers do around it, and one that strips."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    wordy = Tokenizer(models.WordPiece(unk_token="<unk>"))
    wordy.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    wordy.pre_tokenizer = pre_tokenizers.Whitespace()
    special = ["<unk>", "<s>", "</s>"]
    trainer = trainers.WordPieceTrainer(vocab_size=200, special_tokens=special)
    wordy.train_from_iterator(["who wrote it", "she was born in porto", "aé fi"], trainer)
    wordy.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    return [
        tiny_tokenizer,
        PreTrainedTokenizerFast(tokenizer_object=wordy, eos_token="</s>", bos_token="<s>"),
    ]


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(st.tuples(TEXTS, TEXTS, TEXTS), min_size=1, max_size=5),
    st.sampled_from(["{question}", "Q: {question}\nA: ", "{question} "]),
    st.integers(2, 30),
    st.booleans(),
    st.booleans(),
)
def test_many_rows_at_once_have_the_tokens_of_one_by_one(
    tiny_tokenizer: Any, texts: Any, prompt: str, max_length: int, eos: bool, plain: bool
) -> None:
    rows = [{"question": q, "answer": a, "text": a, "other": o} for q, a, o in texts]
    template: Any = (
        TextTemplate(max_length=max_length, eos=eos, stride=max(1, max_length // 2))
        if plain
        else Template(prompt=prompt, max_length=max_length, eos=eos)
    )
    further: Any = {"other": lambda row: row["other"]}
    for tokenizer in tokenizers_of(tiny_tokenizer):
        expected: list[tuple[int, dict[str, Encoded]]] = []
        for index, row in enumerate(rows):
            own = template.chunks(template.whole(row, tokenizer)) if plain else None
            for one in own or [template.encode(row, tokenizer)]:
                other = template.encode(row, tokenizer, row["other"])
                expected.append((index, {"answer": one, "other": other}))
        usable = [
            (index, sequences)
            for index, sequences in expected
            if min(one.label_count for one in sequences.values()) > 0
        ]
        if not usable:
            continue
        found = encode_rows(rows, tokenizer, template, answers=further)
        assert [(e.index, dict(e.sequences)) for e in found.examples] == usable
        assert found.dropped == len(expected) - len(usable)
        assert found.cut_tokens == sum(o.cut for _, s in expected for o in s.values())
        assert [key.hex() for key in found.answer_keys()] == [s["answer"].key for _, s in usable]
        keys = [s[name].key for _, s in usable for name in ("answer", "other")]
        assert list(found.digests()) == keys
        assert found.duplicates == len(usable) - len({s["answer"].key for _, s in usable})


def test_packed_texts_are_the_texts_that_were_packed() -> None:
    texts = [
        Encoded((1, 2, 3), 1),
        Encoded((70000,), 1, cut=5),
        Encoded((4, 5), 1, counted=(1,)),
        Encoded((6,), 1, counted=()),
    ]
    packed = PackedTexts()
    for text in texts:
        packed.append(text)
    assert list(packed) == texts
    assert packed[-1] == texts[-1]
    assert packed[1:3] == tuple(texts[1:3])
    with pytest.raises(IndexError):
        packed[4]


def test_a_text_that_no_tokenizer_takes_is_its_own_rows_fault(tiny_tokenizer: Any) -> None:
    rows = [{"question": "Who?", "answer": "Somebody."}, {"question": "\ud800", "answer": "x"}]
    with pytest.raises(Exception) as alone:  # noqa: PT011  # whatever it is
        Template().encode(rows[1], tiny_tokenizer)
    with pytest.raises(type(alone.value)):
        encode_rows(rows, tiny_tokenizer, Template())


def test_the_key_of_a_text_is_that_of_earlier_releases() -> None:
    assert Encoded((5,), 1).key == blake2b(b"1:5", digest_size=16).hexdigest()
    text = Encoded((1, 20, 300), 2, counted=(2,))
    assert text.key == blake2b(b"2:1,20,300:2", digest_size=16).hexdigest()


def test_rows_beyond_one_call_keep_their_numbers(tiny_tokenizer: Any, monkeypatch: Any) -> None:
    from amnesis.data import encoding, examples

    monkeypatch.setattr(examples, "ROWS_AT_ONCE", 3)
    monkeypatch.setattr(encoding, "MAX_CHARACTERS", 40)
    rows = [{"question": f"Who is {i}?", "answer": f"Number {i}."} for i in range(8)]
    found = encode_rows(iter(rows), tiny_tokenizer, Template())
    assert [example.index for example in found.examples] == list(range(8))
    assert [example.row for example in found.examples] == rows
    rows[6] = {"question": "Who?"}
    with pytest.raises(DataError, match="row 6: a row has no field 'answer'"):
        encode_rows(rows, tiny_tokenizer, Template())
