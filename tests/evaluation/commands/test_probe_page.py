"""The probe's page and picture: what they show are a table's own numbers, in order and colour."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from tests.evaluation.commands.page_reader import Page

from amnesis_evaluation.commands.probe.page import by_ratio, page
from amnesis_evaluation.commands.probe.picture import shares_by_layer
from amnesis_plugins.g_effect import EffectTable, Entanglement
from amnesis_plugins.g_effect.table import Rows

ROWS = {
    "forget": [{"question": f"f{k}", "answer": "…"} for k in range(3)],
    "retain": [{"question": f"r{k}", "answer": "…"} for k in range(3)],
}
FORGETS = [-1.0, -2.0, -1.0]


def by_layer(values: Mapping[str, tuple[list[float], list[float]]]) -> EffectTable:
    """A table by layer and example: one objective's values on both sets, half in each block."""
    rows = Rows()
    for name, both in values.items():
        for set_name, own in zip(("forget", "retain"), both, strict=True):
            for layer, part in (("block_00", 0.25), ("block_01", 0.75)):
                shares = [part * value for value in own]
                rows.add(name, set_name, shares, layer=layer, examples=range(len(own)))
    streams = dict.fromkeys(values, "forget")
    index = {"forget": (0, 1, 2), "retain": (0, 1, 2)}
    return EffectTable(
        rows.finished(), ("layer", "example"), streams, {"forget": 1.0, "retain": 2.0}, index
    )


def by_token() -> EffectTable:
    """Three examples of two tokens; on the retain set example 1 hurts most, example 0 helps."""
    rows = Rows()
    examples, tokens = [0, 0, 1, 1, 2, 2], [0, 1, 0, 1, 0, 1]
    rows.add("a", "forget", [-1.0] * 6, examples=examples, tokens=tokens)
    retaining = [0.5, 0.25, -1.0, -0.5, -0.75, 0.0]
    rows.add("a", "retain", retaining, examples=examples, tokens=tokens)
    texts = {"forget": {k: [f"<{k}a>", f" {k}b"] for k in range(3)}}
    index = {"forget": (0, 1, 2), "retain": (0, 1, 2)}
    risks = {"forget": 1.0, "retain": 2.0}
    return EffectTable(rows.finished(), ("token",), {"a": "forget"}, risks, index, texts)


def test_objectives_stand_in_the_order_of_their_ratio() -> None:
    table = by_layer(
        {
            "half": (FORGETS, [-1.0, -1.0, 0.0]),
            "learns": ([1.0, 1.0, 1.0], [-1.0, -1.0, 0.0]),
            "helps": (FORGETS, [1.0, 1.0, 1.0]),
            "harms": (FORGETS, [-4.0, -4.0, -4.0]),
        }
    )
    assert by_ratio(table) == ["helps", "half", "harms", "learns"]
    shown = Page(page("m", {"g_effect": table}, ROWS)).table("Objectives")[1:]
    assert [[piece.text for piece in row] for row in shown] == [
        ["helps", "-4", "3", "-0.75"],
        ["half", "-4", "-2", "0.5"],
        ["harms", "-4", "-12", "3"],
        ["learns", "3", "-2", "–"],
    ]


def test_layers_are_shares_of_the_unlearning_effect_red_where_negative() -> None:
    table = by_layer({"a": (FORGETS, [1.0, 1.0, 0.0]), "learns": ([1.0] * 3, [2.0] * 3)})
    found = {name: shares_by_layer(table, name) for name in ("forget", "retain")}
    assert found["forget"]["a"] == pytest.approx({"block_00": -0.25, "block_01": -0.75})
    assert found["retain"]["a"] == pytest.approx({"block_00": 0.125, "block_01": 0.375})
    assert found["retain"]["learns"] == pytest.approx({"block_00": 0.25, "block_01": 0.75})
    read = Page(page("m", {"g_effect": table}, ROWS))
    forget = read.table("Layers, on the forget set")
    retain = read.table("Layers, on the retain set")
    assert [piece.text for piece in forget[0]] == ["objective", "block_00", "block_01"]
    assert [(c.text, c.hue) for c in forget[1][1:]] == [("-0.25", "red"), ("-0.75", "red")]
    assert [(c.text, c.hue) for c in retain[1][1:]] == [("0.125", "blue"), ("0.375", "blue")]
    pale, strong = (cell.colour for cell in forget[1][1:])
    assert pale is not None
    assert strong is not None
    assert pale[1] > strong[1]


