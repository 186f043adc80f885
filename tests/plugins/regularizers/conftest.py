"""A batch for the regularizers' own tests."""

import pytest
import torch
from tests.properties.situations import VOCABULARY, WIDTH, Situation, Text


@pytest.fixture
def tiny() -> Situation:
    """Two examples of three label tokens each."""
    mask = torch.ones(2, 3, dtype=torch.bool)
    said = [torch.randn(2, 3, k) for k in (VOCABULARY, VOCABULARY, WIDTH, WIDTH)]
    text = Text(mask, mask, torch.randint(VOCABULARY, (2, 3)), *said)
    return Situation(text, text)
