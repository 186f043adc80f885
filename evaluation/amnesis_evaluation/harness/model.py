"""lm-eval's view of a model in memory, its requests shared out over the processes of a run."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from typing import Any

from lm_eval.models.huggingface import HFLM

from amnesis.distributed.processes import world

Requests = list[Any]


class InMemory(HFLM):  # type: ignore[misc]  # lm-eval is not typed
    """A model that is there already, which lm-eval takes to be a single process's.

    Every rank goes through the whole evaluation, but answers the requests of every n-th context
    only and is told the others' answers. (lm-eval's own way of sharing out splits each task's
    items, and fails where a task has fewer of them than there are ranks.)
    """

    def loglikelihood(self, requests: Requests, disable_tqdm: bool = False) -> list[Any]:
        """Return (log-probability, is greedy) of each continuation."""
        return _shared(super().loglikelihood, requests, disable_tqdm)

    def loglikelihood_rolling(self, requests: Requests, disable_tqdm: bool = False) -> list[Any]:
        """Return the log-probability of each whole text."""
        return _shared(super().loglikelihood_rolling, requests, disable_tqdm)

    def generate_until(self, requests: Requests, disable_tqdm: bool = False) -> list[Any]:
        """Return the text generated from each prompt."""
        return _shared(super().generate_until, requests, disable_tqdm)


def _shared(
    answer: Callable[[Requests, bool], list[Any]], requests: Requests, quiet: bool
) -> list[Any]:
    rank, ranks = world()
    if ranks == 1:
        return answer(requests, quiet)
    import torch.distributed as dist

    places = _places(requests, ranks)
    own = [requests[place] for place in places[rank]]
    parts: list[list[Any]] = [[] for _ in range(ranks)]
    dist.all_gather_object(parts, answer(own, quiet or rank > 0) if own else [])
    found = zip(chain.from_iterable(places), chain.from_iterable(parts), strict=True)
    return [given for _, given in sorted(found, key=lambda pair: pair[0])]


def _places(requests: Requests, ranks: int) -> list[list[int]]:
    """Share requests out by their context: an item's choices stay together, for one pass."""
    turns: dict[Any, int] = {}
    places: list[list[int]] = [[] for _ in range(ranks)]
    for place, request in enumerate(requests):
        turn = turns.setdefault(request.args[0], len(turns))
        places[turn % ranks].append(place)
    return places
