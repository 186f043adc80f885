"""The evaluation itself: of a model, of the retrained one, under attacks, and alone by lm-eval."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from amnesis.contracts import Attack, Benchmark, Evaluation, EvaluationSettings, Subject
    from amnesis.discovery.registry import Registry
    from amnesis.runs.results import Phase, Results
    from amnesis.runs.subject import ModelPlace


def evaluation_of(
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
    """Return a model's evaluation, with that under attacks, and its results with the verdict.

    Where there is a folder ``out``, both are written into it, and the reports with them.
    """
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
        environment={**environment(loaded_subject.device), "engine": settings.engine},
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
