"""``amnesis evaluate``: judge a model by a benchmark, or an original TOFU log."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from amnesis.contracts import Benchmark, Evaluation, EvaluationSettings
    from amnesis.data.templates import AnyTemplate
    from amnesis.runs.recipe import Recipe
    from amnesis_evaluation.reports.stored import FurtherRecipe


def evaluate(
    context: typer.Context,
    model: Annotated[
        str | None, typer.Argument(help="A model's folder or hub name, or a run's folder.")
    ] = None,
    benchmark: Annotated[
        str | None, typer.Option(help="tofu, fictional, own, …; default: the run's own.")
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="The benchmark's split, such as forget10.")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Folder with the benchmark's files.")] = None,
    hyper: Annotated[
        list[str] | None,
        typer.Option("--with", help="A hyper-parameter of the benchmark, key=value; repeatable."),
    ] = None,
    metrics: Annotated[
        str | None, typer.Option(help="Names with commas between; default: the benchmark's own.")
    ] = None,
    retrained: Annotated[
        Path | None, typer.Option(help="Results of a model that never saw the forget set.")
    ] = None,
    lm_eval: Annotated[
        str | None, typer.Option(help="Tasks of lm-eval, with commas between.")
    ] = None,
    attack: Annotated[
        list[str] | None, typer.Option(help="An attack to judge the model under; repeatable.")
    ] = None,
    recipe: Annotated[
        Path | None, typer.Option(help="A recipe for template, benchmark and evaluate settings.")
    ] = None,
    batch_size: Annotated[str | None, typer.Option(help="Texts per pass, or auto.")] = None,
    limit: Annotated[int | None, typer.Option(help="First k rows of each set.")] = None,
    generate_rows: Annotated[
        int | None, typer.Option(help="Generate on the first k rows of each set.")
    ] = None,
    max_new_tokens: Annotated[int | None, typer.Option(help="Longest generated answer.")] = None,
    cache: Annotated[bool, typer.Option(help="Reuse judgements of the same model.")] = True,
    out: Annotated[Path | None, typer.Option(help="Folder for the results.")] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace results that are there.")] = False,
    device: Annotated[str | None, typer.Option(help="Where to compute.")] = None,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run code that comes with the model.")
    ] = False,
    from_log: Annotated[
        Path | None, typer.Option(help="Judge an original TOFU evaluation log instead.")
    ] = None,
    retain_log: Annotated[
        Path | None, typer.Option(help="The log of a retrained model, for forget quality.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Judge a model by the field's benchmarks, or read an original TOFU evaluation log."""
    from amnesis.errors import RecipeError
    from amnesis_evaluation.reports.stored import refuse_place

    if from_log is not None:
        if model is not None:
            raise RecipeError("give a MODEL or --from-log, not both")
        _refuse_further_options(context)
        _show_log(from_log, retain_log, as_json)
        return
    if retain_log is not None:
        raise RecipeError("--retain-log belongs to --from-log; for a model give --retrained")
    if model is None:
        raise RecipeError("name a MODEL to judge, or an original TOFU log with --from-log")
    settings = {
        "metrics": None if metrics is None else [m.strip() for m in metrics.split(",")],
        "retrained": retrained,
        "lm_eval": None if lm_eval is None else {"tasks": lm_eval.split(",")},
        "batch_size": int(batch_size) if batch_size and batch_size.isdecimal() else batch_size,
        "limit": limit,
        "generate_rows": generate_rows,
        "max_new_tokens": max_new_tokens,
    }
    source, known = _source(model, recipe)
    wanted = _settings(known, settings, cache=cache)
    if out is not None:
        inputs = [Path(source), *([wanted.retrained] if wanted.retrained is not None else [])]
        refuse_place(out, [path for path in inputs if path.exists()], overwrite=overwrite)
    judged = _judged(
        source,
        _benchmark(known, benchmark, {"split": split, "path": data}, hyper or []),
        known.template if known else None,
        wanted,
        attack or [],
        out,
        device=device,
        trust_remote_code=trust_remote_code,
    )
    _show(judged, as_json)


# All that --from-log goes together with.
_OF_LOGS = {"from_log", "retain_log", "as_json"}


def _refuse_further_options(context: typer.Context) -> None:
    from amnesis.errors import RecipeError

    given = [
        _written(parameter, context.params[str(parameter.name)])
        for parameter in context.command.params
        if parameter.name not in _OF_LOGS and _is_given(context, str(parameter.name))
    ]
    if given:
        raise RecipeError(
            f"{', '.join(given)}: of no meaning with --from-log, which reads what was judged "
            f"already; leave it out"
        )


def _is_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _written(parameter: Any, value: Any) -> str:
    return str(parameter.secondary_opts[0] if value is False else parameter.opts[0])


def _source(model: str, recipe: Path | None) -> tuple[str, Recipe | FurtherRecipe | None]:
    """Give where the model is, and the recipe that goes with it: a run's folder holds both."""
    from amnesis_evaluation.reports.stored import recipe_of

    folder = Path(model)
    if recipe is None and (folder / "recipe.yaml").is_file():
        recipe = folder / "recipe.yaml"
    if (folder / "model").is_dir():
        model = str(folder / "model")
    return model, None if recipe is None else recipe_of(recipe)


