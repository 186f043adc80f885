"""The forward and backward passes of an optimizer step, over the micro-batches of one stream."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal, Protocol

from amnesis.contracts.perturbation import ActivationPerturbation, WeightPerturbation
from amnesis.contracts.stream import Risk, StreamLoss, WeightedTerm, risk
from amnesis.distributed.processes import added_over_ranks, gathered_names, world
from amnesis.errors import RecipeError
from amnesis.scoring.forward import score, score_beside_itself
from amnesis.scoring.scores import Needs
from amnesis.training.perturbing import DisplacedWeights, PerturbedBlock
from amnesis.training.report import RISKS

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from transformers import PreTrainedModel

    from amnesis.contracts.perturbation import Perturbation
    from amnesis.data.batches import Batch
    from amnesis.scoring.head import ChunkedHead
    from amnesis.scoring.reference import Reference
    from amnesis.scoring.scores import Scores
    from amnesis.training.streams import Streams

Stream = Literal["forget", "retain"]
# What the backward passes are made inside, given whether the stream's last one follows.
Into = Callable[[bool], AbstractContextManager[None]]


class Backward(Protocol):
    """Runs the backward pass of a loss, scaled as precision and sharding ask."""

    def __call__(self, loss: Tensor, *, retain_graph: bool = False) -> None:
        """Add the loss's gradient to every ``p.grad``."""


@dataclass(frozen=True, kw_only=True)
class StreamMeans:
    """What a stream's passes measured, over the whole step and all ranks.

    Attributes:
        loss: the stream's loss.
        terms: the mean of each of its terms, without weights.
        measured: what each term with a state measured; sums by name.
    """

    loss: float
    terms: Sequence[float]
    measured: Sequence[dict[str, float]]

    def plus(self, other: StreamMeans, share: float) -> StreamMeans:
        """Return the sum with another point's means, of which ``share`` counts."""
        terms = [a + share * b for a, b in zip(self.terms, other.terms, strict=True)]
        return StreamMeans(loss=self.loss + other.loss, terms=terms, measured=other.measured)


