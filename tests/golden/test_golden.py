"""No refactoring moves a number: short runs against stored ones, to the last bit."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.golden import trajectories

STORED = json.loads(trajectories.STORED.read_text(encoding="utf-8"))


def _agree(found: dict[str, Any], name: str) -> None:
    stored = STORED["trajectories"][name]
    if trajectories.machine() == STORED["machine"]:
        assert found == stored
        return
    # Other libraries' kernels round otherwise, and SAGO follows the sign of what is nearly 0.
    assert len(found["steps"]) == len(stored["steps"])
    for step, expected in zip(found["steps"], stored["steps"], strict=True):
        assert step.keys() == expected.keys()
        # Of a retain gradient that is rounding noise there is no direction to compare.
        noise = abs(float.fromhex(expected.get("gradients/retain_norm", "0x1p0"))) < 1e-9
        for key, value in expected.items():
            if noise and key == "gradients/cosine":
                continue
            exact = pytest.approx(float.fromhex(value), rel=1e-5, abs=1e-7)
            assert float.fromhex(step[key]) == exact, key
    assert float.fromhex(found["norm"]) == pytest.approx(float.fromhex(stored["norm"]), rel=1e-6)


@pytest.mark.parametrize("name", trajectories.CONFIGURATIONS)
def test_a_short_run_gives_the_stored_numbers(name: str) -> None:
    _agree(trajectories.trajectory(name), name)


@pytest.mark.parametrize("name", trajectories.PROCESSES)
def test_several_processes_give_the_stored_numbers(name: str) -> None:
    _agree(trajectories.on_processes(*trajectories.PROCESSES[name]), name)


def test_every_configuration_is_stored() -> None:
    configurations = {*trajectories.CONFIGURATIONS, *trajectories.PROCESSES}
    assert configurations == set(STORED["trajectories"])
