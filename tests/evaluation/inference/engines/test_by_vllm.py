"""vLLM writes in a process of its own: what it is asked, and what becomes of what it says.

A module of a few lines stands in for vLLM in a process that is really started; vLLM itself needs a
GPU and an environment of its own.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.evaluation.inference.engines.stubs import write_stub
from tests.evaluation.inference.test_generation import PROMPTS
from typer.testing import CliRunner

import amnesis
from amnesis.cli.app import app
from amnesis.contracts import EvaluationSettings, Subject
from amnesis.data.templates import Template
from amnesis.discovery.registry import default_registry
from amnesis.errors import ModelError, NonFiniteError, RecipeError
from amnesis.models.trainable import LoraSettings, with_lora
from amnesis.runs.results import Results
from amnesis_evaluation.evaluator.cache import evaluation_key
from amnesis_evaluation.evaluator.selection import Selection
from amnesis_evaluation.inference.engines import by_vllm
from amnesis_evaluation.inference.generation import Prompt, check_engine, generate, note_of

SOME = [Prompt(PROMPTS[0], 2), Prompt(PROMPTS[1], 5, seed=3), Prompt((7,), 0)]


@pytest.fixture
def stub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module instead of vLLM, whose process writes the tokens 11, 12, 13, and its record."""
    write_stub(tmp_path / "site")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    monkeypatch.setenv("STUB_TOKENS", "[11, 12, 13]")
    monkeypatch.setenv("STUB_RECORD", str(tmp_path / "record.json"))
    return tmp_path / "record.json"


def written(model: Any, **options: Any) -> list[list[int]]:
    chosen = {"end": frozenset({13}), "pad_token_id": 1, "engine": "vllm", **options}
    return generate(model, SOME, **chosen)


def test_an_adapter_s_model_writes_what_it_writes_here_and_is_left_alone(
    stub: Path, tiny_llama: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("STUB_TOKENS")
    model = with_lora(tiny_llama, LoraSettings(r=2)).eval()
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    prompts = [Prompt(p, 8 - k % 3) for k, p in enumerate(PROMPTS)]
    free = generate(model, prompts, end=frozenset(), pad_token_id=1)
    end = frozenset({free[0][3], free[1][2]})
    both = [
        generate(model, prompts, end=end, pad_token_id=1, engine=engine)
        for engine in ("builtin", "vllm")
    ]
    assert both[0] == both[1]
    assert both[0] != free
    assert all(torch.equal(tensor, weights[n]) for n, tensor in model.state_dict().items())
    assert all(
        parameter.requires_grad == ("lora" in n) for n, parameter in model.named_parameters()
    )


def test_it_is_asked_for_tokens_with_the_prompts_own_seeds_and_ends(
    stub: Path, tiny_llama: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RANK", "WORLD_SIZE", "TORCHELASTIC_RUN_ID"):
        monkeypatch.setenv(name, "1")
    assert written(tiny_llama.bfloat16(), temperature=0.7) == [[11, 12], [11, 12], []]
    called = json.loads(stub.read_text())
    assert (called["dtype"], called["max_model_len"]) == ("bfloat16", len(PROMPTS[1]) + 5)
    assert [prompt["prompt_token_ids"] for prompt in called["prompts"]] == [
        list(PROMPTS[1]),
        list(PROMPTS[0]),
    ]
    limits = [(one["max_tokens"], one["temperature"]) for one in called["parameters"]]
    assert limits == [(5, 0.7), (2, 0.7)]
    assert all(one["stop_token_ids"] == [13] for one in called["parameters"])
    assert len({one["seed"] for one in called["parameters"]}) == 2
    environment = called["environment"]
    assert not {"RANK", "WORLD_SIZE", "TORCHELASTIC_RUN_ID"} & set(environment)
    assert (environment["VLLM_NO_USAGE_STATS"], environment["HF_HUB_OFFLINE"]) == ("1", "1")


def test_its_failure_is_one_line_and_broken_weights_are_refused(
    stub: Path, tiny_llama: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STUB_LOGP", "nan")
    with pytest.raises(NonFiniteError, match="logits are not numbers"):
        written(tiny_llama)
    monkeypatch.setenv("STUB_FAILS", "no kernel for this model")
    with pytest.raises(ModelError, match=r"exit code 1\): RuntimeError: no kernel.*say builtin"):
        written(tiny_llama)


def test_models_that_it_cannot_take_are_refused(stub: Path, tiny_llama: Any) -> None:
    from peft import LoraConfig

    with pytest.raises(ModelError, match=r"weights are float64; load it with another model\.dtype"):
        written(tiny_llama.double())
    tiny_llama.float().is_quantized = True
    with pytest.raises(ModelError, match="quantized weights; say builtin"):
        written(tiny_llama)
    tiny_llama.is_quantized = False
    tiny_llama.add_adapter(LoraConfig(target_modules=["q_proj"]))
    with pytest.raises(ModelError, match="adapter cannot be merged"):
        written(tiny_llama)


def test_without_vllm_a_line_says_how_to_get_it(
    tmp_path: Path,
    tiny_llama: Any,
    tiny_tokenizer: Any,
    qa_rows: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    line = r"has no vLLM; install it into an environment of its own .* AMNESIS_VLLM_PYTHON="
    with pytest.raises(ModelError, match=line):
        written(tiny_llama)
    own = amnesis.create("benchmark", "own", forget=qa_rows[:3], retain=qa_rows[3:])
    with pytest.raises(RecipeError, match=rf"evaluate.engine: .*{line}"):
        own.check(EvaluationSettings(engine="vllm"), Template(), tiny_tokenizer)
    monkeypatch.setenv(by_vllm.PYTHON, str(tmp_path / "nothing"))
    with pytest.raises(ModelError, match=rf"nothing {line}"):
        check_engine("vllm")
    # An environment of its own: another Python, here this one with a module of its own.
    write_stub(tmp_path / "site")
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH={tmp_path}/site exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    monkeypatch.setenv(by_vllm.PYTHON, str(python))
    monkeypatch.setenv("STUB_TOKENS", "[5]")
    assert note_of("vllm") == "answers were generated by vLLM 9.9"
    assert written(tiny_llama) == [[5], [5], []]


def test_results_say_which_engine_wrote_and_the_cache_tells_engines_apart(
    stub: Path,
    rich_place: Path,
    tiny_llama: Any,
    tiny_tokenizer: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(rich_place)
    words = ["evaluate", "model", "--benchmark", "own", "--no-cache", "--metrics", "forget/rouge_l"]
    rows = ["--with", "forget=forget.jsonl", "--with", "retain=retain.jsonl"]
    said = CliRunner().invoke(
        app, [*words, *rows, "--engine", "vllm", "--out", "out"], obj=default_registry()
    )
    assert said.exception is None, said.output
    results = Results.read(rich_place / "out")
    assert results.environment["engine"] == "vllm"
    assert "answers were generated by vLLM 9.9" in results.notes
    wrong = CliRunner().invoke(app, [*words, *rows, "--engine", "fast"], obj=default_registry())
    assert isinstance(wrong.exception, RecipeError)
    assert "--engine: Input should be 'builtin', 'transformers' or 'vllm'" in str(wrong.exception)

    subject = Subject(tiny_llama, tiny_tokenizer, Template())
    keys = {
        evaluation_key(subject, {}, Selection(), EvaluationSettings(engine=e), None, {})
        for e in ("builtin", "transformers", "vllm")
    }
    assert len(keys) == 3
