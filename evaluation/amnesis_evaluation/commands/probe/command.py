"""``amnesis probe``: what each objective would do to both risks, before a step is made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from amnesis_evaluation.commands import inputs

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from amnesis.contracts import Subject
    from amnesis.data.templates import Row
    from amnesis_plugins.g_effect import EffectTable, Entanglement

# All that a probe writes into its folder, and all that --overwrite replaces.
NAMES = (
    "g_effect.parquet",
    "tokens.parquet",
    "entanglement.parquet",
    "g_effect.html",
    "g_effect.png",
)
DEFAULT = "ga,npo,simnpo,wga,tnpo"


def probe(
    context: typer.Context,
    model: inputs.Model,
    forget: inputs.Forget = None,
    retain: inputs.Retain = None,
    benchmark: inputs.BenchmarkName = None,
    objectives: Annotated[
        str, typer.Option(help="With commas between; hyper-parameters as wga:beta=5:….")
    ] = DEFAULT,
    reference: Annotated[
        str | None, typer.Option(help="The model before unlearning, where MODEL is not it.")
    ] = None,
    by: Annotated[
        str, typer.Option(help="Any of layer, example, token or position, with commas between.")
    ] = "layer,example,token",
    joint: Annotated[
        bool,
        typer.Option("--joint", help="Layer × token in one table: one pass more per layer."),
    ] = False,
    entanglement: Annotated[
        int,
        typer.Option(min=0, help="Pair forget tokens with the first k retain examples; 0: none."),
    ] = 8,
    limit: inputs.Limit = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Examples per pass.")] = 8,
    out: Annotated[Path | None, typer.Option(help="Folder for tables and pictures.")] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace what an earlier probe left.")] = False,
    device: inputs.Device = None,
    trust_remote_code: inputs.TrustRemoteCode = False,
) -> None:
    """Show what objectives do to the risk on both sets: by layer, example and token."""
    from amnesis.cli import (
        ProgressBars,
        console,
        load_subject,
        new_folder,
        print_notes,
        quiet_libraries,
        registry_of,
    )
    from amnesis.storage import write_text
    from amnesis_evaluation.commands.probe.page import page
    from amnesis_evaluation.commands.probe.picture import save_heat_maps
    from amnesis_plugins.g_effect.splits import named_losses

    quiet_libraries()
    folder = out or new_folder("probe")
    inputs.check_place(folder, NAMES, overwrite=overwrite)
    choices = [choice_of(text) for text in objectives.split(",")]
    registry = registry_of(context)
    named_losses(choices, registry)
    rows = inputs.sets_of(forget, retain, benchmark, limit, registry)
    load = partial(load_subject, device=device, trust_remote_code=trust_remote_code)
    subject = load(model).subject
    other = load(reference).subject if reference else None
    inputs.make_place(folder)
    with ProgressBars() as progress:
        tables = measure(
            subject.model,
            subject.tokenizer,
            rows,
            choices,
            other.model if other else None,
            [part.strip() for part in by.split(",") if part.strip()],
            joint=joint,
            template=subject.template,
            batch_size=batch_size,
            progress=progress,
            registry=registry,
        )
        pairs = (
            entangle(subject, rows, entanglement, batch_size, progress) if entanglement else None
        )
    for name in NAMES:  # never new results beside old ones, whichever of them this probe writes
        (folder / name).unlink(missing_ok=True)
    for name, table in tables.items():
        table.to_parquet(folder / f"{name}.parquet")
    if pairs is not None:
        pairs.to_parquet(folder / "entanglement.parquet")
    write_text(folder / "g_effect.html", page(model, tables, rows, pairs))
    console().print(summary(next(iter(tables.values()))))
    missing = save_heat_maps(folder / "g_effect.png", tables)
    notes = [note for table in tables.values() for note in table.notes]
    print_notes(dict.fromkeys([*notes, *([missing] if missing else [])]))
    console().print(f"everything is in {folder}; open {folder / 'g_effect.html'}")


def measure(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Mapping[str, Sequence[Row]],
    choices: Sequence[Mapping[str, Any]],
    reference: PreTrainedModel | None,
    by: Sequence[str],
    *,
    joint: bool,
    **options: Any,
) -> dict[str, EffectTable]:
    """Return one table, or, unless they are wanted jointly, one by layer and one by token.

    Objectives in which loss tokens have no share are left out of the second.
    """
    from amnesis_plugins.g_effect import measure as measured
    from amnesis_plugins.g_effect.splits import named_losses

    def one(asked: Sequence[Mapping[str, Any]], split: Sequence[str]) -> EffectTable:
        return measured(
            model, tokenizer, rows["forget"], rows["retain"], asked, reference, split, **options
        )

    if joint or "token" not in by or "layer" not in by:
        return {"g_effect": one(choices, by)}
    tables = {"g_effect": one(choices, [part for part in by if part != "token"])}
    factorising = [
        choice
        for choice, named in zip(
            choices, named_losses(choices, options.get("registry")), strict=True
        )
        if named.likelihood
    ]
    if factorising:
        tables["tokens"] = one(factorising, ["example", "token"])
    return tables


def entangle(
    subject: Subject,
    rows: Mapping[str, Sequence[Row]],
    count: int,
    batch_size: int,
    progress: Any,
) -> Entanglement:
    """Pair every label token of the forget set with the first ``count`` retain examples."""
    from amnesis.data.batches import pad_token_id
    from amnesis_plugins.g_effect import measure_entanglement
    from amnesis_plugins.g_effect.sets import encoded_for

    model, tokenizer = subject.model, subject.tokenizer
    forget, retain = (
        encoded_for(model, tokenizer, name, own, [], subject.template, batch_size)
        for name, own in (("forget", rows["forget"]), ("retain", rows["retain"][:count]))
    )
    return measure_entanglement(
        model,
        forget,
        retain,
        pad_token_id(tokenizer),
        lambda done, total: progress("entanglement", done, total),
        tokenizer=tokenizer,
    )


def choice_of(text: str) -> dict[str, Any]:
    """Read ``wga`` or ``wga:beta=5`` into a name and hyper-parameters.

    Raises:
        RecipeError: a hyper-parameter is not written as key=value, or its value is not YAML.
    """
    import yaml

    from amnesis.errors import RecipeError

    name, *hyper = text.strip().split(":")
    choice: dict[str, Any] = {"name": name}
    for part in hyper:
        key, equals, value = part.partition("=")
        if not (key and equals):
            raise RecipeError(f"objective {text.strip()!r}: write name:key=value, as in wga:beta=5")
        try:
            choice[key] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise RecipeError(
                f"objective {text.strip()!r}: {value!r} is not a YAML value; objectives stand with "
                f"commas between, so a value holds none"
            ) from None
    return choice


def summary(table: EffectTable) -> Any:
    """Lay out each objective's totals and their ratio for the terminal."""
    from rich.markup import escape
    from rich.table import Table

    from amnesis_evaluation.commands.probe.page import by_ratio, shown_totals

    shown = Table("objective", "unlearning", "retaining", "retaining / unlearning")
    for name in by_ratio(table):
        values = shown_totals(table, name)
        shown.add_row(escape(name), *("–" if v != v else f"{v:.4g}" for v in values))
    shown.caption = "negative raises the risk; compare by the ratio: 1 harms both alike"
    return shown
