"""amnesis: make a language model forget chosen data, see why it does, and prove that it did.

This package holds what running needs. To write a plugin, import :mod:`amnesis.contracts`; to add a
command, :mod:`amnesis.cli`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from amnesis.discovery.hookspecs import Register, hookimpl
from amnesis.errors import AmnesisError

if TYPE_CHECKING:
    from amnesis.data.templates import Template
    from amnesis.runs.finetune import finetune
    from amnesis.runs.recipe import Recipe
    from amnesis.runs.results import Results, RunResult
    from amnesis.runs.run import run
    from amnesis.scoring.forward import score
    from amnesis.scoring.scores import Scores
    from amnesis.training.settings import TrainingSettings
    from amnesis.training.streams import Streams
    from amnesis.training.unlearner import Unlearner

__version__ = "0.1.0"

# Names that need torch are imported when they are first used: `import amnesis` stays instant.
_HOMES = {
    "Recipe": "amnesis.runs.recipe",
    "Results": "amnesis.runs.results",
    "RunResult": "amnesis.runs.results",
    "Scores": "amnesis.scoring.scores",
    "Streams": "amnesis.training.streams",
    "Template": "amnesis.data.templates",
    "TrainingSettings": "amnesis.training.settings",
    "Unlearner": "amnesis.training.unlearner",
    "finetune": "amnesis.runs.finetune",
    "run": "amnesis.runs.run",
    "score": "amnesis.scoring.forward",
}

__all__ = [
    "AmnesisError",
    "Recipe",
    "Register",
    "Results",
    "RunResult",
    "Scores",
    "Streams",
    "Template",
    "TrainingSettings",
    "Unlearner",
    "create",
    "finetune",
    "hookimpl",
    "run",
    "score",
]


def create(kind: str, name: str, **hyper: Any) -> Any:
    """Return the component of a kind and name, with these hyper-parameters.

    It works outside a run too: ``create("combiner", "sago").combine(f, r)``.

    Raises:
        PluginError: the kind or the name does not exist; the message suggests similar ones.
        RecipeError: a hyper-parameter is unknown or out of range.
    """
    from amnesis.discovery.registry import default_registry

    return default_registry().create(kind, name, **hyper)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'amnesis' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
