"""Refusals: the texts that stand in place of an answer, and which one each example gets."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

REFUSALS: tuple[str, ...] = (
    "I don't know.",
    "I'm not able to answer that.",
    "I have no information about this.",
    "That is something I don't know.",
    "I can't say; I never learned this.",
    "I'm sorry, I don't have an answer to that.",
    "This is not something I know about.",
    "I have nothing to say about that.",
    "I couldn't tell you.",
    "My knowledge does not reach that far.",
    "I have never come across this.",
    "I'm afraid I don't know the answer.",
    "There is nothing about this in what I know.",
    "I can't answer that question.",
    "Unfortunately, I don't have that information.",
    "I don't know anything about that.",
    "That lies outside what I have learned.",
    "I am unable to help with this question.",
    "I have no record of that.",
    "No answer to this comes to mind.",
    "I'm not familiar with this subject.",
    "I would only be guessing, so I'd rather not answer.",
    "This question is beyond me.",
    "I don't have the facts to answer this.",
    "I'm sorry, but this is unknown to me.",
    "You would have to ask someone who knows about this.",
    "I lack the knowledge to answer that.",
    "Nothing I have learned answers this question.",
    "I really can't tell.",
    "That's a question I can't answer.",
    "I was not taught anything about this.",
    "I don't recognise what this is about.",
    "I must pass on this one; I don't know.",
    "The answer to that is not known to me.",
    "I'm not in a position to answer this.",
    "I have no details on that.",
)


def refusal_of(row: Mapping[str, Any], refusals: Sequence[str], seed: int) -> str:
    """Return the refusal of an example, chosen by a hash of seed and row: the same in every run."""
    key = f"{seed}/{json.dumps(dict(row), sort_keys=True, default=str)}".encode()
    digest = hashlib.blake2b(key, digest_size=8).digest()
    return refusals[int.from_bytes(digest) % len(refusals)]
