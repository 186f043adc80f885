"""A model in memory as lm-eval sees it; its requests are shared among the processes of a run."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from typing import Any

from lm_eval.models.huggingface import HFLM

from amnesis.distributed.processes import world
from amnesis.distributed.shards import has_shards

Requests = list[Any]


class InMemory(HFLM):  # type: ignore[misc]  # lm-eval is not typed
    """A model in memory, which lm-eval takes for that of a single process.

    Every rank goes through the whole evaluation, but answers only the requests of every n-th
    context and receives the others' answers. (lm-eval itself splits the items of each task among
    the ranks, and fails where a task has fewer items than there are ranks.)
    """

    def loglikelihood(self, requests: Requests, disable_tqdm: bool = False) -> list[Any]:
        """Return each continuation's log-probability, and whether greedy decoding yields it."""
        return _answer_shared(self.model, super().loglikelihood, requests, disable_tqdm)

    def loglikelihood_rolling(self, requests: Requests, disable_tqdm: bool = False) -> list[Any]:
        """Return the log-probability of each whole text."""
        return _answer_shared(self.model, super().loglikelihood_rolling, requests, disable_tqdm)

    def generate_until(self, requests: Requests, disable_tqdm: bool = False) -> list[Any]:
        """Return the text generated from each prompt."""
        return _answer_shared(self.model, super().generate_until, requests, disable_tqdm)


def _answer_shared(
    model: Any, answer: Callable[[Requests, bool], list[Any]], requests: Requests, quiet: bool
) -> list[Any]:
    # Of a sharded model all ranks make each pass together, so all answer every request.
    rank, ranks = (0, 1) if has_shards(model) else world()
    if ranks == 1:
        return answer(requests, quiet)
    import torch.distributed as dist

    places = _places(requests, ranks)
    portion = [requests[place] for place in places[rank]]
    parts: list[list[Any]] = [[] for _ in range(ranks)]
    dist.all_gather_object(parts, answer(portion, quiet or rank > 0) if portion else [])
    pairs = zip(chain.from_iterable(places), chain.from_iterable(parts), strict=True)
    return [result for _, result in sorted(pairs, key=lambda pair: pair[0])]


def _places(requests: Requests, ranks: int) -> list[list[int]]:
    """Return each rank's places. Requests of one context stay together, to share a forward pass."""
    turns: dict[Any, int] = {}
    places: list[list[int]] = [[] for _ in range(ranks)]
    for place, request in enumerate(requests):
        turn = turns.setdefault(request.args[0], len(turns))
        places[turn % ranks].append(place)
    return places
