"""How a method's test opts into properties: a list of claims, each held on sampled inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis.strategies import SearchStrategy

Claim = Callable[[Any], None]


def sampled(*strategies: SearchStrategy[Any], examples: int = 15) -> Callable[[Any], Any]:
    """Run a test on that many cases; a loaded machine may take as long as it likes."""
    return lambda test: settings(max_examples=examples, deadline=None)(given(*strategies)(test))


def for_any(strategy: SearchStrategy[Any], examples: int = 15) -> Callable[[Any], Claim]:
    """Turn ``check(subject, case)`` into a claim about a subject: it holds for any case."""

    def decorate(check: Callable[[Any, Any], None]) -> Claim:
        @wraps(check)
        def claim(subject: Any) -> None:
            @sampled(strategy, examples=examples)
            def holds(case: Any) -> None:
                check(subject, case)

            holds()

        return claim

    return decorate


def hold(claims: Sequence[Claim], subjects: Sequence[Any]) -> Any:
    """Make the test that every claim holds for every subject: ``test_claims = hold(...)``."""

    @pytest.mark.parametrize("claim", claims, ids=lambda claim: claim.__name__)
    @pytest.mark.parametrize("subject", subjects, ids=described)
    def test_claims(subject: Any, claim: Claim) -> None:
        claim(subject)

    return test_claims


def described(subject: Any) -> str:
    """Name a component with the hyper-parameters that are not its defaults."""
    fields = subject.model_dump(exclude_defaults=True)
    return "-".join([type(subject).__name__, *(f"{k}={v}" for k, v in fields.items())])
