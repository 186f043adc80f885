"""By position, and example × layer: ⟨δ, f(x; v)⟩ at every module that holds parameters.

The inner product of a module's parameter gradient with a direction v is that of the gradient δ of
its output with f(x; v), its output's derivative along v at the same input x. Summed over one
example's positions that is the example's share, with no per-example gradient ever formed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from amnesis.errors import ModelError
from amnesis.scoring.forward import evaluating, score
from amnesis.scoring.scores import Needs, Scores
from amnesis_plugins.g_effect.directions import Direction, check_whole, trained
from amnesis_plugins.g_effect.layers import layers_of
from amnesis_plugins.g_effect.tangents import Call, tangent

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from amnesis.data.batches import Batch

# What needs no module's own calls: directional derivatives of log-probabilities.
INSTEAD = "ask for the total, or by layer, example or token alone (not example × layer or position)"
# {sequence: {layer: (batch, width)}}: the share of each input position of each text
Shares = dict[str, dict[str, "Tensor"]]


class Ghost:
    """Watches a model's forward and backward passes and contracts δ with f(x; v) on the way.

        ghost = Ghost(model, [forget_risk.direction, retain_risk.direction])
        with ghost.watching(batch, needs):
            loss = objective(score(model, batch, needs, reference), counts)
            loss.backward()
        per_set = ghost.shares()

    Raises:
        ModelError: a parameter is sharded, or is used outside its own module's call.
    """

    def __init__(self, model: PreTrainedModel, directions: Sequence[Direction]) -> None:
        """Take directions over the parameters that the model trains."""
        check_whole(model, "the G-effect by example")
        self._model, self._directions = model, directions
        self._layers = layers_of(model)
        self._armed = _armed(model)
        self._called: set[nn.Module] = set()
        self._fired: set[nn.Module] = set()
        self._texts: list[tuple[str, Batch, Tensor]] = []
        self._text = -1
        self._shares: list[Shares] = [{} for _ in directions]

    @contextmanager
    def watching(self, batch: Batch, needs: Needs) -> Iterator[None]:
        """Arm every module for the one call of ``score`` made inside."""
        self._texts, self._text = _texts(batch, needs), -1
        self._called.clear()
        self._fired.clear()
        handles = [self._model.register_forward_pre_hook(self._next_text)]
        for module in self._armed:
            if isinstance(module, nn.Embedding):
                handles.append(module.register_forward_pre_hook(self._one_row_each))
            handles.append(module.register_forward_hook(self._record, with_kwargs=True))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def shares(self, every_hook: bool = True) -> list[Shares]:
        """Return what the backward passes since the last call left, for each direction.

        ``every_hook`` False is for losses that read less than the model's output, such as a
        hidden state half way up: modules above it have no part in them.

        Raises:
            ModelError: an armed module was not called, or no gradient reached its output.
        """
        silent = self._armed.keys() - (self._fired if every_hook else self._called)
        if silent:
            raise ModelError(
                f"{len(silent)} modules whose parameters train, such as {self._name(silent)}, were "
                f"not seen by the backward pass: they are used outside their own forward, and "
                f"their share would be missing; {INSTEAD}"
            )
        found, self._shares = self._shares, [{} for _ in self._directions]
        self._fired.clear()
        return found

    def _name(self, silent: set[nn.Module]) -> str:
        return min(repr(name) for name, m in self._model.named_modules() if m in silent)

    def _next_text(self, *_: Any) -> None:
        self._text += 1

    def _one_row_each(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """Return a broadcast input (position ids of one row) a row per example."""
        ids, examples = args[0], self._texts[self._text][2].shape[0]
        return (ids.expand(examples, -1), *args[1:]) if ids.shape[0] == 1 else None

    def _record(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        if not torch.is_grad_enabled() or self._text >= len(self._texts):
            return
        if not isinstance(output, torch.Tensor):
            raise ModelError(
                f"module {self._name({module})} trains and gives {type(output).__name__}, not a "
                f"tensor: its share by example cannot be told; {INSTEAD}"
            )
        if not output.requires_grad:  # position embeddings, where parameters stand still
            output.requires_grad_()
        self._called.add(module)
        call = Call(tuple(map(_detached, args)), {k: _detached(v) for k, v in kwargs.items()})
        hook = partial(self._contract, module, call, self._text)
        output.register_hook(hook)  # type: ignore[no-untyped-call]

    @torch.no_grad()
    def _contract(self, module: nn.Module, call: Call, text: int, delta: Tensor) -> None:
        self._fired.add(module)
        sequence, batch, rows = self._texts[text]
        for shares, direction in zip(self._shares, self._directions, strict=True):
            by_layer: dict[str, dict[str, Tensor]] = {}
            for attribute, name in self._armed[module].items():
                by_layer.setdefault(self._layers[name], {})[attribute] = direction[name]
            for layer, v in by_layer.items():
                products = delta * tangent(module, call, v)
                laid = self._laid_out(module, products, batch, rows).double()
                held = shares.setdefault(sequence, {})
                held[layer] = held[layer] + laid if layer in held else laid

    def _laid_out(self, module: nn.Module, products: Tensor, batch: Batch, rows: Tensor) -> Tensor:
        """Sum products over features and lay them out as ``(batch, width)``."""
        examples, width = batch.input_ids.shape
        wide = torch.promote_types(products.dtype, torch.float32)
        # A norm of single heads may come before or after heads and tokens have changed places.
        heads_first = products.dim() == 4 and products.shape[2] == width
        if products.shape[:2] == (examples, width) and not (heads_first and width > 1):
            return products.flatten(2).sum(-1, dtype=wide)
        if heads_first and products.shape[0] == examples != 0 and products.shape[1] != width:
            return products.sum((1, 3), dtype=wide)
        if products.dim() == 3 and products.shape[0] == 1 and products.shape[1] == rows.sum():
            laid = products.new_zeros(examples, width, dtype=wide)  # the head saw these rows only
            laid[:, :-1][rows] = products[0].sum(-1, dtype=wide)
            return laid
        flat = products.dim() == 2 and products.shape[0] == examples * width
        if flat and not self._one_of_several(module):
            return products.sum(-1, dtype=wide).view(examples, width)
        raise ModelError(
            f"module {self._name({module})} gives {tuple(products.shape)} for a batch of "
            f"{(examples, width)}: its share by example cannot be told apart; {INSTEAD}"
        )

    def _one_of_several(self, module: nn.Module) -> bool:
        """Whether a module is one of a block's experts: its rows are in no order that is known."""
        path = next(name for name, m in self._model.named_modules() if m is module)
        numbers = [part for part in path.split(".") if part.isdecimal()]
        return len(numbers) > 1


