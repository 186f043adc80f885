"""A gradient's sum over ranks, sent part by part while the rest of it is still computed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from amnesis.errors import ContractError

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Parameter

SMALL = 1_000_000  # elements: smaller tensors travel together, for a message's latency counts
TOGETHER = 25_000_000  # elements of one message of several tensors, which is a copy of them


class RankSum:
    """Sums one gradient over all ranks, in place, in parts that go out as soon as they are whole.

    A backward pass ends at the first layers, so parts go from the last parameters to the first. All
    ranks send the same parts in the same order, also those that have nothing to add.
    """

    def __init__(self, parameters: Iterable[Parameter]) -> None:
        """Sum a gradient of those parameters; every rank must pass the same ones."""
        self._parts = list(_parts(list(parameters)[::-1]))
        self._part_of = {p: index for index, part in enumerate(self._parts) for p in part}
        self._gradients: dict[Parameter, Tensor] = {}
        self._sent: list[Callable[[], None]] = []  # each waits for its part

    @property
    def order(self) -> Sequence[Parameter]:
        """The parameters, in the order in which their sums arrive."""
        return list(self._part_of)

    def complete(self, p: Parameter) -> None:
        """Take ``p.grad``, to which nothing more is added on this rank, and send what is whole.

        Raises:
            ContractError: it has been taken before.
        """
        if p in self._gradients:
            raise ContractError(
                "last=True is for a stream's last backward pass alone, but a second one was made "
                "inside it; make the others before it"
            )
        if p.grad is not None:
            self._gradients[p] = p.grad
            self._send_whole()

    def close(self, gradient: Callable[[Parameter], Tensor]) -> None:
        """Send all that has not been sent; ``gradient`` returns this rank's own, zeros for none."""
        for p in self._part_of:
            if p not in self._gradients:
                self._gradients[p] = gradient(p)
        self._send_whole()

    def wait(self, p: Parameter) -> None:
        """Return when a parameter's gradient, which has been sent, is the sum over all ranks."""
        self._sent[self._part_of[p]]()

    def _send_whole(self) -> None:
        for part in self._parts[len(self._sent) :]:
            if any(p not in self._gradients for p in part):
                return  # parts go in order, so those behind it wait too
            self._sent.append(_sum([self._gradients[p] for p in part]))


def _sum(tensors: Sequence[Tensor]) -> Callable[[], None]:
    """Begin to sum tensors over ranks, in place; return what waits for the end, once or often."""
    import torch
    import torch.distributed as dist

    in_place = len(tensors) == 1 and tensors[0].is_contiguous()
    flat = tensors[0] if in_place else torch.cat([t.reshape(-1) for t in tensors])
    pending = [dist.all_reduce(flat, async_op=True)]

    def wait() -> None:
        if not pending:
            return
        pending.pop().wait()
        if not in_place:
            totals = torch.split(flat, [t.numel() for t in tensors])
            for tensor, total in zip(tensors, totals, strict=True):
                tensor.copy_(total.view_as(tensor))

    return wait


def _parts(parameters: Sequence[Parameter]) -> Iterator[list[Parameter]]:
    """Yield large parameters alone, which are summed where they are, and small ones together."""
    part: list[Parameter] = []
    for p in parameters:
        size = sum(q.numel() for q in part) + p.numel()
        if part and (p.numel() >= SMALL or size > TOGETHER or part[0].dtype != p.dtype):
            yield part
            part = []
        part.append(p)
        if p.numel() >= SMALL:
            yield part
            part = []
    if part:
        yield part
