"""torchjd's weightings: the same as its aggregators give on the gradients themselves."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
from tests.properties.claims import hold
from tests.properties.combiners import EVERY_COMBINER, cuts_never_matter, never_against_r

import amnesis
from amnesis.errors import PluginError, RecipeError

aggregation = pytest.importorskip("torchjd.aggregation")
from amnesis_plugins.combiners.torchjd import TorchJD  # noqa: E402

SUBJECTS = [TorchJD(), TorchJD(weighting="aligned_mtl", gamma=0.5, alpha=2.0)]
CLAIMS = [*EVERY_COMBINER, cuts_never_matter]

test_claims = hold(CLAIMS, SUBJECTS)
test_claims_of_mgda = hold([never_against_r], [TorchJD(options={"max_iters": 10_000})])

RULES: dict[str, tuple[str, tuple[Any, ...], dict[str, Any]]] = {
    "mgda": ("MGDA", (), {"epsilon": 1e-5, "max_iters": 1000}),
    "imtl_g": ("IMTLG", (), {}),
    "aligned_mtl": ("AlignedMTL", (), {"scale_mode": "median"}),
    "upgrad": ("UPGrad", (), {}),
    "dual_proj": ("DualProj", (), {}),
    "cagrad": ("CAGrad", (), {"c": 0.4}),
    "fairgrad": ("FairGrad", (), {"alpha": 1.0}),
    "nash_mtl": ("NashMTL", (2,), {"optim_niter": 30}),
}


@pytest.mark.parametrize("weighting", RULES)
def test_it_equals_the_aggregator_on_the_weighted_gradients(weighting: Any) -> None:
    name, positional, options = RULES[weighting]
    combiner = TorchJD(weighting=weighting, options=options, gamma=0.5, alpha=2.0)
    nothing = torch.zeros(4, dtype=torch.float64)
    assert not any(t.any() for t in combiner.combine([nothing], [nothing]) if t is not None)
    torch.manual_seed(0)
    for _ in range(5):
        f, r = torch.randn(2, 40, dtype=torch.float64)
        expected = getattr(aggregation, name)(*positional, **options)(torch.stack([f / 2, 2 * r]))
        out = torch.cat([t for t in combiner.combine(f.split(13), r.split(13)) if t is not None])
        torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-6)


def test_every_rule_is_compared() -> None:
    from typing import get_args

    from amnesis_plugins.combiners.torchjd import Weighting

    assert set(RULES) == set(get_args(Weighting))


def test_without_torchjd_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [m for m in sys.modules if m.partition(".")[0] == "torchjd"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "torchjd", None)
    with pytest.raises(PluginError, match=r"pip install 'amnesis\[torchjd\]'"):
        amnesis.create("combiner", "torchjd")


def test_wrong_options_are_the_recipe_s_fault() -> None:
    with pytest.raises(RecipeError, match=r"'mgda': options: .*'c'"):
        amnesis.create("combiner", "torchjd", options={"c": 1.0})
    with pytest.raises(RecipeError, match="epsilon must be positive"):
        amnesis.create("combiner", "torchjd", options={"epsilon": -1.0})
    with pytest.raises(RecipeError, match="weighting"):
        amnesis.create("combiner", "torchjd", weighting="average")
