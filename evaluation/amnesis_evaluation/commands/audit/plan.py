"""An audit whose names are all resolved: what can be wrong is said before a weight is loaded."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from amnesis.config.problems import Problems
from amnesis.contracts import ChosenMetric, EvaluationSettings, ReadingMetric, Row
from amnesis.discovery.resolve import build, build_metrics
from amnesis.errors import AmnesisError, DataError, RecipeError, did_you_mean
from amnesis.runs.evaluations import attacks_by_name
from amnesis.runs.results import RESULTS, Results
from amnesis_evaluation.attacks.attacking import evaluated_sets
from amnesis_evaluation.benchmarks.sets import SetsBenchmark
from amnesis_evaluation.commands.audit.policy import REQUEST, PolicyFile, Request, Requirement
from amnesis_evaluation.commands.audit.records import Record
from amnesis_evaluation.commands.audit.requirements import Baseline, required_keys
from amnesis_evaluation.evaluator.evaluate import digest_of
from amnesis_evaluation.evaluator.selection import Selection, select

if TYPE_CHECKING:
    from amnesis.contracts import Attack, Benchmark
    from amnesis.data.templates import AnyTemplate
    from amnesis.discovery.registry import Registry

Sets = Mapping[str, Sequence[Row]]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What an audit does.

    Attributes:
        file: the policy, its digest and its salt.
        benchmark: what evaluates.
        settings: the settings of that, the metrics resolved.
        attacks: by their names in results.
        requests: the rows of each request whose data are kept, by id.
        request_metrics: the metrics that requests are evaluated by.
        required: the requirements, by the value that each is about.
        baselines: earlier values, by the names that the policy calls them.
        sets: the salted digest of each set's rows, requests' among them.
    """

    file: PolicyFile
    benchmark: Benchmark
    settings: EvaluationSettings
    attacks: Mapping[str, Attack]
    requests: Sets
    request_metrics: Sequence[ChosenMetric]
    required: Sequence[tuple[str, Requirement]]
    baselines: Mapping[str, Baseline]
    sets: Mapping[str, str]

    def check_rows(self, template: AnyTemplate) -> None:
        """Refuse a row that the template cannot ask, before the model is loaded.

        Raises:
            DataError: naming the set and the row.
        """
        forms = {}
        if isinstance(self.benchmark, SetsBenchmark):
            forms = dict(self.benchmark.forms(template))
        sets = {f"request {name}": rows for name, rows in self.requests.items()}
        sets |= {
            f"set {name!r}": rows
            for name, rows in evaluated_sets(self.benchmark).items()
            if name not in forms
        }
        for name, rows in sets.items():
            for index, row in enumerate(rows):
                try:
                    template.check(row)
                except AmnesisError as error:
                    raise DataError(f"{name}, row {index}: {error}") from None


def prepare_audit(
    file: PolicyFile,
    against: Mapping[str, str],
    records: Sequence[Record],
    registry: Registry,
) -> Plan:
    """Check names, files, rows and bounds of a policy; ``records`` are the history's so far.

    ``against`` are earlier values beside those that the policy names, and take precedence.

    Raises:
        RecipeError: listing every problem.
    """
    policy, problems = file.policy, Problems()
    benchmark = problems.attempt("benchmark", build, "benchmark", policy.benchmark, registry)
    sets: Sets = (benchmark and problems.attempt("benchmark", evaluated_sets, benchmark)) or {}
    attacks = [
        problems.attempt("attacks", build, "attack", one, registry) for one in policy.attacks
    ]
    metrics = problems.attempt("evaluate.metrics", _metrics, policy.evaluate, benchmark, registry)
    requests = {
        one.id: rows
        for one in policy.requests
        if (rows := problems.attempt(f"request {one.id}", _rows, one, sets)) is not None
    }
    chosen = [
        problems.attempt("require", _request_metric, key, metrics, registry)
        for key in policy.request_keys()
    ]
    request_metrics = [choice for choice in chosen if choice is not None]
    problems.raise_any(f"{file.name}: the audit cannot start")
    assert benchmark is not None  # noqa: S101  # no problem
    settings = policy.evaluate.model_copy(update={"metrics": metrics, "keep_answers": False})
    named = attacks_by_name([attack for attack in attacks if attack is not None])
    keys = _Keys(benchmark, settings, named)
    for key, requirement in policy.require.items():
        problems.attempt(f"require: {key}", keys.check, key, requirement)
    for name, rows in requests.items():
        problems.attempt(f"request {name}", select, {name: rows}, request_metrics, retrained=False)
    digests = {
        name: file.salted(digest_of(list(rows)[: settings.limit])) for name, rows in sets.items()
    }
    digests |= {
        f"{REQUEST}/{name}": file.salted(digest_of(rows)) for name, rows in requests.items()
    }
    problems.attempt("requests", _check_earlier_requests, file, records, digests)
    required = required_keys(policy.require, REQUEST, [f"{REQUEST}/{name}" for name in requests])
    baselines = _baselines(problems, file, against, records, required, digests)
    problems.raise_any(f"{file.name}: the audit cannot start")
    return Plan(
        file=file,
        benchmark=benchmark,
        settings=settings,
        attacks=named,
        requests=requests,
        request_metrics=request_metrics,
        required=required,
        baselines=baselines,
        sets=digests,
    )


