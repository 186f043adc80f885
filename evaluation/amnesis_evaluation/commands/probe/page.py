"""The HTML page that ``amnesis probe`` writes: self-contained, without scripts or network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from math import isnan, nan
from typing import TYPE_CHECKING, Any

from amnesis_evaluation.commands.probe.picture import shares_by_layer
from amnesis_plugins.g_effect.pictures import TITLES

if TYPE_CHECKING:
    from amnesis_plugins.g_effect import EffectTable, Entanglement

Rows = Mapping[str, Sequence[Mapping[str, Any]]]
STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;color:#222}
table{border-collapse:collapse;margin:.5rem 0 1.5rem}td,th{padding:.2rem .6rem;text-align:right}
td:first-child,th:first-child{text-align:left}tr{border-bottom:1px solid #ddd}
.text{text-align:left;white-space:pre-wrap}.t{padding:.1rem 0;white-space:pre-wrap}
p.note{background:#fff6d8;padding:.4rem .8rem}small{color:#666}
"""
MOST = 8  # rows of each table of examples or tokens


def page(
    model: str, tables: Mapping[str, EffectTable], rows: Rows, pairs: Entanglement | None = None
) -> str:
    """Return the page as one HTML text.

    ``model`` is the name in its title, ``tables`` the effects by file name, ``rows`` the examples
    of both sets, ``pairs`` the entanglement where it was measured.
    """
    first = next(iter(tables.values()))
    parts = [f"<h1>G-effect of {escape(model)}</h1>", _intro(first), _totals(first)]
    for table in tables.values():
        if "layer" in table.by:
            parts += [_layers(table, name) for name in ("forget", "retain")]
    finest = next((t for t in tables.values() if {"token", "position"} & set(t.by)), None)
    by_example = [t for t in tables.values() if {"example", "token", "position"} & set(t.by)]
    if by_example:
        fullest = max(by_example, key=lambda table: len(table.objectives))
        parts.append(_worst_examples(fullest, rows, first.objectives))
    if finest is not None:
        parts += [_worst_tokens(finest, first.objectives), _token_colours(finest)]
    if pairs is not None:
        parts.append(_entanglement(pairs, rows["retain"]))
    body = "\n".join(part for part in parts if part)
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>G-effect</title>"
        f"<style>{STYLE}</style><body>{body}</body></html>\n"
    )


def by_ratio(table: EffectTable) -> list[str]:
    """Return the objectives, sorted by their ratio; those that do not forget come last."""
    return sorted(table.objectives, key=lambda name: (isnan(table.ratio(name)), table.ratio(name)))


def _intro(table: EffectTable) -> str:
    risks = ", ".join(f"{name} {value:.3f}" for name, value in table.risks.items())
    notes = "".join(f"<p class=note>{escape(note)}</p>" for note in table.notes)
    return (
        "<p>e(L, D) = ⟨∇L, ∇R(D)⟩ with R(D) = −mean ℓ. A descent step along L changes R(D) by "
        "−η·e: <b>negative raises the risk</b>. On the forget set that is the aim, on the retain "
        f"set it is damage. Current risks, in nats per token: {escape(risks)}.</p>{notes}"
    )


def shown_totals(table: EffectTable, name: str) -> tuple[float, float, float]:
    """Return unlearning effect, retaining effect and ratio; NaN for a mere rounding error."""
    forget, retain = (
        nan if table.negligible(name, d) else table.total(objective=name, set=d)
        for d in ("forget", "retain")
    )
    return forget, retain, table.ratio(name)


def _totals(table: EffectTable) -> str:
    body = [
        [escape(name), *(_number(value) for value in shown_totals(table, name))]
        for name in by_ratio(table)
    ]
    head = ["objective", "unlearning", "retaining", "retaining / unlearning"]
    return (
        "<h2>Objectives</h2>"
        + _table(head, body)
        + "<p><small>Raw effects have no common scale: compare by the ratio. 1 harms both sets "
        "alike, 0 or less does no harm; none where nothing is forgotten. –: no more than "
        "rounding.</small></p>"
    )


def _layers(table: EffectTable, set_name: str) -> str:
    rows = shares_by_layer(table, set_name)
    layers = list(dict.fromkeys(layer for row in rows.values() for layer in row))
    size = max((abs(v) for row in rows.values() for v in row.values()), default=0.0)
    body = [
        [escape(name), *(_cell(row.get(layer, 0.0) if row else nan, size) for layer in layers)]
        for name, row in rows.items()
    ]
    return (
        f"<h2>Layers, {escape(TITLES[set_name])}</h2>"
        + _table(["objective", *map(escape, layers)], body)
        + "<p><small>Each value is divided by the size of the objective's unlearning effect, or of "
        "its retaining effect where it does not forget.</small></p>"
    )


