"""Every objective, with and without every regularizer, through every combiner: three steps each."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch.autograd import backward

import amnesis
from amnesis import Unlearner
from amnesis.contracts import Combiner
from amnesis.contracts.stream import Counts, StreamLoss
from amnesis.data.batches import Batch, collate
from amnesis.data.examples import encode_rows
from amnesis.data.templates import Template
from amnesis.discovery.registry import default_registry
from amnesis.discovery.resolve import build, build_stream
from amnesis.scoring.forward import as_own, score
from amnesis.scoring.scores import Scores
from amnesis.training.streams import Streams

NamedChoice = str | dict[str, Any]
NAMES = ("ga", "npo", "simnpo", "wga", "tnpo", "wtnpo", "satimp", "po", "dpo", "undial", "ceu")
LATER_NAMES = ("me", "ihl", "flat", "jensun", "unilogit", "altpo", "pdu", "adaptive_rmu")
OBJECTIVES: dict[str, NamedChoice] = {
    **{name: name for name in NAMES},
    "rmu": {"name": "rmu", "layer": 0, "coefficient": 2.0},
    **{name: name for name in LATER_NAMES[:-1]},
    "adaptive_rmu": {"name": "adaptive_rmu", "layer": 0},
}
REGULARIZERS: dict[str, NamedChoice] = {
    "nll": "nll",
    "kl": "kl",
    "representation": {"name": "representation", "layer": 1},
    "jensun": "jensun",
}
COMBINERS: dict[str, NamedChoice] = {
    **{name: name for name in ("sum", "sago", "blur", "ngdiff", "gru", "cone")},
    "pcgrad-tensor": "pcgrad",
    "pcgrad-global": {"name": "pcgrad", "scope": "global"},
    "sago-keep": {"name": "sago", "keep_retain": True},
    "mgda": {"name": "torchjd", "weighting": "mgda"},
    "saliency": {"name": "saliency", "share": 0.3, "combiner": "sago"},
    "routing": {"name": "routing", "combiner": "pcgrad"},
}
LATER_COMBINERS = ("saliency", "routing")
CASES = [
    *((objective, None, None) for objective in OBJECTIVES),
    *(
        (o, r, c)
        for o in (*NAMES, "rmu")
        for r in list(REGULARIZERS)[:3]
        for c in COMBINERS
        if c not in LATER_COMBINERS
    ),
    # What came later meets everything too, through one combiner after the other.
    *(
        (o, r, list(COMBINERS)[(k + j) % len(COMBINERS)])
        for k, o in enumerate(OBJECTIVES)
        for j, r in enumerate(REGULARIZERS)
        if o in LATER_NAMES or j >= 3
    ),
]


@dataclass(frozen=True)
class Laboratory:
    """A model with its frozen reference, and data: made once, weights restored for each case."""

    model: Any
    reference: Any
    weights: dict[str, torch.Tensor]
    batches: dict[str, list[Batch]]  # two micro-batches of each stream

    def shares(self, loss: StreamLoss) -> Iterator[torch.Tensor]:
        """Return the micro-batches' shares of a stream's loss."""
        batches = self.batches[loss.name]
        counts: Counts = loss.counts(batches)
        for batch in batches:
            known: Scores | None = None
            if loss.needs.reference:
                with torch.no_grad():
                    known = score(self.reference, batch, as_own(loss.needs))
            yield loss(score(self.model, batch, loss.needs, known), counts)

    def gradients(self, loss: StreamLoss | None) -> list[torch.Tensor | None]:
        """Return one stream's gradient by itself."""
        if loss is not None:
            backward(sum(self.shares(loss), torch.zeros(())))
        grads = [p.grad for p in self.model.parameters()]
        self.model.zero_grad()
        return grads


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Tensors this small are slower on two threads than on one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def laboratory(qa_rows: Any, tiny_tokenizer: Any) -> Laboratory:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(1)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tiny_tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=128,
            tie_word_embeddings=True,
            initializer_range=0.1,
        )
    )
    reference = copy.deepcopy(model).eval().requires_grad_(False)
    texts = amnesis.create("objective", "po").texts()
    texts = {**texts, "alternate": lambda row: f"{row['answer']} Or so."}
    examples = encode_rows(qa_rows, tiny_tokenizer, Template(), answers=texts).examples
    groups = {"forget": (examples[:2], examples[2:3]), "retain": (examples[4:6], examples[6:8])}
    return Laboratory(
        model,
        reference,
        {name: value.clone() for name, value in model.state_dict().items()},
        {name: [collate(g, pad_token_id=1) for g in group] for name, group in groups.items()},
    )


def step(lab: Laboratory, streams: Streams, forget: StreamLoss, retain: StreamLoss | None) -> None:
    """Leave the combined gradient in the model's parameters."""
    for share in lab.shares(forget):
        with streams.forget():
            backward(share)
    if retain is not None:
        for index, share in enumerate(lab.shares(retain)):
            with streams.retain(last=index == len(lab.batches["retain"]) - 1):
                backward(share)
    streams.combine()


def combined_by_hand(
    combiner: Combiner | None, f: list[Any], r: list[Any]
) -> list[torch.Tensor | None]:
    return f if combiner is None else combiner.combine(f, r)


