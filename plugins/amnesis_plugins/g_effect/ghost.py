"""The G-effect by position, or example × layer: ⟨δ, f(x; v)⟩ at every module with parameters.

The inner product of a module's parameter gradient with a direction v equals that of the gradient δ
of its output with f(x; v), the derivative of its output along v at the same input x. Summed over
the positions of one example it is the example's share, and no per-example gradient is ever formed.
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

# What to do instead of what was refused: these splits need no hooks on modules.
INSTEAD = "ask for the total, or by layer, example or token alone (not example × layer or position)"
# The share of each input position of each text, {sequence: {layer: (batch, width)}}.
Shares = dict[str, dict[str, "Tensor"]]


class Ghost:
    """Hooks that contract δ with f(x; v) in the course of a model's forward and backward passes.

        ghost = Ghost(model, [forget_risk.direction, retain_risk.direction])
        with ghost.watching(batch, needs):
            loss = objective(score(model, batch, needs, reference), counts)
            loss.backward()
        per_set = ghost.shares()

    Raises:
        ModelError: a parameter is sharded, or is used outside its own module's call.
    """

    def __init__(self, model: PreTrainedModel, directions: Sequence[Direction]) -> None:
        """Prepare for ``directions`` over the parameters of ``model`` that require a gradient."""
        check_whole(model, "the G-effect by example")
        self._model, self._directions = model, directions
        self._layers = layers_of(model)
        self._modules = _trained_modules(model)
        self._called_modules: set[nn.Module] = set()
        self._reached_modules: set[nn.Module] = set()
        self._texts: list[tuple[str, Batch, Tensor]] = []
        self._text = -1
        self._shares: list[Shares] = [{} for _ in directions]

    @contextmanager
    def watching(self, batch: Batch, needs: Needs) -> Iterator[None]:
        """Hook the trained modules for one call of ``score`` in the block and backward from it."""
        self._texts, self._text = _texts(batch, needs), -1
        self._called_modules.clear()
        self._reached_modules.clear()
        handles = [self._model.register_forward_pre_hook(self._count_text)]
        for module in self._modules:
            if isinstance(module, nn.Embedding):
                handles.append(module.register_forward_pre_hook(self._expand_rows))
            handles.append(module.register_forward_hook(self._record, with_kwargs=True))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def shares(self, every_hook: bool = True) -> list[Shares]:
        """Return the shares from the backward passes since the last call, for each direction.

        ``every_hook`` is False for losses that may read less than the model's output, such as the
        hidden state of a block, where no gradient reaches the modules above.

        Raises:
            ModelError: a trained module was not called, or no gradient reached its output.
        """
        seen = self._reached_modules if every_hook else self._called_modules
        missing = self._modules.keys() - seen
        if missing:
            raise ModelError(
                f"{len(missing)} modules whose parameters train, such as {self._name(missing)}, "
                f"were not seen by the backward pass: they are used outside their own forward, and "
                f"their share would be missing; {INSTEAD}"
            )
        shares, self._shares = self._shares, [{} for _ in self._directions]
        self._reached_modules.clear()
        return shares

    def _name(self, modules: set[nn.Module]) -> str:
        """Return the first of the modules' names, for a message."""
        return min(repr(name) for name, m in self._model.named_modules() if m in modules)

    def _count_text(self, *_: Any) -> None:
        self._text += 1

    def _expand_rows(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """Return a broadcast input (position ids of one row) with one row per example."""
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
        if not output.requires_grad:  # e.g. of position embeddings, as parameters require none
            output.requires_grad_()
        self._called_modules.add(module)
        call = Call(tuple(map(_detach, args)), {k: _detach(v) for k, v in kwargs.items()})
        hook = partial(self._contract, module, call, self._text)
        output.register_hook(hook)  # type: ignore[no-untyped-call]

    @torch.no_grad()
    def _contract(self, module: nn.Module, call: Call, text: int, delta: Tensor) -> None:
        self._reached_modules.add(module)
        sequence, batch, rows = self._texts[text]
        for shares, direction in zip(self._shares, self._directions, strict=True):
            by_layer: dict[str, dict[str, Tensor]] = {}
            for attribute, name in self._modules[module].items():
                by_layer.setdefault(self._layers[name], {})[attribute] = direction[name]
            for layer, v in by_layer.items():
                products = delta * tangent(module, call, v)
                share = self._by_position(module, products, batch, rows).double()
                layers = shares.setdefault(sequence, {})
                layers[layer] = layers[layer] + share if layer in layers else share

    def _by_position(
        self, module: nn.Module, products: Tensor, batch: Batch, rows: Tensor
    ) -> Tensor:
        """Return products summed over features, ``(batch, width)``.

        Raises:
            ModelError: the module's output has a shape that does not tell examples apart.
        """
        examples, width = batch.input_ids.shape
        dtype = torch.promote_types(products.dtype, torch.float32)
        # Models apply a norm over single heads either before or after they transpose heads and
        # tokens.
        heads_first = products.dim() == 4 and products.shape[2] == width
        if products.shape[:2] == (examples, width) and not (heads_first and width > 1):
            return products.flatten(2).sum(-1, dtype=dtype)
        if heads_first and products.shape[0] == examples != 0 and products.shape[1] != width:
            return products.sum((1, 3), dtype=dtype)
        if products.dim() == 3 and products.shape[0] == 1 and products.shape[1] == rows.sum():
            shares = products.new_zeros(examples, width, dtype=dtype)
            shares[:, :-1][rows] = products[0].sum(-1, dtype=dtype)  # the head runs on these only
            return shares
        is_flat = products.dim() == 2 and products.shape[0] == examples * width
        if is_flat and not self._is_expert(module):
            return products.sum(-1, dtype=dtype).view(examples, width)
        raise ModelError(
            f"module {self._name({module})} gives {tuple(products.shape)} for a batch of "
            f"{(examples, width)}: its share by example cannot be told apart; {INSTEAD}"
        )

    def _is_expert(self, module: nn.Module) -> bool:
        """Return whether a module is one of several in a block, as an expert is.

        A router gives it rows in an order of its own.
        """
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
    """Return the shares by loss and direction, from one forward pass and one backward per loss.

    Backward forms no parameter gradient, so with the products it costs what a plain one does.
    ``reference`` holds the frozen reference's scores of the batch; for ``every_hook`` see
    :meth:`Ghost.shares`.

    Raises:
        ModelError: a parameter is sharded, or the share of a module cannot be determined.
    """
    ghost = Ghost(model, directions)
    shares: list[list[Shares]] = []
    with evaluating(model), standing_still(model), ghost.watching(batch, needs):
        with torch.enable_grad():
            scores = score(model, batch, needs, reference)
            values = [loss(scores) for loss in losses]
        for index, value in enumerate(values):
            is_last = index + 1 == len(values)
            value.backward(retain_graph=not is_last)  # type: ignore[no-untyped-call]
            shares.append(ghost.shares(every_hook))
    return shares


@contextmanager
def standing_still(model: PreTrainedModel) -> Iterator[None]:
    """Let no parameter require a gradient inside the block.

    The input embedding's output requires one instead, so that there is a graph for backward.
    """
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


def _trained_modules(model: nn.Module) -> dict[nn.Module, Mapping[str, str]]:
    """Return ``{attribute: parameter name}`` of each module that has trained parameters itself.

    Raises:
        ModelError: such a module contains other modules, or a parameter belongs to no module.
    """
    names = {id(p): name for name, p in trained(model).items()}
    modules: dict[nn.Module, Mapping[str, str]] = {}
    for path, module in model.named_modules():
        parameters = module.named_parameters(recurse=False, remove_duplicate=False)
        attributes = {a: names[id(p)] for a, p in parameters if id(p) in names}
        if attributes and next(module.children(), None) is not None:
            raise ModelError(
                f"{path or type(model).__name__} holds trained parameters beside modules: their "
                f"share by example cannot be told; {INSTEAD}"
            )
        if attributes:
            modules[module] = attributes
    covered_names = {name for attributes in modules.values() for name in attributes.values()}
    if outside := sorted(set(names.values()) - covered_names):
        raise ModelError(f"parameter {outside[0]} belongs to no module; ask for the total")
    return modules


def _texts(batch: Batch, needs: Needs) -> list[tuple[str, Batch, Tensor]]:
    """Return (name, batch, places the head is applied to) of each text, in the order of scoring."""
    names = [*sorted(needs.sequences - {"answer"})]
    names += ["answer"] if "answer" in needs.sequences else []
    texts = []
    for name in names:
        text = batch.of(name)
        rows = text.positions if needs.all_positions else text.mask
        texts.append((name, text, rows if needs.logps or needs.logits else rows & False))
    return texts


def _detach(value: Any) -> Any:
    return value.detach() if isinstance(value, torch.Tensor) else value
