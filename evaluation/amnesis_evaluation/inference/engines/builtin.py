"""The builtin engine: token by token, stopping each row at its end and dropping it there.

The cache grows with the answer, and a token is brought to the CPU before the next one is computed;
there is no static cache and no captured graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from amnesis_evaluation.inference.engines.choosing import Choose, chooser
from amnesis_evaluation.inference.engines.prompts import (
    Decoding,
    Prompt,
    keeps_state,
    left_padded,
    memory_of,
)
from amnesis_evaluation.inference.teacher_forcing import accepts

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel


def write(model: PreTrainedModel, prompts: Sequence[Prompt], decoding: Decoding) -> list[list[int]]:
    """Return the tokens of each prompt's continuation, without the token that ended it.

    Raises:
        NonFiniteError: the model's logits are not numbers.
    """
    continuations: list[list[int]] = [[] for _ in prompts]
    rows = list(range(len(prompts)))
    _continue(model, prompts, decoding, chooser(prompts, decoding), rows, continuations)
    return continuations


def _continue(
    model: PreTrainedModel,
    prompts: Sequence[Prompt],
    decoding: Decoding,
    choose: Choose,
    rows: list[int],
    continuations: list[list[int]],
) -> None:
    """Continue the prompts of ``rows``, into ``continuations``."""
    import torch

    device = next(model.parameters()).device
    end, waiting = decoding.end, set(rows)
    padded = left_padded([prompts[i] for i in rows], decoding.pad)
    sequence, mask = (t.to(device) for t in padded)
    step = _Steps(model)
    while True:
        tokens = choose(step(sequence, mask), rows)
        for row, token in zip(rows, tokens.tolist(), strict=True):
            if row in waiting and token not in end:
                continuations[row].append(token)
            if token in end or len(continuations[row]) == prompts[row].limit:
                waiting.discard(row)
        if not waiting:
            return
        if len(waiting) < len(rows) and step.can_drop_rows:
            places = torch.tensor([p for p, row in enumerate(rows) if row in waiting])
            places = places.to(device)
            step.keep(places)
            sequence, mask, tokens = sequence[places], mask[places], tokens[places]
            rows = [row for row in rows if row in waiting]
        sequence = torch.cat([sequence, tokens[:, None]], -1)
        mask = torch.cat([mask, mask.new_ones(len(rows), 1)], -1)


class _Steps:
    """Runs a model token by token, with whatever it remembers of earlier ones."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        self._name = memory_of(model)
        self._memory: Any = None
        self._takes_positions = accepts(model, "position_ids")
        # A model with a state may take the mask of a whole sequence for that of its last token.
        self._takes_mask = accepts(model, "attention_mask") and not keeps_state(model)
        options = {"logits_to_keep": 1, "use_cache": True}
        self._options = {name: value for name, value in options.items() if accepts(model, name)}

    def __call__(self, sequence: Tensor, mask: Tensor) -> Tensor:
        """Return the logits after the whole ``sequence``, ``(batch, vocabulary)``."""
        # A model that hands nothing back reads the whole sequence each time.
        ids = sequence if self._memory is None else sequence[:, -1:]
        inputs: dict[str, Any] = {"attention_mask": mask} if self._takes_mask else {}
        if self._takes_positions:
            inputs["position_ids"] = (mask.cumsum(-1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        if self._name is not None and self._memory is not None:
            inputs[self._name] = self._memory
        output = self._model(input_ids=ids, **inputs, **self._options)
        self._memory = None if self._name is None else output.get(self._name)
        if self._memory is None and "use_cache" in self._options:
            self._options["use_cache"] = False
        logits: Tensor = output.logits[:, -1]
        return logits

    @property
    def can_drop_rows(self) -> bool:
        """Whether rows can be taken out of what is remembered: of attention, but of no state."""
        from transformers import DynamicCache
        from transformers.cache_utils import DynamicLayer, LinearAttentionCacheLayerMixin

        return self._memory is None or (
            type(self._memory) is DynamicCache
            and all(
                isinstance(layer, DynamicLayer)
                and not isinstance(layer, LinearAttentionCacheLayerMixin)
                for layer in self._memory.layers
            )
        )

    def keep(self, places: Tensor) -> None:
        """Drop all rows but those at ``places``."""
        if self._memory is not None:
            self._memory.batch_select_indices(places)
