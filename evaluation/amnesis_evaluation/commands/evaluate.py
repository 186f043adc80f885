"""``amnesis evaluate``: evaluate a model on a benchmark, or read an original TOFU log."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from amnesis_evaluation.commands import inputs

if TYPE_CHECKING:
    from amnesis.contracts import Attack, Benchmark, Evaluation, EvaluationSettings, Subject
    from amnesis.discovery.registry import Registry
    from amnesis.runs.recipe import PartialRecipe
    from amnesis.runs.results import Phase, Results
    from amnesis.runs.subject import ModelPlace


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
        _show_log(from_log, retain_log, as_json)
        return
    if retain_log is not None:
        raise RecipeError("--retain-log belongs to --from-log; for a model give --retrained")
    if model is None:
        raise RecipeError("name a MODEL to evaluate, or an original TOFU log with --from-log")
    place, registry = ModelPlace.of(model, recipe), registry_of(context)
    retrained_results, retrained_model = _retrained(retrained)
    options = {
        "metrics": inputs.parts_of(metrics) or None,
        "retrained": retrained_results,
        "lm_eval": _tasks(lm_eval, place.recipe),
        "batch_size": int(batch_size) if batch_size and batch_size.isdecimal() else batch_size,
        "limit": limit,
        "generate_rows": generate_rows,
        "max_new_tokens": max_new_tokens,
        "keep_answers": keep_answers if out is not None else False,
    }
    settings = _settings(place.recipe, options, cache=cache)
    if out is not None:
        sources = [Path(place.path), *([Path(retrained)] if retrained else [])]
        check_place(out, [path for path in sources if path.exists()], overwrite=overwrite)
    hypers = {"split": split, "path": data, **_own_rows(forget, retain, benchmark)}
    suite = _benchmark(
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
    evaluation, results = _evaluate(
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
    _show(evaluation, results, as_json)


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


def _own_rows(
    forget: list[str] | None, retain: list[str] | None, benchmark: str | None
) -> dict[str, Any]:
    """Return the hyper-parameters of the benchmark of one's own files, where rows are given."""
    inputs.check_one_place(forget, retain, benchmark)
    own: dict[str, Any] = {}
    for name, texts in (("forget", forget), ("retain", retain)):
        sources = inputs.sources_of(texts or ())
        if len(sources) == 1 and sources[0].path is not None and not sources[0].fields:
            own[name] = sources[0].path
        elif sources:
            own[name] = [row for one in sources if one.weight for row in one.rows({})]
    return own


def _tasks(texts: list[str] | None, recipe: PartialRecipe | None) -> dict[str, Any] | None:
    """Return lm-eval's settings: the tasks and their files, and the recipe's further ones."""
    choices = [inputs.choice_of(text, "lm-eval task") for text in inputs.parts_of(texts)]
    if not choices:
        return None
    settings: dict[str, Any] = {}
    if recipe is not None and recipe.evaluate.lm_eval is not None:
        settings = recipe.evaluate.lm_eval.model_dump(exclude_unset=True)
    data = {choice.pop("name"): {k: str(v) for k, v in choice.items()} for choice in choices}
    before = settings.get("data", {})
    files = {name: before.get(name, {}) | splits for name, splits in data.items()}
    return settings | {"tasks": list(data), "data": {k: v for k, v in files.items() if v}}


def _retrained(text: str | None) -> tuple[Path | None, ModelPlace | None]:
    """Return the results that ``--retrained`` names, or else the model that it names."""
    from amnesis.models.loading import located
    from amnesis.runs.results import EXAMPLES, RESULTS
    from amnesis.runs.subject import ModelPlace

    if text is None:
        return None, None
    path = Path(text)
    if path.is_file() or (path / EXAMPLES).is_file():
        return path, None
    if (path / RESULTS).is_file() and not (path / "model").is_dir():
        return path, None  # whose examples are missed when they are read
    return None, ModelPlace(path=located(text), recipe=None)


