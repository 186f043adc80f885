"""The probe's page and picture: what they show are a table's own numbers, in order and colour."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from tests.evaluation.commands.page_reader import Page
from tests.evaluation.pages.browser import CHROMIUM, browser
from tests.evaluation.pages.looks import check_everywhere
from tests.evaluation.pages.reading import Reader, all_numbers, as_number

from amnesis_evaluation.commands.probe.page import by_ratio, coinciding, page, record
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
        ["helps", "−4.0000", "3.0000", "−0.7500"],
        ["half", "−4.0000", "−2.0000", "0.5000"],
        ["harms", "−4.0000", "−12.0000", "3.0000"],
        ["learns", "3.0000", "−2.0000", "–"],
    ]


def test_layers_are_shares_of_the_unlearning_effect_coloured_by_what_they_mean() -> None:
    table = by_layer({"a": (FORGETS, [1.0, 1.0, 0.0]), "learns": ([1.0] * 3, [2.0] * 3)})
    found = {name: shares_by_layer(table, name) for name in ("forget", "retain")}
    assert found["forget"]["a"] == pytest.approx({"block_00": -0.25, "block_01": -0.75})
    assert found["retain"]["a"] == pytest.approx({"block_00": 0.125, "block_01": 0.375})
    assert found["retain"]["learns"] == pytest.approx({"block_00": 0.25, "block_01": 0.75})
    read = Page(page("m", {"g_effect": table}, ROWS))
    forget = read.table("Layers, on the forget set")
    retain = read.table("Layers, on the retain set")
    assert [piece.text for piece in forget[0]] == ["objective", "block_00", "block_01"]
    shown = [[(c.text, c.tone) for c in row[1:]] for row in forget[1:]]
    assert shown == [
        [("−0.250", "wanted"), ("−0.750", "wanted")],
        [("0.125", "damage"), ("0.375", "damage")],
    ]
    assert [(c.text, c.tone) for c in retain[1][1:]] == [("0.125", "wanted"), ("0.375", "wanted")]
    assert [cell.strength for cell in forget[1][1:]] == [3, 8]


def test_the_worst_examples_come_first_and_those_that_help_not_at_all() -> None:
    table = by_layer({"a": (FORGETS, [-1.0, 4.0, -3.0])})
    shown = Page(page("m", {"g_effect": table}, ROWS)).table("Examples that hurt", "a")[1:]
    assert [(row[0].text, row[1].text, row[1].tone) for row in shown] == [
        ("f2 · …", "−3.000", "damage"),
        ("f0 · …", "−1.000", "damage"),
    ]


def test_the_worst_tokens_come_first_each_bold_in_its_text() -> None:
    read = Page(page("m", {"tokens": by_token()}, ROWS))
    shown = read.table("Tokens that hurt", "a")[1:]
    assert [(row[0].bold, row[0].text, row[1].text) for row in shown] == [
        ("<1a>", "<1a> 1b", "−1.000"),
        ("<2a>", "<2a> 2b", "−0.750"),
        (" 1b", "<1a> 1b", "−0.500"),
    ]


def test_tokens_are_coloured_by_their_own_share_the_worst_example_first() -> None:
    read = Page(page("m", {"tokens": by_token()}, ROWS))
    (place,) = [
        p for p in read.texts if p == ("Tokens by their share of the retaining effect", "a")
    ]
    shown = [[(t.text, t.title, t.tone, t.strength) for t in text] for text in read.texts[place]]
    assert shown == [
        [("<1a>", "−1.000", "damage", 8), (" 1b", "−0.500", "damage", 4)],
        [("<2a>", "−0.750", "damage", 6), (" 2b", "0.000", "none", 0)],
        [("<0a>", "0.500", "wanted", 4), (" 0b", "0.250", "wanted", 2)],
    ]


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
            ("x1", "x1y1", "r2 · …", "2.000"),
            ("y0", "x0y0", "r0 · …", "0.500"),
            ("x0", "x0y0", "r2 · …", "−1.000"),
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
    assert [(c.text, c.tone) for c in cells] == [("–", "none")] * 2
    assert "cancels: its effect on the forget and the retain set is mere rounding" in (read.text)


def test_a_real_retaining_effect_is_the_scale_where_unlearning_is_only_rounding() -> None:
    table = by_layer({"nll": ([-3.0, 1.0, 2.0 - 1e-9], [1.0, 1.0, 2.0])})
    shares = shares_by_layer(table, "retain")["nll"]
    assert shares == pytest.approx({"block_00": 0.25, "block_01": 0.75})


def test_objectives_that_do_the_same_are_said_once() -> None:
    double = ([2 * value for value in FORGETS], [-2.0, 8.0, -6.0 - 1e-7])
    table = by_layer(
        {"a": (FORGETS, [-1.0, 4.0, -3.0]), "twice": double, "b": (FORGETS, [-1.0, 4.0, -3.1])}
    )
    assert coinciding(table) == [["a", "twice"], ["b"]]
    read = Page(page("m", {"g_effect": table}, ROWS))
    assert [row[0].text for row in read.table("Objectives")[1:]] == ["a = twice", "b"]
    assert "twice does here what a does, but for size: said once." in read.text
    assert read.under("Examples that hurt") == ["a", "b"]
    assert [row[0].text for row in read.table("Layers, on the retain set")[1:]] == ["a", "b"]


def test_it_says_which_is_gentlest_and_where_they_differ() -> None:
    table = by_layer({"harms": (FORGETS, [-4.0, -4.0, -4.0]), "half": (FORGETS, [-1.0, -1.0, 0.0])})
    read = Page(page("m", {"g_effect": table}, ROWS))
    assert (
        "half is the gentlest of them: per unit of forgetting it does 0.500 of harm to the retain "
        "set; harms, the harshest, does 3.000. 1 harms both sets alike" in read.text
    )
    assert "They differ most in block_01." in read.text
    close = by_layer({"a": (FORGETS, [-1.0, -1.0, 0.0]), "b": (FORGETS, [-1.0, -1.05, 0.0])})
    text = Page(page("m", {"g_effect": close}, ROWS)).text
    assert "None is gentler by much: per unit of forgetting they do about 0.500 of harm" in text
    assert "differ most" not in text
    assert "texts that must be forgotten" in read.text
    assert read.text.index("What this tells") < read.text.index("Objectives")


def test_every_number_is_in_the_record_or_a_table() -> None:
    tables = {"g_effect": by_layer({"a": (FORGETS, [-1.0, 4.0, -3.3])}), "tokens": by_token()}
    pairs = Entanglement(((0, 1, 0, 0.51234),), (0, 2), {0: ["x0", "y0"]})
    reader = Reader(page("m", tables, ROWS, pairs))
    known = all_numbers(record(tables)) | {pair[3] for pair in pairs.pairs}
    for table in tables.values():
        known |= {row["value"] for row in table}
    assert len(reader.numbers) > 10
    for exact, shown in reader.numbers:
        assert exact in known, shown
        value, rounding = as_number(shown)
        assert abs(value - exact) <= rounding


def test_hostile_rows_are_text() -> None:
    hostile = "<script>alert(1)</script>"
    rows = {name: [{"question": hostile, "answer": "\x1b[31m"}] * 3 for name in ROWS}
    reader = Reader(page(hostile, {"g_effect": by_layer({"a": (FORGETS, [-1.0] * 3)})}, rows))
    assert reader.tags.count("script") == 1
    assert reader.text.count(hostile) == 3 + 2
    assert "\\x1b[31m" in reader.text
    assert reader.unbalanced == []


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on this machine")
def test_it_is_legible_everywhere(tmp_path: Path) -> None:
    """Objectives by layer, and a page of tokens."""
    layers = by_layer({"a": (FORGETS, [1.0, 1.0, 0.0]), "learns": ([1.0] * 3, [2.0] * 3)})
    with browser(tmp_path / "profile") as chromium:
        for name, table in (("layers", layers), ("tokens", by_token())):
            path = tmp_path / f"{name}.html"
            path.write_text(page("a model", {"g_effect": table}, ROWS), encoding="utf-8")
            check_everywhere(chromium, path, texts=25)
