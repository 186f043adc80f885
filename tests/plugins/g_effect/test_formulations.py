"""Each formulation against the definition, on four architectures, full, tied, biased and LoRA."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.plugins.g_effect import naive
from torch.autograd import backward

from amnesis.data.batches import Batch
from amnesis.errors import ModelError
from amnesis.scoring.forward import score
from amnesis.scoring.scores import Needs, Scores
from amnesis_plugins.g_effect.by_token import measure_tokens
from amnesis_plugins.g_effect.directions import products_with, risk_gradient
from amnesis_plugins.g_effect.ghost import Ghost, ghost_shares
from amnesis_plugins.g_effect.layers import layers_of

NEEDS = Needs(logps=True)


def assert_equal(found: torch.Tensor, wanted: torch.Tensor) -> None:
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-13)


def weighted(scores: Scores) -> torch.Tensor:
    """A loss that treats tokens and examples unlike: Σ_b (b+1)·softplus(Σ_i ℓ_i/5) + Σ p·ℓ."""
    logps = scores.logps
    scale = torch.arange(1, logps.shape[0] + 1, dtype=logps.dtype)
    per_example = torch.nn.functional.softplus(logps.sum(-1) / 5) * scale
    return per_example.sum() + (logps.exp().detach() * logps).sum()


def naive_shares(model: Any, batch: Batch, v: naive.Gradient) -> list[dict[str, float]]:
    """One backward per example."""
    layers = layers_of(model)
    logps = naive.label_logps(model, batch)
    shares = []
    for b in range(logps.shape[0]):
        own = logps[b]
        value = torch.nn.functional.softplus(own.sum() / 5) * (b + 1)
        value = value + (own.exp().detach() * own * batch.mask[b]).sum()
        shares.append(naive.product_by(naive.gradient(model, value), v, layers))
    return shares


def test_risk_gradient_is_that_of_the_whole_set(
    build: Any, sets: Any, architecture: str, exact: None
) -> None:
    model = build(architecture)
    found = risk_gradient(model, sets[1])
    wanted = naive.risk_gradient(model, sets[1])
    assert found.direction.keys() == wanted.keys()
    for name in wanted:
        assert_equal(found.direction[name], wanted[name])
    tokens = sum(int(b.mask.sum()) for b in sets[1])
    total = sum(naive.label_logps(model, b).sum().item() for b in sets[1])
    assert found.value == pytest.approx(-total / tokens, rel=1e-12)


def test_by_loss_token_is_the_inner_product_of_each_tokens_gradient(
    build: Any, sets: Any, architecture: str, exact: None
) -> None:
    model = build(architecture)
    v = naive.risk_gradient(model, sets[1])
    for batch in sets[0]:
        measured = measure_tokens(model, batch, v)
        logps = naive.label_logps(model, batch)
        assert_equal(measured.logps["answer"], logps.detach())
        for b, i in batch.mask.nonzero().tolist()[::5]:
            wanted = naive.product(naive.gradient(model, logps[b, i]), v)
            assert measured.slopes["answer"][b, i].item() == pytest.approx(
                wanted, rel=1e-10, abs=1e-12
            )
        assert (measured.slopes["answer"][~batch.mask] == 0).all()


def test_restricted_passes_split_each_token_over_layers(
    build: Any, sets: Any, architecture: str, exact: None
) -> None:
    model = build(architecture)
    v = naive.risk_gradient(model, sets[1])
    layers, batch = layers_of(model), sets[0][0]
    logps = naive.label_logps(model, batch)
    b, i = batch.mask.nonzero().tolist()[2]
    wanted = naive.product_by(naive.gradient(model, logps[b, i]), v, layers)
    total = torch.zeros_like(logps)
    for layer, value in wanted.items():
        part = {name: t for name, t in v.items() if layers[name] == layer}
        slopes = measure_tokens(model, batch, part).slopes["answer"]
        assert slopes[b, i].item() == pytest.approx(value, rel=1e-10, abs=1e-12)
        total += slopes
    assert_equal(total, measure_tokens(model, batch, v).slopes["answer"])


def test_ghost_is_one_backward_per_example_by_layer(
    build: Any, sets: Any, architecture: str, exact: None
) -> None:
    model = build(architecture)
    directions = [naive.risk_gradient(model, s) for s in sets]
    for batch in sets[0]:
        [shares] = ghost_shares(model, batch, directions, [weighted], NEEDS)
        for v, by_sequence in zip(directions, shares, strict=True):
            for b, wanted in enumerate(naive_shares(model, batch, v)):
                found = {k: s[b].sum().item() for k, s in by_sequence["answer"].items()}
                assert found == pytest.approx(wanted, rel=1e-10, abs=1e-12)
    assert all(p.grad is None for p in model.parameters())


def test_ghost_in_float32_agrees_to_single_precision(
    build: Any, sets: Any, architecture: str
) -> None:
    exactly = build(architecture)
    model = build(architecture, torch.float32)
    batch = sets[0][0]
    v = naive.risk_gradient(exactly, sets[1])
    narrow = {name: t.float() for name, t in v.items()}
    [[shares]] = ghost_shares(model, batch, [narrow], [weighted], NEEDS)
    for b, wanted in enumerate(naive_shares(exactly, batch, v)):
        scale = sum(map(abs, wanted.values()))
        found = sum(s[b].sum().item() for s in shares["answer"].values())
        assert found == pytest.approx(sum(wanted.values()), rel=1e-5, abs=1e-5 * scale)


def test_by_token_and_at_hand_in_float32_agree_to_single_precision(
    build: Any, sets: Any, architecture: str
) -> None:
    exactly, model = build(architecture), build(architecture, torch.float32)
    v = naive.risk_gradient(exactly, sets[1])
    narrow = {name: t.float() for name, t in v.items()}
    for batch in sets[0]:
        wanted = measure_tokens(exactly, batch, v).slopes["answer"]
        found = measure_tokens(model, batch, narrow).slopes["answer"]
        assert (found.double() - wanted).norm() <= 1e-5 * wanted.norm()
    own = naive.risk_gradient(exactly, sets[0])
    at_hand = risk_gradient(model, sets[0]).direction
    gap = torch.cat([(at_hand[name].double() - g).flatten() for name, g in own.items()])
    assert gap.norm() <= 1e-5 * torch.cat([g.flatten() for g in own.values()]).norm()


def test_ghost_beside_a_training_backward_leaves_its_gradients_alone(
    build: Any, sets: Any, architecture: str, exact: None
) -> None:
    model, batch = build(architecture), sets[0][0]
    v = naive.risk_gradient(model, sets[1])
    wanted = naive.gradient(model, weighted(score(model, batch, NEEDS)))
    ghost = Ghost(model, [v])
    with ghost.watching(batch, NEEDS):
        backward(weighted(score(model, batch, NEEDS)))
    total = sum(s.sum().item() for s in ghost.shares()[0]["answer"].values())
    assert total == pytest.approx(naive.product(wanted, v), rel=1e-10)
    for name, p in model.named_parameters():
        if p.requires_grad and p.grad is not None:
            assert_equal(p.grad, wanted[name])


def test_by_position_is_the_derivative_of_a_parameter_per_position(
    build: Any, sets: Any, exact: None
) -> None:
    """Each position is given its own copy of one matrix, W + ε(b, s)·V; ∂L/∂ε is its share."""
    model, batch = build("llama, biased"), sets[0][0]
    v = naive.risk_gradient(model, sets[1])
    module = model.model.layers[1].mlp.down_proj
    prefix = "model.layers.1.mlp.down_proj"
    for name in list(v):
        if not name.startswith(prefix):
            v[name] = torch.zeros_like(v[name])
    epsilon = torch.zeros(batch.input_ids.shape, dtype=torch.float64, requires_grad=True)

    def moved(_: Any, inputs: Any, output: torch.Tensor) -> torch.Tensor:
        change: torch.Tensor = inputs[0] @ v[f"{prefix}.weight"].T + v[f"{prefix}.bias"]
        return output + epsilon[..., None] * change

    handle = module.register_forward_hook(moved)
    (wanted,) = torch.autograd.grad(weighted(score(model, batch, NEEDS)), epsilon)
    handle.remove()
    [[shares]] = ghost_shares(model, batch, [v], [weighted], NEEDS)
    found = torch.stack(list(shares["answer"].values())).sum(0)
    assert_equal(found, wanted)
    assert (found.abs() > 1e-9).any(0).sum() > 3


def test_products_with_directions_at_hand(
    build: Any, sets: Any, architecture: str, exact: None
) -> None:
    model = build(architecture)
    directions = [naive.risk_gradient(model, s) for s in sets]
    marker = torch.ones(1, dtype=torch.float64)
    first = next(p for p in model.parameters() if p.requires_grad)
    first.grad = marker.expand_as(first)
    with products_with(model, directions) as tally:
        for batch in sets[0]:
            backward(weighted(score(model, batch, NEEDS)))
    assert first.grad.unique().tolist() == [1.0]
    gradients = [naive.gradient(model, weighted(score(model, b, NEEDS))) for b in sets[0]]
    whole = {n: gradients[0][n] + gradients[1][n] for n in gradients[0]}
    for v, found in zip(directions, tally.by_layer(), strict=True):
        wanted = naive.product_by(whole, v, layers_of(model))
        assert found == pytest.approx(wanted, rel=1e-10, abs=1e-13)


@pytest.mark.parametrize("formulation", ["ghost", "tokens", "risk"])
def test_dropout_has_no_part_in_it(build: Any, sets: Any, exact: None, formulation: str) -> None:
    """A model that is training is measured as it is evaluated, and goes on training."""
    model = build("gpt_neox, biased")
    v = naive.risk_gradient(model, sets[1])
    batch = sets[0][0]

    def measured() -> torch.Tensor:
        if formulation == "ghost":
            [[shares]] = ghost_shares(model, batch, [v], [weighted], NEEDS)
            return torch.stack(list(shares["answer"].values()))
        if formulation == "tokens":
            return measure_tokens(model, batch, v).slopes["answer"]
        return torch.cat([g.flatten() for g in risk_gradient(model, sets[1]).direction.values()])

    expected = measured()
    model.train()
    torch.testing.assert_close(measured(), expected, rtol=0, atol=0)
    assert all(module.training for module in model.modules())


def test_a_module_whose_output_nobody_reads_is_refused(build: Any, sets: Any) -> None:
    """It is called, but no gradient comes back to it: its hook must fire all the same."""
    model = build("llama, biased")
    block = model.model.layers[0]
    block.aside = torch.nn.Linear(24, 24).double()
    block.register_forward_hook(lambda module, _, output: (module.aside(output), output)[1])
    v = {n: torch.zeros_like(p) for n, p in model.named_parameters()}
    with pytest.raises(ModelError, match=r"layers\.0\.aside', were not seen by the backward"):
        ghost_shares(model, sets[0][0], [v], [weighted], NEEDS)


def test_experts_are_refused_even_where_their_rows_would_fit(build: Any, sets: Any) -> None:
    """Each of two experts sees every row, but in an order of its own."""
    model = build("llama, biased")

    class Experts(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.experts = torch.nn.ModuleList([torch.nn.Linear(24, 24).double() for _ in range(2)])

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            rows = x.reshape(-1, x.shape[-1])
            order = torch.arange(len(rows)).flip(0)
            out = torch.zeros_like(rows)
            for expert in self.experts:
                out = out.index_add(0, order, expert(rows[order]))
            return out.view_as(x)

    model.model.layers[0].mlp = Experts()
    v = {n: torch.zeros_like(p) for n, p in model.named_parameters()}
    with pytest.raises(
        ModelError, match=r"experts\.\d.* gives .* by layer, example or token alone"
    ):
        ghost_shares(model, sets[0][0], [v], [weighted], NEEDS)


def test_a_parameter_used_outside_its_module_is_refused(build: Any, sets: Any) -> None:
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(
        build("llama, biased"), LoraConfig(r=2, target_modules=["embed_tokens", "q_proj"])
    )
    v = {n: torch.zeros_like(p) for n, p in model.named_parameters() if p.requires_grad}
    with pytest.raises(ModelError, match="outside their own forward"):
        ghost_shares(model, sets[0][0], [v], [weighted], NEEDS)


def test_a_norm_that_is_affine_in_its_weight_is_differentiated(
    build: Any, sets: Any, exact: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gemma's norm scales by 1 + w: running it with v in w's place would be wrong."""
    from transformers.models.llama.modeling_llama import LlamaRMSNorm

    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        normal: torch.Tensor = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)
        return normal.mul(1 + self.weight)

    monkeypatch.setattr(LlamaRMSNorm, "forward", forward)
    model, batch = build("llama, tied"), sets[0][0]
    v = naive.risk_gradient(model, sets[1])
    [[shares]] = ghost_shares(model, batch, [v], [weighted], NEEDS)
    wanted = naive.product(naive.gradient(model, weighted(score(model, batch, NEEDS))), v)
    assert sum(s.sum().item() for s in shares["answer"].values()) == pytest.approx(
        wanted, rel=1e-10
    )


def test_recomputed_activations_are_not_counted_twice(build: Any, sets: Any, exact: None) -> None:
    model, batch = build("llama, biased"), sets[0][0]
    v = naive.risk_gradient(model, sets[1])
    wanted = naive.product(naive.gradient(model, weighted(score(model, batch, NEEDS))), v)
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model.train()
    ghost = Ghost(model, [v])
    with ghost.watching(batch, NEEDS):
        backward(weighted(score(model, batch, NEEDS)))
    found = sum(s.sum().item() for s in ghost.shares()[0]["answer"].values())
    assert found == pytest.approx(wanted, rel=1e-10)
    with products_with(model, [v]) as tally:
        backward(weighted(score(model, batch, NEEDS)))
    assert sum(tally.by_layer()[0].values()) == pytest.approx(wanted, rel=1e-10)
    assert model.training