def ghost_shares(
    model: PreTrainedModel,
    batch: Batch,
    directions: Sequence[Direction],
    losses: Sequence[Callable[[Scores], Tensor]],
    needs: Needs,
    reference: Scores | None = None,
    *,
    every_hook: bool = True,
) -> list[list[Shares]]:
    """Return the shares of each loss and direction: one forward pass, one backward per loss.

    Parameters stand still and the graph is rooted at the input embedding's output, so backward
    forms no parameter gradient: it costs what a plain one does, the products included.
    """
    ghost = Ghost(model, directions)
    found: list[list[Shares]] = []
    with evaluating(model), standing_still(model), ghost.watching(batch, needs):
        with torch.enable_grad():
            scores = score(model, batch, needs, reference)
            values = [loss(scores) for loss in losses]
        for index, value in enumerate(values):
            kept = index + 1 < len(values)
            value.backward(retain_graph=kept)  # type: ignore[no-untyped-call]
            found.append(ghost.shares(every_hook))
    return found


@contextmanager
def standing_still(model: PreTrainedModel) -> Iterator[None]:
    """Let no parameter require a gradient; the input embedding's output is the graph's root."""
    parameters = trained(model)

    def root(_: nn.Module, __: Any, output: Tensor) -> None:
        if torch.is_grad_enabled() and not output.requires_grad:
            output.requires_grad_()

    for p in parameters.values():
        p.requires_grad_(False)
    handle = model.get_input_embeddings().register_forward_hook(root, prepend=True)
    try:
        yield
    finally:
        handle.remove()
        for p in parameters.values():
            p.requires_grad_()


def _armed(model: nn.Module) -> dict[nn.Module, Mapping[str, str]]:
    """Return each module with trained parameters of its own, as ``{attribute: parameter name}``."""
    names = {id(p): name for name, p in trained(model).items()}
    armed: dict[nn.Module, Mapping[str, str]] = {}
    for path, module in model.named_modules():
        own = {a: names[id(p)] for a, p in module._parameters.items() if id(p) in names}
        if own and next(module.children(), None) is not None:
            raise ModelError(
                f"{path or type(model).__name__} holds trained parameters beside modules: their "
                f"share by example cannot be told; {INSTEAD}"
            )
        if own:
            armed[module] = own
    held = {name for own in armed.values() for name in own.values()}
    if outside := sorted(set(names.values()) - held):
        raise ModelError(f"parameter {outside[0]} belongs to no module; ask for the total")
    return armed


def _texts(batch: Batch, needs: Needs) -> list[tuple[str, Batch, Tensor]]:
    """Return (name, batch, rows that the head sees) in the order in which they are scored."""
    names = [*sorted(needs.sequences - {"answer"})]
    names += ["answer"] if "answer" in needs.sequences else []
    texts = []
    for name in names:
        own = batch.of(name)
        rows = own.positions if needs.all_positions else own.mask
        texts.append((name, own, rows if needs.logps or needs.logits else rows & False))
    return texts


def _detached(value: Any) -> Any:
    return value.detach() if isinstance(value, torch.Tensor) else value
