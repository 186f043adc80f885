"""amnesis: make a language model forget chosen data, see why it does, and prove that it did."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from amnesis.errors import AmnesisError
from amnesis.hookspecs import Register, hookimpl

if TYPE_CHECKING:
    from amnesis.data.templates import Template
    from amnesis.g_effect.measure import probe
    from amnesis.recipe import Recipe
    from amnesis.running import run
    from amnesis.scoring.forward import score
    from amnesis.scoring.scores import Needs, Scores
    from amnesis.streams import Streams
    from amnesis.training import TrainingSettings
    from amnesis.unlearner import Unlearner

__version__ = "0.1.0"

# Names that need torch are imported when they are first used: `import amnesis` stays instant.
_LAZY = {
    "Needs": "amnesis.scoring.scores",
    "Recipe": "amnesis.recipe",
    "Scores": "amnesis.scoring.scores",
    "Streams": "amnesis.streams",
    "Template": "amnesis.data.examples",
    "TrainingSettings": "amnesis.training",
    "Unlearner": "amnesis.unlearner",
    "probe": "amnesis.g_effect.measure",
    "run": "amnesis.running",
    "score": "amnesis.scoring.forward",
}

__all__ = [
    "AmnesisError",
    "Needs",
    "Recipe",
    "Register",
    "Scores",
    "Streams",
    "Template",
    "TrainingSettings",
    "Unlearner",
    "create",
    "hookimpl",
    "probe",
    "run",
    "score",
]


def create(kind: str, name: str, **hyper: Any) -> Any:
    """Build a component by kind and name, for use anywhere: ``create("combiner", "sago")``.

    Raises:
        PluginError: no such kind or name (with suggestions).
        RecipeError: a hyper-parameter is unknown or out of range.
    """
    from amnesis.registry import default_registry

    return default_registry().create(kind, name, **hyper)


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'amnesis' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
