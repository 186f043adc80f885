"""One forward pass over a batch, which computes the scores that are needed and no others."""

from __future__ import annotations

import inspect
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from amnesis.data.batches import Batch
from amnesis.errors import ContractError, ModelError
from amnesis.scoring.head import ChunkedHead, head_on, tied
from amnesis.scoring.logits import FrozenHead, FrozenLogits
from amnesis.scoring.rows import RowTerm, sums_of
from amnesis.scoring.scores import Needs, Scores, label_logps, unpack

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from torch import Tensor
    from transformers import PreTrainedModel


def score(
    model: PreTrainedModel,
    batch: Batch,
    needs: Needs,
    reference: Scores | None = None,
    head: ChunkedHead | None = None,
    row_terms: Sequence[RowTerm] = (),
) -> Scores:
    """Return the model's scores of a batch that meet ``needs``, from one forward pass per text.

    The output head computes logits only for the places that are read: those of label tokens, or
    all of prompt and answer. ``reference`` holds the frozen reference's scores of the same batch,
    which the result then carries. ``head`` must belong to the same model; with it,
    log-probabilities are computed in chunks where no logits are needed. ``row_terms`` are all that
    read logits, if that is so: with ``head`` their sums are computed in chunks, and the result
    holds these in place of logits.

    Raises:
        ModelError: the batch is padded on the left, which the model cannot compute.
    """
    return _Pass(batch, needs, head, tuple(row_terms), reference).scores(model)


def score_beside_itself(
    model: PreTrainedModel,
    batch: Batch,
    needs: Needs,
    head: ChunkedHead | None = None,
    row_terms: Sequence[RowTerm] = (),
) -> Scores:
    """Return the scores of a model that is as yet its own reference, from one forward pass.

    Both come from the same arithmetic, so what compares them finds no difference at all.
    """
    both = needs | as_own(needs)
    return _Pass(batch, both, head, tuple(row_terms), beside_itself=True).scores(model)


def score_frozen(
    model: PreTrainedModel,
    batch: Batch,
    needs: Needs,
    head: ChunkedHead,
    kept: FrozenHead | None,
) -> Scores:
    """Return the scores of a model that stays as it is, without gradient.

    With ``kept``, its head, logits are kept as what that reads, and made when they are read.
    ``head`` must belong to the same model.
    """
    import torch

    with torch.no_grad():
        return _Pass(batch, needs, head, kept=kept if needs.logits else None).scores(model)


