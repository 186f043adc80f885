"""What a G-effect costs, against one plain forward and backward pass of the same batch.

    python benchmarks/g_effect.py [--rounds 15] [--device cuda]

Two columns of numbers, one table each: with ∇R at hand (a run has it, or it serves many objectives
and batches), and everything included (∇R of a retain batch of the same size is computed too).
Beside our formulations stand the usual ones: one backward per example, vmapped per-example
gradients, and three backward passes whose gradients are flattened and copied to main memory.

Rounds are interleaved and a ratio is taken within its round, so that a busy neighbour slows all of
them. Memory is counted, not sampled: the most that tensors made by one pass hold at once, the
weights added; ∇R at hand is not in the first table's peaks, and is in the second's. Before
anything is timed, every contender's number is checked against the plain definition.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from measuring import Run, peak_bytes, quartiles, rounds_of, table
from torch.autograd import backward
from torch.func import functional_call, grad, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from amnesis.contracts.stream import Counts, risk
from amnesis.data.batches import Batch
from amnesis.discovery.resolve import Choice
from amnesis.scoring.forward import score
from amnesis.scoring.scores import Needs, Scores
from amnesis_plugins.g_effect import (
    Ghost,
    ghost_shares,
    measure_tokens,
    products_with,
    risk_gradient,
)
from amnesis_plugins.g_effect.by_token import objective_slopes
from amnesis_plugins.g_effect.splits import named_losses

NEEDS = Needs(logps=True)
OBJECTIVES: list[Choice] = ["ga", {"name": "wga", "beta": 2.0}, "satimp"]
PLAIN = "plain pass"


@dataclass(frozen=True)
class Workbench:
    """A model, a forget and a retain batch of one size, and ∇R of the latter."""

    model: Any
    forget: Batch
    retain: Batch
    direction: dict[str, torch.Tensor]

    @property
    def counts(self) -> Counts:
        """Return what a mean over label tokens runs over."""
        return {("answer", "tokens"): self.forget.count("tokens")}

    def ascent(self, scores: Scores) -> torch.Tensor:
        """Gradient ascent, the objective whose effect every contender gives."""
        return -risk(scores, self.counts)


def llama(given: argparse.Namespace) -> Any:
    """Make a tied Llama."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=given.vocabulary,
            hidden_size=given.hidden,
            intermediate_size=3 * given.hidden,
            num_hidden_layers=given.layers,
            num_attention_heads=given.hidden // 32,
            max_position_embeddings=given.width,
            tie_word_embeddings=True,
            initializer_range=0.05,
        )
    ).to(given.device)


def llama_with_lora(given: argparse.Namespace) -> Any:
    """Make the same with adapters on every linear module, their second half not zero."""
    from peft import LoraConfig, get_peft_model

    adapted = get_peft_model(llama(given), LoraConfig(r=16, target_modules="all-linear"))
    for name, p in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(p, std=0.02)
    return adapted


