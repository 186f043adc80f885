"""A run's page: its numbers are the results', its texts are text, and it needs nothing else."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any, get_args

import pytest
from pyarrow import parquet
from tests.evaluation.pages.a_run import HOSTILE, LONG, SHOWN, range_test, results, write_run
from tests.evaluation.pages.reading import (
    Reader,
    all_numbers,
    all_texts,
    as_number,
    contrast,
    palette,
)

from amnesis.runs.results import Results
from amnesis.training.pacing.choice import Ending, RangeTest
from amnesis_evaluation.pages.content import content_of
from amnesis_evaluation.pages.numbers import data, number, with_minus
from amnesis_evaluation.pages.pacing import ENDS, pacing_of, rise_of
from amnesis_evaluation.pages.rendering import stylesheet
from amnesis_evaluation.pages.report import report_page, write_report


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("page") / "run")


@pytest.fixture(scope="module")
def read(page: Path) -> Reader:
    return Reader(page.read_text(encoding="utf-8"))


def test_every_number_is_in_a_file_that_the_page_names(page: Path, read: Reader) -> None:
    document = json.loads((page.parent / "results.json").read_text(encoding="utf-8"))
    known = all_numbers(document)
    for name in ("examples.parquet", "answers.parquet"):
        assert name in read.text
        known |= all_numbers(parquet.read_table(page.parent / name).to_pylist())
    assert len(read.numbers) > 100
    for exact, shown in read.numbers:
        assert exact in known, shown
        value, rounding = as_number(shown)
        assert abs(value - exact) <= rounding, (shown, exact)


def test_no_number_is_written_but_as_one(page: Path, read: Reader) -> None:
    """What has a decimal point outside of ``<data>`` is a word of the results or the recipe."""
    document = json.loads((page.parent / "results.json").read_text(encoding="utf-8"))
    words = all_texts(document)
    loose = set(re.findall(r"(?<![\w.])[−-]?\d+\.\d+(?![\w.])", read.text))
    assert {text for text in loose if text not in words} == set()
    assert "-0." not in read.text.replace(HOSTILE, "")


def test_texts_are_text(page: Path, read: Reader) -> None:
    html = page.read_text(encoding="utf-8")
    assert read.tags.count("script") == 1
    assert "img" not in read.tags
    assert SHOWN in read.text
    assert "\x1b" not in html
    assert "\N{RIGHT-TO-LEFT OVERRIDE}" not in html
    assert read.unbalanced == []
    assert not any(name.startswith(("on", "style=", "src=")) for _, name in read.attributes)


def test_it_loads_nothing_and_links_only_to_itself(read: Reader) -> None:
    links = [value for _, value in read.attributes if value.startswith("href=")]
    assert links
    assert all(link.startswith("href=#") for link in links)
    assert "link" not in read.tags
    assert "url(http" not in stylesheet()
    assert "@import" not in stylesheet()


def test_its_parts_stand_in_their_order(read: Reader) -> None:
    sections = [
        name.removeprefix("id=")
        for tag, name in read.attributes
        if tag == "section" and name.startswith("id=")
    ]
    assert sections == [
        "verdict", "picture", "samples", "metrics", "attacks", "effects", "tasks", "run", "gaps",
    ]  # fmt: skip
    assert {"header", "nav", "main", "footer", "caption", "figcaption"} <= set(read.tags)
    assert ("html", "lang=en") in read.attributes
    assert any(tag == "meta" and "width=device-width" in name for tag, name in read.attributes)


def test_every_picture_has_a_text_alternative() -> None:
    html = write_page(results())
    for opening in re.findall(r"<svg[^>]*>", html):
        assert "aria-hidden" in opening or 'role="img" aria-label="' in opening or "<span>" in html
    charts = re.findall(r'<svg [^>]*role="img" aria-label="([^"]+)"', html)
    assert len(charts) >= 6
    assert all(label.strip() for label in charts)


def test_the_worst_samples_come_first(read: Reader) -> None:
    forget = read.text[read.text.index("must go: the best") : read.text.index("must stay: what")]
    shown = [int(row) for row in re.findall(r"row (\d+)", forget)]
    assert shown == [*range(8), 10, 11]  # what is least likely now comes last
    retain = read.text[read.text.index("must stay: what") : read.text.rindex("Metrics\n")]
    assert [int(row) for row in re.findall(r"row (\d+)", retain)][:3] == [11, 10, 9]


def test_rows_that_a_recipe_holds_are_counted_and_not_shown(read: Reader) -> None:
    recipe = read.text[read.text.index("Recipe\n") :]
    assert "forget: (1 rows)" in recipe
    assert "retain: retain.csv" in recipe
    assert "document.title" not in recipe[: recipe.index("Notes")]


def test_without_answers_no_text_is_on_it(page: Path, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_bytes((page.parent / "recipe.yaml").read_bytes())
    whole = Results.read(page.parent).model_copy(update={"notes": []})
    html = write_report(tmp_path, whole).read_text(encoding="utf-8")
    assert LONG not in html
    assert "broken in" not in html
    text = Reader(html).text
    assert "No answers were kept" in text
    assert "answers: none were kept" in text[text.index("What was not measured") :]


def write_page(of: Results) -> str:
    return report_page(Path("nowhere-that-is"), of)


@pytest.mark.parametrize(
    "bare",
    [
        {},
        {"after": {"forget/probability": 0.5}},
        {"steps": 3, "trajectory": [{"step": 1, "g_effect/unlearn": -1.0}]},
        {"before": {"a": 0.1}, "after": {"a": -0.1}, "attacks": {"x": {"after": {"a@1": 1.0}}}},
        {"trajectory": [{"step": k, "g_effect/unlearn": 0.0} for k in range(3)]},
    ],
)
def test_whatever_is_missing_there_is_a_page(bare: dict[str, Any]) -> None:
    read = Reader(write_page(Results.model_validate(bare)))
    assert read.unbalanced == []
    assert "What was not measured" in read.text


def test_what_was_not_measured_is_said_and_what_was_is_not() -> None:
    gaps = " ".join(content_of(results(), None, answers=[{"set": "forget"}]).gaps)
    for text in ("retrained", "holdout", "attacks", "membership", "MMLU", "effective", "intervals"):
        assert text not in gaps
    assert "other seeds" in gaps
    bare = " ".join(content_of(Results(after={"forget/probability": 0.5}), None).gaps)
    for text in ("before", "retrained", "holdout", "attacks", "membership", "MMLU", "intervals"):
        assert text in bare


@pytest.mark.parametrize("medium", [None, "dark", "print"])
def test_whatever_is_read_has_contrast(medium: str | None) -> None:
    colours = palette(stylesheet(), medium)
    assert len(colours) == 10
    grounds = {
        "ink": ("page", "panel", "wanted-soft", "damage-soft", "neutral-soft"),
        "muted": ("page", "panel", "neutral-soft"),
        "wanted": ("page", "panel", "wanted-soft"),
        "damage": ("page", "panel", "damage-soft"),
    }
    for text, below in grounds.items():
        for ground in below:
            ratio = contrast(_whole(colours[text]), _whole(colours[ground]))
            assert ratio >= 4.5, (text, ground, ratio)


def _whole(colour: str) -> str:
    return colour if len(colour) == 7 else "#" + "".join(2 * digit for digit in colour[1:])


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.08019, "0.080"), (-0.5, "−0.500"), (0.0, "0.000"), (1.23e-7, "1.23×10⁻⁷"),
        (-4.56e8, "−4.56×10⁸"), (7, "7"), (-7, "−7"), (None, "–"), (float("nan"), "–"),
    ],
)  # fmt: skip
def test_numbers(value: float | None, shown: str) -> None:
    assert number(value) == shown
    if value is not None and value == value:
        assert data(value) == f'<data value="{value!r}">{shown}</data>'


def test_minus_signs_are_for_numbers_and_hyphens_for_names() -> None:
    text = "-0.5 (-3 to +2) of wga-kl in run-3, 5-7"
    assert with_minus(text) == "−0.5 (−3 to +2) of wga-kl in run-3, 5-7"


@pytest.mark.parametrize("medium", [None, "dark", "print"])
@pytest.mark.parametrize("tone", ["wanted", "damage"])
def test_a_number_on_the_strongest_colour_can_be_read(medium: str | None, tone: str) -> None:
    colours = {name: _whole(colour) for name, colour in palette(stylesheet(), medium).items()}
    shares = [int(s) for s in re.findall(r"color-mix\(in srgb, var\(--tone\) (\d+)%", stylesheet())]
    strongest = max(shares) / 100
    mixed = [
        round(strongest * int(one, 16) + (1 - strongest) * int(other, 16))
        for one, other in zip(
            *(re.findall("..", colours[name][1:]) for name in (tone, "panel")), strict=True
        )
    ]
    assert contrast(colours["ink"], "#" + "".join(f"{channel:02x}" for channel in mixed)) >= 4.5


def test_how_the_learning_rate_was_found_is_told(page: Path, read: Reader) -> None:
    told = read.text[
        read.text.index("How the learning rate was found") : read.text.index("Recipe\n")
    ]
    assert "ended where the forget set was forgotten" in told
    assert "forgotten from here on" in told
    assert "the rate of the run" in told
    numbers = [exact for exact, _ in read.numbers]
    test = range_test()
    for exact in (test["rate"], test["path"], test["steps"], *test["curve"][-1].values()):
        assert exact in numbers
    html = page.read_text(encoding="utf-8")
    assert html.count('class="curve wanted"') >= 3
    assert "Both risks as the learning rate rises" in html


@pytest.mark.parametrize("ended", get_args(Ending))
def test_each_end_of_a_range_test_has_its_words(ended: Ending) -> None:
    test = RangeTest.model_validate({**range_test(), "ended": ended})
    pacing = pacing_of(test)
    assert pacing is not None
    assert ENDS[ended] in str(pacing.sentences[0][-1])
    assert pacing_of(None) is None


@pytest.mark.parametrize("retain", [True, False])
@pytest.mark.parametrize("exploded", [0.9, 7.0, 3e8])
def test_a_range_test_stays_inside_of_its_picture(retain: bool, exploded: float) -> None:
    test = RangeTest.model_validate(range_test(retain=retain, exploded=exploded))
    pacing = pacing_of(test)
    assert pacing is not None
    picture = pacing.picture
    assert picture is not None
    assert len(picture.lines) == 1 + retain
    for x, y, rate, risk, _ in picture.points:
        assert picture.x.start <= x <= picture.x.end
        assert picture.y.end <= y <= picture.y.start
        assert x == pytest.approx(picture.x.at(math.log10(rate)))
        if risk < picture.y.high:
            assert y == picture.y.at(risk)
    assert [text for _, text in picture.decades()] == ["−7", "−6", "−5", "−4"]
    assert picture.goal is not None
    assert picture.y.end <= picture.goal <= picture.y.start
    assert picture.found == picture.x.at(math.log10(test.rate))
    outside = rise_of([point.model_dump() for point in test.curve], 0.5)
    assert outside is not None
    assert outside.found is None
    assert rise_of([point.model_dump() for point in test.curve[:2]], 1e-7) is None
