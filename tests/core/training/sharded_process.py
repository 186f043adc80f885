"""Runs of the trainer on a model that fully_shard has sharded, or on the same model whole."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from tests.conftest import QUESTIONS
from transformers import TrainerCallback

from amnesis import Unlearner
from amnesis.storage import write_model

ROWS = [{"question": q, "answer": a} for q, a in QUESTIONS]
# The number of examples is uneven over ranks, the vocabulary and one width over shards.
TRAINING: dict[str, Any] = {"steps": 3, "batch_size": 3, "learning_rate": 1e-3}
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
}


def build(tokenizer: Any, sharded: bool, lora: bool) -> Any:
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
        from torch.distributed.fsdp import fully_shard

        blocks = model.model.layers if not lora else model.base_model.model.model.layers
        for block in blocks:
            fully_shard(block)
        fully_shard(model)
    return model


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
    return {
        name: unlearner(build(tokenizer, sharded, "lora" in run), tokenizer, run)
        .fit(ROWS[:4], ROWS[4:])
        .trajectory
        for name, run in RUNS.items()
    }


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


def main(task: str, folder: Path) -> None:
    """Do one task on every rank; the first writes what came out."""
    import torch.distributed as dist
    from transformers import AutoTokenizer

    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
    out: Any = None
    if task == "trajectories":
        out = trajectories(tokenizer, True)
    elif task == "cut":
        cut_off(tokenizer, folder / "checkpoints", True)
    else:
        result = finish(tokenizer, folder / "checkpoints", True, folder / task)
        out = {"trajectory": result.trajectory, "notes": result.notes}
    if dist.get_rank() == 0:
        (folder / f"{task}.json").write_text(json.dumps(out))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
