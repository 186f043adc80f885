"""A module that stands in for vLLM, in the process that the engine starts."""

from __future__ import annotations

from pathlib import Path

# It takes the arguments that are used, by the names of vLLM's documentation, and no others. It
# writes what a naive loop writes, the token that ended an answer included; where STUB_TOKENS is
# set it writes these, and where STUB_RECORD is, it notes how it was called.
_SOURCE = """
import json
import os
from dataclasses import asdict, dataclass
from types import SimpleNamespace


@dataclass(kw_only=True)
class SamplingParams:
    temperature: float
    seed: int
    max_tokens: int
    stop_token_ids: list
    ignore_eos: bool
    detokenize: bool
    logprobs: int


class LLM:
    def __init__(self, model, *, dtype, max_model_len, skip_tokenizer_init, generation_config,
                 seed, gpu_memory_utilization=0.9):
        assert skip_tokenizer_init and generation_config == "vllm"
        self.called = {"dtype": dtype, "max_model_len": max_model_len,
                       "files": sorted(os.listdir(model)), "environment": dict(os.environ)}
        if "STUB_FAILS" in os.environ:
            raise RuntimeError(os.environ["STUB_FAILS"])
        if "STUB_TOKENS" not in os.environ:
            import torch
            from transformers import AutoModelForCausalLM

            loaded = AutoModelForCausalLM.from_pretrained(model, dtype=getattr(torch, dtype))
            self.model = loaded.eval()

    def generate(self, prompts, parameters, *, use_tqdm):
        assert use_tqdm is False and len(prompts) == len(parameters)
        self.called["prompts"] = prompts
        self.called["parameters"] = [asdict(one) for one in parameters]
        if "STUB_RECORD" in os.environ:
            with open(os.environ["STUB_RECORD"], "w") as record:
                json.dump(self.called, record)
        if "STUB_TOKENS" in os.environ:
            tokens = json.loads(os.environ["STUB_TOKENS"])
            total = float(os.environ.get("STUB_LOGP", "-1.5"))
            one = SimpleNamespace(token_ids=tokens, cumulative_logprob=total)
            return [SimpleNamespace(outputs=[one]) for _ in prompts]
        return [self.one(p["prompt_token_ids"], q) for p, q in zip(prompts, parameters)]

    def one(self, prompt, parameters):
        import torch

        written, total = [], 0.0
        while len(written) < parameters.max_tokens:
            with torch.no_grad():
                ids = torch.tensor([[*prompt, *written]])
                logps = self.model(input_ids=ids).logits[0, -1].log_softmax(-1)
            written.append(int(logps.argmax()))
            total += float(logps.max())
            if written[-1] in parameters.stop_token_ids:
                break
        one = SimpleNamespace(token_ids=tuple(written), cumulative_logprob=total)
        return SimpleNamespace(outputs=[one])
"""


def write_stub(folder: Path) -> None:
    """Write the module into a folder, with what tells its version."""
    (folder / "vllm").mkdir(parents=True)
    (folder / "vllm" / "__init__.py").write_text(_SOURCE)
    about = folder / "vllm-9.9.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm\nVersion: 9.9\n")
