"""`measure`: every split of every kind of objective is the same quantity, and adds up."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.plugins.g_effect import naive

from amnesis.data.batches import collate
from amnesis.data.examples import Example, encode_rows
from amnesis.data.templates import Encoded, Template
from amnesis.discovery.resolve import Choice
from amnesis.errors import DataError, RecipeError
from amnesis_plugins.g_effect.layers import in_order, layers_of
from amnesis_plugins.g_effect.measurement import measure
from amnesis_plugins.g_effect.sets import _pieces, _pieces_of_beginnings, token_texts
from amnesis_plugins.g_effect.table import EffectTable

RowSets = tuple[list[Any], list[Any]]
LIKELIHOOD: list[Choice] = ["ga", "npo", {"name": "wga", "beta": 2.0}, "po", "dpo", "nll"]


@pytest.fixture
def model(build: Callable[..., Any], exact: None) -> Any:
    return build("llama, tied")


@pytest.fixture
def reference(model: Any) -> Any:
    other = copy.deepcopy(model)
    with torch.no_grad():
        for p in other.parameters():
            p.add_(torch.randn_like(p), alpha=0.05)
    return other


@pytest.fixture
def rows(qa_rows: Any) -> RowSets:
    return qa_rows[:3], qa_rows[3:6]


def by_definition(model: Any, reference: Any, tokenizer: Any, rows: RowSets) -> dict[Any, float]:
    """GA, NPO (β .1), WGA (β 2) on the forget set, NLL on the retain set, written out."""
    forget, retain = (
        collate(encode_rows(r, tokenizer, Template(max_length=128)).examples, 0) for r in rows
    )
    own, kept = naive.label_logps(model, forget), naive.label_logps(model, retain)
    ref = naive.label_logps(reference, forget).detach()
    n = forget.mask.sum()
    ratio = (own - ref).sum(-1)
    losses = {
        "ga": own.sum() / n,
        "npo": 2 / 0.1 * torch.log1p(torch.exp(0.1 * ratio)).mean(),
        "wga(beta=2.0)": (own.exp().detach() ** 2 * own).sum() / n,
        "nll": -kept.sum() / retain.mask.sum(),
    }
    risks = {"forget": -own.sum() / n, "retain": losses["nll"]}
    gradients = {d: naive.gradient(model, risk) for d, risk in risks.items()}
    return {
        (name, d): naive.product(naive.gradient(model, loss), v)
        for name, loss in losses.items()
        for d, v in gradients.items()
    }


@pytest.mark.parametrize(
    "by", [(), ("layer",), ("example",), ("layer", "example"), ("token",), ("layer", "position")]
)
def test_every_split_adds_up_to_the_definition(
    model: Any, reference: Any, tiny_tokenizer: Any, rows: RowSets, by: tuple[str, ...]
) -> None:
    table = measure(model, tiny_tokenizer, *rows, LIKELIHOOD, reference, by=by, batch_size=2)
    wanted = by_definition(model, reference, tiny_tokenizer, rows)
    found = table.totals("objective", "set")
    assert {k: found[k] for k in wanted} == pytest.approx(wanted, rel=1e-10)
    assert set(found) == {(o, d) for o in table.objectives for d in ("forget", "retain")}
    filled = {c for c in ("layer", "example", "token") if table.data[c].null_count == 0}
    assert filled == {"position": {"layer", "example", "token"}, "token": {"example", "token"}}.get(
        by[-1] if by else "", set(by)
    )
    assert table.notes == ()
    assert all(p.requires_grad and p.grad is None for p in model.parameters())


def test_layer_and_token_agree_with_layer_and_example(
    model: Any, reference: Any, tiny_tokenizer: Any, rows: RowSets
) -> None:
    fine = measure(model, tiny_tokenizer, *rows, LIKELIHOOD, reference, by=("layer", "token"))
    coarse = measure(model, tiny_tokenizer, *rows, LIKELIHOOD, reference, by=("layer", "example"))
    keys = ("objective", "set", "layer", "example")
    assert fine.totals(*keys) == pytest.approx(coarse.totals(*keys), rel=1e-9, abs=1e-13)
    assert in_order(layers_of(model).values()) == list(fine.totals("layer"))


def test_terms_beyond_likelihood_go_through_ghost_and_full_gradient(
    model: Any, reference: Any, tiny_tokenizer: Any, rows: RowSets
) -> None:
    asked: list[Choice] = ["ga", {"name": "rmu", "layer": 0, "coefficient": 2.0}, "undial", "kl"]
    by_layer = measure(model, tiny_tokenizer, *rows, asked, reference, by=("layer",))
    ghost = measure(model, tiny_tokenizer, *rows, asked, reference, by=("layer", "example"))
    whole = measure(model, tiny_tokenizer, *rows, asked, reference, by=("example",))
    keys = ("objective", "set", "layer")
    nonzero = {k: v for k, v in by_layer.totals(*keys).items() if v}
    assert ghost.totals(*keys) == pytest.approx(nonzero, rel=1e-9, abs=1e-13)
    keys = ("objective", "set", "example")
    assert whole.totals(*keys) == pytest.approx(ghost.totals(*keys), rel=1e-9, abs=1e-13)
    assert whole.where(objective="kl").streams["kl"] == "retain"
    rmu = ghost.totals("layer", objective="rmu(coefficient=2.0, layer=0)", set="retain")
    assert set(rmu) == {"tied_embedding", "block_00"}


def test_tokens_carry_their_text_and_the_answer_comes_before_the_refusal(
    model: Any, reference: Any, tiny_tokenizer: Any, rows: RowSets
) -> None:
    table = measure(model, tiny_tokenizer, *rows, ["ga", "dpo"], reference, by=("token",))
    texts = table.texts["forget"]
    assert "".join(texts[0]).startswith(" " + rows[0][0]["answer"][:6]) or "".join(
        texts[0]
    ).startswith(rows[0][0]["answer"][:6])
    ga = table.where(objective="ga", set="forget", example=0).data["token"].to_pylist()
    dpo = table.where(objective="dpo", set="forget", example=0).data["token"].to_pylist()
    assert sorted(dpo) == list(range(len(texts[0])))
    assert sorted(ga) == list(range(len(ga)))
    assert len(ga) < len(dpo)


def sentencepiece_like() -> Any:
    """A tokenizer that decodes as Llama 2's does: spaces are ▁, rare characters are bytes."""
    from tokenizers import Tokenizer, decoders, models, normalizers
    from transformers import PreTrainedTokenizerFast

    words = ["▁Mirela", "▁Dan", "tes", "▁wrote", "▁The", "▁Salt", "▁Zo", "▁", "."]
    tokens = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), *words]
    scored = [(token, -1.0 if token in words else -10.0) for token in tokens]
    tokenizer = Tokenizer(models.Unigram(scored, unk_id=0, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")


@pytest.mark.parametrize("kind", ["token", "position"])
@pytest.mark.parametrize("decoder", ["sentencepiece", "bytes"])
def test_texts_of_tokens_joined_are_the_text(decoder: str, kind: Any, tiny_tokenizer: Any) -> None:
    tokenizer = tiny_tokenizer if decoder == "bytes" else sentencepiece_like()
    ids = tokenizer("Mirela Dantes wrote The Salt. Zoë 東京 Salt").input_ids
    prompt = len(tokenizer("Mirela").input_ids)
    encoded = Encoded(tuple(ids), prompt)
    (texts,) = token_texts([Example(0, {}, {"answer": encoded})], tokenizer, kind).values()
    whole = "Mirela Dantes wrote The Salt. Zoë 東京 Salt"
    assert "".join(texts) == (whole if kind == "position" else whole.removeprefix("Mirela"))
    assert len(texts) == len(ids) - (prompt if kind == "token" else 0)
    assert not any("\ufffd" in text for text in texts)
    assert " Salt" in texts
    assert [text for text in texts if not text.isascii()] == ["ë", "東", "京"]
    before = texts.index("ë")
    assert texts[before - 1] == ""  # its first byte, of which there is no text yet


def word_pieces() -> Any:
    """A tokenizer that decodes as BERT's does: ## joins, and punctuation takes its space away."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["<unk>", "she", "was", "born", "##n", "in", "port", "##o", ".", ",", "'", "s", "n't"]
    tokenizer = Tokenizer(models.WordPiece({w: k for k, w in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_texts_of_tokens_are_those_of_every_beginning(tiny_tokenizer: Any, data: Any) -> None:
    for tokenizer in (tiny_tokenizer, sentencepiece_like(), word_pieces()):
        ids = data.draw(st.lists(st.integers(0, len(tokenizer) - 1), min_size=1, max_size=40))
        pieces = _pieces(ids, tokenizer)
        assert "".join(pieces) == tokenizer.decode(ids, clean_up_tokenization_spaces=False)
        assert len(pieces) == len(ids)
        text = " ".join(data.draw(st.lists(st.sampled_from(["she", "born", "Zoë", "東京", "."]))))
        ids = tokenizer(text).input_ids
        assert _pieces(ids, tokenizer) == (_pieces_of_beginnings(ids, tokenizer) if ids else [])


def test_texts_of_tokens_take_decodings_of_few_tokens(tiny_tokenizer: Any) -> None:
    ids, sizes = tiny_tokenizer("Mirela Dantes wrote. " * 60).input_ids, []

    class Counting:
        def decode(self, tokens: Any, **options: Any) -> str:
            sizes.append(len(tokens))
            return str(tiny_tokenizer.decode(tokens, **options))

    tokenizer: Any = Counting()
    _pieces(ids, tokenizer)
    assert sum(sizes) < 40 * len(ids) < sum(range(len(ids)))


def test_a_regularizer_at_its_own_reference_vanishes_and_it_says_so(
    build: Any, reference: Any, tiny_tokenizer: Any, rows: RowSets, tmp_path: Path
) -> None:
    model = build("llama, tied", torch.float32)
    asked = ["ga", "kl", "npo", "undial"]
    table = measure(model, tiny_tokenizer, *rows, asked, by=("layer",))
    assert table.vanishing == ("kl",)
    (note,) = [n for n in table.notes if "rounding" in n]
    assert note.startswith("kl has no effect beyond rounding")
    assert [table.negligible(o, "retain") for o in asked] == [False, True, False, False]
    assert table.ratio("kl") != table.ratio("kl")
    table.to_parquet(tmp_path / "g_effect.parquet")
    assert EffectTable.read_parquet(tmp_path / "g_effect.parquet") == table
    alone = measure(model, tiny_tokenizer, *rows, ["kl"], by=())
    assert alone.vanishing == ("kl",)
    other = measure(model, tiny_tokenizer, *rows, asked, reference.float(), by=("layer",))
    assert (other.vanishing, other.notes) == ((), ())


def test_a_tiny_effect_that_is_real_is_not_taken_for_rounding(
    model: Any, tiny_tokenizer: Any, rows: RowSets
) -> None:
    table = measure(
        model, tiny_tokenizer, *rows, ["ga", {"name": "wga", "beta": 20.0}], by=("layer",)
    )
    ga, wga = table.objectives
    assert abs(table.total(objective=wga)) < 1e-6 * abs(table.total(objective=ga))
    assert not table.negligible(wga, "forget")


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(order=st.permutations(range(4)), batch_size=st.integers(1, 4))
def test_neither_batching_nor_order_changes_an_examples_share(
    build: Any, tiny_tokenizer: Any, qa_rows: Any, order: list[int], batch_size: int
) -> None:
    from torch.nn.attention import SDPBackend, sdpa_kernel

    model = build("gpt2, tied, positions")
    forget, retain = qa_rows[:4], qa_rows[4:6]
    shuffled = [forget[i] for i in order]
    with sdpa_kernel(SDPBackend.MATH):
        one = measure(model, tiny_tokenizer, forget, retain, ["npo"], by=("layer", "example"))
        other = measure(
            model,
            tiny_tokenizer,
            shuffled,
            retain,
            ["npo"],
            by=("layer", "example"),
            batch_size=batch_size,
        )
    wanted = one.totals("set", "layer", "example")
    found = {
        (d, layer, order[e]): v
        for (d, layer, e), v in other.totals("set", "layer", "example").items()
    }
    assert found == pytest.approx(wanted, rel=1e-9, abs=1e-13)


def test_without_reference_ga_npo_and_tnpo_coincide_and_it_says_so(
    model: Any, tiny_tokenizer: Any, rows: RowSets
) -> None:
    table = measure(model, tiny_tokenizer, *rows, ["ga", "npo", "tnpo"], by=("layer",))
    ga, tnpo = (table.totals("set", "layer", objective=o) for o in ("ga", "tnpo"))
    assert tnpo == pytest.approx(ga, rel=1e-10)
    assert table.ratio("npo") == pytest.approx(table.ratio("ga"), rel=1e-10)
    assert "coincide" in table.notes[0]
    assert measure(model, tiny_tokenizer, *rows, ["ga"], by=()).notes == ()


def test_lora_is_probed_over_its_adapter_against_the_model_without_it(
    build: Any, tiny_tokenizer: Any, rows: RowSets, exact: None
) -> None:
    adapted = build("llama, LoRA")
    table = measure(adapted, tiny_tokenizer, *rows, ["ga", "npo"], by=("layer",))
    assert "without its adapter" in table.notes[0]
    assert set(table.totals("layer")) == {"block_00", "block_01"}
    with adapted.disable_adapter():
        plain = copy.deepcopy(adapted).unload()
    wanted = measure(adapted, tiny_tokenizer, *rows, ["npo"], plain, by=("layer",))
    found = table.totals("set", "layer", objective="npo")
    assert found == pytest.approx(wanted.totals("set", "layer"), rel=1e-9)


def test_parquet_keeps_the_table_and_what_stands_beside_it(
    model: Any, tiny_tokenizer: Any, rows: RowSets, tmp_path: Path
) -> None:
    table = measure(model, tiny_tokenizer, *rows, ["ga", "npo"], by=("token",))
    table.to_parquet(tmp_path / "g_effect.parquet")
    again = EffectTable.read_parquet(tmp_path / "g_effect.parquet")
    assert list(again) == list(table)
    assert again == table
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"value": [1.0]}), tmp_path / "other.parquet")
    with pytest.raises(DataError, match="not a table of G-effects"):
        EffectTable.read_parquet(tmp_path / "other.parquet")


@pytest.mark.parametrize(
    ("asked", "by", "said"),
    [
        (["ga"], ("layr",), "did you mean 'layer'"),
        (["ga"], ("token", "position"), "different quantities"),
        (
            [{"name": "rmu", "layer": 0, "coefficient": 1.0}],
            ("token",),
            "no loss token has a share",
        ),
        (["ga", "ga"], (), "named twice"),
        ([["ga", "nll"]], (), "different sets"),
        ([], (), "at least one"),
        (["po", {"name": "dpo", "seed": 7}], (), "different texts 'refusal'"),
    ],
)
def test_what_cannot_be_asked(
    model: Any, tiny_tokenizer: Any, rows: RowSets, asked: Any, by: Any, said: str
) -> None:
    with pytest.raises(RecipeError, match=said):
        measure(model, tiny_tokenizer, *rows, asked, by=by)


def test_selecting_what_is_not_there(model: Any, tiny_tokenizer: Any, rows: RowSets) -> None:
    table = measure(model, tiny_tokenizer, *rows, ["ga"], by=())
    with pytest.raises(DataError, match="did you mean 'objective'"):
        table.total(objectiv="ga")
    with pytest.raises(DataError, match="no G-effect was measured"):
        table.total(layer="block_00")


def test_what_does_not_forget_has_no_ratio(model: Any, tiny_tokenizer: Any, rows: RowSets) -> None:
    learning = {"name": "nll"}
    table = measure(model, tiny_tokenizer, *rows, ["ga", learning], by=("layer",))
    forgets = table.totals("objective", set="forget")
    assert forgets["ga"] < 0
    assert table.ratio("ga") == pytest.approx(
        table.total(objective="ga", set="retain") / forgets["ga"]
    )
    assert (table.ratio("nll") == table.ratio("nll")) == (forgets["nll"] < 0)
