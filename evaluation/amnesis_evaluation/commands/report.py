"""``amnesis report``: the verdict on a run or evaluation, and its page, written again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(help="The folder of a run or an evaluation.")],
    delete_answers: Annotated[
        bool,
        typer.Option(
            "--delete-answers", help="Delete the texts that were kept; the page is without them."
        ),
    ] = False,
) -> None:
    """Write report.html of a run or an evaluation again, by today's rules, from its results."""
    from amnesis.cli import console, print_notes, print_verdict, registry_of
    from amnesis.runs.answers import ANSWERS, REPORT, delete_shown_answers, forget_phases
    from amnesis.runs.reporting import reported
    from amnesis.runs.results import RESULTS, Results

    if folder.is_file() and folder.name == RESULTS:
        folder = folder.parent
    results = Results.read(folder)
    if delete_answers:
        for name in (ANSWERS, REPORT):
            (folder / name).unlink(missing_ok=True)
        forget_phases(folder / "checkpoints")
        delete_shown_answers(folder / "tensorboard")
    whole = reported(folder, results, registry_of(context))
    if whole.verdict != results.verdict:
        whole.model_copy(update={"notes": results.notes}).write(folder)
    print_verdict(whole.verdict)
    print_notes(whole.notes[len(results.notes) :])
    if delete_answers:
        console().print(f"the texts kept in {folder} are deleted", soft_wrap=True)
    if (folder / REPORT).is_file():
        console().print(str(folder / REPORT), soft_wrap=True)