def _metrics(
    settings: EvaluationSettings, benchmark: Benchmark | None, registry: Registry
) -> tuple[ChosenMetric, ...]:
    if settings.metrics is not None:
        return build_metrics(settings.metrics, registry)
    return () if benchmark is None else build_metrics(benchmark.metrics, registry, optional=True)


def _rows(request: Request, sets: Sets) -> list[Row] | None:
    if request.forget is None:
        return None
    rows = [row for source in request.forget for row in source.rows(sets)]
    if not rows:
        raise DataError("has no rows")
    return rows


def _request_metric(
    key: str, metrics: Sequence[ChosenMetric] | None, registry: Registry
) -> ChosenMetric:
    """Return the metric of a requirement on requests: one that is evaluated, else one by name."""
    chosen = next((one.metric for one in metrics or () if one.metric.key == key), None)
    metric = chosen if chosen is not None else build("metric", key, registry)
    if not isinstance(metric, ReadingMetric):
        raise RecipeError(f"{REQUEST}/{key}: {metric.label} is not read from one set of rows")
    return ChosenMetric(metric=metric)


class _Keys:
    """The values that an evaluation will have, by the names that a policy may use."""

    def __init__(
        self,
        benchmark: Benchmark,
        settings: EvaluationSettings,
        attacks: Mapping[str, Attack],
    ) -> None:
        self._settings, self._attacks = settings, attacks
        self._selection: Selection | None = None
        if isinstance(benchmark, SetsBenchmark):
            self._selection = select(
                benchmark.evaluated_sets() if settings.metrics else {},
                settings.metrics or (),  # type: ignore[arg-type]  # built above
                retrained=settings.retrained is not None,
            )

    def check(self, key: str, requirement: Requirement) -> None:
        """Refuse a bound on a value, or on an interval, that there will not be.

        Raises:
            RecipeError: with names that are near.
        """
        kinds: dict[str, str] = {}
        if key.startswith(f"{REQUEST}/"):
            pass  # its metric was looked up already
        elif key.startswith("lm_eval/"):
            self._check_task(key, requirement)
            return
        elif attack := next((n for n in self._attacks if key.startswith(f"{n}/")), None):
            self._check_attack(key, attack)
        else:
            kinds = self._kinds()
            if self._selection is not None and key not in kinds:
                attacked = [f"{name}/…" for name in self._attacks]
                left_out = "".join(f"; {note}" for note in self._selection.notes)
                raise RecipeError(
                    f"is not evaluated; {did_you_mean(key, [*kinds, *attacked])}{left_out}"
                )
        if requirement.compares(key) == "interval":
            if not self._settings.bootstrap:
                raise RecipeError(
                    "bounds an interval, and evaluate.bootstrap is 0; say by: value, or resample"
                )
            if kinds.get(key) == "p_value":
                raise RecipeError("is a p-value, which has no interval; say by: value")

    def _kinds(self) -> dict[str, str]:
        """Return the kind of each value of the benchmark, by key."""
        if self._selection is None:
            return {}
        kinds = {
            f"{name}/{metric.key}": str(metric.value_kind)
            for name, metrics in self._selection.reading.items()
            for metric in metrics.values()
        }
        return kinds | {metric.key: str(metric.value_kind) for metric in self._selection.derived}

    def _check_task(self, key: str, requirement: Requirement) -> None:
        tasks = self._settings.lm_eval.tasks if self._settings.lm_eval is not None else ()
        name = key.split("/")[1]
        if not any(name.startswith(task) for task in tasks):
            raise RecipeError(
                f"lm-eval's task {name!r} is not evaluated; evaluate.lm_eval.tasks: "
                f"{did_you_mean(name, tasks)}"
            )
        if requirement.compares(key) == "interval":
            raise RecipeError("lm-eval's values have no interval here; say by: value")

    def _check_attack(self, key: str, name: str) -> None:
        metrics = self._attacks[name].metric_keys()
        metric = key.rpartition("/")[2].partition("@")[0]
        if metrics is not None and metric not in metrics:
            raise RecipeError(
                f"the attack {name!r} evaluates no {metric!r}; {did_you_mean(metric, metrics)}"
            )


