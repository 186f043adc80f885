"""The scores of a batch from one forward pass, and the declaration of which are needed.

All scores are aligned with labels: a batch of ``width`` tokens has ``tokens = width - 1`` places,
and place i is about token i + 1, as predicted from the tokens before it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from amnesis.data.batches import IGNORED, MeanOver, places_of
from amnesis.errors import ContractError
from amnesis.scoring.logits import FrozenLogits

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Needs:
    """The scores that a component reads; no others are computed or loaded for it.

    ``needs | others`` is the union of two.

    Attributes:
        logps: log-probabilities of the label tokens.
        ref_logps: the same of the frozen reference.
        logits: logits, at the places of label tokens.
        ref_logits: the same of the frozen reference.
        all_positions: logits at prompt positions too.
        hidden: hidden states after these transformer blocks, counted from 0.
        ref_hidden: the same of the frozen reference.
        sequences: the texts of each example that are scored: ``answer``, or further ones.
        ref_top: how many of the reference's most likely vocabulary entries at each place; they
            take far less memory than all its logits.
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
        """Whether any score of the frozen reference is needed."""
        return self.ref_logps or self.ref_logits or bool(self.ref_hidden or self.ref_top)

    @property
    def reads_logits(self) -> bool:
        """Whether logits of the model or of the reference are read, or the likeliest of these."""
        return self.logits or self.ref_logits or self.ref_top > 0

    @property
    def likelihood_only(self) -> bool:
        """Whether nothing but log-probabilities of label tokens is needed."""
        others = self.logits, self.ref_logits, self.hidden, self.ref_hidden, self.ref_top
        return not any(others)


