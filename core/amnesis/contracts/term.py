"""Terms: objectives and regularizers are the same thing in different streams."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from amnesis.contracts.component import Component
from amnesis.data.batches import MeanOver
from amnesis.errors import ContractError
from amnesis.scoring.scores import Needs, Scores

if TYPE_CHECKING:
    from torch import Tensor


class TermBase(Component):
    """A loss that is returned unreduced: masking, summing and dividing happen once, in the core.

    ``averaged_over`` says what the mean runs over, and with it the shape that :meth:`unreduced`
    returns: ``tokens`` (label tokens) and ``positions`` (prompt and answer, never padding) ask for
    ``(batch, tokens)``, ``examples`` for ``(batch,)``. The divisor is counted over all
    micro-batches and ranks of the optimizer step, so accumulation is exact by construction.
    ``sequence`` names the text whose tokens are counted: the ``answer``, or a ``refusal``.
    ``risk_multiple`` is c where the loss is c times the risk R = −mean ℓ, so that ∇R need not be
    computed beside it.
    """

    averaged_over: ClassVar[MeanOver] = "tokens"
    sequence: ClassVar[str] = "answer"
    risk_multiple: ClassVar[float | None] = None

    @property
    def mean_over(self) -> MeanOver:
        """What the mean runs over; override it where a hyper-parameter decides."""
        return self.averaged_over

    @property
    @abstractmethod
    def needs(self) -> Needs:
        """The scores that :meth:`unreduced` reads; nothing else is computed or loaded for it."""

    def texts(self) -> Mapping[str, Callable[[Mapping[str, Any]], str]]:
        """Return the further texts that it reads, by name: how each follows from an example's row.

        A text stands where the answer stands, after the same prompt. It must be the same whenever
        it is asked for, so that the reference's score of it can be cached.
        """
        return {}

    @abstractmethod
    def unreduced(self, scores: Scores) -> Tensor:
        """Return the values before masking and averaging, from what the model said of a batch."""

    def summed(self, scores: Scores) -> Tensor:
        """Return the masked sum of the values: a scalar, before the step's one division.

        Raises:
            ContractError: an undeclared score was read, or the shape is not the promised one.
        """
        values = self.unreduced(scores.restricted_to(self.needs, self.label))
        return self._masked_sum(values, scores.of(self.sequence))

    def count(self, scores: Scores) -> int:
        """Return the number of items that the mean over this one batch runs over."""
        return scores.of(self.sequence).count(self.mean_over)

    def _masked_sum(self, values: Tensor, own: Scores) -> Tensor:
        if not hasattr(values, "shape"):
            raise ContractError(f"{self.label}: terms must give a tensor, not {values!r:.80}")
        examples, tokens = own.mask.shape
        promised = (examples,) if self.mean_over == "examples" else (examples, tokens)
        if tuple(values.shape) != promised:
            raise ContractError(
                f"{self.label} is averaged over {self.mean_over}, so its terms must have the shape "
                f"{promised}, but they have {tuple(values.shape)}"
            )
        if self.mean_over != "examples":
            counted = own.mask if self.mean_over == "tokens" else own.positions
            values = values.masked_fill(~counted, 0)
        return values.sum()


class Term(TermBase):
    """A loss of anything one forward pass says: hidden states, logits, reference scores."""

    def unreduced(self, scores: Scores) -> Tensor:
        """Return :meth:`terms`."""
        return self.terms(scores)

    @abstractmethod
    def terms(self, scores: Scores) -> Tensor:
        """Return ``(batch, tokens)`` or ``(batch,)`` values, as ``averaged_over`` promises."""

    def loss(self, scores: Scores) -> Tensor:
        """Return the reduced loss of one batch, for use in a training loop of your own."""
        return self.summed(scores) / max(self.count(scores), 1)


class LikelihoodTerm(TermBase):
    """A loss of the label tokens' log-probabilities alone.

    It never sees logits, so the core need not keep them, and its G-effect factorises over tokens.
    """

    reads_reference: ClassVar[bool] = False

    @property
    def needs(self) -> Needs:
        """Log-probabilities of the sequence, and the reference's where the class reads them."""
        return Needs(
            logps=True, ref_logps=self.reads_reference, sequences=frozenset({self.sequence})
        )

    def unreduced(self, scores: Scores) -> Tensor:
        """Return :meth:`terms` of the sequence's log-probabilities."""
        own = scores.of(self.sequence)
        return self.terms(own.logps, own.mask, own.ref_logps if self.reads_reference else None)

    @abstractmethod
    def terms(self, logps: Tensor, mask: Tensor, ref_logps: Tensor | None = None) -> Tensor:
        """Return the values of each token ``(batch, tokens)`` or each example ``(batch,)``.

        ``logps[b, i]`` is the log-probability of label token i, 0 where ``mask`` is False;
        ``ref_logps`` is the frozen reference's, without gradient.
        """

    def loss(self, logps: Tensor, mask: Tensor, ref_logps: Tensor | None = None) -> Tensor:
        """Return the reduced loss of one batch, for use in a training loop of your own.

        ``logps``, ``mask`` and ``ref_logps`` are ``(batch, tokens)``.

        Raises:
            ContractError: the shapes differ, or a reference is needed and missing.
        """
        if logps.shape != mask.shape or logps.dim() != 2:
            raise ContractError(
                f"{self.label}: logps and mask must both be (batch, tokens), but are "
                f"{tuple(logps.shape)} and {tuple(mask.shape)}"
            )
        if self.reads_reference and ref_logps is None:
            raise ContractError(f"{self.label} needs ref_logps, the reference's log-probabilities")
        if ref_logps is not None and ref_logps.shape != mask.shape:
            raise ContractError(
                f"{self.label}: ref_logps must be {tuple(mask.shape)} as logps is, but is "
                f"{tuple(ref_logps.shape)}"
            )
        own = Scores(mask.bool())
        if ref_logps is not None:
            ref_logps = ref_logps.detach().masked_fill(~own.mask, 0)
        values = self.terms(logps.masked_fill(~own.mask, 0), own.mask, ref_logps)
        return self._masked_sum(values, own) / max(own.count(self.mean_over), 1)
