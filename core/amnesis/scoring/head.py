"""A model's output head, applied to some places only, or replaced by what is computed in chunks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from amnesis.distributed.processes import world
from amnesis.distributed.shards import has_shards, reshard
from amnesis.scoring.logits import NO_FINISH, Finish, FrozenHead, rows_at_once

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel


class ChunkedHead:
    """Replaces a model's head by what is computed of its logits, some rows at a time.

    Logits ``(rows, vocabulary)`` are then never in memory at once. This requires that the model's
    logits are its head's output, or that scaled or soft-capped as its configuration says, which a
    first pass over a few tokens checks. It does not apply where they are made otherwise, or where
    the head is not a plain linear layer (quantized, or with a LoRA adapter); :attr:`note` then says
    so.

    Attributes:
        note: why it does not apply, once that is known.
        finish: what the model makes of its head's output, once that is known.
    """

    def __init__(self, model: PreTrainedModel, chunk_bytes: int | None = None) -> None:
        """Create it for ``model``, whose head is checked when it is first needed.

        ``chunk_bytes`` is how much memory a chunk's logits may take; what is computed of them takes
        a few times that. By default it suits the model's device.
        """
        self._model, self._chunk_bytes = model, chunk_bytes
        self._applicable: bool | None = None
        self.note: str | None = None
        self.finish: Finish = NO_FINISH

    @property
    def module(self) -> Any:
        """The model's head, or None."""
        return self._model.get_output_embeddings()

    @property
    def chunk(self) -> int:
        """How many rows a chunk has."""
        weight = self.module.weight
        return rows_at_once(weight.shape[0], weight.dtype, self._model.device, self._chunk_bytes)

    def serves(self, rows: int) -> bool:
        """Whether so many rows should be computed in chunks: they can be, and are more than one.

        Ranks that share a model do the same, however many rows each of them has: what they gather
        they gather together.
        """
        if not hasattr(self.module, "weight"):
            return False
        shared = world()[1] > 1 and has_shards(self._model)
        return (shared or rows > self.chunk) and self.decide()

    def frozen(self) -> FrozenHead | None:
        """Return the head as it is now, unless it does not allow chunks."""
        if not self.decide():
            return None
        if any(p.requires_grad for p in self.module.parameters()):
            reshard(self._model)  # so that what is copied is a shard
        return FrozenHead.of(self.module, self.finish)

    def decide(self) -> bool:
        """Whether the head allows chunks at all; the first call runs the model on a few tokens."""
        if self._applicable is None:
            obstacle = self._obstacle()
            self._applicable = obstacle is None
            if obstacle is not None:
                self.note = f"log-probabilities are computed from whole logits: {obstacle}"
        return self._applicable

    @contextmanager
    def replaced(
        self, compute: Callable[[Tensor, nn.Module], Sequence[Tensor]]
    ) -> Iterator[list[Tensor]]:
        """Inside ``with``, compute something else in place of logits, in one pass of the model.

        ``compute`` is given what the head reads at the places of labels, ``(batch, tokens,
        width)``, and the head. It runs inside the call of the head module: there FSDP has gathered
        a sharded weight. The list that is yielded then holds what it returned; put it through
        :func:`tied` with the model's logits, which are empty.
        """
        head = self.module
        states: list[Tensor] = []
        computed: list[Tensor] = []

        def take_hidden(_: Any, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            states.append(inputs[0][:, :-1])
            return (inputs[0][:, :0], *inputs[1:])

        def compute_instead(module: nn.Module, _: Any, output: Tensor) -> Tensor:
            hidden = states.pop()
            # Empty, but part of the graph, so that FSDP's hooks on the model's output, and on the
            # head's, come before the backward pass of what is computed: of nodes that are ready
            # autograd takes the youngest first, so this is made last.
            computed.extend(compute(hidden, module))
            return hidden.reshape(-1)[None, None, :0].clone()

        handles = [
            head.register_forward_pre_hook(take_hidden),
            head.register_forward_hook(compute_instead, prepend=True),
        ]
        try:
            yield computed
        finally:
            for handle in handles:
                handle.remove()

    def _obstacle(self) -> str | None:
        """Return why the head does not allow chunks, or None; runs the model on a few tokens."""
        import torch

        head = self.module
        if head is None:
            return "the model names no output head"
        plain = isinstance(head, torch.nn.Linear) and type(head).forward is torch.nn.Linear.forward
        if not plain or "forward" in vars(head):
            return f"the model's head is a {type(head).__name__}, not a plain linear layer"
        outputs: list[Tensor] = []

        def pretend(_: Any, __: Any, output: Tensor) -> Tensor:
            # Numbers so large that a cap is seen, whatever the weights are.
            spread = torch.linspace(-90, 90, output.numel(), device=output.device)
            outputs.append(spread.view_as(output).to(output.dtype))
            return outputs[-1]

        handle = head.register_forward_hook(pretend, prepend=True)
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
        for finish in _finishes(self._model):
            if len(outputs) == 1 and torch.equal(finish(outputs[0]).float(), logits.float()):
                self.finish = finish
                return None
        return "the model changes what its head gives, in a way that is not known here"


def tied(computed: Sequence[Tensor], logits: Tensor) -> list[Tensor]:
    """Return what was computed in the head's place, as part of what the model returned.

    ``logits`` are the model's, and empty.
    """
    nothing = logits.sum()
    return [value + nothing.to(value.dtype) if value.requires_grad else value for value in computed]


def _finishes(model: PreTrainedModel) -> Iterator[Finish]:
    """Yield what the model may make of its head's output, by its configuration's names for it."""
    yield NO_FINISH
    config = model.config.get_text_config().to_dict()
    for name, value in config.items():
        if not isinstance(value, int | float) or isinstance(value, bool) or not value:
            continue
        if "logit" in name or "lm_head" in name or "softcap" in name:
            yield Finish("capped", float(value))
            yield Finish("multiplied", float(value))
            yield Finish("divided", float(value))


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
