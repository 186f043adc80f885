"""Whether one method is better than another: the test itself, and what `compare` says of it."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from tests.evaluation.reports.compared import Values, run_folder, values_of

from amnesis.cli.app import main
from amnesis_evaluation.reports.paired_test import paired_test
from amnesis_evaluation.reports.pairs import holm

Captured = pytest.CaptureFixture[str]


def naive_statistic(sides: list[tuple[int, Values]], units: list[list[int]]) -> tuple[float, float]:
    """Return difference and standard error of values by row and seed, one sum at a time."""
    rows = [row for unit in units for row in unit]
    difference = sum(sign * values[rows].mean() for sign, values in sides)
    over_rows = 0.0
    for unit in units:
        of_unit = sum(sign * values[unit].mean(1).sum() for sign, values in sides)
        over_rows += (of_unit - difference * len(unit)) ** 2
    variance = over_rows * len(units) / (len(units) - 1) / len(rows) ** 2
    for _, values in sides:
        if values.shape[1] > 1:
            variance += values[rows].mean(0).var(ddof=1) / values.shape[1]
    return float(difference), float(np.sqrt(variance))


@pytest.mark.parametrize("paired", [False, True])
@pytest.mark.parametrize("grouped", [False, True])
def test_the_paired_test_is_that_of_a_naive_loop(paired: bool, grouped: bool) -> None:
    generator = np.random.default_rng(3)
    left, right = generator.random((12, 3)) + 0.1, generator.random((12, 3))
    groups = [f"g{i % 5}" for i in range(12)] if grouped else None
    of_unit = [[i] for i in range(12)]
    if groups is not None:
        of_unit = [[i for i in range(12) if groups[i] == name] for name in sorted(set(groups))]
    sides = [(1, left - right)] if paired else [(1, left), (-1, right)]
    value, error = naive_statistic(sides, of_unit)

    draws = np.random.default_rng(0)
    count = len(of_unit)
    rows = draws.multinomial(count, np.full(count, 1 / count), 300)
    seeds = [draws.multinomial(3, np.full(3, 1 / 3), 300) for _ in sides]
    ratios = []
    for b in range(300):
        chosen = [unit for unit, times in zip(of_unit, rows[b], strict=True) for _ in range(times)]
        drawn = [
            (sign, values[:, np.repeat(np.arange(3), seeds[k][b])])
            for k, (sign, values) in enumerate(sides)
        ]
        one, its_error = naive_statistic(drawn, chosen)
        ratios.append(abs(one - value) / max(its_error, 0.2 * error))
    expected = (1 + sum(ratio >= abs(value) / error - 1e-12 for ratio in ratios)) / 301
    test = paired_test(left, right, groups, paired_seeds=paired, resamples=300)
    assert test.difference == pytest.approx(value) == pytest.approx((left - right).mean())
    assert test.p == pytest.approx(expected)
    reach = float(np.quantile(ratios, 0.95)) * error
    assert test.interval == pytest.approx((value - reach, value + reach))


def test_with_one_seed_and_many_rows_it_is_about_student_s_paired_test() -> None:
    generator = np.random.default_rng(1)
    left = generator.normal(0.0, 1, (300, 1))
    right = left + generator.normal(0.12, 1, (300, 1))
    theirs = stats.ttest_rel(left[:, 0], right[:, 0])
    test = paired_test(left, right)
    assert test.p == pytest.approx(theirs.pvalue, abs=0.01)
    assert test.interval == pytest.approx(tuple(theirs.confidence_interval()), abs=0.01)


def null_samples(
    generator: np.random.Generator, groups: int, rows: int, seeds: int, of_seed: float
) -> tuple[Values, Values, list[str]]:
    """Two methods alike: rows and groups are easier or harder for each, seeds better or worse."""

    def normal(*shape: int) -> Values:
        return generator.normal(0, 1, shape)

    common = normal(groups, 1, 1) + normal(groups, rows, 1) - 2
    sides = [
        common + normal(groups, 1, 1) + of_seed * normal(1, 1, seeds) + normal(groups, rows, seeds)
        for _ in range(2)
    ]
    left, right = ((1 / (1 + np.exp(-side))).reshape(groups * rows, seeds) for side in sides)
    return left, right, [str(g) for g in range(groups) for _ in range(rows)]


@pytest.mark.parametrize(
    ("groups", "rows", "seeds", "of_seed"), [(20, 10, 1, 0.0), (20, 4, 3, 1.0), (40, 1, 5, 0.3)]
)
def test_methods_that_are_alike_are_seldom_told_apart(
    groups: int, rows: int, seeds: int, of_seed: float
) -> None:
    generator = np.random.default_rng(0)
    ps = []
    for seed in range(300):
        left, right, names = null_samples(generator, groups, rows, seeds, of_seed)
        ps.append(paired_test(left, right, names, resamples=299, seed=seed).p)
    assert np.mean(np.array(ps) < 0.05) <= 0.08, "within two and a half errors of .05"
    if rows > 5:  # as the rows of one author depend on each other
        generator = np.random.default_rng(0)
        alone = [null_samples(generator, groups, rows, seeds, of_seed)[:2] for _ in range(100)]
        ps = [paired_test(*pair, resamples=299).p for pair in alone]
        assert np.mean(np.array(ps) < 0.05) > 0.15


@given(st.integers(0, 10**6), st.floats(0.1, 10), st.booleans())
def test_the_order_of_methods_and_rows_changes_a_sign_only(
    seed: int, scale: float, paired: bool
) -> None:
    generator = np.random.default_rng(seed)
    left, right = generator.random((2, 9, 2))
    one = paired_test(left, right, paired_seeds=paired, resamples=99)
    other = paired_test(right, left, paired_seeds=paired, resamples=99)
    assert other.difference == pytest.approx(-one.difference)
    if paired:
        assert other.p == pytest.approx(one.p)
    scaled = paired_test(left * scale, right * scale, paired_seeds=paired, resamples=99)
    assert scaled.p == pytest.approx(one.p)
    assert scaled.difference == pytest.approx(scale * one.difference)


def test_equal_values_are_no_difference() -> None:
    same = np.random.default_rng(0).random((8, 2))
    test = paired_test(same, same, paired_seeds=True)
    assert (test.difference, test.interval, test.p) == (0, (0, 0), 1)
    assert paired_test(same, same[:, :1]).p > 0.05
    with pytest.raises(ValueError, match="two units"):
        paired_test(same, same, ["a"] * 8)


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_rejects_what_its_steps_reject(ps: list[float]) -> None:
    adjusted = holm(ps)
    for level in (0.01, 0.05, 0.5):
        rejected: set[int] = set()
        for step, index in enumerate(sorted(range(len(ps)), key=lambda i: ps[i])):
            if ps[index] * (len(ps) - step) >= level:
                break
            rejected.add(index)
        assert {i for i, p in enumerate(adjusted) if p < level} == rejected
    assert all(p <= q <= 1 for p, q in zip(ps, adjusted, strict=True))


def compare(capsys: Captured, *arguments: str) -> tuple[str, str]:
    assert main(["compare", *arguments]) == 0
    said = capsys.readouterr()
    return said.out, said.err


def test_the_better_of_two_is_named_in_every_form(tmp_path: Path, capsys: Captured) -> None:
    folders = [run_folder(tmp_path / f"a{k}", values_of(k, 0.3, 0.6), seed=k) for k in range(3)] + [
        run_folder(tmp_path / f"b{k}", values_of(10 + k, 0.2, 0.6), seed=k, objective="npo")
        for k in range(3)
    ]
    sentence = "npo + kl, sum is better than ga + kl, sum: "
    output, notes = compare(capsys, *folders)
    (said,) = [line for line in output.splitlines() if "better" in line]
    assert said.startswith(f"{sentence}forget/probability of npo + kl, sum is 0.1")
    assert "lower (-0.1" in said
    assert "no difference in retain/probability is shown" in said
    assert said.endswith(
        "(Paired over 40 rows; 3 and 3 seeds; each p is corrected for 3 metrics by Holm, the "
        "intervals are not.)"
    )
    assert notes == ""
    for form in ("csv", "markdown", "latex"):
        assert f"note: {said}" in compare(capsys, *folders, "--format", form)[1].splitlines()
    document = json.loads(compare(capsys, *folders, "--format", "json")[0])
    assert [row["run"] for row in document["rows"]] == ["ga + kl, sum", "npo + kl, sum"]
    assert document["rows"][0]["forget/probability"] == pytest.approx(0.3, abs=0.05)
    (pair,) = document["pairs"]
    assert pair["sentence"] == said
    assert [one["metric"] for one in pair["differences"]] == [
        "forget/probability",
        "retain/probability",
        "forget/rouge_l",
    ]
    rows = list(csv.DictReader(io.StringIO(compare(capsys, *folders, *PAIRS)[0])))
    for row, one in zip(rows, pair["differences"], strict=True):
        assert (row["metric"], row["run"], row["against"]) == (
            one["metric"],
            pair["left"],
            pair["right"],
        )
        assert float(row["difference"]) == one["value"]
        assert [float(row["low"]), float(row["high"])] == one["interval"]
        assert (float(row["p"]), float(row["p (Holm)"])) == (one["p"], one["p_holm"])
        assert (row["rows"], row["groups"]) == ("40", "40")
    assert [float(row["p (Holm)"]) for row in rows] == holm([float(row["p"]) for row in rows])
    assert float(rows[0]["difference"]) == pytest.approx(0.1, abs=0.01)
    assert float(rows[0]["p (Holm)"]) < 0.01 < float(rows[2]["p"])


PAIRS = ("--pairs", "--format", "csv")


@pytest.mark.parametrize(
    ("forget", "retain", "head"),
    [
        (
            0.2,
            0.5,
            "Neither ga + kl, sum nor npo + kl, sum is better: forget/probability of ga + kl",
        ),
        (
            0.3,
            0.6,
            "No difference between ga + kl, sum and npo + kl, sum is shown: no difference in forget",
        ),
        (
            0.4,
            0.6,
            "ga + kl, sum is better than npo + kl, sum: forget/probability of ga + kl, sum is 0.1",
        ),
        (0.3, 0.7, "npo + kl, sum is better than ga + kl, sum: no difference in forget/"),
    ],
)
def test_better_is_ahead_in_one_and_not_behind_in_the_other(
    tmp_path: Path, capsys: Captured, forget: float, retain: float, head: str
) -> None:
    one = run_folder(tmp_path / "a", values_of(0, 0.3, 0.6))
    other = run_folder(tmp_path / "b", values_of(1, forget, retain), objective="npo")
    output, _ = compare(capsys, one, other)
    (said,) = [line for line in output.splitlines() if "Paired over" in line]
    assert said.startswith(head)
    assert "one seed each, which says nothing of others" in said


def test_rows_in_groups_are_compared_by_groups(tmp_path: Path, capsys: Captured) -> None:
    """Ten rows of each of four authors, of whom one is forgotten: four units show nothing."""
    groups = [f"author {i // 10}" for i in range(40)]
    left, right = values_of(0, 0.5, 0.6), values_of(1, 0.5, 0.6)
    right["forget/probability"][:10] -= 0.4
    folders = [
        run_folder(tmp_path / "a", left, groups=groups),
        run_folder(tmp_path / "b", right, groups=groups, objective="npo"),
    ]
    output, _ = compare(capsys, *folders)
    assert "No difference between" in output
    assert "Paired over 40 rows in 4 groups" in output
    alone = [
        run_folder(tmp_path / "c", left),
        run_folder(tmp_path / "d", right, objective="npo"),
    ]
    assert "npo + kl, sum is better" in compare(capsys, *alone)[0]


def test_other_rows_are_not_compared(tmp_path: Path, capsys: Captured) -> None:
    one = run_folder(tmp_path / "a", values_of(0, 0.3, 0.6))
    sets = {"forget": "other", "retain": "r"}
    other = run_folder(tmp_path / "b", values_of(1, 0.2, 0.6), objective="npo", sets=sets)
    output, notes = compare(capsys, one, other)
    assert "forget/probability is not tested" in notes
    assert "evaluated on different rows of 'forget'" in notes
    assert "Paired over 40 rows; one seed each, which says nothing of others.)" in output
    few = values_of(1, 0.2, 0.6, size=15)
    shorter = run_folder(tmp_path / "c", few, objective="dpo")
    (row, *_) = csv.DictReader(io.StringIO(compare(capsys, one, shorter, *PAIRS)[0]))
    assert row["rows"] == "15", "those that both have"


def test_a_run_without_its_rows_values_is_named(tmp_path: Path, capsys: Captured) -> None:
    folders = [
        run_folder(tmp_path / "a", values_of(0, 0.3, 0.6)),
        run_folder(tmp_path / "b", values_of(1, 0.2, 0.6), objective="npo"),
    ]
    (tmp_path / "b" / "examples.parquet").unlink()
    output, notes = compare(capsys, *folders)
    assert "better" not in output
    assert f"not tested: without examples.parquet, the values of each row, in {folders[1]}" in notes
    assert main(["compare", *folders, "--pairs"]) == 2
    assert "--pairs: no two of" in capsys.readouterr().err
    document = json.loads(compare(capsys, *folders, "--format", "json")[0])
    assert document["pairs"] == []
    assert document["notes"] == [notes.removeprefix("note: ").rstrip("\n")]