def _worst_examples(table: EffectTable, rows: Rows, objectives: Sequence[str]) -> str:
    parts = ["<h2>Examples that hurt retention most</h2>", _omissions(table, objectives)]
    for name in _with_share(table):
        shares = table.totals("example", objective=name, set="retain")
        worst = sorted(shares.items(), key=lambda item: item[1])[:MOST]
        size = max(map(abs, shares.values()))
        examples, row_of = rows[table.streams[name]], table.rows[table.streams[name]]
        body = [
            [f"<span class=text>{_quote(examples[row_of[example]])}</span>", _cell(value, size)]
            for example, value in worst
            if value < 0
        ]
        parts.append(f"<h3>{escape(name)}</h3>" + _table(["example", "retaining effect"], body))
    return "".join(parts)


def _worst_tokens(table: EffectTable, objectives: Sequence[str]) -> str:
    parts = ["<h2>Tokens that hurt retention most</h2>", _omissions(table, objectives)]
    for name in _with_share(table):
        shares = table.totals("example", "token", objective=name, set="retain")
        worst = sorted(shares.items(), key=lambda item: item[1])[:MOST]
        size = max(map(abs, shares.values()))
        texts = table.texts[table.streams[name]]
        body = [
            [_in_context(texts[example], token), _cell(value, size)]
            for (example, token), value in worst
            if value < 0
        ]
        parts.append(f"<h3>{escape(name)}</h3>" + _table(["token", "retaining effect"], body))
    return "".join(parts)


def _token_colours(table: EffectTable) -> str:
    parts = [
        "<h2>Tokens by their share of the retaining effect</h2>"
        "<p><small>Red: unlearning this token damages what must stay; blue: it helps. The colours "
        "of one objective have one scale.</small></p>"
    ]
    for name in _with_share(table):
        shares = table.totals("example", "token", objective=name, set="retain")
        size = max(map(abs, shares.values()))
        by_example: dict[int, float] = {}
        for (example, _), value in shares.items():
            by_example[example] = by_example.get(example, 0.0) + value
        parts.append(f"<h3>{escape(name)}</h3>")
        for example in sorted(by_example, key=lambda e: by_example[e])[:MOST]:
            texts = table.texts[table.streams[name]][example]
            spans = [
                f'<span class=t style="background:{_colour(shares[example, k], size)}" '
                f'title="{shares[example, k]:.3g}">{escape(text)}</span>'
                for k, text in enumerate(texts)
                if (example, k) in shares
            ]
            parts.append(f"<p>{''.join(spans)}</p>")
    return "".join(parts)


def _entanglement(pairs: Entanglement, retain: Sequence[Mapping[str, Any]]) -> str:
    strongest = pairs.strongest(3 * MOST)
    size = max((abs(pair[3]) for pair in strongest), default=0.0)
    body = [
        [
            _in_context(pairs.texts[example], token),
            f"<span class=text>{_quote(retain[pairs.rows[index]])}</span>",
            _cell(value, size),
        ]
        for example, token, index, value in strongest
    ]
    return (
        "<h2>Entanglement: what cannot go without what</h2>"
        "<p><small>How far the token's log-probability falls, per unit of parameter space, along "
        "the direction in which the retain example is lost fastest.</small></p>"
        + _table(["forget token", "retain example", "⟨∇ℓ, ∇ℓ̄⟩/‖∇ℓ̄‖"], body)
    )


def _with_share(table: EffectTable) -> list[str]:
    return [name for name in table.objectives if name not in table.vanishing]


def _omissions(table: EffectTable, objectives: Sequence[str]) -> str:
    names = [name for name in objectives if name not in _with_share(table)]
    if not names:
        return ""
    return f"<p><small>Not here, where they have no share: {escape(', '.join(names))}.</small></p>"


def _in_context(texts: Sequence[str], token: int) -> str:
    before, after = "".join(texts[max(0, token - 6) : token]), "".join(texts[token + 1 : token + 4])
    return f"<span class=text>{escape(before)}<b>{escape(texts[token])}</b>{escape(after)}</span>"


def _quote(row: Mapping[str, Any]) -> str:
    texts = [str(value) for value in row.values() if isinstance(value, str)]
    return escape(" · ".join(texts[:2])[:200])


def _table(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    def line(cells: Sequence[str], tag: str) -> str:
        return (
            "<tr>"
            + "".join(c if c.startswith("<td") else f"<{tag}>{c}</{tag}>" for c in cells)
            + "</tr>"
        )

    return f"<table>{line(head, 'th')}{''.join(line(cells, 'td') for cells in body)}</table>"


def _cell(value: float, size: float) -> str:
    return f'<td style="background:{_colour(value, size)}">{_number(value, 3)}</td>'


def _number(value: float, digits: int = 4) -> str:
    return "–" if isnan(value) else f"{value:.{digits}g}"


def _colour(value: float, size: float) -> str:
    """Return a CSS colour: red for negative values, blue for positive, paler towards 0."""
    strength = min(abs(value) / size, 1.0) if size and not isnan(value) else 0.0
    base = (214, 60, 50) if value < 0 else (50, 110, 200)
    channels = (round(255 + (c - 255) * 0.75 * strength) for c in base)
    return f"rgb({','.join(map(str, channels))})"
