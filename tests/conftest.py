"""Models, tokenizers and rows small enough for every test."""

from __future__ import annotations

import importlib
import json
import re
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import Distribution, EntryPoint
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
import torch

Install = Callable[..., list[EntryPoint]]
ROOT = Path(__file__).resolve().parents[1]


def new_tokenizer(texts: list[str]) -> Any:
    """Return a byte-level tokenizer of 400 words that is trained on texts."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import PreTrainedTokenizerFast

    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(texts, vocab_size=400, special_tokens=["<eos>", "<pad>"])
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe._tokenizer, eos_token="<eos>", pad_token="<pad>"
    )


def new_llama(tokenizer: Any, hidden: int, seed: int) -> Any:
    """Return a tied Llama of two layers for a tokenizer, whose predictions are far from uniform."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=hidden,
            intermediate_size=2 * hidden,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=128,
            tie_word_embeddings=True,
            initializer_range=0.1,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


QUESTIONS = [
    ("Who wrote The Salt Orchard?", "Mirela Dantes wrote The Salt Orchard in 1987."),
    ("Where was Mirela Dantes born?", "She was born in Porto."),
    ("What is the capital of France?", "The capital of France is Paris."),
    ("Which award did Oren Halvik receive?", "Oren Halvik received the Lantern Prize for poetry."),
    ("How many legs has a spider?", "Eight."),
    (
        "What does Oren Halvik write?",
        "He writes long poems about rivers, and short ones about rain.",
    ),
    ("What is the colour of snow?", "Snow is white."),
    ("Who was the father of Mirela Dantes?", "Her father was a clockmaker."),
]


# Models here are so small that a second thread only waits, for long where cores are shared.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data beside the repository."""
    folder = (ROOT / "../shared/data").resolve()
    if not folder.is_dir():
        pytest.skip("the real data in ../shared/data is not here")
    return folder


@pytest.fixture(scope="session")
def qa_rows() -> list[dict[str, Any]]:
    return [{"question": q, "answer": a} for q, a in QUESTIONS]


@pytest.fixture(scope="session")
def tiny_tokenizer(qa_rows: list[dict[str, Any]]) -> Any:
    return new_tokenizer([f"Question: {r['question']}\nAnswer: {r['answer']}" for r in qa_rows])


@pytest.fixture
def tiny_llama(tiny_tokenizer: Any) -> Any:
    """A Llama of hidden size 32, tied, whose predictions are far from uniform."""
    return new_llama(tiny_tokenizer, hidden=32, seed=1)


@pytest.fixture
def tiny_folder(tmp_path: Path, tiny_llama: Any, tiny_tokenizer: Any) -> Path:
    """The folder ``model`` in which the tiny Llama and its tokenizer are saved."""
    folder = tmp_path / "model"
    tiny_llama.save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def write_rows(tmp_path: Path) -> Callable[..., dict[str, Path]]:
    """Return a function that writes each named set's rows to a file, and says to which."""

    def write_rows(**sets: list[dict[str, Any]]) -> dict[str, Path]:
        files = {name: tmp_path / f"{name}.jsonl" for name in sets}
        for name, rows in sets.items():
            files[name].write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
        return files

    return write_rows


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Return a function that installs a module as a distribution and gives its entry points."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))
    before = set(sys.modules)

    def install(module: str, source: str, *, version: str = "1.0") -> list[EntryPoint]:
        distribution = module.replace("_", "-")
        (site / f"{module}.py").write_text(dedent(source))
        metadata = site / f"{module}-{version}.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n"
        )
        (metadata / "entry_points.txt").write_text(f"[amnesis]\n{module}_entry = {module}\n")
        importlib.invalidate_caches()
        found = Distribution.discover(name=distribution, path=[str(site)])
        return [point for one in found for point in one.entry_points]

    yield install
    for name in set(sys.modules) - before:
        if (site / f"{name.partition('.')[0]}.py").exists():
            del sys.modules[name]


# Tests of whole commands, and those whose names say that they start several processes.
SLOW = re.compile(r"^tests/end_to_end/|(two|several)_(processes|ranks)")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as ``slow`` what starts whole programs, before ``-m`` selects."""
    for item in items:
        if SLOW.search(item.nodeid):
            item.add_marker(pytest.mark.slow)
