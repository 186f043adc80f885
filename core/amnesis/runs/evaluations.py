"""A run's evaluations: before, along the way, after; each kept as soon as it is made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from amnesis.contracts.benchmark import (
    Evaluation,
    EvaluationSettings,
    Subject,
    check_values,
)
from amnesis.contracts.metric import ChosenMetric, metrics_of_retrained
from amnesis.models.fingerprint import fingerprint
from amnesis.progress import Prefixed, ProgressCallback
from amnesis.runs.answers import answers_texts, keep_answers, recall_answers
from amnesis.runs.results import PHASES, Results
from amnesis.storage import read_record, write_json
from amnesis.training.monitoring.board import Picture

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from amnesis.contracts.attack import Attack
    from amnesis.contracts.benchmark import Benchmark
    from amnesis.data.templates import AnyTemplate
    from amnesis.discovery.resolve import Method
    from amnesis.runs.recipe import Recipe
    from amnesis.runs.results import Phase
    from amnesis.training.unlearner import FitResult


@dataclass(frozen=True)
class Identity:
    """What a model is recognised by: its fingerprint, and the hub's commit, if it is of one."""

    fingerprint: str
    revision: str | None

    @classmethod
    def of(cls, model: PreTrainedModel) -> Identity:
        """Return that of a model as it was loaded."""
        return cls(fingerprint(model), getattr(model.config, "_commit_hash", None))


