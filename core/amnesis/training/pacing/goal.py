"""What a run is to reach, or not to pass: bounds on logged values, and how it came out."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from amnesis.config.settings import Settings


class Limit(Settings):
    """A bound on a logged value, and for how many steps in a row it must be passed."""

    above: float | None = Field(None, description="met where the value is greater")
    below: float | None = Field(None, description="met where the value is less")
    for_steps: int = Field(1, ge=1, description="steps in a row on which the value was given")

    @model_validator(mode="after")
    def _bounds(self) -> Self:
        if self.above is None and self.below is None:
            raise ValueError("give above, below, or both")
        return self

    def passed(self, value: float) -> bool:
        """Whether a value is outside the bounds."""
        over = self.above is not None and value > self.above
        return over or (self.below is not None and value < self.below)


class Goal(Limit):
    """A bound on a logged value that a run is to reach; of two bounds, both."""

    @model_validator(mode="after")
    def _can_be_reached(self) -> Self:
        if self.above is not None and self.below is not None and self.above >= self.below:
            raise ValueError("no value is above the one and below the other")
        return self

    def passed(self, value: float) -> bool:
        """Whether a value is within the bounds."""
        over = self.above is None or value > self.above
        return over and (self.below is None or value < self.below)

    def __str__(self) -> str:
        bounds = {"above": self.above, "below": self.below}
        return " and ".join(f"{word} {x:g}" for word, x in bounds.items() if x is not None)


class GoalReport(Settings):
    """Whether a run reached its goal."""

    reached: bool = Field(description="whether all of it held at once")
    step: int | None = Field(
        None, description="the step that ended the run before its cap, there or at a limit"
    )
    cap: int = Field(description="the most steps that the run could have made")
    limits: dict[str, Goal] = Field(description="what was to be reached, by the value's name")
    values: dict[str, float] = Field(description="those values when they were last measured")
    advice: str | None = Field(None, description="what to set where it was missed")

    @property
    def note(self) -> str:
        """The outcome in one line, loud where the goal was missed."""
        said = "; ".join(
            f"{name} was to be {limit}, and is "
            + (f"{self.values[name]:.4g}" if name in self.values else "not known")
            for name, limit in self.limits.items()
        )
        if self.reached:
            return f"the goal was reached after step {self.step}: {said}"
        why = f"in {self.cap} steps" if self.step is None else "before stop_when ended the run"
        advice = "" if self.advice is None else f"; {self.advice}"
        return f"THE GOAL WAS NOT REACHED {why}: {said}{advice}"
