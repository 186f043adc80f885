"""The page of an assessment: its record in words and tables, beside the rows that it names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from amnesis_evaluation.commands.assess.knowledge import UNKNOWN, is_membership, shown_values
from amnesis_evaluation.commands.assess.overlap import row_text
from amnesis_evaluation.commands.assess.record import Assessment, Pair
from amnesis_evaluation.commands.probe.page import STRENGTHS, Shade
from amnesis_evaluation.pages.pacing import Rise, rise_of

if TYPE_CHECKING:
    from amnesis.contracts import Evidence, Row
    from amnesis.data.templates import AnyTemplate

MOST_TEXT, MOST_PAIRS = 300, 40
WORDS = {
    "known": ("Known", "bad", "✕"),
    "partly": ("Known in part", "bad", "◐"),
    "unknown": ("Not known", "good", "✓"),
}
# What the verdict's levels come to before anything was unlearned.
SAYS: Mapping[str, tuple[str, str, str]] = {
    "not_at_all": ("knows it", "bad", "✕"),
    "partly": ("knows a part", "bad", "◐"),
    "forgotten": ("as of rows never seen", "good", "✓"),
    "too_much": ("less than of rows never seen", "none", "?"),
}
MEMBERS = ("shows as trained on", "bad", "✕")


@dataclass(frozen=True, kw_only=True)
class Content:
    """What the page says beside the record itself: quoted rows and colours."""

    record: Assessment
    values: Mapping[str, float]
    levels: Mapping[str, tuple[str, str, str]]
    best: Sequence[tuple[int, str, Mapping[str, float]]]
    pairs: Sequence[tuple[Pair, str, str]]
    more_pairs: int
    layers: Sequence[tuple[str, Shade]]
    rise: Rise | None
    recipe: str


def page(
    record: Assessment,
    sets: Mapping[str, Sequence[Row]],
    template: AnyTemplate,
    recipe: str | None,
) -> str:
    """Return the page as one HTML text; ``recipe`` is the starter recipe as it is written."""
    from amnesis_evaluation.pages.rendering import rendered

    pairs = () if record.overlap is None else (*record.overlap.exact, *record.overlap.near)
    content = Content(
        record=record,
        values=shown_values(record.knowledge),
        levels={
            one.metric: MEMBERS if _is_member(one) else SAYS[one.level]
            for one in record.knowledge.because
            if one.level
        },
        best=[
            (one.row, _quote(sets["forget"][one.row], template), one.values)
            for one in record.knowledge.best
        ],
        pairs=[
            (
                pair,
                _quote(sets["forget"][pair.forget], template),
                _quote(sets["retain"][pair.retain], template),
            )
            for pair in pairs[:MOST_PAIRS]
        ],
        more_pairs=max(0, len(pairs) - MOST_PAIRS),
        layers=_layers(record),
        rise=_rise(record),
        recipe=recipe or "",
    )
    return rendered("assess.html", page=content, words=WORDS)


def _is_member(one: Evidence) -> bool:
    return is_membership(one) and one.level not in UNKNOWN


def _rise(record: Assessment) -> Rise | None:
    methods = record.methods
    return None if methods is None else rise_of(methods.range_test, methods.learning_rate)


def _layers(record: Assessment) -> list[tuple[str, Shade]]:
    if record.alignment is None:
        return []
    return [
        (
            layer,
            Shade(
                value=value,
                tone="damage" if value > 0 else "wanted",
                strength=round(STRENGTHS * abs(value)),
            ),
        )
        for layer, value in record.alignment.layers.items()
        if value is not None
    ]


def _quote(row: Row, template: AnyTemplate) -> str:
    text = row_text(row, template)
    return text if len(text) <= MOST_TEXT else f"{text[:MOST_TEXT]}…"
