"""The G-effect on fixed examples, against `amnesis.probe` of the same model."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

from amnesis.g_effect import probe


@pytest.mark.parametrize("regularizer", ["kl", None])
def test_it_is_the_probe_of_the_first_examples(
    fit: Any, tiny_llama: Any, tiny_tokenizer: Any, qa_rows: Any, regularizer: str | None
) -> None:
    before = copy.deepcopy(tiny_llama)
    probes = [{"name": "g_effect_sets", "examples": 3, "every": 2}]
    trajectory = fit("npo", regularizer, probes=probes).trajectory
    wanted = probe(before, tiny_tokenizer, qa_rows[:3], qa_rows[4:7], ["npo"])
    values = trajectory[0]
    for name, effect in (("forget", "unlearn"), ("retain", "retain")):
        prefix = f"g_effect/sets/{effect}"
        assert values[prefix] == pytest.approx(wanted.total(set=name), rel=1e-4)
        for layer, value in wanted.totals("layer", set=name).items():
            assert values[f"{prefix}/{layer}"] == pytest.approx(value, rel=1e-3, abs=1e-6)
        shares = list(wanted.totals("example", set=name).values())
        assert values[f"{prefix}/examples/median"] == pytest.approx(np.median(shares), rel=1e-3)
        assert values[f"{prefix}/examples/min"] == pytest.approx(min(shares), rel=1e-3)
    assert values["g_effect/sets/retain_over_unlearn"] == pytest.approx(
        wanted.ratio("npo"), rel=1e-3
    )
    assert ["g_effect/sets/unlearn" in v for v in trajectory] == [True, False, True]