def _check_earlier_requests(
    file: PolicyFile, records: Sequence[Record], digests: Mapping[str, str]
) -> None:
    """Refuse a policy that leaves an earlier request out, or that has put other data in its place.

    Raises:
        RecipeError: naming the request, and the record that it was first in.
    """
    present = {request.id: request for request in file.policy.requests}
    for record in records:
        for outcome in record.requests:
            request = present.get(outcome.id)
            if request is None:
                raise RecipeError(
                    f"{outcome.id} is missing, which record {record.number} of the history has; "
                    f"every audit evaluates all earlier requests: put it back, or give it a day "
                    f"on which its data were deleted (closed)"
                )
            if request.forget is None or outcome.data is None:
                continue
            if record.data.salt != file.salt_digest:
                raise RecipeError(
                    f"record {record.number} of the history was made with another salt, so that "
                    f"nobody can tell whether the data of {outcome.id} are the same; restore the "
                    f"file {file.name}.salt, or begin another history"
                )
            if outcome.data != digests[request.set_name]:
                raise RecipeError(
                    f"the data of {outcome.id} are not those of record {record.number} of the "
                    f"history; give other data another id"
                )


def _baselines(
    problems: Problems,
    file: PolicyFile,
    against: Mapping[str, str],
    records: Sequence[Record],
    required: Sequence[tuple[str, Requirement]],
    digests: Mapping[str, str],
) -> dict[str, Baseline]:
    """Return the earlier values that ratios are to, having checked that they can be compared."""
    places = {**file.policy.against, **against}
    names = {requirement.of for _, requirement in required if requirement.of is not None}
    for name in against:
        if name not in names:
            problems.found.append(
                f"--against {name}: no requirement is of {name!r}; {did_you_mean(name, names)}"
            )
    baselines = {}
    for name in sorted(names):
        if name not in places:
            problems.found.append(
                f"require: of: {name}: no earlier values are called so; give --against "
                f"{name}=FOLDER, or against in the policy ({did_you_mean(name, places)})"
            )
            continue
        baseline = problems.attempt(
            f"against {name}", _read_baseline, name, places[name], file, records
        )
        if baseline is None:
            continue
        baselines[name] = baseline
        for key, requirement in required:
            if requirement.of == name:
                problems.attempt(f"require: {key}", _check_comparable, key, baseline, digests)
    return baselines


def _read_baseline(name: str, place: str, file: PolicyFile, records: Sequence[Record]) -> Baseline:
    if place.isdecimal():
        record = next((one for one in records if one.number == int(place)), None)
        if record is None:
            raise RecipeError(f"the history has no record {place}; it has {len(records)}")
        if record.data.salt != file.salt_digest:
            raise RecipeError(
                f"record {place} was made with another salt, so that nobody can tell whether it "
                f"was measured on the same rows"
            )
        return Baseline(record.values, record.digest, record.data.sets)
    path = Path(place)
    results = Results.read(path)
    phases = results.phases()
    phase = next((phase for phase in phases if phase == name), "after")
    if phase not in phases:
        raise DataError(f"{place}: holds no evaluation; it has {', '.join(phases) or 'none'}")
    values = dict(phases[phase])
    for attack, by_phase in results.attacks.items():
        values |= {f"{attack}/{key}": value for key, value in by_phase.get(phase, {}).items()}
    results_file = path / RESULTS if path.is_dir() else path
    return Baseline(
        values,
        hashlib.sha256(results_file.read_bytes()).hexdigest(),
        {set_name: file.salted(digest) for set_name, digest in results.sets.items()},
    )


def _check_comparable(key: str, baseline: Baseline, digests: Mapping[str, str]) -> None:
    """Refuse a ratio to a value that there is not, that is not above 0, or that is of other rows.

    Raises:
        RecipeError: saying which.
    """
    if key not in baseline.values:
        raise RecipeError(f"the earlier values lack it; {did_you_mean(key, baseline.values)}")
    if not baseline.values[key] > 0:
        raise RecipeError(
            f"its earlier value is {baseline.values[key]:g}, to which no ratio says anything; "
            f"give max or min"
        )
    if key.startswith("lm_eval/"):
        return
    request = "/".join(key.split("/")[:2])
    parts = [request] if request in digests else [p for p in key.split("/") if p in digests]
    for name in parts or digests:
        if name not in baseline.sets and not parts:
            continue  # a value of several sets need not be made of all
        if baseline.sets.get(name) != digests[name]:
            raise RecipeError(
                f"its earlier value was measured on other rows of {name!r}; evaluate that model "
                f"again on these"
            )