@dataclass(frozen=True)
class _Pass:
    """What is to be computed of a batch.

    Attributes:
        batch: the batch.
        needs: the scores.
        head: the model's head, if anything may be computed in chunks.
        row_terms: the terms that read logits, if their sums are all that is made of these.
        reference: the reference's scores.
        beside_itself: that the reference is the model as it is.
        kept: the head that logits are kept with, instead of being made.
    """

    batch: Batch
    needs: Needs
    head: ChunkedHead | None
    row_terms: tuple[RowTerm, ...] = ()
    reference: Scores | None = None
    beside_itself: bool = False
    kept: FrozenHead | None = None

    def scores(self, model: PreTrainedModel) -> Scores:
        """Return the scores, from one forward pass per text."""
        names = sorted(self.needs.sequences - {"answer"})
        sequences = {name: self._further(name).score(model) for name in names}
        if "answer" in self.needs.sequences:
            scores = self.score(model, sequences)
        else:
            scores = Scores(self.batch.mask, self.batch.positions, sequences=sequences)
        reference = scores.detached() if self.beside_itself else self.reference
        if reference is None:
            return scores
        needs = self.needs
        if scores.holds_sums:
            needs = replace(needs, ref_logits=False, ref_top=0)
        return scores.beside(reference, needs)

    def _further(self, sequence: str) -> _Pass:
        """Return what is to be computed of a further text, whose logits no row term reads."""
        needs = replace(self.needs, logits=self.needs.logits and not self.row_terms)
        return replace(self, batch=self.batch.of(sequence), needs=needs, row_terms=())

    def score(
        self, model: PreTrainedModel, sequences: Mapping[str, Scores] | None = None
    ) -> Scores:
        """Return the scores of the batch itself, without those of the reference."""
        batch, needs, mask = self.batch, self.needs, self.batch.mask
        rows = batch.positions if needs.all_positions else mask
        if not (needs.logps or needs.logits):
            rows = mask.new_zeros(mask.shape)  # no logits are read, so the head computes none
        values: dict[str, Any] = {"labels": batch.labels[:, 1:]}
        head = self._head_in_chunks(rows)
        if head is not None:
            output, computed = self._run_in_chunks(model, head, rows)
            values |= computed
        else:
            with head_on(model, rows) as applied:
                output = _run(model, batch, needs)
            logits = output.logits[0] if applied else output.logits[:, :-1][rows]
            values["logits"] = logits if needs.logits else None
            if needs.logps:
                label_logits = logits[mask[rows]] if needs.all_positions else logits
                logps = label_logps(label_logits, batch.labels[:, 1:][mask])
                values["logps"] = unpack(mask, logps)
        values["hidden"] = {b: _block(output.hidden_states, b) for b in needs.hidden}
        return Scores(mask, batch.positions, rows=rows, sequences=sequences, **values)

    def _head_in_chunks(self, rows: Tensor) -> ChunkedHead | None:
        """Return the head if it is replaced by what is computed of its logits."""
        needs = self.needs
        if self.head is None or self.kept is not None:
            return self.head
        whole = needs.logits and not self.row_terms
        if whole or not (needs.logps or needs.logits):
            return None
        return self.head if self.head.serves(int(rows.sum())) else None

    def _run_in_chunks(
        self, model: PreTrainedModel, head: ChunkedHead, rows: Tensor
    ) -> tuple[Any, dict[str, Any]]:
        """Return the model's output, and what is computed in the place of logits."""
        from amnesis.scoring.chunked_logps import label_logps_in_chunks
        from amnesis.scoring.chunked_sums import sum_in_chunks

        batch, mask, wants_logps = self.batch, self.batch.mask, self.needs.logps
        size, finish = head.chunk, head.finish
        values: dict[str, Any] = {}

        def compute(hidden: Tensor, module: Any) -> list[Tensor]:
            weight, bias = module.weight, module.bias
            computed: list[Tensor] = []
            if wants_logps:
                targets = batch.labels[:, 1:][mask]
                computed.append(
                    label_logps_in_chunks(hidden[mask], weight, bias, targets, size, finish)
                )
            if self.row_terms or self.kept is not None:
                hidden = hidden[rows]
            for term in self.row_terms:
                sums = sums_of(
                    term, batch, self.needs, rows, self.reference, beside_itself=self.beside_itself
                )
                # A term's arithmetic holds about twice what that of a log-probability does.
                half = max(1, size // 2)
                computed.append(sum_in_chunks(hidden, weight, bias, sums, half, finish))
            if self.kept is not None:
                values["logits"] = FrozenLogits(hidden, self.kept)
            return computed

        with head.replaced(compute) as computed:
            output = _run(model, batch, self.needs)
        parts = tied(computed, output.logits)
        if wants_logps:
            values["logps"] = unpack(mask, parts.pop(0))
        values["sums"] = list(zip(self.row_terms, parts, strict=True))
        return output, values


def _run(model: PreTrainedModel, batch: Batch, needs: Needs) -> Any:
    return model(
        input_ids=batch.input_ids,
        attention_mask=batch.attention_mask,
        use_cache=False,
        output_hidden_states=bool(needs.hidden),
        **positions_of(model, batch.attention_mask),
    )


def positions_of(model: PreTrainedModel, attention_mask: Tensor) -> dict[str, Tensor]:
    """Return the argument by which positions count from each text's first token.

    It is empty where no padding comes before a text: models count from 0 by themselves.

    Raises:
        ModelError: padding does, and the model does not let its positions be given, or would make
            NaN of tokens that attend to nothing.
    """
    import torch

    if bool(attention_mask[:, 0].all()):
        return {}
    base = model.get_base_model() if hasattr(model, "peft_config") else model
    name = type(base).__name__
    if "position_ids" not in inspect.signature(base.forward).parameters:
        raise ModelError(f"{name} takes no positions: pad its batches on the right, not the left")
    if base.dtype is torch.float64 and base.config._attn_implementation == "eager":
        raise ModelError(
            f"{name} with eager attention in float64 gives NaN beside padding on the left: pad on "
            f"the right, or choose attention: sdpa"
        )
    return {"position_ids": (attention_mask.cumsum(-1) - 1).clamp(min=0)}


def losses_left_out(model: PreTrainedModel) -> list[str]:
    """Return notes on losses of a model's own training that no stream holds."""
    settings = model.config.get_text_config().to_dict().items()
    weights = {
        name: value
        for name, value in settings
        if "aux_loss" in name and isinstance(value, int | float) and value > 0
    }
    return [
        f"the model's own balancing loss over its experts ({name} {value}) is not trained on, so "
        f"their load may drift"
        for name, value in weights.items()
    ]


def _block(hidden_states: tuple[Tensor, ...], block: int) -> Tensor:
    # hidden_states[0] is the embedding. A label token's own state stands one place to the right of
    # the state that predicts it.
    blocks = len(hidden_states) - 1
    if not 0 <= block < blocks:
        raise ContractError(
            f"a term reads the output of block {block}, but the model has blocks 0 to {blocks - 1}"
        )
    return hidden_states[block + 1][:, 1:]


def as_own(needs: Needs) -> Needs:
    """Return the needs of a forward pass of the reference, so that it meets these."""
    return Needs(
        logps=needs.ref_logps,
        logits=needs.ref_logits or needs.ref_top > 0,
        hidden=needs.ref_hidden,
        all_positions=needs.all_positions,
        sequences=needs.sequences,
    )


@contextmanager
def evaluating(model: PreTrainedModel) -> Iterator[None]:
    """Put the model into evaluation mode inside ``with``; restore every module's mode after it."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