def batch_of(given: argparse.Namespace, seed: int) -> Batch:
    """Ragged examples, the first third of each a prompt."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(given.vocabulary, (given.examples, given.width), generator=generator)
    lengths = torch.randint(
        3 * given.width // 4, given.width + 1, (given.examples,), generator=generator
    )
    lengths[0] = given.width
    place = torch.arange(given.width)
    attention = (place < lengths[:, None]).long()
    labels = ids.masked_fill((place < given.width // 3) | (attention == 0), -100)
    return Batch(ids, attention, labels, tuple(map(str, range(given.examples)))).to(given.device)


Contender = Callable[[Workbench], float]

# --- contenders: each gives ⟨∇GA, ∇R⟩ of the forget batch, in total ---------------------------


def plain(bench: Workbench) -> float:
    """The baseline: one forward and backward pass, gradients left in p.grad, nothing measured."""
    backward(bench.ascent(score(bench.model, bench.forget, NEEDS)))
    bench.model.zero_grad()
    return float("nan")


def total_and_layers(bench: Workbench) -> float:
    """Inner products in the post-accumulate hook."""
    with products_with(bench.model, [bench.direction]) as tally:
        backward(bench.ascent(score(bench.model, bench.forget, NEEDS)))
    return sum(tally.by_layer()[0].values())


def example_and_layer(bench: Workbench) -> float:
    """Ghost products, no parameter gradient formed."""
    [[shares]] = ghost_shares(bench.model, bench.forget, [bench.direction], [bench.ascent], NEEDS)
    return sum(share.sum().item() for share in shares["answer"].values())


def while_training(bench: Workbench) -> float:
    """Ghost products beside the parameter gradients of a training step."""
    ghost = Ghost(bench.model, [bench.direction])
    with ghost.watching(bench.forget, NEEDS):
        backward(bench.ascent(score(bench.model, bench.forget, NEEDS)))
    value = sum(share.sum().item() for share in ghost.shares()[0]["answer"].values())
    bench.model.zero_grad()
    return value


def loss_token(bench: Workbench) -> float:
    """Every objective of ``OBJECTIVES`` at once."""
    found = measure_tokens(bench.model, bench.forget, bench.direction)
    values = []
    for named in named_losses(OBJECTIVES):
        counts = named.loss.counts([bench.forget])
        slopes = objective_slopes(named.loss, bench.forget, found.logps, None, counts)
        values.append((slopes["answer"] * found.slopes["answer"]).sum().item())
    return values[0]


def backward_per_example(bench: Workbench) -> float:
    """One forward pass, and a backward pass for each example."""
    parameters = [p for p in bench.model.parameters() if p.requires_grad]
    directions = list(bench.direction.values())
    logps = score(bench.model, bench.forget, NEEDS).logps.sum(-1) / bench.counts["answer", "tokens"]
    value = 0.0
    for own in logps:
        gradients = torch.autograd.grad(own, parameters, retain_graph=True)
        value += sum((g * v).sum().item() for g, v in zip(gradients, directions, strict=True))
    return value


def vmapped(bench: Workbench) -> float:
    """Every example's gradient at once, by vmap over grad."""
    own = {n: p.detach() for n, p in bench.model.named_parameters() if p.requires_grad}
    rest = {n: p.detach() for n, p in bench.model.named_parameters() if not p.requires_grad}
    tokens = bench.counts["answer", "tokens"]

    def loss(parameters: Any, ids: Any, labels: Any) -> torch.Tensor:
        # Padding is on the right, so no label looks at it: no attention mask, which vmap refuses.
        arguments = {"input_ids": ids[None], "use_cache": False}
        logits = functional_call(bench.model, {**rest, **parameters}, (), arguments).logits[0, :-1]
        picked = logits.log_softmax(-1).gather(-1, labels[1:].clamp(min=0)[:, None]).squeeze(-1)
        mean: torch.Tensor = (picked * (labels[1:] != -100)).sum() / tokens
        return mean

    per_example = vmap(grad(loss), in_dims=(None, 0, 0))
    with sdpa_kernel(SDPBackend.MATH):
        gradients = per_example(own, bench.forget.input_ids, bench.forget.labels)
    return sum(
        torch.einsum("b...,...->b", g, bench.direction[name]).sum().item()
        for name, g in gradients.items()
    )


def three_flat_copies(bench: Workbench) -> float:
    """∇L, ∇R of the forget and of the retain batch, each flattened into the main memory."""
    parameters = [p for p in bench.model.parameters() if p.requires_grad]

    def flat(batch: Batch, sign: float) -> torch.Tensor:
        counts: Counts = {("answer", "tokens"): batch.count("tokens")}
        backward(sign * risk(score(bench.model, batch, NEEDS), counts))
        copied = torch.cat([p.grad.reshape(-1).to("cpu", copy=True) for p in parameters])
        bench.model.zero_grad()
        return copied

    objective, forget, retain = (
        flat(bench.forget, -1.0),
        flat(bench.forget, 1.0),
        flat(bench.retain, 1.0),
    )
    objective.dot(forget)
    return objective.dot(retain).item()


