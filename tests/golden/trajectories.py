"""Short float64 runs of every stream configuration: the numbers that no refactoring may move.

``python tests/golden/trajectories.py`` prints them, ``--write`` stores them in
``trajectories.json``: do that only where a change of numbers is meant, and say why in the commit.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

STORED = Path(__file__).with_suffix(".json")
LOGGED = ("forget/loss", "retain/loss", "gradients/forget_norm", "gradients/retain_norm",
          "gradients/cosine", "gradient_norm", "g_effect/unlearn", "g_effect/retain")  # fmt: skip

CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "sum": {"objective": "npo", "regularizer": "kl", "combiner": "sum"},
    "forget stream alone": {"objective": "wga"},
    "pcgrad": {"objective": "wga", "regularizer": "nll", "combiner": "pcgrad"},
    "pcgrad global": {
        "objective": "tnpo",
        "regularizer": "nll",
        "combiner": {"name": "pcgrad", "scope": "global"},
    },
    "sago": {"objective": "ga", "regularizer": "nll", "combiner": "sago"},
    "gru": {"objective": "npo", "regularizer": "nll", "combiner": "gru"},
    "lora": {"objective": "npo", "regularizer": "nll", "combiner": "pcgrad", "lora": True},
    "accumulation": {
        "objective": "npo",
        "regularizer": "kl",
        "combiner": "pcgrad",
        "training": {"micro_batch_size": 1},
    },
    "two terms": {
        "objective": [{"name": "ga", "weight": 0.3}, {"name": "simnpo", "weight": 0.7}],
        "regularizer": "nll",
        "combiner": "ngdiff",
    },
}
PROCESSES = {"two processes": ("pcgrad", 2)}
ROWS = [
    {"question": f"What colour is house {k}?", "answer": f"House {k} is {colour}."}
    for k, colour in enumerate(["red", "blue", "dark green", "ochre", "white", "grey", "pink"])
]


def trajectory(name: str) -> dict[str, Any]:
    """Return the logged values of each step and what the final weights are, as exact texts."""
    import amnesis

    configuration = dict(CONFIGURATIONS[name])
    training = {
        "steps": 5,
        "statistics_every": 1,
        "batch_size": 4,
        "learning_rate": 2e-3,
        **configuration.pop("training", {}),
    }
    model, tokenizer = _model(lora=configuration.pop("lora", False))
    unlearner = amnesis.Unlearner(
        model,
        tokenizer,
        **configuration,
        probes=[{"name": "g_effect", "every": 1}],
        training=training,
        device="cpu",
    )
    fitted = unlearner.fit(ROWS[:4], ROWS[2:])
    weights = [p.detach() for _, p in sorted(model.named_parameters())]
    digest = hashlib.blake2b(digest_size=16)
    for weight in weights:
        digest.update(weight.contiguous().numpy().tobytes())
    return {
        "steps": [
            {key: float(step[key]).hex() for key in LOGGED if key in step}
            for step in fitted.trajectory
        ],
        "norm": float(torch.stack([w.norm() for w in weights]).norm()).hex(),
        "weights": digest.hexdigest(),
    }


def on_processes(name: str, processes: int) -> dict[str, Any]:
    """Return the same of a run on several processes of this machine."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    done = subprocess.run(
        [sys.executable, *launcher, __file__, name],
        capture_output=True, text=True, timeout=300, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(done.stderr)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def machine() -> dict[str, str]:
    """Return what decides the last bits: the library's build and the processor."""
    model = platform.processor()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        lines = info.read_text(encoding="utf-8").splitlines()
        model = next((line.partition(": ")[2] for line in lines if line[:10] == "model name"), "")
    capability = torch.backends.cpu.get_cpu_capability()
    return {"torch": torch.__version__, "processor": model, "capability": capability}


def _model(*, lora: bool) -> tuple[Any, Any]:
    from peft import LoraConfig, get_peft_model
    from tokenizers import ByteLevelBPETokenizer
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    bpe = ByteLevelBPETokenizer()
    texts = [f"Question: {r['question']}\nAnswer: {r['answer']}" for r in ROWS]
    bpe.train_from_iterator(texts, vocab_size=320, special_tokens=["<eos>", "<pad>"])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe._tokenizer, eos_token="<eos>", pad_token="<pad>"
    )
    torch.manual_seed(7)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=24, intermediate_size=40, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=64, tie_word_embeddings=True,
        initializer_range=0.15, eos_token_id=0, pad_token_id=1,
    )  # fmt: skip
    model: Any = LlamaForCausalLM(config).double()
    if lora:
        model = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj", "down_proj"]))
    return model, tokenizer


def main(arguments: list[str]) -> None:
    """Print one trajectory, or all of them; store them where asked."""
    torch.set_num_threads(1)
    if arguments and arguments[0] in CONFIGURATIONS:
        found = _joined_trajectory(arguments[0])
        if found is not None:
            print(json.dumps(found))
        return
    numbers = {name: trajectory(name) for name in CONFIGURATIONS}
    numbers |= {name: on_processes(*how) for name, how in PROCESSES.items()}
    text = json.dumps({"machine": machine(), "trajectories": numbers}, indent=1) + "\n"
    if "--write" in arguments:
        STORED.write_text(text, encoding="utf-8")
    else:
        print(text)


def _joined_trajectory(name: str) -> dict[str, Any] | None:
    from accelerate import PartialState

    state = PartialState(cpu=True)
    found = trajectory(name)
    rank = state.process_index
    state.wait_for_everyone()
    state.destroy_process_group()
    return found if rank == 0 else None


if __name__ == "__main__":
    main(sys.argv[1:])
