"""What is sampled with one seed says nothing about what is sampled with another."""

from __future__ import annotations

from typing import Any

import pytest

import amnesis
from amnesis.contracts import EvaluationSettings, Subject
from amnesis.data.templates import Template
from amnesis_evaluation.attacks import sampling
from amnesis_evaluation.attacks.sampling import Sampling
from amnesis_evaluation.inference.generation import generate


def test_neighbouring_seeds_share_no_sample(
    tiny_llama: Any, tiny_tokenizer: Any, qa_rows: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = Subject(tiny_llama, tiny_tokenizer, Template())
    bench = amnesis.create("benchmark", "own", forget=qa_rows[:2], retain=qa_rows[2:])
    samples: list[list[tuple[int, ...]]] = []

    def kept(*given: Any, **options: Any) -> list[list[int]]:
        written = generate(*given, **options)
        samples.append([tuple(tokens) for tokens in written])
        return written

    monkeypatch.setattr(sampling, "generate", kept)
    settings = EvaluationSettings(max_new_tokens=12, bootstrap=0)
    for seed in (3, 4):
        Sampling(samples=6, seed=seed, temperature=2.0).attack(subject, bench, settings)
    assert len(samples[0]) == len(samples[1]) == 12
    assert not set(samples[0]) & set(samples[1])


def test_engines_that_draw_alike_reveal_the_same(
    exact_llama: Any, tiny_tokenizer: Any, qa_rows: Any
) -> None:
    subject = Subject(exact_llama, tiny_tokenizer, Template())
    bench = amnesis.create("benchmark", "own", forget=qa_rows[:3], retain=qa_rows[3:])
    found = [
        amnesis.create("attack", "leak_at_k", samples=4, k=(1, 3), temperature=2.0).attack(
            subject, bench, EvaluationSettings(max_new_tokens=8, bootstrap=0, engine=engine)
        )
        for engine in ("builtin", "transformers")
    ]
    assert found[0].values == found[1].values
    assert found[0].examples == found[1].examples
    assert [len(one.notes) for one in found] == [0, 1]
