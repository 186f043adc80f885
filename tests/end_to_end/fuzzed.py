"""Recipes, data files and command lines such as nobody writes on purpose; see test_fuzz.py."""

from __future__ import annotations

import csv
import datetime
import decimal
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

KEYS = [
    "model", "objective", "regularizer", "combiner", "probes", "benchmark", "forget", "retain",
    "lora", "trainable", "template", "training", "stop_when", "evaluate", "attacks", "retrained",
    "seed", "name", "steps", "path", "beta", "metrics", "prompt", "question", "answer", "weight",
]  # fmt: skip
NAMES = ["ga", "npo", "wga", "kl", "nll", "sago", "gru", "own", "tofu", "fictional", "g_effect"]
# Control characters, markup, line ends that only some programs know, and what fonts cannot show.
HOSTILE = [
    "[/x]", "[bold]", "[link=x]", "\x1b[2J", "\x9b31m", "\x07", "\x00", "\x7f", "a\nerror: b", "\r",
    "\u2028", "\x85", "\ufeff", "\u202e", "\ud800", "\udfff", "{question}", "{}", "{0.__class__}",
    "%s", "${x}", "../..", "~", "/", "=1+1", "😀", "\U0010ffff", "é", "",
]  # fmt: skip
WORDS = st.sampled_from([*HOSTILE, *NAMES, *KEYS]) | st.text(max_size=8)
LEAVES = (
    st.none() | st.booleans() | st.integers() | st.floats() | WORDS | st.just(10**400) | st.just(-1)
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(KEYS) | WORDS, inner, max_size=4)
    ),
    max_leaves=8,
)

# -- recipes --------------------------------------------------------------------------------------

# What YAML's constructors are reached by: as written, where a value goes.
YAML = [
    "2026-02-28", "2026-02-30", "2001-12-14t21:59:43.10-05:00", "0000-00-00", "!!timestamp x",
    "!!timestamp 9999-99-99", "!!binary aGVsbG8=", "!!binary '@@'", "!!binary é", "!!set {a, b}",
    "!!set {a: 1}", "!!omap [a: 1, a: 2]", "!!omap {a: 1}", "!!omap [1]", "!!pairs [a: 1, b: 2]",
    "!!pairs 3", "!!int x", "!!int ''", "!!float x", "!!bool maybe", "!!null 3", "!!str 3",
    "!!str [a]", "!!map [a]", "!!seq {a: 1}", "!!python/object/apply:os.system [echo]",
    "!!python/name:os.system", "!!python/tuple [1]", "!unknown x", "!<tag:x> y", "! x", "!!x",
    "*nobody", "&a [*a]", "&a {x: *a}", "&a [x, &b [*a, *b]]", "{<<: *nobody}", "{<<: 3}",
    "{<<: [3]}", "{<<: {a: 1}, a: 2}", "{<<: [{a: 1}, {a: 2}]}", "{? [a, b] : c}", "{[a]: b}",
    "{{a: 1}: b}", "{a: 1, a: 2}", "{1: a, 1.0: b, true: c}", "{null: a}", "{? }", "? a", "- a",
    "0b2", "0b11", "0o9", "0x", "0xZ", "1_000_", "_1", "190:20:30", "99:99:99.9", "1e400", "-1e400",
    ".inf", "-.inf", ".nan", "9" * 5000, "-" + "9" * 4301, "0x" + "f" * 9000, "1." + "0" * 9000,
    "1e" + "9" * 400, "=", "<<", "~", "!", "&", "*", "%", "@", "`", "'", '"', "|", ">", "|9\n a",
    ">-\n  a\n  b", '"\\ud800"', '"\\x00"', '"\\U00110000"', '"\\e[2J"', '"[/x]"', "[/x]",
    "[" * 30 + "]" * 30, "[" * 60 + "]" * 60, "[" * 3000, "{a: " * 60 + "1" + "}" * 60,
    "a" * 100_000, "# nothing", "\tx", "a: b: c", "[a, b", "{a", "a]", ", ,", "--- x", "...", "on",
    "y", "No", "NULL", "0", "-0", "+1", ".", "1.", ".1", "-.5e-5", "\\", "\x7f", "\x85", "\ufeff",
]  # fmt: skip

