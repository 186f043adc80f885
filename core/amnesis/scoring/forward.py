"""One forward pass over a batch, computing the scores that were asked for and nothing else."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from amnesis.data.batches import Batch
from amnesis.errors import ContractError
from amnesis.scoring.head import ChunkedHead, head_on
from amnesis.scoring.scores import Needs, Scores, label_logps, unpack

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor
    from transformers import PreTrainedModel


def score(
    model: PreTrainedModel,
    batch: Batch,
    needs: Needs,
    reference: Scores | None = None,
    head: ChunkedHead | None = None,
) -> Scores:
    """Run ``model`` once per text that ``needs`` names and give its scores.

    The output head is applied to the places that are read only: label tokens, or all of prompt and
    answer. ``reference`` holds the frozen reference's scores of the same batch. With ``head``, of
    the same model, log-probabilities that nobody wants logits beside are read in chunks.
    """
    further = {
        name: _score_one(
            model,
            batch.of(name),
            needs,
            reference.of(name) if reference is not None else None,
            head,
        )
        for name in sorted(needs.sequences - {"answer"})
    }
    if "answer" not in needs.sequences:
        return Scores(batch.mask, batch.positions, sequences=further)
    own = _score_one(model, batch, needs, reference, head)
    own._sequences = further
    return own


def _score_one(
    model: PreTrainedModel,
    batch: Batch,
    needs: Needs,
    reference: Scores | None,
    head: ChunkedHead | None,
) -> Scores:
    mask, positions = batch.mask, batch.positions
    rows = positions if needs.all_positions else mask
    if not (needs.logps or needs.logits):
        rows = rows & False  # the head still runs, on nothing
    targets = batch.labels[:, 1:][mask]
    values: dict[str, Any] = {"labels": batch.labels[:, 1:]}
    if head is not None and needs.logps and not needs.logits and head.serves(batch):
        with head.answering(mask, targets):
            output = _run(model, batch, needs)
        values["logps"] = unpack(mask, output.logits[0, :, 0])
    else:
        with head_on(model, rows) as applied:
            output = _run(model, batch, needs)
        logits = output.logits[0] if applied else output.logits[:, :-1][rows]
        values["logits"] = logits if needs.logits else None
        if needs.logps:
            picked = logits if rows is mask else logits[mask[rows]]
            values["logps"] = unpack(mask, label_logps(picked, targets))
    values["hidden"] = {b: _block(output.hidden_states, b) for b in needs.hidden}
    if reference is not None:
        values |= {
            "ref_logps": reference.logps if needs.ref_logps else None,
            "ref_logits": reference.logits if needs.ref_logits else None,
            "ref_top": reference.top(needs.ref_top) if needs.ref_top else None,
            "ref_hidden": {b: reference.hidden(b) for b in needs.ref_hidden},
        }
    return Scores(mask, positions, rows=rows, **values)


def _run(model: PreTrainedModel, batch: Batch, needs: Needs) -> Any:
    return model(
        input_ids=batch.input_ids,
        attention_mask=batch.attention_mask,
        use_cache=False,
        output_hidden_states=bool(needs.hidden),
    )


def _block(hidden_states: tuple[Tensor, ...], block: int) -> Tensor:
    """Return a 0-based block's output at the label tokens themselves, ``(batch, tokens, width)``."""
    # hidden_states[0] is the embedding; a label token's own state is one place to the right of
    # the place that predicts it.
    blocks = len(hidden_states) - 1
    if not 0 <= block < blocks:
        raise ContractError(
            f"a term reads the output of block {block}, but the model has blocks 0 to {blocks - 1}"
        )
    return hidden_states[block + 1][:, 1:]


def as_own(needs: Needs) -> Needs:
    """Return what the reference itself must compute so that ``needs`` of it are met."""
    return replace(
        Needs(),
        logps=needs.ref_logps,
        logits=needs.ref_logits or needs.ref_top > 0,
        hidden=needs.ref_hidden,
        all_positions=needs.all_positions,
        sequences=needs.sequences,
    )


@contextmanager
def evaluating(model: PreTrainedModel) -> Iterator[None]:
    """Run without dropout, and put every module's mode back afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
