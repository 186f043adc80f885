"""``amnesis suggest``: which method damages retention least, tried out in short runs."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from amnesis.cli.terminal import AsJson
from amnesis_evaluation.commands import inputs

if TYPE_CHECKING:
    from amnesis_evaluation.commands.suggest.trials import Ranking, Tried

NAMES = ("suggestion.json",)


def suggest(  # long for its options: each is a line of --help
    context: typer.Context,
    model: inputs.Model,
    forget: inputs.Forget = None,
    retain: inputs.Retain = None,
    benchmark: inputs.BenchmarkName = None,
    candidates: inputs.Candidates = None,
    steps: inputs.TrialSteps = 20,
    learning_rate: Annotated[float, typer.Option(help="Learning rate, the same for all.")] = 1e-5,
    batch_size: Annotated[int, typer.Option(min=1, help="Forget examples per step.")] = 8,
    at: Annotated[
        float | None,
        typer.Option(help="Compare at this forget probability; default: half the initial one."),
    ] = None,
    examples: Annotated[
        int, typer.Option(min=1, help="Measure effects on the first k rows of each set.")
    ] = 16,
    lora: Annotated[
        int | None,
        typer.Option(min=1, help="Train a LoRA of this rank instead of a copy."),
    ] = None,
    limit: inputs.Limit = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the data order.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Folder for suggestion.json.")] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace an earlier suggestion.")] = False,
    device: inputs.Device = None,
    trust_remote_code: inputs.TrustRemoteCode = False,
    as_json: AsJson = False,
) -> None:
    """Try candidates out in short disposable runs; rank them by damage at equal forgetting."""
    from amnesis.cli import (
        ProgressBars,
        console,
        load_subject,
        print_json,
        print_notes,
        quiet_libraries,
        registry_of,
    )
    from amnesis.errors import RecipeError
    from amnesis.runs.subject import ModelPlace
    from amnesis.storage import write_json
    from amnesis_evaluation.commands.suggest.trials import (
        candidates_of,
        rank,
        start_of,
        try_out,
    )

    if at is not None and not 0 < at < 1:
        raise RecipeError(f"--at must be a probability between 0 and 1, not {at}")
    quiet_libraries()
    if out is not None:
        inputs.check_place(out, NAMES, overwrite=overwrite)
    registry = registry_of(context)
    methods = candidates_of(candidates, registry)
    place = ModelPlace.of(model)
    rows = inputs.sets_of(forget, retain, benchmark, limit, registry, place.recipe)
    subject = load_subject(place, device=device, trust_remote_code=trust_remote_code).subject
    start = start_of(subject, rows, examples)
    if at is not None and at >= start:
        raise RecipeError(
            f"--at {at:g}: the model starts at a forget probability of {start:.4g}, which trials "
            f"lower; name one below it"
        )
    if out is not None:
        inputs.make_place(out)
    training = {
        "steps": steps,
        "learning_rate": learning_rate,
        "batch_size": batch_size,
        "schedule": "constant",
    }
    with ProgressBars() as progress:
        outcome = try_out(
            subject,
            rows,
            methods,
            training=training,
            examples=examples,
            lora_rank=lora,
            seed=seed,
            registry=registry,
            told=progress,
        )
    ranking = rank(outcome.trials, at)
    notes = [
        *ranking.notes,
        *(
            f"{trial.name} did not get there in {steps} steps: from {trial.start:.3f} to "
            f"{trial.reached:.3f}"
            for trial in ranking.short
        ),
        *(f"{name} is left out: {reason}" for name, reason in outcome.failed.items()),
    ]
    document = _record(ranking, outcome, training, notes)
    if out is not None:
        write_json(out / NAMES[0], document)
    if as_json:
        print_json(document)
        return
    console().print(_table(ranking))
    print_notes(notes)
    if out is not None:
        console().print(f"every step of every candidate is in {out / NAMES[0]}", soft_wrap=True)


def _table(ranking: Ranking) -> Any:
    from rich.markup import escape
    from rich.table import Table

    table = Table(
        "candidate",
        "damage per forgetting",
        "unlearning",
        "retaining",
        "retain probability",
        "steps",
        title=f"at forget probability {ranking.probability:.3f}",
        caption=(
            "retaining effect per unit of unlearning effect, summed over the updates: the smaller "
            "the better, and below 0 retention improves. The retain rows are those that a "
            "regularizer trains on, and one learning rate for all favours some candidates: take "
            "this as a hint where to start, not as a verdict"
        ),
    )
    for trial, moment in ranking.ranked:
        table.add_row(
            escape(trial.name),
            "–" if moment.ratio is None else f"{moment.ratio:.4f}",
            f"{moment.unlearning:.3f}",
            f"{moment.retaining:.3f}",
            f"{moment.retain_probability:.3f}",
            f"{moment.steps:.1f}",
        )
    return table


def _record(
    ranking: Ranking, outcome: Tried, training: dict[str, Any], notes: list[str]
) -> dict[str, Any]:
    return {
        "forget_probability": ranking.probability,
        "training": training,
        "ranking": [
            {"candidate": trial.name, "ratio": moment.ratio, **asdict(moment)}
            for trial, moment in ranking.ranked
        ],
        "not_reached": [trial.name for trial in ranking.short],
        "failed": dict(outcome.failed),
        "notes": notes,
        "trials": {t.name: [asdict(moment) for moment in t.path] for t in outcome.trials},
    }
