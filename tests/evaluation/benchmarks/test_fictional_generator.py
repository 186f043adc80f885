"""The `fictional` benchmark's generator: what its rows promise."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from string import Formatter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amnesis_evaluation.benchmarks.fictional import draw, knowledge, phrasing, vocabulary
from amnesis_evaluation.benchmarks.fictional.generator import MAX_AUTHORS, generate

Sets = dict[str, list[dict[str, Any]]]

AUTHOR_SETS = ("forget", "retain", "holdout")

# Changes whenever a word of the benchmark does: numbers published before are then of another one.
DEFAULT_FINGERPRINT = "e66988584659fd3e11060bb224290b205e4069a25238d8e9f11a69b2946c037b"

seeds = st.integers(min_value=-(2**70), max_value=2**70)


def fingerprint(sets: Sets) -> str:
    return hashlib.sha256(json.dumps(sets, sort_keys=True).encode()).hexdigest()


def all_rows(sets: Sets) -> list[dict[str, Any]]:
    return [row for rows in sets.values() for row in rows]


def people(sets: Sets) -> list[str]:
    return [row["author"] for name in AUTHOR_SETS for row in sets[name]]


def titles_of(row: dict[str, Any]) -> list[str]:
    return re.findall(r'"(The [A-Z][a-z]+ [A-Z][a-z]+)"', row["answer"])


def repeated(values: list[str]) -> list[str]:
    return [value for value, count in Counter(values).items() if count > 1]


def fields(template: str) -> set[str]:
    return {field for _, field, _, _ in Formatter().parse(template) if field}


@pytest.fixture(scope="module")
def default() -> Sets:
    return generate()


class TestDeterminism:
    def test_the_default_benchmark_is_the_published_one(self, default: Sets) -> None:
        assert fingerprint(default) == DEFAULT_FINGERPRINT

    def test_two_calls_agree(self, default: Sets) -> None:
        assert generate() == default

    @pytest.mark.parametrize("hash_seed", ["0", "4242"])
    def test_another_process_with_another_hash_seed_agrees(self, hash_seed: str) -> None:
        program = (
            "import hashlib, json\n"
            "from amnesis_evaluation.benchmarks.fictional.generator import generate\n"
            "text = json.dumps(generate(), sort_keys=True)\n"
            "print(hashlib.sha256(text.encode()).hexdigest())\n"
        )
        source_root = Path(draw.__file__).parents[3]
        done = subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(source_root)},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip() == DEFAULT_FINGERPRINT

    def test_the_module_random_state_is_neither_read_nor_moved(self, default: Sets) -> None:
        before = random.getstate()
        assert generate() == default
        assert random.getstate() == before

    def test_seeds_that_differ_only_in_sign_differ(self) -> None:
        assert generate(1) != generate(-1)

    def test_other_seeds_have_other_people(self, default: Sets) -> None:
        first, second = set(people(default)), set(people(generate(1)))
        assert len(first & second) <= 3

    def test_neither_facts_nor_questions_decide_who_the_authors_are(self, default: Sets) -> None:
        other = generate(facts=7, questions_per_author=2)
        assert set(people(other)) == set(people(default))


class TestShape:
    def test_default_counts(self, default: Sets) -> None:
        counts = {name: len(rows) for name, rows in default.items()}
        assert counts == {"forget": 40, "retain": 120, "holdout": 40, "facts": 220}

    def test_schema(self, default: Sets) -> None:
        texts = {"question", "answer", "paraphrased_question", "paraphrased_answer", "author"}
        for row in all_rows(default):
            assert set(row) == {*texts, "perturbed_answer"}
            assert all(isinstance(row[name], str) and row[name].strip() for name in texts)
            assert isinstance(row["perturbed_answer"], list)

    def test_sentences_are_whole(self, default: Sets) -> None:
        for row in all_rows(default):
            for text in (row["answer"], row["paraphrased_answer"], *row["perturbed_answer"]):
                assert text[-1] == "."
                assert not text[0].islower()
            for text in (row["question"], row["paraphrased_question"]):
                assert text[-1] in "?."
                assert not text[0].islower()

    def test_sentences_are_clean(self, default: Sets) -> None:
        for row in all_rows(default):
            text = " ".join(str(value) for value in row.values())
            assert text.isascii()
            assert not {"{", "}", "\n", "\t"} & set(text)
            assert "  " not in text
            assert ".." not in text

    def test_sentences_vary(self, default: Sets) -> None:
        openings = Counter(
            row["answer"].replace(row["author"], "X").split()[0] for row in default["retain"]
        )
        assert len(openings) >= 10
        assert openings.most_common(1)[0][1] <= len(default["retain"]) / 2

    def test_nothing_to_make(self) -> None:
        sets = generate(0, 0, 0, 0, 0, 0)
        assert sets == {"forget": [], "retain": [], "holdout": [], "facts": []}


@settings(max_examples=40, deadline=None)
@given(
    seed=seeds,
    forget=st.integers(0, 25),
    retain=st.integers(0, 60),
    holdout=st.integers(0, 25),
    questions=st.integers(0, len(phrasing.TOPICS)),
    facts=st.integers(0, 260),
)
def test_promises_hold_for_all_seeds_and_sizes(
    seed: int, forget: int, retain: int, holdout: int, questions: int, facts: int
) -> None:
    sets = generate(seed, forget, retain, holdout, questions, facts)

    sizes = {"forget": forget, "retain": retain, "holdout": holdout}
    for name, authors in sizes.items():
        asked = Counter(row["author"] for row in sets[name])
        assert set(asked.values()) <= {questions}
        assert len(asked) == (authors if questions else 0)
    assert len(sets["facts"]) == facts
    assert len(set(people(sets))) == (sum(sizes.values()) if questions else 0)

    rows = all_rows(sets)
    asked_twice = [row[name] for row in rows for name in ("question", "paraphrased_question")]
    assert not repeated(asked_twice)
    for row in rows:
        wrong = row["perturbed_answer"]
        assert len(set(wrong)) == 5
        assert row["paraphrased_answer"] != row["answer"]
        assert not {row["answer"], row["paraphrased_answer"]} & set(wrong)

    for name in AUTHOR_SETS:
        for row in sets[name]:
            assert row["author"] in row["question"]
            assert row["author"] in row["paraphrased_question"]
            assert row["author"] in row["answer"]
            assert all(row["author"] in wrong for wrong in row["perturbed_answer"])

    assert not repeated([title for row in rows for title in titles_of(row)])


class TestDisjointness:
    def test_no_name_is_in_two_sets(self, default: Sets) -> None:
        names = [{row["author"] for row in rows} for rows in default.values()]
        assert len(set().union(*names[:3])) == sum(map(len, names[:3]))
        assert not names[3] & set().union(*names[:3])

    def test_given_names_and_surnames_recur_only_when_they_must(self, default: Sets) -> None:
        authors = sorted(set(people(default)))
        assert not repeated([author.split()[0] for author in authors])
        assert not repeated([author.split()[1] for author in authors])

    def test_wrong_titles_were_written_by_nobody(self) -> None:
        sets = generate(questions_per_author=len(phrasing.TOPICS))
        written = {title for row in all_rows(sets) for title in titles_of(row)}
        assert len(written) == 50
        for row in all_rows(sets):
            for wrong in row["perturbed_answer"]:
                assert not any(f'"{title}"' in wrong for title in written)

    def test_facts_mention_no_author(self, default: Sets) -> None:
        words = {part for author in people(default) for part in author.split()}
        facts = " ".join(row["question"] + " " + row["answer"] for row in default["facts"])
        assert not [word for word in words if word in facts]


class TestArguments:
    @pytest.mark.parametrize(
        "name",
        ["forget_authors", "retain_authors", "holdout_authors", "questions_per_author", "facts"],
    )
    def test_negative(self, name: str) -> None:
        arguments: dict[str, int] = {name: -1}
        with pytest.raises(ValueError, match=f"{name} is -1, but cannot be negative"):
            generate(**arguments)

    def test_more_authors_than_names(self) -> None:
        with pytest.raises(ValueError, match=f"there are {MAX_AUTHORS} names"):
            generate(0, 1, MAX_AUTHORS, 0)

    def test_as_many_authors_as_names(self) -> None:
        sets = generate(0, 0, MAX_AUTHORS, 0, questions_per_author=1, facts=0)
        assert len(set(people(sets))) == MAX_AUTHORS

    def test_more_questions_than_topics(self) -> None:
        with pytest.raises(ValueError, match=r"questions_per_author is 10, but there are 9 topics"):
            generate(questions_per_author=10)

    def test_more_facts_than_are_known(self) -> None:
        with pytest.raises(ValueError, match=r"10000 facts were asked for, but only \d+ are known"):
            generate(facts=10_000)


class TestWords:
    """What the tables must satisfy for the rows to hold."""

    @pytest.mark.parametrize("topic", phrasing.TOPICS, ids=lambda topic: "-".join(topic.fields))
    def test_questions_name_the_author_and_answers_state_every_field(
        self, topic: phrasing.Topic
    ) -> None:
        for question in topic.questions:
            assert "name" in fields(question)
            assert not set(topic.fields) & fields(question)
        for answer in topic.answers:
            assert {"name", *topic.fields} <= fields(answer)

    def test_a_field_belongs_to_one_topic(self) -> None:
        assert not repeated([field for topic in phrasing.TOPICS for field in topic.fields])

    @pytest.mark.parametrize(
        "name", [name for name, value in vars(vocabulary).items() if isinstance(value, tuple)]
    )
    def test_a_list_has_no_repetition(self, name: str) -> None:
        assert not repeated(list(getattr(vocabulary, name)))

    def test_facts_have_enough_wrong_answers(self) -> None:
        for family in knowledge.COMMON_KNOWLEDGE:
            assert len(set(family.values.values())) > 5

    def test_months_follow_each_other_in_a_circle(self) -> None:
        month, seen = "January", []
        for _ in range(12):
            seen.append(month)
            month = knowledge.MONTHS.values[month]
        assert month == "January"
        assert len(set(seen)) == 12

    def test_sums_are_right(self) -> None:
        words = "zero one two three four five six seven eight nine ten eleven twelve thirteen"
        words += " fourteen fifteen sixteen seventeen eighteen nineteen twenty"
        number = {word: value for value, word in enumerate(words.split())}
        for question, result in knowledge.SUMS.values.items():
            first, operation, second = question.split()
            one, two = number[first], number[second]
            assert number[result] == (one + two if operation == "plus" else one * two)


class TestDraw:
    @given(seed=seeds, size=st.integers(0, 30))
    def test_shuffled_is_a_permutation(self, seed: int, size: int) -> None:
        assert sorted(draw.Draw(seed, "test").shuffled(range(size))) == list(range(size))

    @given(seed=seeds, size=st.integers(0, 8))
    def test_pairs_are_all_pairs_and_a_round_uses_each_word_once(
        self, seed: int, size: int
    ) -> None:
        firsts = [f"first {i}" for i in range(size)]
        seconds = [f"second {i}" for i in range(size)]
        pairs = draw.Draw(seed, "test").pairs(firsts, seconds)
        assert sorted(pairs) == sorted((one, two) for one in firsts for two in seconds)
        assert {two for _, two in pairs[:size]} == set(seconds)

    def test_streams_are_named(self) -> None:
        sequences = {tuple(draw.Draw(0, name).shuffled(range(20))) for name in ("a", "b")}
        assert len(sequences) == 2

    @pytest.mark.parametrize("limit", [0, -1])
    def test_nothing_to_choose_from(self, limit: int) -> None:
        with pytest.raises(ValueError, match="nothing to choose from"):
            draw.Draw(0, "test").below(limit)

    def test_too_few_options(self) -> None:
        with pytest.raises(ValueError, match="cannot draw 3 of 2 options"):
            draw.Draw(0, "test").several("ab", 3)

    def test_unequal_lists_cannot_be_paired(self) -> None:
        with pytest.raises(ValueError, match="2 first words cannot be paired with 1"):
            draw.Draw(0, "test").pairs(["a", "b"], ["c"])