TOKENS = f"loss token, {len(OBJECTIVES)} objectives"
OURS: dict[str, Contender] = {
    "total, per layer": total_and_layers,
    "example × layer": example_and_layer,
    "the same while training": while_training,
    TOKENS: loss_token,
}
OTHERS: dict[str, Contender] = {
    "one backward per example": backward_per_example,
    "vmapped gradients": vmapped,
}
FLAT: dict[str, Contender] = {"three backwards, flat copies": three_flat_copies}
LORA: dict[str, Contender] = {
    "LoRA, example × layer": example_and_layer,
    f"LoRA, {TOKENS}": loss_token,
}
# (time, peak memory) against a plain pass, with ∇R at hand, by the lower quartile
BARS = {
    "total, per layer": (1.10, 1.05),
    "example × layer": (1.25, 1.15),
    "the same while training": (1.5, None),
    TOKENS: (1.6, 0.85),
    "LoRA, example × layer": (1.15, None),
    f"LoRA, {TOKENS}": (2.0, None),
}


def included(contender: Contender) -> Contender:
    """The same, with ∇R computed first."""

    def run(bench: Workbench) -> float:
        direction = dict(risk_gradient(bench.model, [bench.retain]).direction)
        return contender(Workbench(bench.model, bench.forget, bench.retain, direction))

    return run


# --- measuring ---------------------------------------------------------------------------------


def check(contenders: dict[str, Contender], bench: Workbench) -> None:
    """Hold every contender to the number of the plain definition."""
    parameters = [p for p in bench.model.parameters() if p.requires_grad]
    value = bench.ascent(score(bench.model, bench.forget, NEEDS))
    gradients = torch.autograd.grad(value, parameters)
    pairs = list(zip(gradients, bench.direction.values(), strict=True))
    wanted = sum((g.double() * v.double()).sum().item() for g, v in pairs)
    scale = sum((g.double() * v.double()).abs().sum().item() for g, v in pairs)
    for name, run in contenders.items():
        found = run(bench)
        assert abs(found - wanted) <= 1e-4 * scale, (name, found, wanted)


def measure(title: str, contenders: dict[str, Contender], bench: Workbench, rounds: int) -> None:
    """Run all of them in interleaved rounds; print times, peaks, and which bars are met."""
    runs: dict[str, Run] = {
        name: partial(contender, bench) for name, contender in {PLAIN: plain, **contenders}.items()
    }
    weights = sum(p.numel() * p.element_size() for p in bench.model.parameters())
    seconds = rounds_of(runs, rounds)
    peaks = {name: peak_bytes(run) for name, run in runs.items()}
    print(table(title, seconds, peaks, PLAIN, held=weights))
    for name, (time_bar, peak_bar) in BARS.items():
        if name in contenders and title.startswith("with"):
            pairs = zip(seconds[name], seconds[PLAIN], strict=True)
            ratio = quartiles([mine / theirs for mine, theirs in pairs])[0]
            peak = (peaks[name] + weights) / (peaks[PLAIN] + weights)
            found = [("time", ratio, time_bar), ("peak", peak, peak_bar)]
            for what, value, bar in found:
                if bar is not None:
                    verdict = "met" if value <= bar else "missed"
                    print(f"  {name}: {what} {value:.2f}, bar {bar} ({verdict})")
    print()


def workbench(given: argparse.Namespace, model: Any) -> Workbench:
    """Put a model and two batches on the bench."""
    forget, retain = batch_of(given, 1), batch_of(given, 2)
    return Workbench(model, forget, retain, dict(risk_gradient(model, [retain]).direction))


def main() -> None:
    """Print both columns, for a full model and for an adapter."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--vocabulary", type=int, default=4096)
    parser.add_argument("--examples", type=int, default=8)
    parser.add_argument("--width", type=int, default=96)
    given = parser.parse_args()
    for title, build, ours, others, flat in (
        ("full model", llama, OURS, OTHERS, FLAT),
        ("LoRA of rank 16", llama_with_lora, LORA, {}, {}),
    ):
        model = build(given).eval()
        bench = workbench(given, model)
        check(ours | others | flat, bench)
        size = sum(p.numel() for p in model.parameters()) / 1e6
        tokens = int(bench.forget.attention_mask.sum())
        print(
            f"{title}: {size:.1f} M parameters, {tokens} tokens a batch, {given.rounds} rounds, "
            f"{given.device}, {torch.get_num_threads()} threads\n"
        )
        at_hand = ours | others
        measure("with ∇R at hand", at_hand, bench, given.rounds)
        everything = {name: included(run) for name, run in at_hand.items()} | flat
        measure("everything included", everything, bench, given.rounds)


if __name__ == "__main__":
    main()
