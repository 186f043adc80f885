"""``amnesis probe``: what each objective would do to both risks, before any training step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from amnesis.cli.terminal import AsJson
from amnesis_evaluation.commands import inputs
from amnesis_evaluation.commands.inputs import choice_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from amnesis.contracts import Subject
    from amnesis.data.templates import Row
    from amnesis_plugins.g_effect import EffectTable, Entanglement

# Every file that a probe may write into its folder, and so all that --overwrite replaces.
NAMES = (
    "g_effect.parquet",
    "tokens.parquet",
    "entanglement.parquet",
    "g_effect.json",
    "g_effect.html",
    "g_effect.png",
)
DEFAULT = "ga,npo,simnpo,wga,tnpo"


def probe(  # long for its options: each is a line of --help
    context: typer.Context,
    model: inputs.Model,
    forget: inputs.Forget = None,
    retain: inputs.Retain = None,
    benchmark: inputs.BenchmarkName = None,
    objectives: Annotated[
        list[str] | None,
        typer.Option(
            help="Names, separated by commas or repeated; hyper-parameters as in wga:beta=5.",
            show_default=DEFAULT,
        ),
    ] = None,
    reference: Annotated[
        str | None, typer.Option(help="The model before unlearning, if MODEL is not it.")
    ] = None,
    by: Annotated[
        list[str] | None,
        typer.Option(
            help="Any of layer, example, token and position, separated by commas or repeated.",
            show_default="layer,example,token",
        ),
    ] = None,
    joint: Annotated[
        bool,
        typer.Option("--joint", help="One table of layer × token, for one more pass per layer."),
    ] = False,
    entanglement: Annotated[
        int,
        typer.Option(min=0, help="Pair forget tokens with the first k retain examples; 0: none."),
    ] = 8,
    limit: inputs.Limit = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Examples per forward pass.")] = 8,
    out: Annotated[Path | None, typer.Option(help="Folder for tables and plots.")] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace an earlier probe's results.")] = False,
    device: inputs.Device = None,
    trust_remote_code: inputs.TrustRemoteCode = False,
    as_json: AsJson = False,
) -> None:
    """Show what objectives do to the risk on both sets, by layer, example and token.

    The sets are files, those of a benchmark, or, of a run's folder, those that the run was of.
    """
    from amnesis.cli import (
        ProgressBars,
        console,
        load_subject,
        make_new_folder,
        print_json,
        print_notes,
        quiet_libraries,
        registry_of,
    )
    from amnesis.runs.subject import ModelPlace
    from amnesis.storage import write_json, write_text
    from amnesis_evaluation.commands.probe.page import page, record
    from amnesis_evaluation.commands.probe.picture import save_heat_maps
    from amnesis_plugins.g_effect.splits import named_losses

    quiet_libraries()
    folder = out or make_new_folder("probe")
    inputs.check_place(folder, NAMES, overwrite=overwrite)
    choices = [choice_of(text) for text in inputs.parts_of(objectives) or DEFAULT.split(",")]
    registry = registry_of(context)
    named_losses(choices, registry)
    place = ModelPlace.of(model)
    rows = inputs.sets_of(forget, retain, benchmark, limit, registry, place.recipe)
    load = partial(load_subject, device=device, trust_remote_code=trust_remote_code)
    subject = load(place).subject
    reference_model = load(reference).subject.model if reference else None
    inputs.make_place(folder)
    with ProgressBars() as progress:
        tables = measure(
            subject.model,
            subject.tokenizer,
            rows,
            choices,
            reference_model,
            inputs.parts_of(by) or ["layer", "example", "token"],
            joint=joint,
            template=subject.template,
            batch_size=batch_size,
            progress=progress,
            registry=registry,
        )
        pairs = (
            entangle(subject, rows, entanglement, batch_size, progress) if entanglement else None
        )
    for name in NAMES:  # a probe need not write all of them; none of an earlier one may remain
        (folder / name).unlink(missing_ok=True)
    for name, table in tables.items():
        table.to_parquet(folder / f"{name}.parquet")
    if pairs is not None:
        pairs.to_parquet(folder / "entanglement.parquet")
    document = record(tables)
    write_json(folder / "g_effect.json", document)
    write_text(folder / "g_effect.html", page(model, tables, rows, pairs))
    notes = [note for table in tables.values() for note in table.notes]
    if problem := save_heat_maps(folder / "g_effect.png", tables):
        notes.append(problem)
    if as_json:
        print_json({"folder": str(folder), **document, "notes": list(dict.fromkeys(notes))})
        return
    console().print(summary(next(iter(tables.values()))))
    print_notes(notes)
    page_file = folder / "g_effect.html"
    console().print(f"everything is in {folder}; open {page_file}", soft_wrap=True)


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
    """Return the tables of effects by name: ``g_effect``, and ``tokens`` where it is separate.

    A split by layer and by token at once takes a pass per layer. Unless ``joint`` asks for it, one
    table has all splits but ``token``, and a second one has ``example`` and ``token``; objectives
    that need more than log-probabilities have no shares by token and are left out of the second.
    ``options`` are those of :func:`amnesis_plugins.g_effect.measure`.
    """
    from amnesis_plugins.g_effect import measure as measure_effects
    from amnesis_plugins.g_effect.splits import named_losses

    def effects(losses: Sequence[Mapping[str, Any]], split: Sequence[str]) -> EffectTable:
        return measure_effects(
            model, tokenizer, rows["forget"], rows["retain"], losses, reference, split, **options
        )

    if joint or "token" not in by or "layer" not in by:
        return {"g_effect": effects(choices, by)}
    tables = {"g_effect": effects(choices, [part for part in by if part != "token"])}
    token_losses = [
        choice
        for choice, loss in zip(
            choices, named_losses(choices, options.get("registry")), strict=True
        )
        if loss.likelihood
    ]
    if token_losses:
        tables["tokens"] = effects(token_losses, ["example", "token"])
    return tables


def entangle(
    subject: Subject,
    rows: Mapping[str, Sequence[Row]],
    count: int,
    batch_size: int,
    progress: Any,
) -> Entanglement:
    """Return the entanglement of every forget token with the first ``count`` retain examples."""
    from amnesis.data.batches import pad_token_id
    from amnesis_plugins.g_effect import measure_entanglement
    from amnesis_plugins.g_effect.sets import encode_set

    model, tokenizer = subject.model, subject.tokenizer
    forget, retain = (
        encode_set(model, tokenizer, name, examples, [], subject.template, batch_size)
        for name, examples in (("forget", rows["forget"]), ("retain", rows["retain"][:count]))
    )
    return measure_entanglement(
        model,
        forget,
        retain,
        pad_token_id(tokenizer),
        lambda done, total: progress("entanglement", done, total),
        tokenizer=tokenizer,
    )


def summary(table: EffectTable) -> Any:
    """Return a rich table of each objective's total effects and their ratio."""
    from rich.markup import escape
    from rich.table import Table

    from amnesis_evaluation.commands.probe.page import by_ratio, shown_totals

    layout = Table("objective", "unlearning", "retaining", "retaining / unlearning")
    for name in by_ratio(table):
        values = shown_totals(table, name)
        layout.add_row(escape(name), *("–" if v != v else f"{v:.4g}" for v in values))
    layout.caption = "negative raises the risk; compare by the ratio: 1 harms both alike"
    return layout
