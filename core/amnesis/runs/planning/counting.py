"""The memory of code that is run on tensors with shapes and no values.

Nothing is assumed of what the code computes. torch's FakeTensorMode makes every tensor one that
has a shape, a dtype and a device, and nothing behind it; here the bytes that would be behind all
that are alive are added up, from when an operation gives a tensor out until nobody holds it.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

aten = torch.ops.aten
# Values are followed in tensors of at most so many elements: masks, token ids, positions.
FOLLOWED = 1 << 22
_SETTING = {aten.zero_.default, aten.fill_.Scalar}
_SIZED_BY_VALUES = {aten.nonzero.default, aten.masked_select.default}


@dataclass(frozen=True)
class Phase:
    """The bytes alive when a part of the work began, and the most during it."""

    start: int
    peak: int

    @property
    def added(self) -> int:
        """How much it took beside what was there."""
        return self.peak - self.start


class Counting(TorchDispatchMode):
    """Counts the bytes of all tensors that are alive on a device, and the most that ever were.

    It is entered inside a FakeTensorMode. What depends on the values of a few small tensors, such
    as how many places of a mask are True, is known: those that were given to :meth:`fake`, or are
    computed of them, are computed really, too. Of others a number that is asked for is 1.

    Attributes:
        bytes: alive now.
        phases: what each part of the work took, by its name.
    """

    def __init__(self, device: str) -> None:
        """Count what is on that kind of device."""
        super().__init__()  # type: ignore[no-untyped-call]  # torch's own
        self._kind = torch.device(device).type
        self.bytes = self._peak = 0
        self.phases: dict[str, Phase] = {}
        self._alive: dict[int, tuple[Any, list[int]]] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Note what is taken inside ``with``; of phases of one name the one that takes most."""
        start = self._peak = self.bytes
        yield
        phase, known = Phase(start, self._peak), self.phases.get(name)
        if known is None or phase.peak > known.peak:
            self.phases[name] = phase

    def add(self, count: int) -> None:
        """Count bytes that no tensor here stands for; negative ones where one is too large."""
        self.bytes += count
        self._peak = max(self._peak, self.bytes)

    def divide(self, tensors: Iterable[Tensor], parts: int) -> None:
        """Count tensors as if this process held one of so many equal parts of each."""
        for tensor in tensors:
            size = self._alive[tensor.untyped_storage()._cdata][1]
            part = -(-tensor.nbytes // parts)
            self.bytes += part - size[0]
            size[0] = part

    def fake(self, value: Tensor) -> Tensor:
        """Return a tensor like a real one, whose values are followed."""
        fake = torch.empty(value.shape, dtype=value.dtype, device="cpu")
        fake._value = value  # type: ignore[attr-defined]
        return fake

    def __torch_dispatch__(  # type: ignore[no-untyped-def]  # torch's own
        self, function, types, args=(), kwargs=None
    ):
        kwargs = kwargs or {}
        if function is aten._local_scalar_dense.default:
            return self._number(args[0])
        if function is aten.equal.default:
            return self._equal(args)
        if function is aten.index.Tensor:
            args = (args[0], list(self._indices(args[1])))
        if function in _SIZED_BY_VALUES:
            result = self._sized_by_values(function, args)
        else:
            result = function(*args, **kwargs)
            self._follow(function, args, kwargs, result)
        for tensor in _tensors(result):
            self._count(tensor)
        return result

    def _count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, [storage.nbytes()]
        if key in self._alive or tensor.device.type != self._kind:
            return

        def gone(_: object) -> None:
            self.bytes -= self._alive.pop(key)[1][0]

        self._alive[key] = weakref.ref(storage, gone), size
        self.add(size[0])

    def _number(self, tensor: Tensor) -> Any:
        value = _value_of(tensor)
        if value is not None:
            with no_dispatch():
                return value.item()
        if tensor.dtype is torch.bool:
            return True
        return 1.0 if tensor.dtype.is_floating_point else 1

    def _equal(self, args: Any) -> bool:
        known = self._known(args)
        with no_dispatch():
            return known is not None and torch.equal(*known)

    def _known(self, args: Any) -> Any:
        """Return arguments with real tensors in the place of others; None if one is unknown."""
        if any(_value_of(tensor) is None for tensor in _tensors(args)):
            return None
        return tree_map(lambda x: _value_of(x) if isinstance(x, Tensor) else x, args)

    def _follow(self, function: Any, args: Any, kwargs: Any, result: Any) -> None:
        """Compute really what is small and can be; forget what is written over."""
        value = self._value(function, args, kwargs, result)
        if value is not None:
            for fake, real in zip(_tensors(result), _tensors(value), strict=True):
                fake._value = real  # type: ignore[attr-defined]
        elif function._schema.is_mutable:
            for tensor in _tensors(result):
                vars(tensor).pop("_value", None)

    def _value(self, function: Any, args: Any, kwargs: Any, result: Any) -> Any:
        """Return the real result of an operation; None if it is unknown, or large."""
        if any(tensor.numel() > FOLLOWED for tensor in _tensors(result)):
            return None
        if function in _SETTING:
            number = args[1] if len(args) > 1 else 0
            with no_dispatch():
                return torch.full(args[0].shape, number, dtype=args[0].dtype)
        known = self._known((args, kwargs)) if _is_certain(function) else None
        if known is None:
            return None
        places, named = known
        if "device" in named:
            named = {**named, "device": torch.device("cpu"), "pin_memory": False}
        with no_dispatch():
            return function(*places, **named)

    def _indices(self, indices: Iterable[Any]) -> Iterator[Any]:
        """Yield indices, those that are masks as the places where they are True, if known."""
        for index in indices:
            mask = isinstance(index, Tensor) and index.dtype is torch.bool
            value = _value_of(index) if mask else None
            if value is None:
                yield index
                continue
            with no_dispatch():
                places = value.nonzero(as_tuple=True)
            yield from map(self.fake, places)

    def _sized_by_values(self, function: Any, args: Any) -> Any:
        """Return the result of an operation whose size its last argument's values decide."""
        value = _value_of(args[-1])
        if value is None:
            return function(*args)  # which says that it is not
        with no_dispatch():
            places = value.nonzero()
        if function is aten.nonzero.default:
            return self.fake(places)
        return args[0].new_empty(len(places))


def _is_certain(function: Any) -> bool:
    """Whether the same arguments always give the same values, and give any."""
    name = function._schema.name
    return not (torch.Tag.nondeterministic_seeded in function.tags or "empty" in name)


def _value_of(tensor: Tensor) -> Tensor | None:
    """Return what is known to be in a tensor: one without a fake has it itself."""
    # An attribute, since torch exchanges no tensor that is referred to weakly.
    return tensor if type(tensor) is Tensor else vars(tensor).get("_value")


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]
