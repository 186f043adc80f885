"""A model's output head made to answer with log-probabilities instead of logits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from amnesis.data.batches import Batch


class ChunkedHead:
    """Reads log-probabilities off what goes into a model's head, ``chunk`` rows at a time.

    So logits ``(rows, vocabulary)`` are never held. That is exact where the model's logits are
    what its head gives, which is asked of the model once, on a few tokens. Where
    they are scaled or soft-capped, or the head is no plain linear layer (a LoRA adapter on it,
    quantised), the plain path is taken and :attr:`note` says why.
    """

    def __init__(self, model: PreTrainedModel, chunk: int = 256) -> None:
        """Take a model; its head is looked at when the first batch comes."""
        self._model, self._chunk = model, chunk
        self._serves: bool | None = None
        self.note: str | None = None

    def serves(self, batch: Batch) -> bool:
        """Say whether the batch is to be read in chunks: it can be, and is more than one chunk."""
        return int(batch.mask.sum()) > self._chunk and self.decide()

    def decide(self) -> bool:
        """Say whether the head can be read in chunks at all, asking the model the first time."""
        if self._serves is None:
            reason = self._hindrance()
            self._serves = reason is None
            if reason is not None:
                self.note = f"log-probabilities are computed from whole logits: {reason}"
        return self._serves

    @contextmanager
    def answering(self, rows: Tensor, targets: Tensor) -> Iterator[None]:
        """Let the head give log-probabilities of ``targets`` at ``rows``, ``(1, labels, 1)``.

        ``rows`` is ``(batch, tokens)``, ``targets`` ``(labels,)``. Everything happens inside the
        head's own call, so a sharded weight is the gathered one, and what the head gives is the
        part of the graph that its owner watches.
        """
        from amnesis.scoring.chunked_logps import label_logps_in_chunks

        head = self._model.get_output_embeddings()
        seen: list[Tensor] = []

        def keep(_: Any, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            seen.append(inputs[0][:, :-1][rows])
            return (inputs[0][:, :0], *inputs[1:])

        def answer(module: Any, _: Any, output: Tensor) -> Tensor:
            logps = label_logps_in_chunks(
                seen.pop(), module.weight, module.bias, targets, self._chunk
            )
            return logps[None, :, None]

        handles = [
            head.register_forward_pre_hook(keep),
            head.register_forward_hook(answer, prepend=True),
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _hindrance(self) -> str | None:
        """Say why the head cannot be read in chunks, having run the model on a few tokens."""
        import torch

        head = self._model.get_output_embeddings()
        if head is None:
            return "the model names no output head"
        plain = isinstance(head, torch.nn.Linear) and type(head).forward is torch.nn.Linear.forward
        if not plain or "forward" in vars(head):
            return f"the model's head is a {type(head).__name__}, not a plain linear layer"
        given: list[Tensor] = []
        handle = head.register_forward_hook(lambda *call: given.append(call[-1]), prepend=True)
        # Every rank must ask the same, and one may have no batch: so the first tokens there are.
        device = self._model.device
        ids = torch.arange(8, device=device)[None] % self._model.config.vocab_size
        devices = [device] if device.type == "cuda" else []
        try:
            with torch.no_grad(), torch.random.fork_rng(devices=devices):
                logits = self._model(
                    input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False
                ).logits
        finally:
            handle.remove()
        if len(given) != 1 or not torch.equal(given[0].float(), logits.float()):
            return "the model scales or soft-caps what its head gives"
        return None


@contextmanager
def head_on(model: PreTrainedModel, rows: Tensor) -> Iterator[list[bool]]:
    """Let the model's output head see only the hidden states of ``rows``, ``(batch, tokens)``.

    The model's own forward goes on around it, so scaled or soft-capped logits stay right, and a
    sharded head is gathered where its owner gathers it. Yields a list that is filled if the head
    ran; if it did not, the logits are those of every place.
    """
    head = model.get_output_embeddings()
    applied: list[bool] = []

    def only_rows(_: Any, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        applied.append(True)
        hidden = inputs[0]
        return (hidden[:, :-1][rows].unsqueeze(0), *inputs[1:])

    if head is None:
        yield applied
        return
    handle = head.register_forward_pre_hook(only_rows)
    try:
        yield applied
    finally:
        handle.remove()
