"""The page of a comparison: its record's numbers, its texts as text, the front and why."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.evaluation.pages.a_comparison import NAMES, RETRAINED, write_comparison, write_runs
from tests.evaluation.pages.reading import Reader, all_numbers, all_texts, as_number

from amnesis.cli.app import main
from amnesis_evaluation.commands.compare.page import MOST_CELLS, content_of, page
from amnesis_evaluation.pages.fronts import Front, front_of

Captured = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_comparison(tmp_path_factory.mktemp("compared"))


@pytest.fixture(scope="module")
def record(written: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((written.parent / "comparison.json").read_text("utf-8"))
    return document


@pytest.fixture(scope="module")
def read(written: Path) -> Reader:
    return Reader(written.read_text(encoding="utf-8"))


def test_the_record_is_what_the_runs_hold(record: dict[str, Any], written: Path) -> None:
    methods = record["methods"]
    assert [method["name"] for method in methods] == list(NAMES)
    assert [len(method["runs"]) for method in methods] == [3, 1, 1, 1]
    for method in methods:
        for run in method["runs"]:
            results = json.loads((Path(run["folder"]) / "results.json").read_text("utf-8"))
            assert run["values"] == results["after"]
    means = [run["values"]["forget/probability"] for run in methods[0]["runs"]]
    value = methods[0]["values"]["forget/probability"]
    assert value["mean"] == pytest.approx(sum(means) / 3)
    assert value["error"] > 0
    assert methods[1]["values"]["forget/probability"]["interval"] == [0.15, 0.25]
    assert [run["seed"] for run in methods[0]["runs"]] == [0, 1, 2]
    assert [point["retention"] for point in record["retrained"]] == [0.9375, 0.875]
    assert len(record["before"]) == 1
    assert len(record["pairs"]) == 6
    assert sorted(path.name for path in written.parent.iterdir()) == [
        "comparison.json", "report.html",
    ]  # fmt: skip


def test_the_front_and_why(record: dict[str, Any], read: Reader) -> None:
    ga, npo, wga, simnpo = record["methods"]
    assert [m["on_front"] for m in record["methods"]] == [True, True, False, False]
    assert ga["why"].startswith("no other forgets as much and retains more")
    assert re.match(r"ga \+ kl, sum forgets more \(0\.3\d\d against 0\.4\d\d\) and", wga["why"])
    assert simnpo["why"].startswith("it forgot nothing: forget/probability was 0.950 before and is")
    assert simnpo["forgot_nothing"]
    for method in (npo, wga, simnpo):
        assert method["why"] in read.text
    assert "ga + kl, sum and npo + kl, sum are on the Pareto front of forget/prob" in read.text
    assert "; 2 are not." in read.text
    assert "forgotten" in read.text
    assert "damaged" in read.text


def test_every_number_is_in_the_record(record: dict[str, Any], read: Reader) -> None:
    known = all_numbers(record) | {len(method["runs"]) for method in record["methods"]}
    assert len(read.numbers) > 100
    for exact, shown in read.numbers:
        assert exact in known, shown
        value, rounding = as_number(shown)
        assert abs(value - exact) <= rounding, (shown, exact)
    words = all_texts(record).replace("(-", "(−").replace(" -", " −")
    loose = set(re.findall(r"(?<![\w.])[−-]?\d+\.\d+(?![\w.])", read.text))
    assert {text for text in loose if text not in words} == set()


def test_texts_are_text_and_nothing_is_loaded(written: Path, read: Reader) -> None:
    assert read.tags.count("script") == 1
    assert "img" not in read.tags
    assert "<img src=x onerror=alert(1)>" in read.text
    assert read.unbalanced == []
    assert not any(name.startswith(("on", "style=", "src=")) for _, name in read.attributes)
    links = [value for _, value in read.attributes if value.startswith("href=")]
    assert links
    assert all(link.startswith("href=#") for link in links)
    sections = [v[3:] for tag, v in read.attributes if tag == "section" and v.startswith("id=")]
    assert sections == ["front", "picture", "values", "tests", "runs", "gaps"]
    assert {f"href=#{name}" for name in sections} <= set(links)
    assert written.stat().st_size < 3_000_000


def test_the_picture_is_where_the_values_are(record: dict[str, Any], written: Path) -> None:
    picture = front_of(record)
    assert picture is not None
    means = [spot for spot in picture.spots if spot.style != "run"]
    assert {spot.number: spot.style for spot in means} == {1: "on", 2: "on", 3: "off", 4: "idle"}
    assert sum(spot.style == "run" for spot in picture.spots) == 3
    assert {(f.phase, f.x_value) for f in picture.fixed} == {
        ("before", 0.95),
        ("retrained", RETRAINED["forget/probability"]),
    }
    html = written.read_text(encoding="utf-8")
    svg = html[html.index('<svg viewBox="0 0 720 420"') :]
    for spot in means:
        assert f'<circle cx="{spot.x}" cy="{spot.y}" r="10"/>' in svg
        assert f'text-anchor="middle">{spot.number}</text>' in svg
    assert f'points="{picture.edge}"' in svg
    assert svg.count('class="retrained"') >= 2
    assert "on the front" in svg[: svg.index(">")]


points = st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=8, unique=True)


def picture_of(values: list[tuple[float, float]], scale: float = 1.0) -> Front:
    from amnesis_evaluation.reports.comparison import pareto_front

    methods = [
        {
            "number": number,
            "name": f"m{number}",
            "on_front": best,
            "forgot_nothing": False,
            "values": {"f": {"mean": scale * x}, "r": {"mean": scale * y, "interval": [-9, 9]}},
            "runs": [{"seed": 0, "values": {}}],
        }
        for number, ((x, y), best) in enumerate(
            zip(values, pareto_front(values), strict=True), start=1
        )
    ]
    document = {"front": {"forgetting": "f", "retention": "r"}, "methods": methods,
                "before": [], "retrained": []}  # fmt: skip
    picture = front_of(document)
    assert picture is not None
    return picture


@given(points, st.sampled_from([1.0, 40.0]))
def test_nothing_is_beyond_the_edge_or_the_picture(
    values: list[tuple[float, float]], scale: float
) -> None:
    picture = picture_of(values, scale)
    stairs = [tuple(map(float, pair.split(","))) for pair in picture.edge.split()]
    for spot in picture.spots:
        assert picture.x.start <= spot.x <= picture.x.end
        assert picture.y.end <= spot.y <= picture.y.start
        assert spot.y_ends is not None
        assert all(picture.y.end - 0.01 <= end <= picture.y.start + 0.01 for end in spot.y_ends)
        reached = [top for left, top in stairs if left <= spot.x + 0.02]
        assert min(reached) <= spot.y + 0.02, "a method is above the edge of the best"
        if spot.style == "on":
            assert any(abs(left - spot.x) < 0.01 and abs(top - spot.y) < 0.01
                       for left, top in stairs)  # fmt: skip


def test_at_equal_forgetting_there_is_a_page_too(tmp_path: Path, capsys: Captured) -> None:
    along = [{"step": 10, "forget/probability": 0.6, "retain/probability": 0.8}]
    from tests.evaluation.reports.compared import run_folder, values_of

    folders = [
        run_folder(tmp_path / name, values_of(k, 0.3, 0.9), objective=name, trajectory=along,
                   steps=20)
        for k, name in enumerate(("ga", "npo"))
    ]  # fmt: skip
    out = tmp_path / "out"
    arguments = ["compare", *folders, "--at", "forget/probability=0.5", "--out", str(out)]
    assert main([*arguments, "--format", "csv"]) == 0
    assert "report.html" not in capsys.readouterr().out, "what another program reads"
    read = Reader((out / "report.html").read_text("utf-8"))
    record = json.loads((out / "comparison.json").read_text("utf-8"))
    assert "At forget/probability = 0.5, interpolated" in read.text
    steps = [row[2]["mean"] for row in record["equal"]["rows"]]
    assert all(10 < step < 20 for step in steps)
    known = all_numbers(record) | {1.0}
    assert all(exact in known for exact, _ in read.numbers)


def test_a_page_is_written_over_on_request_and_never_over_a_run(
    tmp_path: Path, capsys: Captured
) -> None:
    runs, out = write_runs(tmp_path), tmp_path / "out"
    pair = [runs[0], runs[3]]
    assert main(["compare", *pair, "--out", str(out)]) == 0
    assert str(out / "report.html") in capsys.readouterr().out.replace("\n", "")
    assert main(["compare", *pair, "--out", str(out)]) == 2
    assert "--overwrite to replace report.html, comparison.json" in capsys.readouterr().err
    assert main(["compare", *pair, "--out", str(out), "--overwrite"]) == 0
    capsys.readouterr()
    for place in (runs[3], str(tmp_path)):
        before = sorted(tmp_path.rglob("*"))
        assert main(["compare", *pair, "--out", place, "--overwrite"]) == 2
        assert "whose page is its own; name another --out" in capsys.readouterr().err
        assert sorted(tmp_path.rglob("*")) == before


def test_what_cannot_be_placed_is_said(tmp_path: Path) -> None:
    (tmp_path / "bare").mkdir()
    results = {"after": {"mia_loss": 0.5, "forget/rouge_l": 0.25}}
    (tmp_path / "bare" / "results.json").write_text(json.dumps(results))
    out = tmp_path / "out"
    assert main(["compare", str(tmp_path / "bare"), "--out", str(out)]) == 0
    text = Reader((out / "report.html").read_text("utf-8")).text
    assert "Nothing is on the Pareto front" in text
    assert "it has no forget/probability and no retain/probability" in text
    assert "a retrained model, the goal itself" in text
    assert "other seeds of all of these" in text


def test_of_many_a_page_stays_small(record: dict[str, Any]) -> None:
    count, metrics = 60, [f"retain/m{k}" for k in range(150)]
    method = record["methods"][0]
    values = method["values"] | {name: {"mean": 0.123456789, "error": 0.1} for name in metrics}
    methods = [{**method, "number": k + 1, "values": values} for k in range(count)]
    pair = record["pairs"][0]
    pairs = [{**pair, "differences": [*pair["differences"]] * 10} for _ in range(count)]
    many = {**record, "methods": methods, "pairs": pairs}
    content = content_of(many)
    shown = sum(len(columns.metrics) for columns in content.columns)
    assert shown * count <= MOST_CELLS
    assert content.omitted == [
        f"the values of {len(values) - shown} further metrics",
        f"{30 * count - 1500} differences of two methods by one metric",
    ]
    html = page(many)
    assert len(html.encode()) < 3_000_000
    assert "further metrics: in" in Reader(html).text
