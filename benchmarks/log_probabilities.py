"""Label log-probabilities with and without logits: time and peak memory, forward and backward.

    python benchmarks/log_probabilities.py [--tokens 2048] [--vocabulary 16384 131072]

``whole`` makes logits at every place, ``labelled`` at labelled places (half of them here, as in a
prompt with an answer), ``chunked`` never more than 256 rows of them. The bars hold for chunked
against labelled. Peaks are what one pass makes, the head's gradient included; inputs are not.
"""

from __future__ import annotations

import argparse

import torch
from measuring import Run, peak_bytes, quartiles, rounds_of, table
from torch.autograd import backward

from amnesis.scoring.chunked_logps import label_logps_in_chunks
from amnesis.scoring.scores import label_logps

BARS = {"time": 1.2, "peak": 0.2}


def alternatives_of(
    tokens: int, width: int, vocabulary: int, frozen: bool, device: str
) -> dict[str, Run]:
    """Return the three ways, on the same inputs."""
    torch.manual_seed(0)
    hidden = torch.randn(tokens, width, device=device, requires_grad=True)
    weight = torch.randn(vocabulary, width, device=device).div_(width**0.5)
    weight.requires_grad_(not frozen)
    targets = torch.randint(vocabulary, (tokens,), device=device)
    labelled = torch.arange(tokens, device=device) % 2 == 1

    def finished(logps: torch.Tensor) -> None:
        backward(logps.mean())
        hidden.grad = weight.grad = None

    return {
        "labelled": lambda: finished(label_logps(hidden[labelled] @ weight.T, targets[labelled])),
        "whole": lambda: finished(label_logps(hidden @ weight.T, targets)[labelled]),
        "chunked": lambda: finished(
            label_logps_in_chunks(hidden[labelled], weight, None, targets[labelled])
        ),
    }


def main() -> None:
    """Print a table for each vocabulary."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--vocabulary", type=int, nargs="*", default=[16_384])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--frozen", action="store_true", help="a head that does not train")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    given = parser.parse_args()
    for vocabulary in given.vocabulary:
        runs = alternatives_of(given.tokens, given.width, vocabulary, given.frozen, given.device)
        seconds = rounds_of(runs, given.rounds)
        peaks = {name: peak_bytes(run) for name, run in runs.items()}
        title = (
            f"{given.tokens} tokens, half labelled, width {given.width}, vocabulary {vocabulary}, "
            f"{'frozen' if given.frozen else 'trained'} head, {given.rounds} rounds, {given.device}"
        )
        print(table(title, seconds, peaks, "labelled"))
        pairs = zip(seconds["chunked"], seconds["labelled"], strict=True)
        found = {
            "time": quartiles([a / b for a, b in pairs])[0],
            "peak": peaks["chunked"] / peaks["labelled"],
        }
        for what, bar in BARS.items():
            verdict = "met" if found[what] <= bar else "missed"
            print(f"  chunked: {what} {found[what]:.2f}, bar {bar} ({verdict})")
        print()


if __name__ == "__main__":
    main()
