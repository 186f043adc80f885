"""What ``amnesis plugins`` shows: every name without importing it, or one component in full."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from amnesis.cli.terminal import console, registry_of
from amnesis.config.keys import described_field
from amnesis.discovery.entry import KINDS, check_kind
from amnesis.errors import PluginError

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo
    from rich.console import Console

    from amnesis.discovery.entry import Entry
    from amnesis.discovery.manager import Fault
    from amnesis.discovery.registry import Registry

_NARROW = 70  # columns of a terminal below which a table leaves the origin of a name out


def plugins(
    context: typer.Context,
    name: Annotated[str | None, typer.Argument(help="Show all about what has this name.")] = None,
    kind: Annotated[str | None, typer.Option(help="Only this kind, such as objective.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List every objective, combiner, metric, command …, or show one with its hyper-parameters."""
    show_plugins(registry_of(context), name, kind, as_json=as_json)


def show_plugins(registry: Registry, name: str | None, kind: str | None, *, as_json: bool) -> None:
    """Print every name and every fault, or, given a name, all that is known of what it names.

    Raises:
        PluginError: the name or the kind is unknown, or a component cannot be loaded.
    """
    kinds = tuple(KINDS) if kind is None else (check_kind(kind),)
    if name is None:
        entries = [entry for entry in registry if entry.kind in kinds]
        records = [listed(entry) for entry in entries]
    else:
        entries = registry.find(name, kinds)
        if not entries:
            if kind is None and (meant := _kind_of(name)):
                raise PluginError(
                    f"{name!r} is no component's name but a kind of them: amnesis plugins --kind "
                    f"{meant}"
                )
            known = {entry.name for entry in registry if entry.kind in kinds}
            what = "plugin component" if kind is None else kind
            raise registry.unknown(f"no {what} is called {name!r}", name, sorted(known))
        records = [described(entry) for entry in entries]
    if as_json:
        faults = [listed_fault(fault) for fault in registry.faults]
        print(json.dumps({"components": records, "faults": faults}, indent=2))
        return
    if name is None:
        _print_list(console(), records, registry.faults)
    else:
        for record in records:
            _print_component(console(), record)


def _kind_of(name: str) -> str | None:
    """Return the kind that a word means, in the singular or the plural."""
    return next((kind for kind in KINDS if name.lower() in (kind, f"{kind}s")), None)


def listed(entry: Entry) -> dict[str, Any]:
    """Return what is known of an entry without importing its target."""
    target = entry.target if isinstance(entry.target, str) else _path(entry.target)
    of = entry.alias_of
    summary = entry.summary if of is None else f"another name of {of}: {entry.summary}"
    return {
        "kind": entry.kind,
        "name": entry.name,
        "summary": summary,
        "distribution": entry.plugin.distribution,
        "version": entry.plugin.version,
        "entry_point": entry.plugin.entry_point,
        "target": target,
    }


def listed_fault(fault: Fault) -> dict[str, str]:
    """Return a fault as a record."""
    return {
        "distribution": fault.plugin.distribution,
        "version": fault.plugin.version,
        "entry_point": fault.plugin.entry_point,
        "message": str(fault),
    }


def described(entry: Entry) -> dict[str, Any]:
    """Import an entry's target and give all that is known of it.

    Raises:
        PluginError: the target cannot be loaded, or breaks its contract.
    """
    target = entry.load()
    fields: Mapping[str, FieldInfo] = getattr(target, "model_fields", {})
    return {
        **listed(entry),
        "formula": getattr(target, "formula", ""),
        "source": getattr(target, "source", ""),
        # The class's own: getdoc() would give the contract's where a component has none.
        "docstring": inspect.cleandoc(target.__doc__ or ""),
        "hyper_parameters": [described_field(name, field) for name, field in fields.items()],
        "origin": _origin(target),
    }


def _origin(target: Any) -> str:
    """Return ``file:line`` where the target is defined, or its module where there is no file."""
    try:
        return f"{inspect.getsourcefile(target)}:{inspect.getsourcelines(target)[1]}"
    except (OSError, TypeError):
        return _path(target)


def _path(target: Any) -> str:
    name = getattr(target, "__qualname__", type(target).__qualname__)
    return f"{getattr(target, '__module__', '?')}:{name}"


def _print_list(
    console: Console, records: Sequence[Mapping[str, Any]], faults: Sequence[Fault]
) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("kind", no_wrap=True)
    table.add_column("name", no_wrap=True)
    table.add_column("summary", overflow="fold")
    if console.width >= _NARROW:
        table.add_column("distribution", overflow="fold")
        table.add_column("version", overflow="fold")
    for record in records:
        table.add_row(*(record[str(column.header)] for column in table.columns))
    if records:
        console.print(table)
    else:
        console.print("none is registered")
    if faults:
        console.print(f"\n{len(faults)} not in use:", style="bold")
        for fault in faults:
            console.print(f"- {fault}")


def _print_component(console: Console, record: Mapping[str, Any]) -> None:
    from rich.padding import Padding
    from rich.table import Table

    console.print(f"{record['kind']} {record['name']}", style="bold")
    console.print(f"{record['summary']}\n")
    facts = Table.grid(padding=(0, 2))
    facts.add_column(no_wrap=True)
    facts.add_column(overflow="fold")
    owner = f"{record['distribution']} {record['version']}, entry point {record['entry_point']!r}"
    for label, text in (
        ("formula", record["formula"]),
        ("source", record["source"]),
        ("plugin", owner),
        ("defined in", record["origin"]),
    ):
        if text:
            facts.add_row(label, text)
    console.print(facts)
    for paragraph in filter(None, record["docstring"].split("\n\n")):
        console.print(f"\n{_flowing(paragraph)}")
    if record["hyper_parameters"]:
        console.print("\nhyper-parameters", style="bold")
    for one in record["hyper_parameters"]:
        default = "(required)" if one["required"] else f"= {one['default']!r}"
        allowed = "".join(f", {constraint}" for constraint in one["constraints"])
        console.print(f"{one['name']}: {one['type']} {default}{allowed}")
        if one["description"]:
            console.print(Padding(one["description"], (0, 0, 0, 4), expand=False))
    console.print()


def _flowing(paragraph: str) -> str:
    """Let prose follow the terminal's width; what is indented keeps its lines."""
    lines = paragraph.splitlines()
    return paragraph if any(line.startswith(" ") for line in lines) else " ".join(lines)
