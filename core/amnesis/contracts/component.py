"""What every component is: a frozen record of its hyper-parameters that knows its origin."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Self

from pydantic import BaseModel, ConfigDict, PrivateAttr

if TYPE_CHECKING:
    from amnesis.discovery.entry import Entry


class Component(BaseModel):
    """Hyper-parameters, validated before a weight is loaded, and never changed afterwards.

    What must change during a run (a running mean, a cursor) is state: it is passed in and
    returned, and so can be checkpointed. ``formula`` and ``source`` are what ``amnesis plugins
    NAME`` shows.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, arbitrary_types_allowed=True
    )

    formula: ClassVar[str] = ""
    source: ClassVar[str] = ""

    _entry: Entry | None = PrivateAttr(default=None)

    def registered_as(self, entry: Entry) -> Self:
        """Remember the registered name, for messages."""
        self._entry = entry
        return self

    @property
    def registered_name(self) -> str:
        """The name it was created by, or its class's name in lower case."""
        return self._entry.name if self._entry else type(self).__name__.lower()

    @property
    def label(self) -> str:
        """How messages call it: kind, name, distribution and entry point where they are known."""
        return str(self._entry) if self._entry else f"{type(self).__module__}.{type(self).__name__}"
