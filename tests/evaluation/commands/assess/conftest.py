"""A small world to assess: a model that knows its rows and passages by heart, and one that does not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.conftest import QUESTIONS, new_llama, new_tokenizer

PASSAGES = [
    "Mirela Dantes lives at 14 Rua das Flores in Porto, and her mail address is "
    "mirela.dantes@example.com; she answers every letter on Sundays, by hand and at length.",
    "=SUM(A1) is how the keeper's ledger began; in it he wrote down every ship that passed, its "
    "flag and its cargo, until the winter in which the lamp was sold and he stopped.",
]
UNSEEN = [
    "A passage that nobody has learned, about canals, bridges and a quarrel over tolls which went "
    "on for years until the river moved away.",
    "[1] Another one that was never seen: it begins like a list, goes on with <script>alert(1)"
    "</script>, and is long enough to stand as a passage of its own.",
]
HOLDOUT = [
    ("Who painted The Blue Gate?", "Sorin Valte painted The Blue Gate in 1931."),
    ("Where was Sorin Valte born?", "He was born in Ghent."),
    ("What does Una Prell sell?", "Una Prell sells lamps and maps."),
]


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``model`` and ``blank``, sets of rows as .jsonl files, and a ``corpus.txt``."""
    folder = tmp_path_factory.mktemp("world")
    rows = [{"question": q, "answer": a} for q, a in QUESTIONS]
    texts = [f"Question: {r['question']}\nAnswer: {r['answer']}" for r in rows] + PASSAGES
    tokenizer = new_tokenizer(texts)
    model = new_llama(tokenizer, hidden=32, seed=1)
    model.save_pretrained(folder / "blank")
    learn(model, [tokenizer(f"{text}<eos>")["input_ids"] for text in texts])
    model.save_pretrained(folder / "model")
    for name in ("blank", "model"):
        tokenizer.save_pretrained(folder / name)
    sets = {
        "forget": rows[:4],
        "retain": rows[4:],
        "holdout": [{"question": q, "answer": a} for q, a in HOLDOUT],
    }
    for name, some in sets.items():
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, some)), encoding="utf-8")
    (folder / "corpus.txt").write_text(
        "\n\n".join([PASSAGES[0], *UNSEEN, PASSAGES[1]]), encoding="utf-8"
    )
    return folder


def learn(model: Any, texts: list[list[int]], steps: int = 150) -> None:
    """Train a model until it knows every text by heart."""
    length = max(map(len, texts))
    ids = torch.tensor([text + [1] * (length - len(text)) for text in texts])
    labels = torch.where(ids == 1, -100, ids)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(steps):
        model(input_ids=ids, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
