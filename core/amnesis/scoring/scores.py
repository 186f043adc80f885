"""What one forward pass says about one batch, and which of it a component asks for.

Everything is aligned with labels: of a batch of ``width`` tokens there are ``tokens = width - 1``
places, and place i speaks of token i + 1 as predicted from the tokens before it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from amnesis.data.batches import IGNORED, MeanOver
from amnesis.errors import ContractError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Needs:
    """The scores that components read; what nobody needs is neither computed nor loaded.

    ``hidden`` and ``ref_hidden`` hold 0-based indices of transformer blocks. ``all_positions``
    asks for logits at prompt positions too, not only where there is a label. ``ref_top`` k asks
    for the reference's k most likely entries at each place instead of all its logits.
    """

    logps: bool = False
    ref_logps: bool = False
    logits: bool = False
    ref_logits: bool = False
    all_positions: bool = False
    hidden: frozenset[int] = frozenset()
    ref_hidden: frozenset[int] = frozenset()
    sequences: frozenset[str] = frozenset({"answer"})
    ref_top: int = 0

    def __or__(self, other: Needs) -> Needs:
        return Needs(
            self.logps or other.logps,
            self.ref_logps or other.ref_logps,
            self.logits or other.logits,
            self.ref_logits or other.ref_logits,
            self.all_positions or other.all_positions,
            self.hidden | other.hidden,
            self.ref_hidden | other.ref_hidden,
            self.sequences | other.sequences,
            max(self.ref_top, other.ref_top),
        )

    @property
    def reference(self) -> bool:
        """Whether anything of the frozen reference is needed."""
        return self.ref_logps or self.ref_logits or bool(self.ref_hidden or self.ref_top)

    @property
    def likelihood_only(self) -> bool:
        """Whether log-probabilities of label tokens are all that is read."""
        read = self.logits, self.ref_logits, self.hidden, self.ref_hidden, self.ref_top
        return not any(read)


class Scores:
    """Scores of one batch; reading one that was not computed, or not declared, raises.

    ``mask`` is True where a place has a label, ``positions`` on prompt and answer but not on
    padding, ``rows`` where :attr:`logits` have a row; all are ``(batch, tokens)``.
    """

    def __init__(
        self,
        mask: Tensor,
        positions: Tensor | None = None,
        *,
        rows: Tensor | None = None,
        sequences: Mapping[str, Scores] | None = None,
        **values: Any,
    ) -> None:
        """Hold ``values``: labels, logps, ref_logps, logits, ref_logits, hidden, ref_hidden.

        ``sequences`` are the scores of further texts of the same examples (``refusal``).
        """
        self.mask = mask
        self.positions = mask if positions is None else positions
        self.rows = mask if rows is None else rows
        self._sequences = dict(sequences or {})
        self._values = {name: value for name, value in values.items() if value is not None}
        self._needs: Needs | None = None
        self._reader = ""

    @classmethod
    def from_logits(
        cls,
        logits: Tensor,
        labels: Tensor,
        attention_mask: Tensor | None = None,
        *,
        ref_logits: Tensor | None = None,
    ) -> Scores:
        """Build scores from a model's own output, for use in a training loop of your own.

        ``logits`` and ``ref_logits`` are ``(batch, width, vocabulary)``, unshifted, as
        transformers gives them; ``labels`` is ``(batch, width)`` with -100 where there is none.
        """
        mask = labels[:, 1:] != IGNORED
        positions = mask if attention_mask is None else attention_mask[:, 1:].bool()
        own = logits[:, :-1][positions]
        ref = None if ref_logits is None else ref_logits[:, :-1][positions].detach()
        picked, targets = mask[positions], labels[:, 1:][mask]
        return cls(
            mask,
            positions,
            rows=positions,
            labels=labels[:, 1:],
            logits=own,
            ref_logits=ref,
            logps=unpack(mask, label_logps(own[picked], targets)),
            ref_logps=None if ref is None else unpack(mask, label_logps(ref[picked], targets)),
        )

    def restricted_to(self, needs: Needs, reader: str) -> Scores:
        """Return a view in which only declared scores can be read, naming ``reader`` if it errs."""
        view = Scores(self.mask, self.positions, rows=self.rows, **self._values)
        view._sequences = {
            name: scores.restricted_to(needs, reader) for name, scores in self._sequences.items()
        }
        view._needs, view._reader = needs, reader
        return view

    def of(self, sequence: str) -> Scores:
        """Return the scores of one of the examples' texts: ``answer`` is this one."""
        if sequence == "answer":
            return self
        if sequence not in self._sequences:
            raise ContractError(f"{self._who}needs the sequence {sequence!r}, which was not scored")
        if self._needs is not None and sequence not in self._needs.sequences:
            raise ContractError(
                f"{self._reader} reads the sequence {sequence!r} without declaring it; "
                f"add it to `needs`"
            )
        return self._sequences[sequence]

    @property
    def labels(self) -> Tensor:
        """Token ids of the labels, -100 elsewhere, ``(batch, tokens)``; need not be declared."""
        if "labels" not in self._values:
            raise ContractError(f"{self._who}reads 'labels', which were not given")
        labels: Tensor = self._values["labels"]
        return labels

    @property
    def logps(self) -> Tensor:
        """Log-probability of each label token, 0 elsewhere, ``(batch, tokens)``."""
        return self._read("logps")

    @property
    def ref_logps(self) -> Tensor:
        """The same under the frozen reference, without gradient."""
        return self._read("ref_logps")

    @property
    def logits(self) -> Tensor:
        """Logits of the places in :attr:`rows`, in reading order, ``(rows, vocabulary)``."""
        return self._read("logits")

    @property
    def ref_logits(self) -> Tensor:
        """The same under the frozen reference, without gradient."""
        return self._read("ref_logits")

    @property
    def ref_top(self) -> tuple[Tensor, Tensor]:
        """The reference's likeliest entries: log-probabilities and indices, ``(rows, k)``."""
        value: tuple[Tensor, Tensor] = self._read("ref_top")  # type: ignore[assignment]
        return value

    def top(self, k: int) -> tuple[Tensor, Tensor]:
        """Return the k likeliest entries at each place, likeliest first, as :attr:`ref_top` does."""
        if "top" in self._values:
            logps, indices = self._values["top"]
            return logps[:, :k], indices[:, :k]
        found = self.logits.float().log_softmax(-1).topk(min(k, self.logits.shape[-1]))
        return found.values, found.indices

    def hidden(self, block: int) -> Tensor:
        """Output of a 0-based block at the label tokens themselves, ``(batch, tokens, width)``."""
        return self._read_block("hidden", block)

    def ref_hidden(self, block: int) -> Tensor:
        """The same under the frozen reference, without gradient."""
        return self._read_block("ref_hidden", block)

    def unpack(self, values: Tensor) -> Tensor:
        """Lay values of :attr:`rows` out as ``(batch, tokens)``, 0 elsewhere."""
        return unpack(self.rows, values)

    def count(self, mean_over: MeanOver) -> int:
        """Return the number of items of this batch that a mean runs over."""
        if mean_over == "examples":
            return self.mask.shape[0]
        return int((self.mask if mean_over == "tokens" else self.positions).sum())

    @property
    def _who(self) -> str:
        return f"{self._reader} " if self._reader else "a component "

    def _read(self, name: str) -> Tensor:
        if self._needs is not None and not getattr(self._needs, name):
            raise ContractError(
                f"{self._reader} reads {name!r} without declaring it; add it to `needs`"
            )
        if name not in self._values:
            raise ContractError(f"{self._who}reads {name!r}, which was not computed")
        value: Tensor = self._values[name]
        return value

    def _read_block(self, name: str, block: int) -> Tensor:
        if self._needs is not None and block not in getattr(self._needs, name):
            raise ContractError(
                f"{self._reader} reads {name}({block}) without declaring it; add it to `needs`"
            )
        blocks: dict[int, Tensor] = self._values.get(name, {})
        if block not in blocks:
            raise ContractError(f"{self._who}reads {name}({block}), which was not computed")
        return blocks[block]


def label_logps(logits: Tensor, targets: Tensor) -> Tensor:
    """Return log-probabilities ``(rows,)`` of ``targets`` under ``logits`` ``(rows, vocabulary)``.

    Half precision is summed in float32; float32 and float64 stay what they are.
    """
    wide = logits.float() if logits.element_size() < 4 else logits
    # One pass over the vocabulary, where gather minus logsumexp would be five.
    logps: Tensor = wide.log_softmax(-1).gather(-1, targets[:, None]).squeeze(-1)
    return logps


def unpack(mask: Tensor, values: Tensor) -> Tensor:
    """Lay ``values`` out at the True places of ``mask``, in reading order, 0 elsewhere."""
    laid: Tensor = values.new_zeros(mask.shape).masked_scatter(mask, values)
    return laid