# What nobody writes so, and means what a good recipe says all the same.
ODD = [
    ("seed", "0b11"), ("seed", "0x1F"), ("seed", "!!int '3'"), ("seed", "1_0"), ("seed", "1:30"),
    ("seed", "&seed 3"), ("objective", "!!str ga"), ("objective", "'ga'"), ("objective", '"\\x67a"'),
    ("objective", "{? name : npo}"), ("objective", "[{name: ga, weight: 2}, npo]"),
    ("objective", "{name: npo, <<: {beta: 0.5}}"), ("probes", "!!seq []"), ("probes", "[g_effect]"),
    ("training", "{<<: {steps: 1}, batch_size: 2}"), ("training", "{<<: [{steps: 2}, {steps: 3}]}"),
    ("training", "!!map {steps: 1}"), ("training", "{steps: 1, learning_rate: 1.e-5}"),
    ("training", "{steps: 1, betas: &b [0.5, 0.5]}"), ("regularizer", ">-\n  nll"),
    ("regularizer", "|-\n  kl"), ("combiner", "~"), ("combiner", ""), ("combiner", "!!null ''"),
    ("evaluate", "{metrics: [probability], bootstrap: 0, max_new_tokens: 017}"),
]  # fmt: skip


@dataclass(frozen=True)
class Fuzzed:
    """A file's bytes, and what is known of it: that it is right or wrong, or how many rows it has."""

    content: bytes
    accepted: bool = False
    refused: bool = False
    rows: int | None = None


@st.composite
def recipes(draw: Callable[..., Any], good: dict[str, Any]) -> Fuzzed:
    """Return a recipe's file: a good one with strange values, strange keys, or strange bytes."""
    if draw(st.integers(0, 3)) == 0:
        odd = dict(draw(st.lists(st.sampled_from(ODD), min_size=1, max_size=3)))
        ways = {**{key: json.dumps(value) for key, value in good.items()}, **odd}
        text = "\n".join(
            f"{key}: {value}" for key, value in draw(st.permutations(list(ways.items())))
        )
        return Fuzzed(text.encode(draw(st.sampled_from(["utf-8", "utf-8-sig"]))), accepted=True)
    keys = list(good) if draw(st.booleans()) else []
    lines = [(key, json.dumps(good[key])) for key in keys]
    for _ in range(draw(st.integers(1, 4))):
        key = draw(st.sampled_from(KEYS) | WORDS.map(_in_quotes))
        value = draw(st.sampled_from(YAML) | VALUES.map(_dumped))
        lines = [line for line in lines if line[0] != key or draw(st.booleans())]
        lines.append((key, value))
    text = "\n".join(f"{key}: {value}" for key, value in lines)
    names = [key for key, _ in lines]
    twice = len(set(names)) < len(names)
    return Fuzzed(draw(st.sampled_from(SPOILERS))(text, draw), refused=twice)


def _in_quotes(text: str) -> str:
    return json.dumps(text)


def _dumped(value: Any) -> str:
    return json.dumps(value)


# -- data files -----------------------------------------------------------------------------------

FIELDS = ["question", "answer", "q", "text", "answer ", "Question", ""]
JSON = [
    "NaN", "Infinity", "-Infinity", "9" * 5000, "1e999", "[" * 200 + "]" * 200, "[" * 100_000,
    '{"a": 1, "a": 2}', '"\\ud800"', '"\\ud83d\\ude00"', '"\\u0000"', "tru", "'x'", "{a: 1}", "//",
    '"\x00"', '"\n"', "", "[]", "{}", "null", '{"question": "a", "answer": "b"} x',
]  # fmt: skip


