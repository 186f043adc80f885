"""The judgements of a run: before, along the way, after; each kept as soon as it is made."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TYPE_CHECKING
from amnesis.contracts import Attack, Benchmark, Evaluation, Subject
from amnesis.contracts.attack import keyed
from amnesis.progress import ProgressCallback
from amnesis.storage import write_json

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase
    from amnesis.runs.recipe import Recipe

class Judging:
    """Judges models by a recipe's benchmark, and remembers what it found."""

    def __init__(
        self,
        recipe: Recipe,
        benchmark: Benchmark,
        tokenizer: PreTrainedTokenizerBase,
        folder: Path,
        tell: ProgressCallback,
    ) -> None:
        """Keep the judgement before the run in ``folder``, for a run that is resumed."""
        self._recipe, self._benchmark, self._tokenizer = recipe, benchmark, tokenizer
        self._folder, self._tell = folder, tell
        self._made: dict[str, Evaluation] = {}
        self._attacks: dict[str, dict[str, dict[str, float]]] = {}

    def recall(self, phase: str) -> bool:
        """Take up a judgement kept before the run was cut off; say whether there is one."""
        kept = self._folder / f"{phase}.json"
        if not kept.is_file():
            return False
        document = json.loads(kept.read_text(encoding="utf-8"))
        for name, values in document.pop("attacks").items():
            self._attacks.setdefault(name, {})[phase] = values
        self._made[phase] = Evaluation(**document)
        return True

    def judge(self, phase: str, model: PreTrainedModel, attacks: Sequence[Attack] = ()) -> None:
        """Judge a model, attack it, and keep what was found."""
        made = self._made[phase] = self._evaluated(model, phase, {})
        attacked: dict[str, dict[str, float]] = {}
        for name, attack in keyed(attacks).items():
            found = attack.attack(
                self._subject(model), self._benchmark, self._recipe.evaluate, self._telling(phase)
            )
            attacked[name] = found.values
            self._attacks.setdefault(name, {})[phase] = found.values
            made.intervals.update({f"{name}/{k}": v for k, v in found.intervals.items()})
            made.notes.extend(f"{name}: {note}" for note in found.notes)
        write_json(self._folder / f"{phase}.json", {**asdict(made), "attacks": attacked})

    def along(self, model: PreTrainedModel) -> Mapping[str, float]:
        """Judge the model as it stands during the run, by the metrics asked for there."""
        settings = self._recipe.evaluate
        changes: dict[str, Any] = {"bootstrap": 0}
        if settings.during is not None:
            changes["metrics"] = settings.during
        return self._evaluated(model, "during", changes).values

    def _evaluated(
        self, model: PreTrainedModel, phase: str, changes: Mapping[str, Any]
    ) -> Evaluation:
        return self._benchmark.evaluate(
            self._subject(model),
            self._recipe.evaluate.model_copy(update=dict(changes)),
            self._telling(phase),
            retrained=None if phase == "retrained" else self._made.get("retrained"),
        )

    def _subject(self, model: PreTrainedModel) -> Subject:
        return Subject(model, self._tokenizer, self._recipe.template)

    def _telling(self, phase: str) -> ProgressCallback:
        return lambda what, done, total: self._tell(f"{phase}: {what}", done, total)

    def attacks(self) -> dict[str, dict[str, dict[str, float]]]:
        """Give every attack's values before and after."""
        return self._attacks

    def lm_eval(self) -> dict[str, dict[str, float]]:
        """Give the harness's values of every phase, by ``task/metric``."""
        return {
            phase: {
                name.removeprefix("lm_eval/"): value
                for name, value in made.values.items()
                if name.startswith("lm_eval/")
            }
            for phase, made in self._made.items()
            if any(name.startswith("lm_eval/") for name in made.values)
        }

    def sets(self) -> dict[str, str]:
        """Give a digest of each judged set's rows, so that other judgements can be told apart."""
        return {name: digest for made in self._made.values() for name, digest in made.data.items()}

    def values(self) -> dict[str, dict[str, float]]:
        """Give every phase's values."""
        return {phase: made.values for phase, made in self._made.items()}

    def intervals(self) -> dict[str, dict[str, Any]]:
        """Give every phase's intervals."""
        return {phase: dict(made.intervals) for phase, made in self._made.items()}

    def notes(self) -> list[str]:
        """Give what could not be judged, and why."""
        return [f"{phase}: {note}" for phase, made in self._made.items() for note in made.notes]

    def records(self) -> list[dict[str, Any]]:
        """Give one record per phase, example and metric."""
        return [
            {"phase": phase, **record}
            for phase, made in self._made.items()
            for record in made.examples
        ]
