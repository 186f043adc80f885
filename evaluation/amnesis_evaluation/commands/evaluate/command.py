"""``amnesis evaluate``: evaluate a model on a benchmark, or read an original TOFU log."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from amnesis_evaluation.commands import inputs
from amnesis_evaluation.commands.evaluate.choices import (
    benchmark_of,
    own_rows,
    retrained_of,
    settings_of,
    tasks_of,
)
from amnesis_evaluation.commands.evaluate.evaluating import evaluation_of
from amnesis_evaluation.commands.evaluate.shown import show, show_log


def evaluate(  # long for its options: each is a line of --help
    context: typer.Context,
    model: Annotated[
        str | None, typer.Argument(help="A model's folder or hub name, or a run's folder.")
    ] = None,
    benchmark: Annotated[
        str | None,
        typer.Option(
            help="Name, such as tofu:split=forget05, or own with --with.", show_default="the run's"
        ),
    ] = None,
    forget: inputs.Forget = None,
    retain: inputs.Retain = None,
    split: Annotated[
        str | None, typer.Option(help="Split of the benchmark, such as forget10.")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Folder with the benchmark's files.")] = None,
    hyper: Annotated[
        list[str] | None,
        typer.Option("--with", help="Hyper-parameter of the benchmark, key=value; repeatable."),
    ] = None,
    metrics: Annotated[
        list[str] | None,
        typer.Option(
            help="Names, separated by commas or repeated.", show_default="the benchmark's own"
        ),
    ] = None,
    retrained: Annotated[
        str | None,
        typer.Option(help="A model that never saw the forget set, or results of one."),
    ] = None,
    lm_eval: Annotated[
        list[str] | None,
        typer.Option(
            help="Tasks of lm-eval, on the hub's data, or on files as in "
            "wmdp_bio:test=bio.jsonl; without a benchmark, these alone."
        ),
    ] = None,
    attack: Annotated[
        list[str] | None,
        typer.Option(help="Attacks to evaluate under, such as relearning:steps=20."),
    ] = None,
    recipe: Annotated[
        Path | None,
        typer.Option(help="Recipe to take template, benchmark and evaluate settings from."),
    ] = None,
    batch_size: Annotated[str | None, typer.Option(help="Texts per forward pass, or auto.")] = None,
    limit: Annotated[
        int | None, typer.Option(help="Evaluate the first k rows of each set.")
    ] = None,
    generate_rows: Annotated[
        int | None, typer.Option(help="Generate on the first k rows of each set.")
    ] = None,
    max_new_tokens: Annotated[
        int | None, typer.Option(help="Longest generated answer, in tokens.")
    ] = None,
    engine: Annotated[
        str | None,
        typer.Option(
            help="What writes the answers: builtin, transformers or vllm.", show_default="builtin"
        ),
    ] = None,
    cache: Annotated[bool, typer.Option(help="Reuse evaluations of the same model.")] = True,
    keep_answers: Annotated[
        bool | None,
        typer.Option(help="Keep prompts and answers beside the results.", show_default="yes"),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the results.")] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace earlier results.")] = False,
    device: inputs.Device = None,
    trust_remote_code: inputs.TrustRemoteCode = False,
    from_log: Annotated[
        Path | None, typer.Option(help="Read an original TOFU evaluation log instead.")
    ] = None,
    retain_log: Annotated[
        Path | None, typer.Option(help="Log of a retrained model, for forget quality.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Evaluate a model on the field's benchmarks, or read an original TOFU evaluation log."""
    from amnesis.cli import registry_of
    from amnesis.discovery.resolve import build
    from amnesis.errors import RecipeError
    from amnesis.runs.subject import ModelPlace
    from amnesis_evaluation.reports.stored import check_place

    if from_log is not None:
        if model is not None:
            raise RecipeError("give a MODEL or --from-log, not both")
        _check_log_options(context)
        show_log(from_log, retain_log, as_json)
        return
    if retain_log is not None:
        raise RecipeError("--retain-log belongs to --from-log; for a model give --retrained")
    if model is None:
        raise RecipeError("name a MODEL to evaluate, or an original TOFU log with --from-log")
    place, registry = ModelPlace.of(model, recipe), registry_of(context)
    retrained_results, retrained_model = retrained_of(retrained)
    options = {
        "metrics": inputs.parts_of(metrics) or None,
        "retrained": retrained_results,
        "lm_eval": tasks_of(lm_eval, place.recipe),
        "batch_size": int(batch_size) if batch_size and batch_size.isdecimal() else batch_size,
        "limit": limit,
        "generate_rows": generate_rows,
        "max_new_tokens": max_new_tokens,
        "engine": engine,
        "keep_answers": keep_answers if out is not None else False,
    }
    settings = settings_of(place.recipe, options, cache=cache)
    if out is not None:
        sources = [Path(place.path), *([Path(retrained)] if retrained else [])]
        check_place(out, [path for path in sources if path.exists()], overwrite=overwrite)
    hypers = {"split": split, "path": data, **own_rows(forget, retain, benchmark)}
    suite = benchmark_of(
        place.recipe, benchmark, hypers, hyper or [], registry, alone=settings.lm_eval is not None
    )
    attacks = [
        build("attack", inputs.choice_of(text, "attack"), registry)
        for text in inputs.parts_of(attack)
    ]
    if suite is None and (attacks or retrained or metrics):
        raise RecipeError(
            "name a --benchmark: metrics, attacks and --retrained are read on its rows"
        )
    evaluation, results = evaluation_of(
        place,
        suite,
        settings,
        attacks,
        retrained_model,
        out,
        registry,
        device=device,
        trust_remote_code=trust_remote_code,
    )
    show(evaluation, results, as_json)


# Every other option concerns a model, of which a log says nothing.
_OPTIONS_WITH_FROM_LOG = {"from_log", "retain_log", "as_json"}


def _check_log_options(context: typer.Context) -> None:
    from amnesis.errors import RecipeError

    options = [
        _option_text(parameter, context.params[str(parameter.name)])
        for parameter in context.command.params
        if parameter.name not in _OPTIONS_WITH_FROM_LOG
        and _is_from_command_line(context, str(parameter.name))
    ]
    if options:
        raise RecipeError(
            f"{', '.join(options)}: of no meaning with --from-log, which reads what was evaluated "
            f"already; leave it out"
        )


def _is_from_command_line(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _option_text(parameter: Any, value: Any) -> str:
    return str(parameter.secondary_opts[0] if value is False else parameter.opts[0])
