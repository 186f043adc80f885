"""What every component is: a frozen record of its hyper-parameters that knows its origin."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from pydantic import ConfigDict, PrivateAttr

from amnesis.config.settings import Settings


@dataclass(frozen=True, kw_only=True)
class Registration:
    """What a component was created by: its kind, its name, and the plugin that brought it."""

    kind: str
    name: str
    plugin: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name!r} ({self.plugin})"


class Component(Settings):
    """Hyper-parameters, validated before a weight is loaded, and never changed afterwards.

    What must change during a run (a running mean, a cursor) is state: it is passed in and
    returned, and so can be checkpointed. ``formula`` and ``source`` are what ``amnesis plugins
    NAME`` shows.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    formula: ClassVar[str] = ""
    source: ClassVar[str] = ""

    _registration: Registration | None = PrivateAttr(default=None)

    def registered_as(self, registration: Registration) -> Self:
        """Remember what the component was created by, and return it."""
        self._registration = registration
        return self

    @property
    def registered_kind(self) -> str | None:
        """The kind it was created as; None for one that was built from its class."""
        return self._registration.kind if self._registration else None

    @property
    def registered_name(self) -> str:
        """The name it was created by, or its class's name in lower case."""
        return self._registration.name if self._registration else type(self).__name__.lower()

    @property
    def label(self) -> str:
        """How messages call it: kind, name, distribution and entry point where they are known."""
        if self._registration is not None:
            return str(self._registration)
        return f"{type(self).__module__}.{type(self).__name__}"