class Passes:
    """Runs a stream's passes, and leaves the gradient in the step's :class:`Streams`.

    The forget stream's are run at the points of a perturbation, if there is one; every other
    gradient, and every risk that a probe reads, is taken at θ.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        streams: Streams,
        head: ChunkedHead,
        perturbation: Perturbation | None,
        *,
        seed: int,
        device: torch.device,
        computing: Callable[[], AbstractContextManager[None]],
        autocast: Callable[[], AbstractContextManager[None]],
        backward: Backward,
    ) -> None:
        """Take the model and where its gradients go.

        ``computing`` and ``autocast`` enter the precision of losses, and that of a forward pass
        which does not enter it by itself.
        """
        self._model, self._streams, self._head = model, streams, head
        self._perturbation, self._seed = perturbation, seed
        self._device, self._backward = device, backward
        self._computing, self._autocast = computing, autocast
        self._latest: dict[str, Batch] = {}
        self._block = (
            PerturbedBlock(model, perturbation)
            if isinstance(perturbation, ActivationPerturbation)
            else None
        )

    def run(
        self,
        stream: Stream,
        loss: StreamLoss,
        batches: Sequence[Batch],
        reference: Reference | None,
        *,
        step: int,
        is_its_own_reference: bool,
        wants_risk: bool,
    ) -> StreamMeans:
        """Run the passes of one stream; return its means.

        ``is_its_own_reference`` says that no weight has moved yet; ``wants_risk`` also collects the
        gradient of the risk on the same batches.

        Raises:
            NonFiniteError: a term's value is infinite or NaN.
            RecipeError: nothing that trains has a part in the loss.
        """
        risk_into = partial(self._streams.collect, RISKS[stream]) if wants_risk else None
        if stream == "retain" or self._perturbation is None:
            into = self._streams.retain if stream == "retain" else self._streams.forget
            completed = partial(self._streams.complete, stream)
            return self._pass(
                loss, batches, reference, into, is_its_own_reference, risk_into, completed
            )
        if risk_into is not None:
            collect = risk_into
            self._pass(_risk_alone(loss), batches, None, lambda last: collect(), False)
        return self._perturbed(loss, batches, reference, step)

    def measure(
        self, loss: StreamLoss, batches: Sequence[Batch], reference: Reference | None
    ) -> list[dict[str, float]]:
        """Return what the loss's terms measure of a step, without training on it."""
        import torch

        totals: list[dict[str, float]] = [{} for _ in loss.terms]
        with torch.no_grad():
            for batch in (b.to(self._device) for b in batches):
                with self._computing():
                    scores = self._score(batch, loss, loss.needs, reference, False)
                    _add(totals, loss.measured(scores))
        return _over_ranks(totals)

    def _perturbed(
        self,
        loss: StreamLoss,
        batches: Sequence[Batch],
        reference: Reference | None,
        step: int,
    ) -> StreamMeans:
        def into(last: bool) -> AbstractContextManager[None]:
            return self._streams.forget()

        if not isinstance(self._perturbation, WeightPerturbation):
            return self._pass(loss, batches, reference, into, False, block=self._block)
        losses = {"objective": loss, "risk": _risk_alone(loss)}

        def collected(of: Literal["objective", "risk"]) -> None:
            self._pass(losses[of], batches, reference, lambda last: nullcontext(), False)

        weights = DisplacedWeights(self._streams, collected, f"{self._seed}/{step}")
        means: StreamMeans | None = None
        try:
            for share in self._perturbation.points(weights):
                there = self._pass(loss.times(share), batches, reference, into, False)
                none = StreamMeans(loss=0.0, terms=[0.0] * len(loss.terms), measured=())
                means = (means or none).plus(there, share)
                weights.restore()
        finally:
            weights.restore()
        if means is None:
            raise RecipeError(f"{self._perturbation.label} yields no point to take a gradient at")
        return means

    def _pass(
        self,
        loss: StreamLoss,
        batches: Sequence[Batch],
        reference: Reference | None,
        into: Into,
        is_its_own_reference: bool,
        risk_into: Callable[[], AbstractContextManager[None]] | None = None,
        completed: Callable[[], None] = lambda: None,
        block: PerturbedBlock | None = None,
    ) -> StreamMeans:
        """Run forward and backward passes over a step's micro-batches, at where the weights are.

        ``completed`` is called after them, before anything else that ranks exchange.
        """
        needs = loss.needs | Needs(logps=True) if risk_into is not None else loss.needs
        counts = added_over_ranks(loss.counts(batches))
        shares: list[Tensor] = []  # of the loss and of each term, by micro-batch
        measured: list[dict[str, float]] = [{} for _ in loss.terms]
        passes = self._in_step_with_others(loss, batches)
        for index, batch in enumerate(batch.to(self._device) for batch in passes):
            share = float(index < len(batches))  # a repeated batch counts nothing
            with self._around(block, batch):
                with self._computing():
                    scores = self._score(batch, loss, needs, reference, is_its_own_reference)
                    terms = loss.shares(scores, counts)
                    total = loss.total(terms)
                    if loss.has_state and share:
                        _add(measured, loss.measured(scores))
                if not total.requires_grad:
                    raise RecipeError(
                        f"no parameter that trains has a part in the {loss.name} stream's loss: "
                        f"let others train (trainable, lora), or give it another term"
                    )
                if risk_into is not None:
                    with risk_into():
                        self._backward(share * risk(scores, counts), retain_graph=True)
                with into(index == len(passes) - 1):
                    self._backward(share * total)
            if share:
                shares.append(_stacked([total, *terms]))
        completed()
        # Read after all passes, so that none of them waits for the device.
        sums = [sum(column) for column in zip(*(s.tolist() for s in shares), strict=True)]
        means = added_over_ranks(dict(enumerate(sums or [0.0] * (1 + len(loss.terms)))))
        by_term = [means[1 + index] for index in range(len(loss.terms))]
        loss.check_finite(by_term)
        sums_by_term = _over_ranks(measured) if loss.has_state else measured
        return StreamMeans(loss=means[0], terms=by_term, measured=sums_by_term)

    def _in_step_with_others(self, loss: StreamLoss, batches: Sequence[Batch]) -> list[Batch]:
        """Return the micro-batches, the last one repeated where shards need all ranks to pass.

        Parameters that are sharded are gathered by all ranks together, in every pass, so each must
        make as many as the one with the most micro-batches.
        """
        if batches:
            self._latest[loss.name] = batches[-1]
        if not self._streams.sharded:
            return list(batches)
        rank, ranks = world()
        numbers = added_over_ranks({r: len(batches) if r == rank else 0 for r in range(ranks)})
        missing = max(numbers.values()) - len(batches)
        if missing and loss.name not in self._latest:
            raise RecipeError(
                f"{ranks} processes share {sum(numbers.values())} micro-batches of the {loss.name} "
                f"stream: raise training.batch_size, so that each has one"
            )
        return [*batches, *([self._latest[loss.name]] * missing)]

    def _around(self, block: PerturbedBlock | None, batch: Batch) -> AbstractContextManager[None]:
        if block is None:
            return nullcontext()

        def plain(needs: Needs) -> Scores:
            with self._computing():
                return score(self._model, batch, needs, head=self._head)

        return block.perturbed(batch, plain)

    def _score(
        self,
        batch: Batch,
        loss: StreamLoss,
        needs: Needs,
        reference: Reference | None,
        is_its_own_reference: bool,
    ) -> Scores:
        head, row_terms = self._head, loss.row_terms
        if reference is None:
            return score(self._model, batch, needs, None, head, row_terms)
        if is_its_own_reference:
            return score_beside_itself(self._model, batch, needs, head, row_terms)
        with self._autocast():  # which the model's own forward brings along
            frozen = reference.scores(batch, needs)
        return score(self._model, batch, needs, frozen, head, row_terms)


def _risk_alone(loss: StreamLoss) -> StreamLoss:
    return StreamLoss(loss.name, (WeightedTerm(Risk()),))


def _stacked(values: Sequence[Tensor]) -> Tensor:
    import torch

    return torch.stack([value.detach().double() for value in values])


def _add(totals: list[dict[str, float]], measured: Sequence[dict[str, Tensor]]) -> None:
    for total, sums in zip(totals, measured, strict=True):
        for name, value in sums.items():
            total[name] = total.get(name, 0.0) + float(value)


def _over_ranks(totals: Sequence[dict[str, float]]) -> list[dict[str, float]]:
    """Return each sum over all ranks; one that had no batch has measured nothing."""
    return [
        added_over_ranks({name: total.get(name, 0.0) for name in gathered_names(total)})
        for total in totals
    ]