def good_rows(draw: Callable[..., Any]) -> list[dict[str, str]]:
    """Return rows that nothing is wrong with, however strange their texts are."""
    cell = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12) | (
        st.sampled_from(
            ['a "b" c', "a,b;c\td", "a\nb", "a\r\nb", " a ", "'", '"', "[x", "{x}", "\\"]
        )
    )
    cell = cell.filter(lambda text: bool(text.strip()) and "\x00" not in text)
    row = st.fixed_dictionaries({"question": cell, "answer": cell})
    return list(draw(st.lists(row, min_size=1, max_size=4)))


def _json_lines(draw: Callable[..., Any]) -> Fuzzed:
    rows = good_rows(draw)
    ascii_only = draw(st.booleans())
    lines = [json.dumps(row, ensure_ascii=ascii_only) for row in rows]
    return Fuzzed("\n".join(lines).encode(), rows=len(rows))


def _json_array(draw: Callable[..., Any]) -> Fuzzed:
    rows = good_rows(draw)
    return Fuzzed(
        json.dumps(rows, indent=draw(st.sampled_from([None, 1]))).encode(), rows=len(rows)
    )


def _odd_json(draw: Callable[..., Any]) -> Fuzzed:
    pairs = st.tuples(st.sampled_from(FIELDS), st.sampled_from(JSON) | VALUES.map(_dumped))
    rows = draw(st.lists(st.lists(pairs, max_size=3), max_size=3))
    objects = [", ".join(f"{json.dumps(key)}: {value}" for key, value in row) for row in rows]
    lines = [f"{{{one}}}" for one in objects] + draw(st.lists(st.sampled_from(JSON), max_size=1))
    twice = any(len({key for key, _ in row}) < len(row) for row in rows)
    return Fuzzed("\n".join(lines).encode("utf-8", "surrogatepass"), refused=twice)


def _csv(draw: Callable[..., Any]) -> Fuzzed:
    rows, file = good_rows(draw), io.StringIO()
    # Python's own writer leaves a lone carriage return without quotes where it need not quote.
    lone = any("\r" in text for row in rows for text in row.values())
    writer = csv.DictWriter(
        file,
        ["question", "answer"],
        delimiter=draw(st.sampled_from(",;\t")),
        quoting=csv.QUOTE_ALL
        if lone
        else draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL])),
        lineterminator=draw(st.sampled_from(["\n", "\r\n"])),
    )
    writer.writeheader()
    writer.writerows(rows)
    return Fuzzed(file.getvalue().encode(), rows=len(rows))


def _odd_csv(draw: Callable[..., Any]) -> Fuzzed:
    cells = st.sampled_from(
        ['"', '"a', 'a"', '"a"b', '""', '"""', "a", "", ",", "\x00", "[1", "[[]]"]
    )
    lines = draw(st.lists(st.lists(cells, min_size=1, max_size=3), min_size=1, max_size=4))
    header = draw(st.sampled_from(["question,answer", "question;answer", "question,question", ""]))
    text = "\n".join([header, *(",".join(line) for line in lines)])
    return Fuzzed(text.encode(), refused=header == "question,question")


def _parquet(draw: Callable[..., Any]) -> Fuzzed:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows, file = good_rows(draw), io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), file)
    return Fuzzed(file.getvalue(), rows=len(rows))


def _odd_parquet(draw: Callable[..., Any]) -> Fuzzed:
    import pyarrow as pa
    import pyarrow.parquet as pq

    column = draw(
        st.sampled_from(
            [
                pa.array([2**62], pa.timestamp("ms")),
                pa.array([-(2**62)], pa.timestamp("us", tz="UTC")),
                pa.array([2**31 - 1], pa.date32()),
                pa.array([2**62], pa.duration("s")),
                pa.array([b"\xff\x00"], pa.binary()),
                pa.array([decimal.Decimal("1.5")]),
                pa.array([datetime.time(1, 2)]),
                pa.array([{"a": [1, None]}]),
                pa.array([None], pa.null()),
                pa.array(["a"]).dictionary_encode(),
                pa.array([float("nan")]),
                pa.array([["a", "b"]]),
            ]
        )
    )
    names = draw(st.sampled_from([["question", "answer"], ["question", "question"], ["a", "b"]]))
    file = io.BytesIO()
    pq.write_table(pa.table([pa.array(["a"]), column], names=names), file)
    return Fuzzed(file.getvalue(), refused=names[0] == names[1])


