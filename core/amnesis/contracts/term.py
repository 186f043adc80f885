"""Terms: the losses of both streams, called objective in the one and regularizer in the other."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

from amnesis.contracts.component import Component
from amnesis.contracts.weight import State
from amnesis.data.batches import MeanOver, places_of
from amnesis.errors import ContractError
from amnesis.scoring.scores import Needs, Scores

if TYPE_CHECKING:
    from torch import Tensor


NO_STATE: State = MappingProxyType({})


class TermBase(Component):
    """A loss that returns unreduced values.

    Derive from :class:`LikelihoodTerm`, :class:`Term` or :class:`StatefulTerm`.

    The core masks the values, sums them, and divides once by a count over all micro-batches and
    ranks of the optimizer step. So gradient accumulation is exact by construction, and padding has
    no effect.

    Attributes:
        averaged_over: what the mean runs over, which decides the shape of the values: ``tokens``
            (label tokens), ``tokens_after_first`` (without each text's first) and ``positions``
            (prompt and answer) are ``(batch, tokens)``, ``examples`` is ``(batch,)``.
        sequence: the text that the mean runs over: ``answer``, or one of :meth:`texts`.
        risk_multiple: c if the loss is c times the risk R = −mean ℓ, so that a probe that reads ∇R
            costs no backward pass of its own; else None.
    """

    averaged_over: ClassVar[MeanOver] = "tokens"
    sequence: ClassVar[str] = "answer"
    risk_multiple: ClassVar[float | None] = None

    @property
    def mean_over(self) -> MeanOver:
        """What the mean runs over; override it if a hyper-parameter decides that."""
        return self.averaged_over

    @property
    @abstractmethod
    def needs(self) -> Needs:
        """The scores that the term reads; no others are computed or loaded for it."""

    def texts(self) -> Mapping[str, Callable[[Mapping[str, Any]], str]]:
        """Return the functions that make further texts from an example's row, by name.

        Each text, such as a ``refusal``, is scored in the answer's place, after the same prompt. A
        function must return the same text for a row every time, since the reference's scores of it
        are cached.
        """
        return {}

    @property
    def columns(self) -> frozenset[str]:
        """The columns that every row must have beside those of the template."""
        return frozenset()

    @abstractmethod
    def unreduced(self, scores: Scores, state: State = NO_STATE) -> Tensor:
        """Return the values before masking and averaging, in the shape of ``averaged_over``."""

    def summed(self, scores: Scores, state: State = NO_STATE) -> Tensor:
        """Return the sum of the values that count, a scalar: the mean before its division.

        ``state`` is that of a :class:`StatefulTerm`.

        Raises:
            ContractError: a score was read that ``needs`` does not declare, or the values do not
                have the shape of ``averaged_over``.
        """
        in_chunks = scores.sum_of(self)
        if in_chunks is not None:
            return in_chunks
        values = self.unreduced(scores.restricted_to(self.needs, self.label), state)
        return self._masked_sum(values, scores.of(self.sequence))

    def count(self, scores: Scores) -> int:
        """Return the number of items in this batch that the mean runs over."""
        return scores.of(self.sequence).count(self.mean_over)

    def _masked_sum(self, values: Tensor, scores: Scores, places: Tensor | None = None) -> Tensor:
        if not hasattr(values, "shape"):
            raise ContractError(f"{self.label}: terms must give a tensor, not {values!r:.80}")
        examples, tokens = scores.mask.shape
        shape = (examples,) if self.mean_over == "examples" else (examples, tokens)
        if tuple(values.shape) != shape:
            raise ContractError(
                f"{self.label} is averaged over {self.mean_over}, so its terms must have the shape "
                f"{shape}, but they have {tuple(values.shape)}"
            )
        if self.mean_over != "examples":
            if places is None:
                places = places_of(scores.mask, scores.positions, self.mean_over)
            values = values.masked_fill(~places, 0)
        return values.sum()


class Term(TermBase):
    """A loss of any scores of a forward pass: logits, hidden states, log-probabilities.

    ``needs`` must declare each score that :meth:`terms` reads.

    Attributes:
        by_place: whether the value at a place depends on nothing but that place's own logits,
            label, and reference's logits or likeliest entries, in the answer. The core then need
            not hold the logits of all places: it hands :meth:`terms` the scores of some places at a
            time, as one example, and takes the gradient of each part at once.
    """

    by_place: ClassVar[bool] = False

    @property
    def is_by_place(self) -> bool:
        """Whether it is :attr:`by_place`, reads logits alone, and is a mean over places."""
        needs = self.needs
        others = needs.logps or needs.ref_logps or needs.hidden or needs.ref_hidden
        over_places = self.sequence == "answer" and self.mean_over != "examples"
        return self.by_place and over_places and not others

    def summed_at(self, scores: Scores, places: Tensor) -> Tensor:
        """Return the sum of the values at the True ``places``, ``(batch, tokens)``, a scalar.

        Raises:
            ContractError: as :meth:`summed` does.
        """
        values = self.terms(scores.restricted_to(self.needs, self.label))
        return self._masked_sum(values, scores, places)

    def unreduced(self, scores: Scores, state: State = NO_STATE) -> Tensor:
        """Return what :meth:`terms` returns."""
        return self.terms(scores)

    @abstractmethod
    def terms(self, scores: Scores) -> Tensor:
        """Return values ``(batch, tokens)``, or ``(batch,)`` if averaged over examples."""

    def loss(self, scores: Scores) -> Tensor:
        """Return the mean over one batch, a scalar, for a training loop of your own.

        Raises:
            ContractError: an undeclared score was read, or the values have the wrong shape.
        """
        return self.summed(scores) / max(self.count(scores), 1)


class StatefulTerm(TermBase):
    """A loss of any scores, and of numbers that the run has measured so far.

    The state belongs to a step: every micro-batch and rank of it sees the same. What
    :meth:`measured` returns is summed over the whole step, and :meth:`advance` makes of it the next
    state. Before the first step the core measures its batches without training on them.
    """

    @abstractmethod
    def terms(self, scores: Scores, state: State) -> Tensor:
        """Return values ``(batch, tokens)``, or ``(batch,)`` if averaged over examples."""

    @abstractmethod
    def measured(self, scores: Scores) -> Mapping[str, Tensor]:
        """Return sums over a micro-batch, scalars by name; their gradient is not used."""

    @abstractmethod
    def advance(self, state: State, step: int, measured: Mapping[str, float]) -> State:
        """Return the next state, given what was measured of a step.

        It is called before step 0 with an empty state and ``step`` −1, and then after each step.
        """

    def unreduced(self, scores: Scores, state: State = NO_STATE) -> Tensor:
        """Return what :meth:`terms` returns; without a state, with that of these scores alone."""
        if not state:
            sums = {name: float(value) for name, value in self.measured(scores).items()}
            state = self.advance(NO_STATE, -1, sums)
        return self.terms(scores, state)


class LikelihoodTerm(TermBase):
    """A loss of the label tokens' log-probabilities alone.

    With ``reads_reference`` it also reads those of the frozen reference. Since it reads no logits,
    the core need not keep them, and its G-effect factorises over tokens.
    """

    reads_reference: ClassVar[bool] = False

    @property
    def needs(self) -> Needs:
        """Log-probabilities of the sequence, and with ``reads_reference`` the reference's."""
        return Needs(
            logps=True, ref_logps=self.reads_reference, sequences=frozenset({self.sequence})
        )

    def unreduced(self, scores: Scores, state: State = NO_STATE) -> Tensor:
        """Return what :meth:`terms` returns for the log-probabilities of the term's sequence."""
        text = scores.of(self.sequence)
        return self.terms(text.logps, text.mask, text.ref_logps if self.reads_reference else None)

    @abstractmethod
    def terms(self, logps: Tensor, mask: Tensor, ref_logps: Tensor | None = None) -> Tensor:
        """Return values ``(batch, tokens)``, or ``(batch,)`` if averaged over examples.

        All arguments are ``(batch, tokens)``. ``logps`` is the log-probability of each label token,
        and 0 where ``mask`` is False; ``ref_logps`` is the frozen reference's, without gradient,
        and None without ``reads_reference``. Masking, summing and dividing are the core's.
        """

    def loss(self, logps: Tensor, mask: Tensor, ref_logps: Tensor | None = None) -> Tensor:
        """Return the mean over one batch, a scalar, for a training loop of your own.

        ``logps``, ``mask`` and ``ref_logps`` are ``(batch, tokens)``.

        Raises:
            ContractError: the shapes differ, or ``ref_logps`` is needed and missing.
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
        scores = Scores(mask.bool())
        if ref_logps is not None:
            ref_logps = ref_logps.detach().masked_fill(~scores.mask, 0)
        values = self.terms(logps.masked_fill(~scores.mask, 0), scores.mask, ref_logps)
        return self._masked_sum(values, scores) / max(scores.count(self.mean_over), 1)