def _benchmark(
    recipe: PartialRecipe | None,
    name: str | None,
    options: dict[str, Any],
    hyper: list[str],
    registry: Registry,
    *,
    alone: bool,
) -> Benchmark | None:
    """Return the benchmark; None where none is named, and lm-eval's tasks may be ``alone``."""
    from amnesis.config.documents import parse_yaml
    from amnesis.discovery.resolve import build
    from amnesis.errors import RecipeError

    choice: dict[str, Any] = {}
    if recipe is not None and recipe.benchmark is not None:
        default = recipe.benchmark
        choice = {"name": default} if isinstance(default, str) else dict(default)
    if name is not None:
        named = inputs.choice_of(name, "benchmark")
        choice = choice | named if named["name"] == choice.get("name") else named
    elif {"forget", "retain"} & set(options) and choice.get("name") != "own":
        choice = {"name": "own"}
    if not choice and alone:
        return None
    if not choice:
        raise RecipeError(
            "name a --benchmark, such as tofu, or --forget FILE and --retain FILE, or evaluate a "
            "run's folder"
        )
    choice |= {key: value for key, value in options.items() if value is not None}
    for pair in hyper:
        key, equals, text = pair.partition("=")
        if not (key and equals):
            raise RecipeError(f"--with {pair!r}: write key=value")
        try:
            choice[key] = parse_yaml(text, key)
        except RecipeError:
            raise RecipeError(f"--with {pair!r}: {text!r} is not a YAML value") from None
    benchmark: Benchmark = build("benchmark", choice, registry)
    return benchmark


def _settings(
    recipe: PartialRecipe | None, options: dict[str, Any], *, cache: bool
) -> EvaluationSettings:
    from pydantic import ValidationError

    from amnesis.cli.cache import cache_folder
    from amnesis.contracts import EvaluationSettings
    from amnesis.errors import RecipeError

    values = recipe.evaluate.model_dump(exclude_unset=True) if recipe is not None else {}
    values |= {key: value for key, value in options.items() if value is not None}
    if not cache:
        values["cache"] = None
    elif "cache" not in values:
        values["cache"] = cache_folder() / "evaluation"
    try:
        return EvaluationSettings(**values)
    except ValidationError as error:
        first = error.errors()[0]
        option = str(first["loc"][0]).replace("_", "-")
        raise RecipeError(f"--{option}: {first['msg']} (got {first['input']!r})") from None


def _evaluate(
    place: ModelPlace,
    benchmark: Benchmark | None,
    settings: EvaluationSettings,
    attacks: list[Attack],
    retrained_model: ModelPlace | None,
    out: Path | None,
    registry: Registry,
    *,
    device: str | None,
    trust_remote_code: bool,
) -> tuple[Evaluation, Results]:
    from amnesis.cli import load_subject, quiet_libraries
    from amnesis.runs.results import Results, environment
    from amnesis_evaluation.reports.stored import load_evaluation
    from amnesis_evaluation.reports.verdict import verdict_of

    quiet_libraries()
    if benchmark is not None:
        settings = _with_metrics(benchmark, settings, registry)
    on: dict[str, Any] = {"device": device, "trust_remote_code": trust_remote_code}
    retrained = None
    if retrained_model is not None and benchmark is not None:
        retrained = _of_retrained(retrained_model, place, benchmark, settings, **on)
    loaded_subject = load_subject(place, **on)
    evaluation, attack_evaluations = _values(
        loaded_subject.subject, benchmark, settings, attacks, retrained
    )
    for name, under in attack_evaluations.items():
        evaluation.values.update({f"{name}/{key}": value for key, value in under.values.items()})
        evaluation.intervals.update({f"{name}/{key}": v for key, v in under.intervals.items()})
        evaluation.notes.extend(f"{name}: {note}" for note in under.notes)
    evaluations: dict[Phase, Evaluation] = {"after": evaluation}
    if retrained is not None:
        evaluations["retrained"] = retrained
    elif settings.retrained is not None:
        evaluations["retrained"] = load_evaluation(settings.retrained)
    results = Results.of(
        evaluations,
        {
            name: {
                "before": {k: v for k, v in evaluation.values.items() if k in under.values},
                "after": under.values,
            }
            for name, under in attack_evaluations.items()
        },
        notes=evaluation.notes,
        model=place.path,
        benchmark=None if benchmark is None else _described(benchmark),
        environment=environment(loaded_subject.device),
    )
    if out is None:
        return evaluation, results.model_copy(update={"verdict": verdict_of(results)})
    if settings.keep_answers and not evaluation.answers:
        evaluation.notes.append("no answers were kept: evaluated earlier; --no-cache does it again")
    return evaluation, _saved(evaluation, results, out, registry)


def _with_metrics(
    benchmark: Benchmark, settings: EvaluationSettings, registry: Registry
) -> EvaluationSettings:
    from amnesis.discovery.resolve import build_metrics

    benchmark.sets()
    is_default = settings.metrics is None
    metrics = build_metrics(
        benchmark.metrics if is_default else settings.metrics or (), registry, optional=is_default
    )
    return settings.model_copy(update={"metrics": metrics})