class Scores:
    """The scores of one batch.

    Reading a score that was not computed, or that the reader's ``needs`` do not declare, raises a
    :class:`~amnesis.errors.ContractError` that names the reader.

    Attributes:
        mask: True at the places of label tokens, ``(batch, tokens)``.
        positions: True at the places of prompt and answer, not of padding, ``(batch, tokens)``.
        rows: True at the places for which :attr:`logits` has a row, ``(batch, tokens)``.
    """

    def __init__(
        self,
        mask: Tensor,
        positions: Tensor | None = None,
        *,
        rows: Tensor | None = None,
        sequences: Mapping[str, Scores] | None = None,
        needs: Needs | None = None,
        reader: str = "",
        **values: Any,
    ) -> None:
        """Create scores from ``values``, named as the properties and methods that return them.

        ``positions`` and ``rows`` default to ``mask``; ``hidden`` and ``ref_hidden`` are mappings
        from block to tensor; ``sequences`` are the scores of further texts of the same examples
        (``refusal``). With ``needs``, only the scores that they declare can be read, by ``reader``.
        """
        self.mask = mask
        self.positions = mask if positions is None else positions
        self.rows = mask if rows is None else rows
        self._sequences = dict(sequences or {})
        self._values = {name: value for name, value in values.items() if value is not None}
        self._needs, self._reader = needs, reader

    @classmethod
    def from_logits(
        cls,
        logits: Tensor,
        labels: Tensor,
        attention_mask: Tensor | None = None,
        *,
        ref_logits: Tensor | None = None,
    ) -> Scores:
        """Return the scores in a model's output, for a training loop of your own.

        ``logits`` and ``ref_logits`` are ``(batch, width, vocabulary)``, not shifted, as
        transformers returns them; ``labels`` is ``(batch, width)``, with -100 where there is no
        label, and ``attention_mask`` ``(batch, width)``. Without an attention mask, positions are
        those of label tokens.
        """
        mask = labels[:, 1:] != IGNORED
        positions = mask
        if attention_mask is not None:
            positions = (attention_mask[:, 1:] * attention_mask[:, :-1]).bool()
        flat = logits[:, :-1][positions]
        ref_flat = None if ref_logits is None else ref_logits[:, :-1][positions].detach()
        is_label, targets = mask[positions], labels[:, 1:][mask]
        ref_logps = None if ref_flat is None else label_logps(ref_flat[is_label], targets)
        return cls(
            mask,
            positions,
            rows=positions,
            labels=labels[:, 1:],
            logits=flat,
            ref_logits=ref_flat,
            logps=unpack(mask, label_logps(flat[is_label], targets)),
            ref_logps=None if ref_logps is None else unpack(mask, ref_logps),
        )

    def restricted_to(self, needs: Needs, reader: str) -> Scores:
        """Return the same scores, of which only those in ``needs`` can be read.

        ``reader`` is what errors call the component that reads them.
        """
        return Scores(
            self.mask,
            self.positions,
            rows=self.rows,
            sequences={
                name: scores.restricted_to(needs, reader)
                for name, scores in self._sequences.items()
            },
            needs=needs,
            reader=reader,
            **self._values,
        )

    def detached(self) -> Scores:
        """Return the same scores without their gradient."""
        values: dict[str, Any] = {
            name: {block: state.detach() for block, state in value.items()}
            if isinstance(value, dict)
            else value.detach()
            for name, value in self._values.items()
            if name != "sums"
        }
        sequences = {name: scores.detached() for name, scores in self._sequences.items()}
        return Scores(self.mask, self.positions, rows=self.rows, sequences=sequences, **values)

    def beside(self, reference: Scores, needs: Needs) -> Scores:
        """Return the same scores with those of a reference that ``needs`` declare."""
        sequences = {
            name: scores.beside(reference.of(name), needs)
            for name, scores in self._sequences.items()
        }
        values = dict(self._values)
        if "answer" in needs.sequences:
            values |= {
                "ref_logps": reference.logps if needs.ref_logps else None,
                "ref_logits": reference._values.get("logits") if needs.ref_logits else None,
                "ref_top": reference._likeliest(needs.ref_top) if needs.ref_top else None,
                "ref_hidden": {block: reference.hidden(block) for block in needs.ref_hidden},
            }
        return Scores(self.mask, self.positions, rows=self.rows, sequences=sequences, **values)

    def sum_of(self, term: object) -> Tensor | None:
        """Return the sum of a term's values, if it was computed in place of logits."""
        sums: list[tuple[object, Tensor]] = self._values.get("sums", [])
        return next((value for summed, value in sums if summed is term), None)

    @property
    def holds_sums(self) -> bool:
        """Whether sums of terms were computed in place of logits."""
        return bool(self._values.get("sums"))

    def row_reader(self) -> Callable[[slice], Scores]:
        """Return a function that returns the logits, or the likeliest entries, of some rows."""
        logits, top = self._values.get("logits"), self._values.get("top")
        read = logits.reader() if isinstance(logits, FrozenLogits) else None

        def rows_of(rows: slice) -> Scores:
            values: dict[str, Any] = {}
            if logits is not None:
                values["logits"] = logits[rows] if read is None else read(rows)
            if top is not None:
                values["top"] = tuple(part[rows] for part in top)
            return Scores(self.mask, **values)

        return rows_of

    def of(self, sequence: str) -> Scores:
        """Return the scores of one of the examples' texts by name; ``answer`` is these scores.

        Raises:
            ContractError: the text was not scored, or not declared.
        """
        if sequence == "answer":
            return self
        if sequence not in self._sequences:
            raise ContractError(
                f"{self._who} needs the sequence {sequence!r}, which was not scored"
            )
        if self._needs is not None and sequence not in self._needs.sequences:
            raise ContractError(
                f"{self._reader} reads the sequence {sequence!r} without declaring it; "
                f"add it to `needs`"
            )
        return self._sequences[sequence]

    @property
    def labels(self) -> Tensor:
        """Token ids of the labels, -100 elsewhere, ``(batch, tokens)``.

        They can be read without being declared.
        """
        if "labels" not in self._values:
            raise ContractError(f"{self._who} reads 'labels', which were not given")
        labels: Tensor = self._values["labels"]
        return labels

    @property
    def logps(self) -> Tensor:
        """Log-probabilities of the label tokens, 0 elsewhere, ``(batch, tokens)``."""
        logps: Tensor = self._read("logps")
        return logps

    @property
    def ref_logps(self) -> Tensor:
        """:attr:`logps` of the frozen reference, without gradient."""
        logps: Tensor = self._read("ref_logps")
        return logps

    @property
    def logits(self) -> Tensor:
        """Logits at the places of :attr:`rows`, example after example, ``(rows, vocabulary)``."""
        return _made(self._read("logits"))

    @property
    def head_rows(self) -> Tensor:
        """What the logits are made of, ``(rows, width)``, where they are kept so, or the logits."""
        logits = self._read("logits")
        rows: Tensor = logits.hidden if isinstance(logits, FrozenLogits) else logits
        return rows

    @property
    def ref_logits(self) -> Tensor:
        """:attr:`logits` of the frozen reference, without gradient."""
        return _made(self._read("ref_logits"))

    @property
    def ref_top(self) -> tuple[Tensor, Tensor]:
        """The reference's likeliest entries: log-probabilities and token ids, ``(rows, k)``."""
        value: tuple[Tensor, Tensor] = self._read("ref_top")
        return value

    def top(self, k: int) -> tuple[Tensor, Tensor]:
        """Return log-probabilities and token ids of the k likeliest entries at each place.

        Both are ``(rows, k)``, the likeliest first.
        """
        import torch

        if "top" in self._values:
            logps, indices = self._values["top"]
            return logps[:, :k], indices[:, :k]
        logits = self._read("logits")
        parts = logits.in_chunks() if isinstance(logits, FrozenLogits) else iter([logits])
        found = [part.float().log_softmax(-1).topk(min(k, part.shape[-1])) for part in parts]
        if len(found) == 1:
            return found[0].values, found[0].indices
        return torch.cat([f.values for f in found]), torch.cat([f.indices for f in found])

    def _likeliest(self, k: int) -> tuple[Tensor, Tensor] | None:
        return self.top(k) if {"top", "logits"} & self._values.keys() else None

    def hidden(self, block: int) -> Tensor:
        """Return the hidden states after a block (from 0), ``(batch, tokens, width)``.

        They are those of the tokens themselves, one place to the right of the hidden states that
        predict them.
        """
        return self._read_block("hidden", block)

    def ref_hidden(self, block: int) -> Tensor:
        """Return :meth:`hidden` of the frozen reference, without gradient."""
        return self._read_block("ref_hidden", block)

    def unpack(self, values: Tensor) -> Tensor:
        """Return ``values``, one per row of :attr:`logits`, as ``(batch, tokens)``; 0 elsewhere."""
        return unpack(self.rows, values)

    def count(self, mean_over: MeanOver) -> int:
        """Return the number of items that a mean runs over: places of tokens, or examples."""
        if mean_over == "examples":
            return self.mask.shape[0]
        return int(places_of(self.mask, self.positions, mean_over).sum())

    @property
    def _who(self) -> str:
        return self._reader or "a component"

    def _read(self, name: str) -> Any:
        if self._needs is not None and not getattr(self._needs, name):
            raise ContractError(
                f"{self._reader} reads {name!r} without declaring it; add it to `needs`"
            )
        if name not in self._values:
            raise ContractError(f"{self._who} reads {name!r}, which was not computed")
        return self._values[name]

    def _read_block(self, name: str, block: int) -> Tensor:
        if self._needs is not None and block not in getattr(self._needs, name):
            raise ContractError(
                f"{self._reader} reads {name}({block}) without declaring it; add it to `needs`"
            )
        blocks: dict[int, Tensor] = self._values.get(name, {})
        if block not in blocks:
            raise ContractError(f"{self._who} reads {name}({block}), which was not computed")
        return blocks[block]


def _made(logits: Tensor | FrozenLogits) -> Tensor:
    return logits.whole() if isinstance(logits, FrozenLogits) else logits


def label_logps(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the log-probabilities of ``targets`` ``(rows,)`` under ``logits``, ``(rows,)``.

    ``logits`` is ``(rows, vocabulary)``. Half precision is widened to float32, also in the result.
    """
    wide = logits.float() if logits.element_size() < 4 else logits
    # log_softmax passes over the vocabulary once; gather minus logsumexp would do so five times.
    logps: Tensor = wide.log_softmax(-1).gather(-1, targets[:, None]).squeeze(-1)
    return logps


def unpack(mask: Tensor, values: Tensor) -> Tensor:
    """Return ``values`` at the True places of ``mask``, in row-major order, and 0 elsewhere."""
    full: Tensor = values.new_zeros(mask.shape).masked_scatter(mask, values)
    return full
