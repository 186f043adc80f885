"""Reference scores: right, cached, never stale, and whole after any accident."""

from __future__ import annotations

import copy
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from amnesis.data.batches import collate
from amnesis.data.examples import encode_rows
from amnesis.data.templates import Template
from amnesis.models.fingerprint import fingerprint
from amnesis.models.quantization import quantized_copy
from amnesis.models.trainable import LoraSettings, with_lora
from amnesis.scoring.forward import evaluating, score
from amnesis.scoring.reference import FrozenCopy, cached
from amnesis.scoring.scores import Needs
from amnesis.scoring.stored import read_scores, write_scores
from amnesis.training.unlearner import Unlearner


@pytest.fixture
def examples(qa_rows: Any, tiny_tokenizer: Any) -> Any:
    return encode_rows(qa_rows, tiny_tokenizer, Template()).examples


@pytest.mark.parametrize("everywhere", [False, True])
def test_cached_scores_equal_those_of_a_copy(
    tiny_llama: Any, examples: Any, everywhere: bool
) -> None:
    needs = Needs(ref_logps=True, ref_logits=True, all_positions=everywhere)
    known = cached(tiny_llama, examples, needs, pad_token_id=1, batch_size=3)
    frozen = FrozenCopy(tiny_llama)
    for chosen in (examples[:3], examples[2:7], examples[::-1]):
        batch = collate(chosen, 1)
        one, two = known.scores(batch, needs), frozen.scores(batch, needs)
        torch.testing.assert_close(one.logps, two.logps, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(one.logits, two.logits, atol=1e-4, rtol=1e-4)


def test_a_copy_in_8_bits_says_nearly_the_same_in_a_quarter_of_the_memory(
    tiny_llama: Any, examples: Any
) -> None:
    needs = Needs(ref_logps=True, ref_hidden=frozenset({1}))
    batch = collate(examples, 1)
    before = copy.deepcopy(tiny_llama.state_dict())
    dense, small = FrozenCopy(tiny_llama), FrozenCopy(tiny_llama, in_8_bits=True)
    one, two = dense.scores(batch, needs), small.scores(batch, needs)
    assert not torch.equal(one.logps, two.logps)
    torch.testing.assert_close(one.logps, two.logps, atol=0.05, rtol=0.02)
    torch.testing.assert_close(one.hidden(1), two.hidden(1), atol=0.1, rtol=0.1)
    assert all(torch.equal(before[name], t) for name, t in tiny_llama.state_dict().items())
    for p in tiny_llama.parameters():
        p.data.zero_()
    assert torch.equal(small.scores(batch, needs).logps, two.logps)  # nothing is shared


def test_a_copy_in_8_bits_has_blocks_of_bytes_and_a_head_of_its_own(tiny_llama: Any) -> None:
    small: Any = quantized_copy(tiny_llama)
    down = small.model.layers[0].mlp.down_proj.weight
    assert down.element_size() == 1
    assert down.shape == tiny_llama.model.layers[0].mlp.down_proj.weight.shape
    head, own = small.get_output_embeddings(), tiny_llama.get_output_embeddings()
    assert torch.equal(head.weight, own.weight)
    assert head.weight is not own.weight


def test_a_run_whose_reference_is_a_copy_in_8_bits(
    tiny_llama: Any, tiny_tokenizer: Any, qa_rows: Any
) -> None:
    """RMU and the representation regularizer read a reference's hidden states: a copy it is."""
    runs = {
        kind: Unlearner(
            copy.deepcopy(tiny_llama),
            tiny_tokenizer,
            {"name": "rmu", "layer": 1, "coefficient": 2.0},
            {"name": "representation", "layer": 1},
            training={"steps": 2, "batch_size": 4, "reference_copy": kind},
            device="cpu",
        )
        .fit(qa_rows[:4], qa_rows[4:])
        .trajectory
        for kind in (None, "int8")
    }
    for trajectory in runs.values():  # until it moves the model is its own reference
        assert trajectory[0]["retain/loss"] == 0
    moved = runs[None][1]["retain/loss"]
    assert 0 < moved < runs["int8"][1]["retain/loss"] < moved + 1e-3  # near it, as it says
    for step in (0, 1):
        for name in ("forget/loss", "gradients/forget_norm"):
            assert runs["int8"][step][name] == pytest.approx(runs[None][step][name], rel=1e-4)


def test_the_fingerprint_knows_weights_dtype_and_attention(tiny_llama: Any) -> None:
    first = fingerprint(tiny_llama)
    assert fingerprint(copy.deepcopy(tiny_llama)) == first
    changed = copy.deepcopy(tiny_llama)
    with torch.no_grad():
        changed.model.layers[0].mlp.up_proj.weight[0, 0] += 1e-6
    eager = copy.deepcopy(tiny_llama)
    eager.set_attn_implementation("eager")
    rotated = copy.deepcopy(tiny_llama)
    rotated.config.rope_parameters = {**rotated.config.rope_parameters, "rope_theta": 50.0}
    elsewhere = copy.deepcopy(tiny_llama)
    elsewhere.config._name_or_path = "another/folder"
    assert fingerprint(elsewhere) == first
    double = copy.deepcopy(tiny_llama).double()
    others = {fingerprint(m) for m in (changed, eager, rotated, double)}
    assert len(others | {first}) == 5


def test_a_base_under_a_trained_adapter_is_not_the_reference(
    tiny_llama: Any, tiny_tokenizer: Any, qa_rows: Any
) -> None:
    """θ° is the model as it is given: an adapter that says something already belongs to it."""
    adapted = with_lora(tiny_llama, LoraSettings(r=2))

    def first_loss() -> float:
        return (
            Unlearner(
                adapted,
                tiny_tokenizer,
                "ga",
                {"name": "representation", "layer": 1},
                training={"steps": 1, "batch_size": 4, "learning_rate": 1e-12},
                device="cpu",
            )
            .fit(qa_rows[:4], qa_rows[4:])
            .trajectory[0]["retain/loss"]
        )

    assert first_loss() == pytest.approx(0, abs=1e-10)
    for name, p in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(p, std=0.1)
    assert first_loss() == pytest.approx(0, abs=1e-10)


@pytest.mark.parametrize(
    ("objective", "regularizer"),
    [("npo", "kl"), ("ga", {"name": "representation", "layer": 1})],
)
def test_the_reference_is_computed_in_the_run_s_precision(
    tiny_llama: Any,
    tiny_tokenizer: Any,
    qa_rows: Any,
    tmp_path: Path,
    objective: Any,
    regularizer: Any,
) -> None:
    """At θ° in bfloat16 too there is nothing to keep; and the cache tells precisions apart."""
    folders: list[set[str]] = []
    for precision in ("float32", "bfloat16"):
        first = (
            Unlearner(
                copy.deepcopy(tiny_llama),
                tiny_tokenizer,
                objective,
                regularizer,
                training={"steps": 1, "batch_size": 4, "precision": precision},
                reference_cache=tmp_path,
                device="cpu",
            )
            .fit(qa_rows[:4], qa_rows[4:])
            .trajectory[0]
        )
        # The rounding of a batch of other widths is all that is left.
        assert first["retain/loss"] == pytest.approx(0, abs=1e-6)
        if objective == "npo":
            assert first["forget/loss"] == pytest.approx(20 * 0.6931472, rel=2e-3)
        folders.append({folder.name for folder in tmp_path.iterdir()})
    assert len(folders[1]) == (2 if objective == "npo" else 0)


def test_afterwards_the_model_computes_as_before(
    tiny_llama: Any, tiny_tokenizer: Any, qa_rows: Any, examples: Any
) -> None:
    """A run's bfloat16 is the run's own."""
    batch = collate(examples, 1)
    before = score(tiny_llama, batch, Needs(logps=True)).logps
    Unlearner(
        tiny_llama,
        tiny_tokenizer,
        "ga",
        training={"steps": 1, "learning_rate": 1e-12, "precision": "bfloat16", "batch_size": 2},
        device="cpu",
    ).fit(qa_rows[:4])
    tiny_llama.eval()
    after = score(tiny_llama, batch, Needs(logps=True)).logps
    torch.testing.assert_close(after, before, atol=1e-6, rtol=1e-6)


def test_a_half_written_entry_is_not_read(tiny_llama: Any, examples: Any, tmp_path: Path) -> None:
    needs = Needs(ref_logps=True)
    cached(tiny_llama, examples[:4], needs, pad_token_id=1, cache=tmp_path)
    (folder,) = tmp_path.iterdir()
    (file,) = folder.glob("*.safetensors")
    (folder / "half.part").write_bytes(file.read_bytes()[:20])
    (folder / "torn.safetensors").write_bytes(file.read_bytes()[:20])
    again = cached(tiny_llama, examples, needs, pad_token_id=1, cache=tmp_path)
    batch = collate(examples, 1)
    with torch.no_grad(), evaluating(tiny_llama):
        expected = score(tiny_llama, batch, Needs(logps=True)).logps
    torch.testing.assert_close(again.scores(batch, needs).logps, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("damage", ["one bit", "torn", "empty"])
def test_a_damaged_entry_is_named_deleted_and_computed_anew(
    tiny_llama: Any, examples: Any, tmp_path: Path, damage: str
) -> None:
    needs, batch = Needs(ref_logps=True), collate(examples, 1)
    notes: list[str] = []

    def scores() -> Any:
        known = cached(
            tiny_llama, examples, needs, pad_token_id=1, cache=tmp_path, note=notes.append
        )
        return known.scores(batch, needs).logps

    expected = scores()
    (file,) = tmp_path.rglob("*.safetensors")
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    kept = {"one bit": len(content), "torn": len(content) - 9, "empty": 0}[damage]
    file.write_bytes(content[:kept])
    assert torch.equal(scores(), expected)
    assert notes == [f"cached reference scores were damaged, and are computed anew: {file}"]
    assert torch.equal(scores(), expected)
    assert len(notes) == 1


def test_runs_side_by_side_do_not_corrupt_it(
    tiny_llama: Any, examples: Any, tmp_path: Path
) -> None:
    needs = Needs(ref_logps=True)
    models = [copy.deepcopy(tiny_llama) for _ in range(4)]

    def one(job: int) -> Any:
        chosen = examples[job : job + 4]
        return cached(models[job], chosen, needs, pad_token_id=1, cache=tmp_path, batch_size=1)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(one, range(4)))
    calls: list[int] = []
    known = cached(
        tiny_llama, examples[:7], needs, pad_token_id=1, cache=tmp_path,
        progress=lambda *_: calls.append(1),
    )  # fmt: skip
    assert not calls  # every score was there, and whole
    batch = collate(examples[:7], 1)
    with torch.no_grad(), evaluating(tiny_llama):
        expected = score(tiny_llama, batch, Needs(logps=True)).logps
    torch.testing.assert_close(known.scores(batch, needs).logps, expected, atol=1e-5, rtol=1e-5)


def test_evaluating_puts_every_mode_back(tiny_llama: Any) -> None:
    tiny_llama.train()
    tiny_llama.model.layers[0].eval()
    modes = [m.training for m in tiny_llama.modules()]
    with evaluating(tiny_llama):
        assert not any(m.training for m in tiny_llama.modules())
    assert [m.training for m in tiny_llama.modules()] == modes


def test_files_without_a_text_that_is_asked_for_are_not_read(
    tiny_llama: Any, examples: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a fit reads does not grow with all that other runs have stored."""
    needs = Needs(ref_logps=True)

    def scores(chosen: Any) -> Any:
        known = cached(tiny_llama, chosen, needs, pad_token_id=1, cache=tmp_path)
        return known.scores(collate(chosen, 1), needs).logps

    first, second = scores(examples[:3]), scores(examples[3:7])
    opened: list[tuple[str, str]] = []

    def watching(file: Path, framework: str) -> Any:
        stored: Any = safe_open(file, framework)

        class Watched:
            def __enter__(self) -> Any:
                stored.__enter__()
                return self

            def __exit__(self, *error: object) -> None:
                stored.__exit__(*error)

            def get_tensor(self, name: str) -> Any:
                opened.append((file.name, name))
                return stored.get_tensor(name)

            keys, metadata = stored.keys, stored.metadata

        return Watched()

    monkeypatch.setattr("safetensors.safe_open", watching)
    assert torch.equal(scores(examples[:3]), first)
    assert len({name for name, _ in opened}) == 1  # found by its name
    opened.clear()
    assert torch.equal(scores(examples[4:6])[0, : second.shape[1]][:3], second[1][:3])
    whole = {name for name, tensor in opened if tensor == "scores"}
    assert len(whole) == 1  # of the other only the keys, if anything


def test_many_texts_are_few_tensors(tmp_path: Path) -> None:
    """A tensor for each of a million texts would be more than a file's header may hold."""
    scores = {f"{k:032x}": torch.full((k % 3,), float(k)) for k in range(2000)}
    write_scores(tmp_path, scores)
    (file,) = tmp_path.iterdir()
    with safe_open(file, "pt") as stored:
        assert len(list(stored.keys())) == 3
    some = {f"{k:032x}" for k in (0, 7, 1999, 5000)}
    found = read_scores(tmp_path, some, None)
    assert found.keys() == some & scores.keys()
    for key, tensor in found.items():
        assert torch.equal(tensor, scores[key])