def _of_retrained(
    model: ModelPlace,
    like: ModelPlace,
    benchmark: Benchmark,
    settings: EvaluationSettings,
    **on: Any,
) -> Evaluation:
    """Return the evaluation of the retrained model, asked ``like`` the model beside it."""
    from amnesis.cli import ProgressBars, load_subject
    from amnesis.contracts import ChosenMetric, Subject, metrics_of_retrained

    chosen = metrics_of_retrained(m for m in settings.metrics or () if isinstance(m, ChosenMetric))
    retrained = load_subject(model, **on).subject
    with ProgressBars() as progress:
        return benchmark.evaluate(
            Subject(retrained.model, retrained.tokenizer, like.template),
            settings.model_copy(update={"metrics": chosen}),
            lambda what, done, total: progress(f"retrained: {what}", done, total),
        )


def _values(
    subject: Subject,
    benchmark: Benchmark | None,
    settings: EvaluationSettings,
    attacks: list[Attack],
    retrained: Evaluation | None,
) -> tuple[Evaluation, dict[str, Evaluation]]:
    """Return the evaluation of a model, and that under each attack by its name."""
    from amnesis.cli import ProgressBars
    from amnesis.contracts import Evaluation
    from amnesis.contracts.benchmark import check_values
    from amnesis.runs.evaluations import attacks_by_name
    from amnesis_evaluation.harness.tasks import lm_eval_values

    if benchmark is None:
        assert settings.lm_eval is not None  # noqa: S101  # no benchmark, but its tasks alone
        return Evaluation(values=lm_eval_values(subject, settings.lm_eval)), {}
    with ProgressBars() as progress:
        evaluation = benchmark.evaluate(subject, settings, progress, retrained=retrained)
        check_values(evaluation)
        return evaluation, {
            name: attack.attack(subject, benchmark, settings, progress)
            for name, attack in attacks_by_name(attacks).items()
        }


def _described(benchmark: Benchmark) -> dict[str, Any]:
    """Return a benchmark's name and hyper-parameters; of rows given as such, their number."""
    hypers = benchmark.model_dump(mode="json")
    shown = {k: f"{len(v)} rows" if isinstance(v, list) else v for k, v in hypers.items()}
    return {"name": benchmark.registered_name, **shown}


def _saved(evaluation: Evaluation, results: Results, out: Path, registry: Registry) -> Results:
    """Write an evaluation with its answers and reports; return its results with the verdict."""
    from amnesis.runs.answers import ANSWERS, write_answers
    from amnesis.runs.reporting import reported
    from amnesis_evaluation.reports.stored import save_evaluation

    save_evaluation(evaluation, results, out)
    (out / ANSWERS).unlink(missing_ok=True)
    write_answers(out, {"after": evaluation.answers})
    whole = reported(out, results, registry)
    whole.write(out)
    return whole


def _show(evaluation: Evaluation, results: Results, as_json: bool) -> None:
    from rich.table import Table
    from rich.text import Text

    from amnesis.cli import console, print_notes, print_verdict
    from amnesis_evaluation.reports.tables import Number

    if as_json:
        document = {
            "values": evaluation.values,
            "intervals": evaluation.intervals,
            "notes": evaluation.notes,
            "verdict": results.document().get("verdict"),
        }
        print(json.dumps(document, indent=1, ensure_ascii=False))
        return
    print_verdict(results.verdict)
    table = Table("metric", "value", "interval")
    for key, value in evaluation.values.items():
        interval = " – ".join(str(Number(end)) for end in evaluation.intervals.get(key, ()))
        table.add_row(Text(key), str(Number(value)), interval)
    console().print(table)
    print_notes(evaluation.notes)


def _show_log(log: Path, retain_log: Path | None, as_json: bool) -> None:
    from rich.table import Table

    from amnesis.cli import console, print_notes
    from amnesis_evaluation.reports.tofu_log import CONVENTIONS, evaluated_log

    evaluation = evaluated_log(log, retain_log)
    if as_json:
        print(json.dumps(evaluation, indent=1))
        return
    table = Table("part", *CONVENTIONS)
    for key in evaluation[CONVENTIONS[0]]:
        table.add_row(key, *(f"{evaluation[name][key]:.6g}" for name in CONVENTIONS))
    console().print(table)
    print_notes(evaluation["notes"])
