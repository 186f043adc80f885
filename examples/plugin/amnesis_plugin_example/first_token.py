"""First-token accuracy: does the model still begin the answer right?"""

from __future__ import annotations

from amnesis.contracts import Answer, ExampleMetric


class FirstTokenAccuracy(ExampleMetric):
    """The share of examples whose first answer token is the likeliest one after the prompt."""

    def value(self, answer: Answer) -> float:
        """Return 1 if the first token would be right, else 0."""
        return float(answer.correct[0])
