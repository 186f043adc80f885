"""Runs of the trainer on a model that fully_shard has sharded, or on the same model whole."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from tests.conftest import QUESTIONS
from torch.distributed.fsdp import fully_shard
from transformers import TrainerCallback

from amnesis import Unlearner
from amnesis.data.batches import collate
from amnesis.data.examples import encode_rows
from amnesis.data.templates import Template
from amnesis.distributed.shards import is_sharded
from amnesis.scoring import logits
from amnesis.scoring.reference import FrozenCopy, cached, shard_references
from amnesis.scoring.scores import Needs
from amnesis.storage import write_model

ROWS = [{"question": q, "answer": a} for q, a in QUESTIONS]
# The number of examples is uneven over ranks, the vocabulary and one width over shards.
TRAINING: dict[str, Any] = {"steps": 3, "batch_size": 3, "learning_rate": 1e-3}
KL_AND_HIDDEN = ["kl", "jensun", {"name": "representation", "layer": 0}]
RUNS: dict[str, dict[str, Any]] = {
    "sum": {"combiner": "sum"},
    "no combiner": {},
    "pcgrad": {"combiner": "pcgrad"},
    "pcgrad global": {"combiner": {"name": "pcgrad", "scope": "global"}, "micro": 1},
    "sago": {"combiner": "sago", "regularizer": "kl", "micro": 1},
    "blur": {"combiner": "blur"},
    "ngdiff": {"combiner": "ngdiff"},
    "gru": {"combiner": "gru", "micro": 1},
    "cone": {"combiner": "cone", "regularizer": "kl", "micro": 1},
    "torchjd": {"combiner": {"name": "torchjd", "weighting": "upgrad"}},
    "saliency": {"combiner": {"name": "saliency", "share": 0.3, "combiner": "sago"}},
    "routing": {"combiner": {"name": "routing", "forget": ["*mlp*"], "combiner": "pcgrad"}},
    "sam": {"combiner": "sago", "robust": {"name": "sam", "rho": 0.1}, "micro": 1},
    "relearned": {"robust": {"name": "relearned", "rate": 0.1}},
    "lora": {"combiner": "pcgrad", "lora": True, "micro": 1},
    "a copy": {"regularizer": {"name": "representation", "layer": 1}, "micro": 1},
    "in chunks": {"combiner": "sago", "regularizer": "kl", "micro": 1, "rows": 3},
    "in chunks, lora": {"combiner": "sago", "regularizer": "kl", "lora": True, "rows": 3},
    "in chunks, a copy": {"regularizer": KL_AND_HIDDEN, "micro": 1, "rows": 3},
    "in chunks, head apart": {"regularizer": "kl", "micro": 1, "rows": 3, "head": True},
}


def build(tokenizer: Any, sharded: bool, lora: bool, head: bool = False) -> Any:
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(1)
    model: Any = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=45,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=128,
            initializer_range=0.1,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    ).double()
    if lora:
        torch.manual_seed(2)
        targets = ["q_proj", "down_proj"]
        model = get_peft_model(model, LoraConfig(r=3, target_modules=targets)).double()
    if sharded:
        blocks = model.model.layers if not lora else model.base_model.model.model.layers
        if head:  # which is then sharded again between the two passes
            fully_shard(model.lm_head)
        shard(model, blocks)
    return model


def shard(model: Any, blocks: Any) -> None:
    for block in blocks:
        fully_shard(block)
    fully_shard(model)


def unlearner(model: Any, tokenizer: Any, run: dict[str, Any], **options: Any) -> Unlearner:
    training = {**TRAINING, "micro_batch_size": run.get("micro", 3)}
    return Unlearner(
        model,
        tokenizer,
        "npo",
        run.get("regularizer", "nll"),
        run.get("combiner"),
        robust=run.get("robust"),
        probes=["g_effect"],
        training=training | options.pop("training", {}),
        device="cpu",
        **options,
    )


def trajectories(tokenizer: Any, sharded: bool) -> dict[str, list[dict[str, float]]]:
    """Return what each run logged, step by step."""
    logged = {}
    for name, run in RUNS.items():
        model = build(tokenizer, sharded, "lora" in run, "head" in run)
        with chunks_of(run.get("rows") if sharded else None, len(tokenizer)):
            fitted = unlearner(model, tokenizer, run).fit(ROWS[:4], ROWS[4:])
        logged[name] = fitted.trajectory
    return logged


@contextmanager
def chunks_of(rows: int | None, vocabulary: int) -> Iterator[None]:
    """Inside ``with``, make so many rows of logits at a time; of some batches that is all."""
    if rows is None:
        yield
        return
    usual, fewest = logits.CHUNK_BYTES["cpu"], logits.FEWEST_ROWS
    logits.CHUNK_BYTES["cpu"], logits.FEWEST_ROWS = 8 * rows * vocabulary, 1
    try:
        yield
    finally:
        logits.CHUNK_BYTES["cpu"], logits.FEWEST_ROWS = usual, fewest


class Cut(TrainerCallback):  # type: ignore[misc]  # transformers is not typed
    """Ends a run after its third step, as a Ctrl-C would."""

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == 3:
            raise KeyboardInterrupt


LONG = {"steps": 5, "save_every": 2}


def cut_off(tokenizer: Any, folder: Path, sharded: bool) -> None:
    """Leave a run's checkpoint of step 2 in ``folder``."""
    try:
        unlearner(
            build(tokenizer, sharded, False),
            tokenizer,
            RUNS["gru"],
            training=LONG,
            output=folder,
            callbacks=[Cut()],
        ).fit(ROWS[:4], ROWS[4:])
    except KeyboardInterrupt:
        return
    raise AssertionError("the run was not cut off")


