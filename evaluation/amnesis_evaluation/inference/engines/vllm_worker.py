"""The process in which vLLM writes: reads a request, and leaves the answers beside it.

It may run in an environment that has vLLM and lacks amnesis, so it imports nothing of amnesis.
"""

from __future__ import annotations

import json
import math
import sys
from importlib import import_module
from pathlib import Path
from typing import Any


def answered(request: dict[str, Any]) -> dict[str, Any]:
    """Return the continuations of a request's prompts, and how many met logits of NaN."""
    vllm: Any = import_module("vllm")
    model = vllm.LLM(
        model=request["model"],
        dtype=request["dtype"],
        max_model_len=request["longest"],
        skip_tokenizer_init=True,  # tokens in, tokens out
        generation_config="vllm",  # the model's own is left out, as by every engine
        seed=0,
        **request["options"],
    )
    outputs = model.generate(
        [{"prompt_token_ids": prompt["tokens"]} for prompt in request["prompts"]],
        [
            vllm.SamplingParams(
                temperature=request["temperature"],
                seed=prompt["seed"],
                max_tokens=prompt["limit"],
                stop_token_ids=request["end"],
                ignore_eos=True,  # the ends are those of the request
                detokenize=False,
                logprobs=0,  # of the chosen token, for their sum
            )
            for prompt in request["prompts"]
        ],
        use_tqdm=False,
    )
    answers = [output.outputs[0] for output in outputs]
    return {
        "tokens": [list(answer.token_ids) for answer in answers],
        "broken": sum(math.isnan(answer.cumulative_logprob) for answer in answers),
    }


def main() -> None:
    """Answer the request in the file that is named on the command line."""
    place = Path(sys.argv[1])
    request = json.loads(place.read_text(encoding="utf-8"))
    Path(request["answer"]).write_text(json.dumps(answered(request)), encoding="utf-8")


if __name__ == "__main__":  # vLLM starts processes of its own, which import this file
    main()
