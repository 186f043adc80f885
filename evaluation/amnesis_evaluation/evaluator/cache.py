"""A cache of evaluations, whose keys digest everything that decides a value."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import amnesis
import amnesis_evaluation
from amnesis.contracts import Evaluation, EvaluationSettings, Metric, Row, Subject
from amnesis.models.fingerprint import fingerprint
from amnesis.storage import clear_scratch, write_json
from amnesis_evaluation.evaluator.selection import Selection
from amnesis_evaluation.inference.answers import Forms
from amnesis_evaluation.inference.generation import note_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_LIBRARIES = (
    "amnesis",
    "torch",
    "transformers",
    "numpy",
    "scipy",
    "rouge-score",
    "tokenizers",
    "lm-eval",
)
# These decide how fast or how often a model is evaluated, or are part of the selection.
_SETTINGS_WITHOUT_EFFECT = {
    "cache",
    "batch_size",
    "retrained",
    "metrics",
    "every",
    "during",
    "keep_answers",
}


def evaluation_key(
    subject: Subject,
    sets: Mapping[str, Sequence[Row]],
    selection: Selection,
    settings: EvaluationSettings,
    retrained: Evaluation | None,
    forms: Forms,
) -> str:
    """Return a digest of the weights, tokenizer, template, rows, metrics and code.

    Metrics enter with their hyper-parameters and the source text of their modules, and so does the
    source of amnesis itself: no entry outlives a change that might affect its values.
    """
    model = subject.model
    parts = {
        "model": fingerprint(model),
        "device": next(model.parameters()).device.type,
        "config": model.config.to_json_string(),  # rope, norms: not in the weights
        "generation": _generation(model),
        "tokenizer": tokenizer_digest(subject.tokenizer),
        "template": subject.template.model_dump(),
        "forms": {name: repr(form) for name, form in forms.items()},
        "sets": {name: list(map(dict, rows)) for name, rows in sets.items()},
        "reading": {
            name: [_metric(metric) for metric in metrics.values()]
            for name, metrics in selection.reading.items()
        },
        "derived": [_metric(metric) for metric in selection.derived],
        "settings": settings.model_dump(exclude=_SETTINGS_WITHOUT_EFFECT, mode="json"),
        "lm_eval": _digest(_files(settings)),
        "retrained": None if retrained is None else [retrained.examples, retrained.data],
        "versions": {name: version(name) for name in _LIBRARIES},
        "engine": note_of(settings.engine),  # with the version of vLLM
        "code": [_code(package) for package in (amnesis, amnesis_evaluation)],
    }
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def remembered(folder: Path, key: str) -> tuple[Evaluation | None, list[str]]:
    """Return the evaluation stored under ``key``, or None, and notes on an entry that is damaged.

    Evaluating again is always right, and replaces it.
    """
    clear_scratch(folder)
    entry = folder / f"{key}.json"
    try:
        document = json.loads(entry.read_text(encoding="utf-8"))
        if document.pop("digest") == _digest_of(document):
            intervals = {name: (low, high) for name, (low, high) in document["intervals"].items()}
            return Evaluation(**{**document, "intervals": intervals}), []
    except FileNotFoundError:
        return None, []
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass
    return None, [f"a cached evaluation was damaged, and is made anew: {entry}"]


def remember(folder: Path, key: str, evaluation: Evaluation) -> None:
    """Store an evaluation under ``key``, but for the answers: a cache keeps no texts."""
    document = dataclasses.asdict(dataclasses.replace(evaluation, answers=[]))
    del document["answers"]
    write_json(folder / f"{key}.json", {"digest": _digest_of(document), **document})


def _digest_of(document: Mapping[str, Any]) -> str:
    text = json.dumps(document, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _files(settings: EvaluationSettings) -> list[Path]:
    splits = settings.lm_eval.data.values() if settings.lm_eval is not None else ()
    return [path for files in splits for path in files.values() if path.is_file()]


def _metric(metric: Metric) -> list[Any]:
    kind = type(metric)
    try:
        sources = _digest({Path(inspect.getfile(base)) for base in kind.__mro__[:-1]})
    except (OSError, TypeError):
        sources = ""
    return [f"{kind.__module__}.{kind.__qualname__}", metric.key, metric.model_dump(), sources]


def _digest(files: Iterable[Path]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for file in sorted(files):
        digest.update(file.read_bytes())
    return digest.hexdigest()


@cache
def _code(package: ModuleType) -> str:
    """Digest all modules of a package: a list of those that decide values would go stale."""
    return _digest(Path(str(package.__file__)).parent.rglob("*.py"))


def _generation(model: PreTrainedModel) -> str:
    """Return the generation configuration, which decides where answers end, also in lm-eval."""
    config = getattr(model, "generation_config", None)
    return "" if config is None else str(config.to_json_string())


def tokenizer_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return a digest of all that decides which tokens a text becomes."""
    if tokenizer.is_fast:
        text = str(tokenizer.backend_tokenizer.to_str())
    else:
        text = json.dumps([type(tokenizer).__qualname__, sorted(tokenizer.get_vocab().items())])
    special = ("eos_token_id", "pad_token_id", "all_special_ids", "chat_template")
    options = ("add_bos_token", "add_eos_token", "clean_up_tokenization_spaces")
    text += json.dumps([getattr(tokenizer, name, None) for name in (*special, *options)])
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
