"""Benchmarks: the sets that a run forgets and retains, and the evaluation on them.

The base is public: :class:`SetsBenchmark` evaluates rows of your own as ours are evaluated.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import amnesis

if TYPE_CHECKING:
    from amnesis_evaluation.benchmarks.sets import SetsBenchmark
    from amnesis_evaluation.inference.answers import Form, Forms

__all__ = ["Form", "Forms", "SetsBenchmark", "register_benchmarks"]

# Imported when first used: listing benchmarks imports nothing heavy.
_HOMES = {
    "Form": "amnesis_evaluation.inference.answers",
    "Forms": "amnesis_evaluation.inference.answers",
    "SetsBenchmark": "amnesis_evaluation.benchmarks.sets",
}


@amnesis.hookimpl
def register_benchmarks(register: amnesis.Register) -> None:
    """Register the benchmarks of this package."""
    here = "amnesis_evaluation.benchmarks"
    register(
        "fictional",
        f"{here}.fictional.benchmark:Fictional",
        summary="invented authors, made from a seed; offline",
    )
    register("tofu", f"{here}.tofu:Tofu", summary="TOFU, from the hub or from local files")
    register(
        "muse", f"{here}.muse:Muse", summary="MUSE: news or books to forget, evaluated in six ways"
    )
    register("rwku", f"{here}.rwku:Rwku", summary="RWKU: real people to forget, by probes")
    register("wmdp", f"{here}.wmdp:Wmdp", summary="WMDP: hazardous knowledge, through lm-eval")
    register("own", f"{here}.own:Own", summary="your own files of questions and answers")


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
