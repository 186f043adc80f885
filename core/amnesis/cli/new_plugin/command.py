"""``amnesis new-plugin``: write a package with a component of every kind asked for, and tests."""

from __future__ import annotations

import keyword
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from amnesis.discovery.manager import HOOKS
from amnesis.errors import OutputError, RecipeError, did_you_mean

TEMPLATES = Path(__file__).parent / "templates"
# From the hooks themselves: whoever adds a hook adds a template, or a test fails.
KINDS = tuple(hook.removeprefix("register_").removesuffix("s") for hook in HOOKS)


def new_plugin(
    name: Annotated[str, typer.Argument(help="The package's name, such as my-unlearning.")],
    kinds: Annotated[
        list[str] | None,
        typer.Option(help="Kinds of components, separated by commas or repeated; or all."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The folder to write.", show_default="./NAME")
    ] = None,
) -> None:
    """Write a package with a small component of each kind, and tests that pass, to begin with."""
    from amnesis.cli.terminal import console

    folder = out or Path(name)
    chosen = kinds_of(kinds or ["objective", "metric"])
    write_plugin(name, chosen, folder)
    plain = console()
    plain.print(f"{folder} has {', '.join(chosen)}. To go on:", soft_wrap=True)
    for line in (
        f"pip install -e {folder}",
        "amnesis plugins",
        f"pip install pytest && pytest {folder}",
    ):
        plain.print(f"  {line}", soft_wrap=True)


def kinds_of(texts: list[str]) -> tuple[str, ...]:
    """Return the kinds that are asked for, each once, in the order of the hooks.

    Raises:
        RecipeError: a kind is unknown.
    """
    words = [word.strip() for text in texts for word in text.split(",") if word.strip()]
    chosen = set()
    for word in words:
        kind = word if word in KINDS else word.removesuffix("s")
        if kind not in (*KINDS, "all"):
            raise RecipeError(
                f"--kinds: no kind of component is called {word!r}; "
                f"{did_you_mean(word, [*KINDS, 'all'])}"
            )
        chosen.add(kind)
    return KINDS if "all" in chosen else tuple(kind for kind in KINDS if kind in chosen)


def write_plugin(name: str, kinds: tuple[str, ...], folder: Path) -> None:
    """Write a package with a component of each of ``kinds`` into a folder that is not there yet.

    Raises:
        RecipeError: the name is no name of a package.
        OutputError: the folder is not empty.
    """
    from amnesis.runs.folder import check_empty

    module = re.sub(r"[-.]+", "_", name).lower()
    if not re.fullmatch(r"[a-z][a-z0-9_]*", module) or keyword.iskeyword(module):
        raise RecipeError(f"{name!r} is no package's name; use letters, digits and '-'")
    if module.partition("_")[0] == "amnesis" and module in ("amnesis", "amnesis_plugins"):
        raise RecipeError(f"{name!r} is amnesis's own; give your package another name")
    check_empty(folder, "name another --out", overwrite=False)
    files = {
        "pyproject.toml": "pyproject.toml.j2",
        "README.md": "README.md.j2",
        f"{module}/__init__.py": "hooks.py.j2",
        "tests/test_registered.py": "test_registered.py.j2",
    }
    for kind in kinds:
        files[f"{module}/{kind}.py"] = f"kinds/{kind}.py.j2"
        files[f"tests/test_{kind}.py"] = f"kinds/test_{kind}.py.j2"
    title = "".join(word.capitalize() for word in module.split("_"))
    values = {"name": name, "module": module, "title": title, "kinds": kinds}
    rendered = {file: _rendered(template, values) for file, template in files.items()}
    try:
        for file, text in rendered.items():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_text(text, encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written: {error.strerror}") from error


def _rendered(template: str, values: Mapping[str, object]) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(  # noqa: S701  # what is written is Python, not HTML
        loader=FileSystemLoader(TEMPLATES),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(values)