class Evaluations:
    """Evaluates models by a benchmark and under attacks, and keeps what it found.

    ``made`` holds the evaluation of each phase, ``attacks`` each attack's values by phase.
    """

    def __init__(
        self,
        benchmark: Benchmark,
        settings: EvaluationSettings,
        method: Method,
        tokenizer: PreTrainedTokenizerBase,
        template: AnyTemplate,
        folder: Path,
        progress: ProgressCallback,
    ) -> None:
        """Take what is evaluated by; ``folder`` keeps it for a run that is resumed."""
        self._benchmark, self._tokenizer, self._template = benchmark, tokenizer, template
        metrics, during, self._registry = method.metrics, method.during, method.registry
        self._settings = settings.model_copy(update={"metrics": metrics})
        self._along = settings.model_copy(
            update={
                "metrics": metrics if during is None else during,
                "bootstrap": 0,
                "keep_answers": False,
            }
        )
        self._attacks = attacks_by_name(method.attacks)
        self._folder, self._progress = folder, progress
        self.made: dict[Phase, Evaluation] = {}
        self.attacks: dict[str, dict[str, dict[str, float]]] = {}
        self.fingerprints: dict[str, str] = {}
        self.revision: str | None = None

    def recall(self, phase: Phase) -> bool:
        """Take up an evaluation kept before the run was cut off; return whether there is one.

        Raises:
            DataError: it is damaged.
        """
        kept = self._folder / f"{phase}.json"
        if not kept.is_file():
            return False
        answers = recall_answers(self._folder, phase)
        attacks, model, self.made[phase] = read_record(
            kept,
            lambda record: (
                record.pop("attacks").items(),
                record.pop("model"),
                Evaluation(**record, answers=answers),
            ),
        )
        self._recognise(phase, None if model is None else Identity(**model))
        for name, values in attacks:
            self.attacks.setdefault(name, {})[phase] = values
        return True

    def evaluate(
        self, phase: Phase, model: PreTrainedModel, identity: Identity | None = None
    ) -> None:
        """Evaluate a model, unless it is the retrained one under attack too, and keep it all.

        ``identity`` is what the model is recognised by, where the phase has one that was loaded.
        """
        subject = Subject(model, self._tokenizer, self._template)
        self._recognise(phase, identity)
        progress = self._of_phase(phase)
        retrained = self.made.get("retrained")
        settings = self._settings
        if phase == "retrained" and settings.metrics is not None:
            own = metrics_of_retrained(m for m in settings.metrics if isinstance(m, ChosenMetric))
            settings = settings.model_copy(update={"metrics": own})
        made = self._benchmark.evaluate(subject, settings, progress, retrained=retrained)
        check_values(made)
        attacked: dict[str, dict[str, float]] = {}
        under_attack = self._settings.model_copy(update={"keep_answers": False})
        for name, attack in self._attacks.items() if phase != "retrained" else ():
            found = attack.attack(subject, self._benchmark, under_attack, progress)
            attacked[name] = found.values
            self.attacks.setdefault(name, {})[phase] = found.values
            made.intervals.update({f"{name}/{k}": v for k, v in found.intervals.items()})
            made.notes.extend(f"{name}: {note}" for note in found.notes)
        self.made[phase] = made
        keep_answers(self._folder, phase, made.answers)
        document = asdict(replace(made, answers=[]))
        del document["answers"]  # texts are not among the scores
        known = None if identity is None else asdict(identity)
        record = {**document, "attacks": attacked, "model": known}
        write_json(self._folder / f"{phase}.json", record)

    def _recognise(self, phase: Phase, identity: Identity | None) -> None:
        if identity is not None:
            self.fingerprints[phase] = identity.fingerprint
            if phase == "before":
                self.revision = identity.revision

    def along(self, model: PreTrainedModel) -> Mapping[str, float]:
        """Return the values of the model as it stands during the run."""
        subject = Subject(model, self._tokenizer, self._template)
        retrained = self.made.get("retrained")
        progress = self._of_phase("during")
        return self._benchmark.evaluate(subject, self._along, progress, retrained=retrained).values

    def results(self, fitted: FitResult) -> Results:
        """Return what a run came to: all evaluations, and what the fit went through."""
        notes = [f"{phase}: {note}" for phase, made in self.made.items() for note in made.notes]
        further = {
            "revision": self.revision,
            "goal": fitted.goal,
            "range_test": fitted.range_test,
        }
        return Results.of(
            self.made,
            self.attacks,
            notes=[*fitted.notes, *notes],
            trajectory=fitted.trajectory,
            steps=fitted.steps,
            data=fitted.data,
            environment={"engine": self._settings.engine},
            fingerprints=self.fingerprints,
            **{key: value for key, value in further.items() if value is not None},
        )

    def picture(self, phase: Phase, recipe: Recipe) -> Picture:
        """Return what TensorBoard shows of a phase, and how the recipe led there."""
        made, retrained = self.made[phase], self.made.get("retrained")
        attacked = {
            f"attacks/{attack}/{name}": value
            for attack, phases in self.attacks.items()
            for name, value in phases.get(phase, {}).items()
        }
        told = {one: self.made[one].answers for one in PHASES if one in self.made}
        return Picture(
            values={**made.values, **attacked},
            retrained={} if retrained is None else retrained.values,
            texts={} if phase == "after" else {"recipe": f"```yaml\n{recipe.without_rows()}```"},
            answers=answers_texts(told) if made.answers else {},
            descriptions=self._descriptions([*made.values, *attacked]),
            hyper_parameters=recipe.hyper_parameters(),
        )

    def _descriptions(self, names: Sequence[str]) -> dict[str, str]:
        """Return what metrics measure, where the registry says it."""
        summaries: dict[str, str] = {}
        for name in names:
            set_name, _, metric = name.rpartition("/")
            found = self._registry.find(metric.partition("(")[0], ("metric",))
            where = f" on the {set_name} set" if set_name else ""
            if found:
                summaries[name] = f"{found[0].summary}{where}"
                summaries[f"retrained/{name}"] = (
                    f"{found[0].summary}{where}, of the retrained model"
                )
        return summaries

    def _of_phase(self, phase: str) -> ProgressCallback:
        return Prefixed(phase, self._progress)


def attacks_by_name(attacks: Sequence[Attack]) -> dict[str, Attack]:
    """Return attacks by their names in results: of namesakes, with what sets them apart.

    Asking twice for the very same is asking once.
    """
    distinct: list[Attack] = []
    for attack in attacks:
        if attack not in distinct:
            distinct.append(attack)
    named: dict[str, Attack] = {}
    for attack in distinct:
        name = attack.registered_name
        full = name + _apart(attack, [a for a in distinct if a.registered_name == name])
        named[full if full not in named else f"{full} of {attack.label}"] = attack
    return named


def _apart(attack: Attack, namesakes: Sequence[Attack]) -> str:
    """Return the hyper-parameters that are not the default, and not the same in all namesakes."""
    telling = []
    for name, field in type(attack).model_fields.items():
        value: Any = getattr(attack, name)
        shared = all(getattr(one, name, None) == value for one in namesakes)
        if not shared and value != field.get_default():
            telling.append(f"{name}={value}")
    return f"({', '.join(telling)})" if telling else ""