def _benchmark(
    recipe: Recipe | FurtherRecipe | None,
    name: str | None,
    options: dict[str, Any],
    hyper: list[str],
) -> Benchmark:
    import yaml

    from amnesis.contracts import Benchmark
    from amnesis.discovery.resolve import component_of
    from amnesis.errors import RecipeError

    choice: dict[str, Any] = {}
    if recipe is not None and recipe.benchmark is not None:
        own = recipe.benchmark
        choice = {"name": own} if isinstance(own, str) else dict(own)
    if name is not None and name != choice.get("name"):
        choice = {"name": name}
    if not choice:
        raise RecipeError("name a --benchmark, such as tofu, or judge a run's folder")
    choice |= {key: value for key, value in options.items() if value is not None}
    for pair in hyper:
        key, equals, text = pair.partition("=")
        if not (key and equals):
            raise RecipeError(f"--with {pair!r}: write key=value")
        try:
            choice[key] = yaml.safe_load(text)
        except yaml.YAMLError:
            raise RecipeError(f"--with {pair!r}: {text!r} is not a YAML value") from None
    benchmark = component_of(("benchmark",), choice)
    if not isinstance(benchmark, Benchmark):
        raise RecipeError(f"{benchmark.label} is not a benchmark")
    return benchmark


def _settings(
    recipe: Recipe | FurtherRecipe | None, given: dict[str, Any], *, cache: bool
) -> EvaluationSettings:
    from pydantic import ValidationError

    from amnesis.cli.cache import cache_folder
    from amnesis.contracts import EvaluationSettings
    from amnesis.errors import RecipeError

    own = recipe.evaluate.model_dump(exclude_unset=True) if recipe is not None else {}
    merged = {**own, **{key: value for key, value in given.items() if value is not None}}
    if not cache:
        merged["cache"] = None
    elif "cache" not in merged:
        merged["cache"] = cache_folder() / "evaluation"
    try:
        return EvaluationSettings(**merged)
    except ValidationError as error:
        first = error.errors()[0]
        option = str(first["loc"][0]).replace("_", "-")
        raise RecipeError(f"--{option}: {first['msg']} (got {first['input']!r})") from None


def _judged(
    source: str,
    benchmark: Benchmark,
    template: AnyTemplate | None,
    settings: EvaluationSettings,
    attacks: list[str],
    out: Path | None,
    *,
    device: str | None,
    trust_remote_code: bool,
) -> Evaluation:
    from amnesis.cli.console import quiet_libraries
    from amnesis.contracts import Subject
    from amnesis.contracts.attack import keyed
    from amnesis.data.templates import Template
    from amnesis.models.devices import examined_device
    from amnesis.models.loading import ModelSettings, load_model, load_tokenizer
    from amnesis.progress import Progress
    from amnesis.runs.results import environment
    from amnesis_evaluation.attacks.attacking import attacks_of
    from amnesis_evaluation.reports.stored import save_evaluation

    quiet_libraries()
    benchmark.sets()
    chosen = keyed(attacks_of(attacks))
    place = ModelSettings(path=source)
    device = examined_device(device)
    subject = Subject(
        load_model(place, device=device, trust_remote_code=trust_remote_code),
        load_tokenizer(place, trust_remote_code=trust_remote_code),
        template or Template(),
    )
    with Progress() as progress:
        judged = benchmark.evaluate(subject, settings, progress)
        attacked = {
            name: attack.attack(subject, benchmark, settings, progress)
            for name, attack in chosen.items()
        }
    for name, result in attacked.items():
        judged.values.update({f"{name}/{key}": value for key, value in result.values.items()})
        judged.intervals.update({f"{name}/{key}": v for key, v in result.intervals.items()})
        judged.notes.extend(f"{name}: {note}" for note in result.notes)
    if out is not None:
        save_evaluation(
            judged,
            out,
            attacks={
                name: {
                    "before": {k: v for k, v in judged.values.items() if k in result.values},
                    "after": result.values,
                }
                for name, result in attacked.items()
            },
            model=source,
            benchmark={"name": benchmark.registered_name, **benchmark.model_dump(mode="json")},
            environment=environment(device),
        )
    return judged


def _show(judged: Evaluation, as_json: bool) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from amnesis_evaluation.reports.tables import Number

    if as_json:
        shown = {"values": judged.values, "intervals": judged.intervals, "notes": judged.notes}
        print(json.dumps(shown, indent=1, ensure_ascii=False))
        return
    table = Table("metric", "value", "interval")
    for key, value in judged.values.items():
        between = " – ".join(str(Number(end)) for end in judged.intervals.get(key, ()))
        table.add_row(escape(key), str(Number(value)), between)
    console = Console()
    console.print(table)
    _print_notes(console, judged.notes)


def _print_notes(console: Console, notes: Sequence[str]) -> None:
    for note in notes:
        console.print(f"note: {note}", highlight=False, markup=False, soft_wrap=True)


def _show_log(log: Path, retain_log: Path | None, as_json: bool) -> None:
    from rich.console import Console
    from rich.table import Table

    from amnesis_evaluation.reports.tofu_log import CONVENTIONS, judged_log

    judged = judged_log(log, retain_log)
    if as_json:
        print(json.dumps(judged, indent=1))
        return
    table = Table("part", *CONVENTIONS)
    for key in judged[CONVENTIONS[0]]:
        table.add_row(key, *(f"{judged[name][key]:.6g}" for name in CONVENTIONS))
    console = Console()
    console.print(table)
    _print_notes(console, judged["notes"])