def finish(tokenizer: Any, folder: Path, sharded: bool, final: Path) -> Any:
    """Go on from a checkpoint in ``folder``, or begin; write the model, return the result."""
    model = build(tokenizer, sharded, False)
    result = unlearner(model, tokenizer, RUNS["gru"], training=LONG, output=folder).fit(
        ROWS[:4], ROWS[4:], resume=True
    )
    write_model(final, model, tokenizer)
    return result


def references(tokenizer: Any) -> dict[str, list[float | bool]]:
    """Return, of references to a whole model that is then sharded, what they say and how they lie.

    Of each: the largest difference to what it said before, whether its weights are shards, and
    whether they are the model's own shards.
    """
    needs = Needs(ref_logps=True, ref_logits=True, ref_hidden=frozenset({0}))
    found: dict[str, list[float | bool]] = {}
    for name in ("copy", "copy of shards", "cached"):
        model = build(tokenizer, name == "copy of shards", False)
        whole = build(tokenizer, False, False)
        examples = encode_rows(ROWS, tokenizer, Template()).examples
        batch = collate(examples[dist.get_rank() :: 2], 1)
        read = needs if name != "cached" else Needs(ref_logps=True, ref_logits=True)
        expected = FrozenCopy(whole).scores(batch, read)
        with chunks_of(2, len(tokenizer)):
            if name == "cached":
                reference: Any = cached(model, examples, read, pad_token_id=1)
            else:
                reference = FrozenCopy(model)
            if name != "copy of shards":
                shard(model, model.model.layers)
            shard_references([reference, reference], model)
            scores = reference.scores(batch, read)
            differences = [(scores.logits - expected.logits).abs().max()]
            differences.append((scores.logps - expected.logps).abs().max())
        weight = (
            reference._head.copied[0]
            if name == "cached"
            else reference._model.get_output_embeddings().weight
        )
        own = model.get_output_embeddings().weight
        same = weight.to_local().shape == own.to_local().shape
        apart = weight.to_local().data_ptr() != own.to_local().data_ptr()
        found[name] = [float(max(differences)), is_sharded(weight) and same, apart]
    return found


def do(rank: int, folder: Path, task: str, ranks: int) -> None:
    """Do one task on every rank; the first writes what came out."""
    from transformers import AutoTokenizer

    # As torchrun says it to accelerate.
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(ranks)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
    out: Any = None
    if task == "trajectories":
        out = trajectories(tokenizer, True)
    elif task == "references":
        out = references(tokenizer)
    elif task == "cut":
        cut_off(tokenizer, folder / "checkpoints", True)
    else:
        result = finish(tokenizer, folder / "checkpoints", True, folder / task)
        out = {"trajectory": result.trajectory, "notes": result.notes}
    if rank == 0:
        (folder / f"{task}.json").write_text(json.dumps(out))
