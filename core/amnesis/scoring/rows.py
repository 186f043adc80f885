"""Terms that look at each place by itself, summed over some rows of logits at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from amnesis.data.batches import places_of
from amnesis.scoring.scores import Needs, Scores

if TYPE_CHECKING:
    from torch import Tensor

    from amnesis.data.batches import Batch, MeanOver
    from amnesis.scoring.chunked_sums import SumOf


class RowTerm(Protocol):
    """A loss whose value at a place depends on the logits of that place alone."""

    @property
    def mean_over(self) -> MeanOver:
        """What its mean runs over."""

    def summed_at(self, scores: Scores, places: Tensor) -> Tensor:
        """Return the sum of its values at the True places, a scalar."""


def sums_of(
    term: RowTerm,
    batch: Batch,
    needs: Needs,
    rows: Tensor,
    reference: Scores | None,
    *,
    beside_itself: bool,
) -> Callable[[], SumOf]:
    """Return what makes the function that sums a term over some of the True places of ``rows``.

    ``reference`` holds the frozen reference's scores of those places; with ``beside_itself`` they
    are the model's own.
    """
    import torch

    mask, positions = batch.mask[rows], batch.positions[rows]
    labels = batch.labels[:, 1:][rows]
    places = places_of(batch.mask, batch.positions, term.mean_over)[rows]
    of_reference = Needs(ref_logits=needs.ref_logits, ref_top=needs.ref_top)

    def begin() -> SumOf:
        read = None if reference is None else reference.row_reader()

        def sum_of(chunk: slice, logits: Tensor) -> Tensor:
            here = mask[None, chunk]
            scores = Scores(
                here,
                positions[None, chunk],
                rows=torch.ones_like(here),
                labels=labels[None, chunk],
                logits=logits,
            )
            frozen = scores.detached() if beside_itself else read(chunk) if read else None
            if frozen is not None:
                scores = scores.beside(frozen, of_reference)
            return term.summed_at(scores, places[None, chunk])

        return sum_of

    return begin
