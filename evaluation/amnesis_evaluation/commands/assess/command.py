"""``amnesis assess``: before anything is unlearned, what there is to forget and what it takes."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from amnesis.errors import AmnesisError, Interrupted
from amnesis_evaluation.commands import inputs

if TYPE_CHECKING:
    from amnesis.contracts import ProgressCallback, Subject
    from amnesis.discovery.registry import Registry
    from amnesis.runs.subject import LoadedSubject, ModelPlace
    from amnesis_evaluation.commands.assess.material import Material
    from amnesis_evaluation.commands.assess.methods import Trying
    from amnesis_evaluation.commands.assess.record import Assessment, Knowledge, Methods
    from amnesis_evaluation.commands.suggest.trials import Candidate

# Every file that an assessment may write into its folder, and all that --overwrite replaces.
PAGE, RECORD, RECIPE = NAMES = ("assess.html", "assess.json", "recipe.yaml")
YAML = (".yaml", ".yml")
NO_RETAIN = (
    "without --retain it was not measured how entangled the two sets are, nor which methods suit; "
    "there is no starter recipe"
)
NO_HOLDOUT = (
    "membership was not measured: --holdout names rows like the forget set's that the model has "
    "not seen, against which all else is held too"
)
NO_TRIALS = "no method was tried, so there is no starter recipe: leave --no-trials out"
NO_RECIPE = (
    "no starter recipe was written: its benchmark needs each set as one file, and columns called "
    "alike in all of them; put the rows of each together in one, or let amnesis init write the "
    "recipe"
)
NOTHING = "no learning rate was searched for: there is nothing to forget"


def assess(  # long for its options: each is a line of --help
    context: typer.Context,
    model: inputs.Model,
    forget: inputs.Forget = None,
    retain: inputs.Retain = None,
    holdout: Annotated[
        list[str] | None,
        typer.Option(help="Rows like the forget set's that the model has not seen, likewise."),
    ] = None,
    benchmark: inputs.BenchmarkName = None,
    corpus: Annotated[
        list[Path] | None,
        typer.Option(help="Find what must go: texts to rank passages of, a file or a folder."),
    ] = None,
    names: Annotated[
        str | None,
        typer.Option(help="With --corpus: a spaCy model, which finds names of people and places."),
    ] = None,
    trials: Annotated[
        bool, typer.Option(help="Try methods out and find a learning rate, on what is thrown away.")
    ] = True,
    candidates: inputs.Candidates = None,
    steps: inputs.TrialSteps = 20,
    lora: Annotated[int, typer.Option(min=1, help="Rank of the disposable adapter.")] = 16,
    full: Annotated[
        bool, typer.Option("--full", help="Train a copy of the whole model, not an adapter.")
    ] = False,
    examples: Annotated[
        int, typer.Option(min=1, help="Measure effects on the first k rows of each set.")
    ] = 16,
    limit: inputs.Limit = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Rows per pass, and per step.")] = 8,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the adapter and the data order.")] = 0,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for page, record and recipe; or recipe.yaml, or forget.csv."),
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace an earlier assessment.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the record as JSON.")] = False,
    device: inputs.Device = None,
    trust_remote_code: inputs.TrustRemoteCode = False,
) -> None:
    """Tell what a model knows of the rows to forget, what goes with them, and what it will take.

    It ends in a starter recipe. Without rows, --corpus finds the passages that the model gives back
    and writes them to a CSV file, for you to review.
    """
    from amnesis.cli import ProgressBars, load_subject, quiet_libraries, registry_of
    from amnesis.errors import RecipeError
    from amnesis.runs.subject import ModelPlace
    from amnesis_evaluation.commands.assess.material import fitting, material_of
    from amnesis_evaluation.commands.assess.methods import Trying
    from amnesis_evaluation.commands.assess.terminal import show
    from amnesis_evaluation.commands.suggest.trials import candidates_of

    quiet_libraries()
    place = ModelPlace.of(model)
    machine: dict[str, Any] = {"device": device, "trust_remote_code": trust_remote_code}
    if corpus:
        if forget or retain or holdout or benchmark:
            raise RecipeError("--corpus finds what must go; give it, or the sets, not both")
        _check_file(out, (".csv",), overwrite=overwrite)
        _find(place, corpus, names, limit, batch_size, out, machine, as_json=as_json)
        return
    if names is not None:
        raise RecipeError("--names belongs to --corpus")
    if out is not None and out.suffix in YAML:
        _check_file(out, YAML, overwrite=overwrite)
    elif out is not None:
        inputs.check_place(out, NAMES, overwrite=overwrite)
    registry = registry_of(context)
    methods = candidates_of(candidates, registry)
    material = material_of(forget, retain, holdout, benchmark, limit, registry, place.recipe)
    loaded = load_subject(place, **machine)
    subject, material = fitting(loaded.subject, material)
    if out is not None and out.suffix not in YAML:
        inputs.make_place(out)
    with ProgressBars() as progress:
        record, recipe = assessment_of(
            place.path,
            subject,
            material,
            methods if trials else (),
            Trying(
                steps=steps,
                batch_size=batch_size,
                examples=examples,
                lora=None if full else lora,
                seed=seed,
            ),
            registry,
            progress,
            **machine,
        )
    if as_json:
        print(json.dumps(record.document(), indent=1, ensure_ascii=False, allow_nan=False))
    else:
        show(record)
    _write(out, record, material, subject, recipe, quiet=as_json)


def assessment_of(
    model: str,
    subject: Subject,
    material: Material,
    candidates: Sequence[Candidate],
    trying: Trying,
    registry: Registry,
    progress: ProgressCallback,
    **machine: Any,
) -> tuple[Assessment, str | None]:
    """Return the record, and the starter recipe as it is written, where there is one.

    ``machine`` is what :func:`amnesis.runs.preflight.prepare` takes of the machine.

    Raises:
        AmnesisError: something cannot be measured.
    """
    from amnesis.runs.results import environment
    from amnesis_evaluation.commands.assess.alignment import alignment_of
    from amnesis_evaluation.commands.assess.knowledge import evaluation_of, knowledge_of
    from amnesis_evaluation.commands.assess.overlap import overlap_of
    from amnesis_evaluation.commands.assess.record import Assessment

    sets, size = material.sets, trying.batch_size
    evaluation = evaluation_of(subject, sets, size, registry, progress)
    knowledge = knowledge_of(evaluation, sets["forget"])
    notes = [*material.notes, *evaluation.notes, *(() if "holdout" in sets else (NO_HOLDOUT,))]
    alignment = overlap = methods = document = text = None
    if "retain" in sets:
        overlap = overlap_of(sets, subject.template, subject.tokenizer, progress)
        alignment = alignment_of(subject, sets, size, progress)
    if knowledge.level == "unknown":
        notes.append(NOTHING)
    elif "retain" not in sets or not candidates:
        notes.append(NO_TRIALS if "retain" in sets else NO_RETAIN)
    else:
        try:
            methods, document, text = _tried(
                model, subject, material, candidates, trying, knowledge, registry, progress, machine
            )
        except Interrupted:
            raise
        except AmnesisError as error:  # what was found so far is told all the same
            notes.append(f"there is no starter recipe: {error}")
        if methods is not None and document is None:
            notes.append(NO_RECIPE)
    record = Assessment(
        model=model,
        finished=datetime.now().astimezone().isoformat(timespec="seconds"),
        rows={name: len(rows) for name, rows in sets.items()},
        digests=evaluation.data,
        knowledge=knowledge,
        alignment=alignment,
        overlap=overlap,
        methods=methods,
        recipe=document,
        notes=tuple(dict.fromkeys(notes)),
        environment=environment(str(subject.model.device)),
    )
    return record, text


def _tried(
    model: str,
    subject: Subject,
    material: Material,
    candidates: Sequence[Candidate],
    trying: Trying,
    knowledge: Knowledge,
    registry: Registry,
    progress: ProgressCallback,
    machine: Mapping[str, Any],
) -> tuple[Methods, dict[str, Any] | None, str | None]:
    """Return the methods, and the starter recipe and its text where its sets can be named."""
    from amnesis_evaluation.commands.assess.methods import methods_of
    from amnesis_evaluation.commands.assess.recipe import checked_text, goal_of, recipe_of

    size, goal = min(trying.batch_size, len(material.sets["forget"])), goal_of(knowledge)
    trying = replace(trying, batch_size=size)
    methods = methods_of(subject, material.sets, candidates, trying, goal, registry, progress)
    if material.document is None:
        return methods, None, None
    document = recipe_of(
        model, material.document, subject.template, goal, methods, size, trying.seed
    )
    return methods, document, checked_text(document, methods, registry, **machine)


def _write(
    out: Path | None,
    record: Assessment,
    material: Material,
    subject: Subject,
    recipe: str | None,
    *,
    quiet: bool,
) -> None:
    """Write what was found; say where, and what there is to run, unless ``quiet``."""
    from amnesis.cli import console
    from amnesis.storage import write_json, write_text
    from amnesis_evaluation.commands.assess.page import page

    if out is None:
        return
    alone = out.suffix in YAML
    place, lines = out if alone else out / RECIPE, list[str]()
    if not alone:
        for name in NAMES:  # an assessment need not write all of them
            (out / name).unlink(missing_ok=True)
        write_json(out / RECORD, record.document())
        write_text(out / PAGE, page(record, material.sets, subject.template, recipe))
        lines.append(f"{out / PAGE} quotes texts that must go: it is for your eyes alone")
    if recipe is not None:
        write_text(place, recipe)
        lines.append(f"start with: {shlex.join(['amnesis', 'run', str(place)])}")
    elif alone:
        lines.append(f"{place} was not written")
    for line in () if quiet else lines:
        console().print(line, soft_wrap=True)


def _check_file(out: Path | None, suffixes: Sequence[str], *, overwrite: bool) -> None:
    """Check that a file may be written; nothing is changed.

    Raises:
        OutputError: it is there already, is a folder, is called otherwise, or has no place.
    """
    from amnesis.errors import OutputError

    if out is None:
        return
    if out.suffix not in suffixes:
        raise OutputError(f"{out}: give a file that ends in {suffixes[0]}, such as forget.csv")
    if out.is_dir():
        raise OutputError(f"{out}: is a folder; name another --out")
    if out.exists() and not overwrite:
        raise OutputError(f"{out}: is there already; name another --out, or say --overwrite")
    inputs.make_place(out.absolute().parent)


def _find(
    place: ModelPlace,
    corpus: Sequence[Path],
    names: str | None,
    limit: int | None,
    batch_size: int,
    out: Path | None,
    machine: Mapping[str, Any],
    *,
    as_json: bool,
) -> None:
    from amnesis.cli import ProgressBars, console, load_subject
    from amnesis.storage import write_text
    from amnesis_evaluation.commands.assess.corpus import candidates_of, csv_of, read_passages
    from amnesis_evaluation.commands.assess.personal import finder
    from amnesis_evaluation.commands.assess.terminal import show_candidates

    passages = read_passages(corpus)[:limit]
    recognizers = finder(names)
    loaded: LoadedSubject = load_subject(place, **machine)
    with ProgressBars() as progress:
        found, record = candidates_of(loaded.subject, passages, recognizers, batch_size, progress)
    if out is not None and found:
        write_text(out, csv_of(found, record))
    if as_json:
        document = {"model": place.path, **record.model_dump(mode="json")}
        print(json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False))
        return
    show_candidates(record)
    if out is not None and found:
        command = shlex.join(["amnesis", "assess", place.path, "--forget", str(out)])
        console().print(
            f"{out} holds them. Delete the rows that may stay, then: {command}", soft_wrap=True
        )
    elif out is not None:
        console().print(f"{out} was not written", soft_wrap=True)