@pytest.mark.parametrize(("objective", "regularizer", "combiner"), CASES)
def test_three_steps(
    laboratory: Laboratory, objective: str, regularizer: str | None, combiner: str | None
) -> None:
    lab = laboratory
    lab.model.load_state_dict(lab.weights)
    forget = build_stream("forget", "objective", OBJECTIVES[objective], default_registry())
    retain = regularizer and build_stream(
        "retain", "regularizer", REGULARIZERS[regularizer], default_registry()
    )
    rule = None if combiner is None else build("combiner", COMBINERS[combiner], default_registry())
    # One step away from θ°, where half of the terms have no gradient yet.
    torch.manual_seed(0)
    with torch.no_grad():
        for p in lab.model.parameters():
            p.add_(0.02 * torch.randn_like(p))
    expected = combined_by_hand(rule, lab.gradients(forget), lab.gradients(retain or None))

    optimizer = torch.optim.AdamW(lab.model.parameters(), lr=1e-3)
    streams = Streams(lab.model.named_parameters(), rule)
    for index in range(3):
        before = [p.detach().clone() for p in lab.model.parameters()]
        step(lab, streams, forget, retain or None)
        found = [p.grad for p in lab.model.parameters()]
        if index == 0:
            for g, wanted in zip(found, expected, strict=True):
                assert (g is None) == (wanted is None)
                if g is not None and wanted is not None:
                    scale = wanted.abs().max().item()
                    assert_close_but_for_sign_flips(g, wanted, 1e-5 * scale)
        assert all(g.isfinite().all() for g in found if g is not None)
        optimizer.step()
        optimizer.zero_grad()
        moved = [not torch.equal(p, q) for p, q in zip(lab.model.parameters(), before, strict=True)]
        assert any(moved)
    assert all(p.isfinite().all() for p in lab.model.parameters())


def assert_close_but_for_sign_flips(
    found: torch.Tensor, wanted: torch.Tensor, tolerance: float
) -> None:
    """An elementwise rule is discontinuous: rounding may flip the sign of a few near-zeros."""
    off = (found - wanted).abs() > tolerance
    assert off.float().mean() < 0.005


def test_every_registered_name_is_in_the_table() -> None:
    ours = {
        kind: {
            entry.name
            for entry in default_registry()
            if entry.kind == kind and entry.plugin.distribution == "amnesis" and not entry.alias_of
        }
        for kind in ("objective", "regularizer", "combiner")
    }
    assert ours["objective"] == set(OBJECTIVES)
    assert ours["regularizer"] == set(REGULARIZERS)
    assert ours["combiner"] == {
        choice if isinstance(choice, str) else choice["name"] for choice in COMBINERS.values()
    }


SAMPLE = [
    (objective, list(REGULARIZERS)[(k + 1) % 3], list(COMBINERS)[k % len(COMBINERS)])
    for k, objective in enumerate(OBJECTIVES)
]
# MGDA never leaves the start beside a flat retain term, as a test below shows.
SAMPLE = [(o, "nll" if c == "mgda" else r, c) for o, r, c in SAMPLE]
SAMPLE.append(("npo", "jensun", "sago"))


@pytest.mark.parametrize(("objective", "regularizer", "combiner"), SAMPLE)
def test_the_same_through_the_trainer(
    tiny_llama: Any,
    tiny_tokenizer: Any,
    qa_rows: Any,
    objective: str,
    regularizer: str,
    combiner: str,
) -> None:
    before = {name: p.detach().clone() for name, p in tiny_llama.named_parameters()}
    run = Unlearner(
        tiny_llama,
        tiny_tokenizer,
        OBJECTIVES[objective],
        REGULARIZERS[regularizer],
        COMBINERS[combiner],
        training={"steps": 3, "batch_size": 4, "micro_batch_size": 2, "learning_rate": 1e-3},
        device="cpu",
    )
    rows = [{**row, "alternate": f"Not {row['answer']}"} for row in qa_rows]
    result = run.fit(rows[:4], rows[4:])
    assert [entry["step"] for entry in result.trajectory] == [1, 2, 3]
    assert any(not torch.equal(p, before[name]) for name, p in tiny_llama.named_parameters())


def test_mgda_never_leaves_the_start_beside_a_flat_retain_term(
    laboratory: Laboratory,
) -> None:
    """The shortest convex combination of anything with 0 is 0, as the text of torchjd says."""
    lab = laboratory
    lab.model.load_state_dict(lab.weights)
    streams = Streams(
        lab.model.named_parameters(), build("combiner", COMBINERS["mgda"], default_registry())
    )
    step(
        lab,
        streams,
        build_stream("forget", "objective", "ga", default_registry()),
        build_stream("retain", "regularizer", REGULARIZERS["representation"], default_registry()),
    )
    assert not any(p.grad.any() for p in lab.model.parameters() if p.grad is not None)


def test_adapters_alone_may_be_trained(tiny_llama: Any, tiny_tokenizer: Any, qa_rows: Any) -> None:
    """A sample on LoRA: the reference is the model with its adapter off."""
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(tiny_llama, LoraConfig(r=4, target_modules=["q_proj", "down_proj"]))
    frozen = {n: p.detach().clone() for n, p in model.named_parameters() if not p.requires_grad}
    for objective in ("npo", "undial", "dpo", "rmu"):
        run = Unlearner(
            model,
            tiny_tokenizer,
            OBJECTIVES[objective],
            REGULARIZERS["representation"],
            "gru",
            training={"steps": 2, "batch_size": 4, "learning_rate": 1e-3},
            device="cpu",
        )
        run.fit(qa_rows[:4], qa_rows[4:])
    for name, p in model.named_parameters():
        assert name not in frozen or torch.equal(p, frozen[name])
