"""``amnesis demo``: from nothing to a model that forgot ten people, offline, on a CPU."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from amnesis.contracts import ProgressCallback
    from amnesis.discovery.registry import Registry
    from amnesis.runs.results import Results

# A Llama small enough to train quickly on a laptop, yet large enough to learn the sets by heart.
MODEL = {
    "architecture": "llama",
    "vocabulary": 2048,
    "config": {
        "hidden_size": 160,
        "intermediate_size": 480,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "max_position_embeddings": 256,
        "tie_word_embeddings": True,
        "initializer_range": 0.1,  # with the default 0.02 a model this small learns nothing
    },
}
LEARNING = {
    "epochs": 14,
    "batch_size": 16,
    "learning_rate": 4e-3,
    "betas": [0.9, 0.98],
    "warmup_steps": 10,
    "schedule": "stable_decay",
    "log_every": 10,
}
UNLEARNING = {
    "steps": 80,
    "batch_size": 8,
    "learning_rate": 7e-4,
    "warmup_steps": 5,
    "schedule": "constant",
}
# The model that knows everyone, and the one that is trained without the forget set.
TRAINING_SETS = {"target": ["forget", "retain", "facts"], "retrained": ["retain", "facts"]}
METRICS = ("extraction_strength", "probability", "rouge_l")
CAPTION = (
    "The forget set is about ten invented people. 'retrained' is the same model trained without "
    "them: the goal. The facts are not trained on during unlearning and show collateral damage; "
    "the retain rows are the ones that the regularizer trains on. A model this small shows that "
    "the forgotten text is no longer produced, not how a large model behaves, and it knows nothing "
    "beyond the sets above."
)


def demo(
    context: typer.Context,
    out: Annotated[
        Path | None, typer.Option(help="Folder for all results; default: a new runs/demo-<time>.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of people, weights and data order.")] = 0,
    overwrite: Annotated[bool, typer.Option(help="Replace an earlier demo.")] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a demo that was cut off.")
    ] = False,
) -> None:
    """Watch a small language model forget ten people and keep the rest (about two minutes)."""
    from amnesis.cli import (
        ProgressBars,
        console,
        make_new_folder,
        print_notes,
        print_verdict,
        quiet_libraries,
        registry_of,
    )
    from amnesis.runs.answers import REPORT

    began = time.monotonic()
    quiet_libraries()
    folder = out or make_new_folder("demo")
    with ProgressBars() as progress:
        results = make_demo(
            folder,
            seed=seed,
            overwrite=overwrite,
            resume=resume,
            progress=progress,
            registry=registry_of(context),
        )
    print_verdict(results.verdict)
    console().print(_table(results))
    print_notes(results.notes)
    seconds = time.monotonic() - began
    console().print(
        f"{results.steps} steps, {seconds:.0f} s in all; everything is in {folder}.",
        soft_wrap=True,
    )
    console().print(f"Watch the run: tensorboard --logdir {folder}", soft_wrap=True)
    console().print(f"Read the report: {folder / REPORT}", soft_wrap=True)


def make_demo(
    folder: Path,
    *,
    seed: int = 0,
    overwrite: bool = False,
    resume: bool = False,
    progress: ProgressCallback | None = None,
    registry: Registry | None = None,
) -> Results:
    """Train a target and a retrained model, unlearn the target, and return the run's results.

    Everything is written into ``folder``: the models into ``target`` and ``retrained``, the
    unlearning run into the folder itself.

    Raises:
        OutputError: ``folder`` is not empty, and neither ``overwrite`` nor ``resume`` is true, or
            both are.
    """
    import amnesis
    from amnesis.runs.folder import check_one_of, claim

    check_one_of(resume=resume, overwrite=overwrite)
    if not resume:
        claim(folder, overwrite=overwrite)
    benchmark = {"name": "fictional", "seed": seed}
    for name in TRAINING_SETS:
        _train(folder / name, benchmark, seed, overwrite, resume, progress, registry)
    result = amnesis.run(
        {
            "model": str(folder / "target" / "model"),
            "retrained": str(folder / "retrained" / "model"),
            "benchmark": benchmark,
            "objective": "wga",
            "regularizer": "kl",
            "combiner": "sago",
            "probes": [{"name": "g_effect", "every": 1}],
            "training": UNLEARNING,
            "evaluate": {
                "metrics": list(METRICS),
                "generate_rows": 40,
                "max_new_tokens": 64,
                "every": 10,
                "during": [
                    f"{name}/{metric}"
                    for name in ("forget", "retain")
                    for metric in ("extraction_strength", "probability")  # of one forward pass
                ],
            },
            "seed": seed,
        },
        folder,
        resume=_goes_on(folder, resume),
        overwrite=not _goes_on(folder, resume),  # claimed above
        device="cpu",
        progress=progress,
        registry=registry,
    )
    return result.results


def _train(
    folder: Path,
    benchmark: dict[str, Any],
    seed: int,
    overwrite: bool,
    resume: bool,
    progress: ProgressCallback | None,
    registry: Registry | None,
) -> None:
    """Train the model that is called as its folder, unless an earlier demo has."""
    from amnesis.progress import Prefixed
    from amnesis.runs.finetune import finetune

    finetune(
        {
            "model": MODEL,
            "benchmark": benchmark,
            "sets": TRAINING_SETS[folder.name],
            # One tokenizer for both models, trained on every set: only then can their scores be
            # compared.
            "tokenizer_sets": [*TRAINING_SETS["target"], "holdout"],
            "training": LEARNING,
            "seed": seed,
        },
        folder,
        resume=_goes_on(folder, resume),
        overwrite=overwrite and not resume,
        device="cpu",
        progress=None if progress is None else Prefixed(folder.name, progress),
        registry=registry,
    )


def _goes_on(folder: Path, resume: bool) -> bool:
    return resume and (folder / "recipe.yaml").is_file()


def _table(results: Results) -> Table:
    from rich.table import Table

    table = Table("set", "metric", *results.phases(), caption=CAPTION)
    for set_name in ("forget", "retain", "facts", "holdout"):
        for metric in METRICS:
            key = f"{set_name}/{metric}"
            cells = [values.get(key) for values in results.phases().values()]
            if any(cell is not None for cell in cells):
                table.add_row(
                    set_name if metric == METRICS[0] else "",
                    metric.replace("_", " "),
                    *("–" if cell is None else f"{cell:.3f}" for cell in cells),
                    end_section=metric == METRICS[-1],
                )
    return table