def test_the_worst_examples_come_first_and_those_that_help_not_at_all() -> None:
    table = by_layer({"a": (FORGETS, [-1.0, 4.0, -3.0])})
    shown = Page(page("m", {"g_effect": table}, ROWS)).table("Examples that hurt", "a")[1:]
    assert [(row[0].text, row[1].text, row[1].hue) for row in shown] == [
        ("f2 · …", "-3", "red"),
        ("f0 · …", "-1", "red"),
    ]


def test_the_worst_tokens_come_first_each_bold_in_its_text() -> None:
    read = Page(page("m", {"tokens": by_token()}, ROWS))
    shown = read.table("Tokens that hurt", "a")[1:]
    assert [(row[0].bold, row[0].text, row[1].text) for row in shown] == [
        ("<1a>", "<1a> 1b", "-1"),
        ("<2a>", "<2a> 2b", "-0.75"),
        (" 1b", "<1a> 1b", "-0.5"),
    ]


def test_tokens_are_coloured_by_their_own_share_the_worst_example_first() -> None:
    read = Page(page("m", {"tokens": by_token()}, ROWS))
    (place,) = [
        p for p in read.texts if p == ("Tokens by their share of the retaining effect", "a")
    ]
    shown = [[(t.text, t.title, t.hue) for t in text] for text in read.texts[place]]
    assert shown == [
        [("<1a>", "-1", "red"), (" 1b", "-0.5", "red")],
        [("<2a>", "-0.75", "red"), (" 2b", "0", "white")],
        [("<0a>", "0.5", "blue"), (" 0b", "0.25", "blue")],
    ]
    greens = [t.colour[1] for text in read.texts[place] for t in text if t.colour]
    assert greens[0] < greens[2] < greens[1] < greens[3] == 255


def test_every_objective_is_shown_by_example_though_tokens_have_no_share_in_it() -> None:
    coarse = by_layer({"a": (FORGETS, [-1.0] * 3), "rmu": (FORGETS, [-2.0] * 3)})
    read = Page(page("m", {"g_effect": coarse, "tokens": by_token()}, ROWS))
    assert read.under("Examples that hurt") == ["a", "rmu"]
    assert read.under("Tokens that hurt") == ["a"]
    assert "Not here, where they have no share: rmu." in read.text


def test_entanglement_is_shown_with_its_own_tokens_whatever_else_is() -> None:
    texts = {0: ["x0", "y0"], 1: ["x1", "y1"]}
    pairs = Entanglement(((0, 1, 0, 0.5), (1, 0, 1, 2.0), (0, 0, 1, -1.0)), (0, 2), texts)
    tables = [
        {"g_effect": by_layer({"a": (FORGETS, FORGETS)})},
        {"tokens": by_token()},  # whose texts are others
    ]
    for shown in (Page(page("m", t, ROWS, pairs)).table("Entanglement")[1:] for t in tables):
        assert [(r[0].bold, r[0].text, r[1].text, r[2].text) for r in shown] == [
            ("x1", "x1y1", "r2 · …", "2"),
            ("y0", "x0y0", "r0 · …", "0.5"),
            ("x0", "x0y0", "r2 · …", "-1"),
        ]


def test_rounding_is_not_shown_as_a_finding() -> None:
    cancelling = ([-3.0, 1.0, 2.0 - 1e-9], [1e-9 - 3.0, 1.0, 2.0])
    table = by_layer({"a": (FORGETS, FORGETS), "cancels": cancelling})
    assert [table.negligible("cancels", d) for d in ("forget", "retain")] == [True, True]
    assert not table.negligible("a", "retain")
    assert table.ratio("cancels") != table.ratio("cancels")
    assert shares_by_layer(table, "forget")["cancels"] == {}
    read = Page(page("m", {"g_effect": table}, ROWS))
    assert [c.text for c in read.table("Objectives")[2]] == ["cancels", "–", "–", "–"]
    cells = read.table("Layers, on the forget set")[2][1:]
    assert [(c.text, c.hue) for c in cells] == [("–", "white")] * 2


def test_a_real_retaining_effect_is_the_scale_where_unlearning_is_only_rounding() -> None:
    table = by_layer({"nll": ([-3.0, 1.0, 2.0 - 1e-9], [1.0, 1.0, 2.0])})
    shares = shares_by_layer(table, "retain")["nll"]
    assert shares == pytest.approx({"block_00": 0.25, "block_01": 0.75})