def _bytes(draw: Callable[..., Any]) -> Fuzzed:
    return Fuzzed(draw(st.binary(max_size=60) | st.text(max_size=60).map(str.encode)))


DATA = {
    ".jsonl": [_json_lines, _json_array, _odd_json, _bytes],
    ".json": [_json_lines, _json_array, _odd_json, _bytes],
    ".csv": [_csv, _odd_csv, _bytes],
    ".tsv": [_csv, _odd_csv],
    ".parquet": [_parquet, _odd_parquet, _bytes],
}


@st.composite
def data_files(draw: Callable[..., Any]) -> tuple[str, Fuzzed]:
    """Return a data file's ending and bytes, as they were made or spoilt."""
    ending = draw(st.sampled_from(sorted(DATA)))
    made: Fuzzed = draw(st.sampled_from(DATA[ending]))(draw)
    if draw(st.booleans()):
        return ending, made
    spoil = draw(st.sampled_from(SPOILERS[1:]))
    return ending, Fuzzed(spoil(made.content.decode("latin-1"), draw, "latin-1"))


# -- bytes ----------------------------------------------------------------------------------------


def _as_it_is(text: str, draw: Callable[..., Any], encoding: str = "utf-8") -> bytes:
    return text.encode(encoding, "surrogatepass")


def _cut(text: str, draw: Callable[..., Any], encoding: str = "utf-8") -> bytes:
    content = _as_it_is(text, draw, encoding)
    return content[: draw(st.integers(0, len(content)))]


def _flipped(text: str, draw: Callable[..., Any], encoding: str = "utf-8") -> bytes:
    content = bytearray(_as_it_is(text, draw, encoding))
    for _ in range(draw(st.integers(1, 3)) if content else 0):
        content[draw(st.integers(0, len(content) - 1))] ^= 1 << draw(st.integers(0, 7))
    return bytes(content)


def _with_something_inside(text: str, draw: Callable[..., Any], encoding: str = "utf-8") -> bytes:
    content = _as_it_is(text, draw, encoding)
    place = draw(st.integers(0, len(content)))
    what: bytes = draw(
        st.sampled_from([b"\x00", b"\xff", b'"', b"\n", b"\r", b"\xef\xbb\xbf", b"\xed\xa0\x80"])
    )
    return content[:place] + what + content[place:]


def _in_utf_16(text: str, draw: Callable[..., Any], encoding: str = "utf-8") -> bytes:
    content: bytes = text.encode(draw(st.sampled_from(["utf-16", "utf-32-be"])), "surrogatepass")
    return content


SPOILERS: Sequence[Callable[..., bytes]] = [
    _as_it_is, _cut, _flipped, _with_something_inside, _in_utf_16
]  # fmt: skip

# -- command lines --------------------------------------------------------------------------------


@st.composite
def command_lines(
    draw: Callable[..., Any], commands: dict[str, list[str]], places: list[str]
) -> list[str]:
    """Return a command line of a command's own options and strange values.

    ``places`` are files and folders that are there, none of which a command can work on to its end.
    """
    command = draw(st.sampled_from(sorted(commands)) | WORDS)
    value = st.sampled_from(places) | WORDS | st.sampled_from(YAML[:90]) | st.integers().map(str)
    word = (
        value
        | st.sampled_from(commands.get(command) or ["--help"])
        | st.builds(
            "{}={}".format, st.sampled_from(KEYS) | WORDS, st.sampled_from(YAML[:90]) | WORDS
        )
        | st.sampled_from(["--", "-", "--without-plugin", "--help", "-x", "--x="])
    )
    words = [
        one for one in draw(st.lists(word, max_size=6)) if one != "--debug"
    ]  # shows tracebacks
    return [one.replace("\x00", "") for one in (command, *words)]  # which no shell can pass on
