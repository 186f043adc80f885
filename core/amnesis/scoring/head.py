"""A model's output head, applied to some places only or made to compute log-probabilities."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from amnesis.data.batches import Batch


class ChunkedHead:
    """Makes a model's head compute log-probabilities of labels, ``chunk`` rows at a time.

    Logits ``(rows, vocabulary)`` are then never in memory at once. This requires that the model's
    logits are exactly its head's output, which a first pass over a few tokens checks. It does not
    apply where logits are scaled or soft-capped afterwards, or where the head is not a plain linear
    layer (quantized, or with a LoRA adapter); :attr:`note` then says so.
    """

    def __init__(self, model: PreTrainedModel, chunk: int = 256) -> None:
        """Create it for ``model``, whose head is checked when it is first needed."""
        self._model, self._chunk = model, chunk
        self._applicable: bool | None = None
        self.note: str | None = None

    def serves(self, batch: Batch) -> bool:
        """Whether a batch should be computed in chunks: it can be, and has more than one chunk."""
        return int(batch.mask.sum()) > self._chunk and self.decide()

    def decide(self) -> bool:
        """Whether the head allows chunks at all; the first call runs the model on a few tokens."""
        if self._applicable is None:
            obstacle = self._obstacle()
            self._applicable = obstacle is None
            if obstacle is not None:
                self.note = f"log-probabilities are computed from whole logits: {obstacle}"
        return self._applicable

    @contextmanager
    def answering(self, rows: Tensor, targets: Tensor) -> Iterator[None]:
        """Inside ``with``, let the model's logits be log-probabilities, ``(1, labels, 1)``.

        They are those of ``targets``, ``(labels,)``, at the True places of ``rows``, ``(batch,
        tokens)``. All of it happens inside the call of the head module: there FSDP has gathered a
        sharded weight, and its hooks on the module's output see the result.
        """
        from amnesis.scoring.chunked_logps import label_logps_in_chunks

        head = self._model.get_output_embeddings()
        hidden_states: list[Tensor] = []

        def take_hidden(_: Any, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            hidden_states.append(inputs[0][:, :-1][rows])
            return (inputs[0][:, :0], *inputs[1:])

        def return_logps(module: Any, _: Any, output: Tensor) -> Tensor:
            logps = label_logps_in_chunks(
                hidden_states.pop(), module.weight, module.bias, targets, self._chunk
            )
            return logps[None, :, None]

        handles = [
            head.register_forward_pre_hook(take_hidden),
            head.register_forward_hook(return_logps, prepend=True),
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _obstacle(self) -> str | None:
        """Return why the head does not allow chunks, or None; runs the model on a few tokens."""
        import torch

        head = self._model.get_output_embeddings()
        if head is None:
            return "the model names no output head"
        plain = isinstance(head, torch.nn.Linear) and type(head).forward is torch.nn.Linear.forward
        if not plain or "forward" in vars(head):
            return f"the model's head is a {type(head).__name__}, not a plain linear layer"
        outputs: list[Tensor] = []
        handle = head.register_forward_hook(lambda *call: outputs.append(call[-1]), prepend=True)
        # Every rank must run the same pass, even one without a batch: hence the first token ids.
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
        if len(outputs) != 1 or not torch.equal(outputs[0].float(), logits.float()):
            return "the model scales or soft-caps what its head gives"
        return None


@contextmanager
def head_on(model: PreTrainedModel, rows: Tensor) -> Iterator[list[bool]]:
    """Inside ``with``, compute logits at the True places of ``rows``, ``(batch, tokens)``, only.

    The model's logits are then ``(1, rows, vocabulary)``. Whatever else its forward pass does (to
    scale or soft-cap logits, to gather a sharded head) stays in effect. Yields a list that is not
    empty once the head has run; if it stays empty, the model does without its head's module, and
    its logits are those of every place.
    """
    head = model.get_output_embeddings()
    calls: list[bool] = []

    def select_rows(_: Any, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        calls.append(True)
        hidden = inputs[0]
        return (hidden[:, :-1][rows].unsqueeze(0), *inputs[1:])

    if head is None:
        yield calls
        return
    handle = head.register_forward_pre_hook(select_rows)
    try:
        yield calls
    finally:
        handle.remove()
