"""YAML as people write it: every fault with its place, nothing dropped, nothing without an end."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from pathlib import Path
from typing import Any

import yaml

from amnesis.errors import RecipeError, did_you_mean, one_line

MAX_BYTES = 1 << 20
MAX_NODES, MAX_DEPTH = 100_000, 40
MAX_BITS = 1024  # of an integer: no float is larger, and Python does not print many more


# Endings of files of rows, which are given in place of a recipe by mistake.
_ROWS = (".jsonl", ".csv", ".tsv", ".parquet")


class _Loader(yaml.SafeLoader):
    """Builds plain values; a key that stands twice is refused, where YAML would drop the first."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, Hashable) and key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} stands here twice", key_node.start_mark
                )
            if isinstance(key, Hashable):
                seen.add(key)
        return super().construct_mapping(node, deep)


# Dates are texts: no setting of ours is a date, and a name may look like one.
_Loader.yaml_implicit_resolvers = {
    first: [(tag, expression) for tag, expression in entries if not tag.endswith(":timestamp")]
    for first, entries in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def read_document(path: Path) -> dict[str, Any]:
    """Return the mapping that a YAML file holds.

    Raises:
        RecipeError: the file is missing, endless, not text, not YAML or not a mapping, or a key
            stands in it twice; with the line, where there is one.
    """
    if not path.exists():
        near = []
        if path.parent.is_dir():
            near = [p.name for p in path.parent.iterdir() if p.suffix in (".yaml", ".yml")]
        raise RecipeError(f"{path}: there is no such recipe; {did_you_mean(path.name, near)}")
    if not path.is_file():
        raise RecipeError(f"{path}: is not a file that can be read to its end; give a YAML file")
    if path.suffix.lower() in _ROWS:
        raise RecipeError(
            f"{path}: is a file of rows by its name; give a recipe, a YAML file as amnesis init "
            f"writes it"
        )
    if path.stat().st_size > MAX_BYTES:
        raise RecipeError(f"{path}: is larger than {MAX_BYTES >> 20} MiB, which no recipe is")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: cannot be read as UTF-8 text: {one_line(error)}") from None
    document = parse_yaml(text, str(path))
    if not isinstance(document, dict):
        raise RecipeError(f"{path}: a recipe is a mapping of keys to values")
    return document


def parse_yaml(text: str, where: str) -> Any:
    """Return the plain values of a YAML text.

    Raises:
        RecipeError: naming ``where``, and the line.
    """
    try:
        document = yaml.load(text, _Loader)  # noqa: S506  # a SafeLoader
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or one_line(error)
        raise RecipeError(f"{where}{line}: not valid YAML: {problem}") from None
    except Exception as error:  # constructors raise many kinds over numbers, dates and depths
        raise RecipeError(f"{where}: not valid YAML: {one_line(error)[:200]}") from None
    _check_size(document, where)
    return document


def _children(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _check_size(document: Any, where: str) -> None:
    """Refuse a document that aliases make huge, or that is deeper or larger than any recipe."""
    nodes, level = 0, [document]
    for _ in range(MAX_DEPTH):
        nodes += len(level)
        if any(isinstance(value, int) and value.bit_length() > MAX_BITS for value in level):
            raise RecipeError(f"{where}: holds an integer of more than {MAX_BITS} bits")
        if nodes > MAX_NODES:
            raise RecipeError(f"{where}: holds more than {MAX_NODES} values; is an alias repeated?")
        level = [child for value in level for child in _children(value)]
        if not level:
            return
    raise RecipeError(f"{where}: is nested more than {MAX_DEPTH} levels deep")
