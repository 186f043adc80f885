"""lm-evaluation-harness on a model in memory: its task definitions, its data or local files."""

from __future__ import annotations

import copy
import json
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from functools import cache
from glob import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from amnesis.contracts import LmEvalSettings, Subject
from amnesis.distributed.processes import from_first_rank
from amnesis.errors import DataError, RecipeError, did_you_mean, first_line
from amnesis.models.random_states import random_states_restored
from amnesis.scoring.forward import evaluating
from amnesis_evaluation.harness.items import read_items

if TYPE_CHECKING:
    from lm_eval.tasks import TaskManager
    from transformers import PreTrainedTokenizerBase


def lm_eval_values(subject: Subject, settings: LmEvalSettings) -> dict[str, float]:
    """Return the values ``lm_eval/<task>/<metric>``, and standard errors as ``<metric>_stderr``.

    Tasks are lm-eval's own, by name; with local data they use the same definition on the files.
    Where every task is a single definition, lm-eval's index (half a minute) is not built. The model
    stays in memory; its mode and all random states are restored. What lm-eval prints goes to
    standard error. Several ranks share the items, and each returns the values of all of them.

    Raises:
        RecipeError: a task's name is unknown, or its data lack a split that it reads.
        DataError: a file cannot be used, or a task's own data cannot be obtained.
    """
    _check_settings(subject.tokenizer, settings)
    # Standard output belongs to the caller, which may be printing JSON.
    with (
        tempfile.TemporaryDirectory() as scratch,
        random_states_restored(),
        redirect_stdout(sys.stderr),
    ):
        manager, specs = _tasks(settings, Path(scratch))
        with evaluating(subject.model):
            results = _evaluate(subject, settings, manager, specs)
    return dict(_flat_values(results))


def check_tasks(settings: LmEvalSettings, tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse tasks that :func:`lm_eval_values` would refuse, before there is a model.

    Whether the hub has a task's data, or its cache here while there is no network, is asked of each
    task that is a single definition and has no local files.

    Raises:
        RecipeError: a task's name is unknown, or its data lack a split that it reads.
        DataError: a file cannot be used, or a task's own data cannot be obtained.
    """
    _check_settings(tokenizer, settings)
    with tempfile.TemporaryDirectory() as scratch, redirect_stdout(sys.stderr):
        _tasks(settings, Path(scratch))
    for name in settings.tasks:
        path = definition(name)
        if path is not None and name not in settings.data:
            with _errors_in_one_line(settings, name):
                _find_data(path)


def _find_data(path: Path) -> None:
    from datasets import load_dataset_builder
    from lm_eval.tasks._yaml_loader import load_yaml

    config = load_yaml(path, resolve_func=False)
    if config.get("dataset_path"):
        options = config.get("dataset_kwargs") or {}
        load_dataset_builder(config["dataset_path"], config.get("dataset_name"), **options)


def _check_settings(tokenizer: PreTrainedTokenizerBase, settings: LmEvalSettings) -> None:
    unknown = set(settings.data) - set(settings.tasks)
    if unknown:
        name = sorted(unknown)[0]
        raise RecipeError(
            f"lm_eval.data: {name!r} is not among the tasks; {did_you_mean(name, settings.tasks)}"
        )
    if settings.chat_template and not getattr(tokenizer, "chat_template", None):
        raise RecipeError("lm_eval.chat_template: the tokenizer has no chat template")


def _tasks(settings: LmEvalSettings, scratch: Path) -> tuple[TaskManager, list[str]]:
    """Return a task manager and what it is to load: paths of definitions, or names of its index."""
    from lm_eval.tasks import TaskManager

    definitions = {name: definition(name) for name in settings.tasks}
    specs: list[str] = []
    for name, path in definitions.items():
        if name in settings.data:
            if path is None:
                raise RecipeError(
                    f"lm_eval.data: {name!r} is not one task of lm-eval; name single tasks, such "
                    f"as mmlu_astronomy, each with its files"
                )
            path = _on_local_files(name, path, settings, scratch)
        specs.append(name if path is None else str(path))
    if all(path is not None for path in definitions.values()):
        return TaskManager(include_defaults=False), specs
    manager = _index()
    for name in (name for name, path in definitions.items() if path is None):
        if name not in manager.all_tasks:
            raise RecipeError(
                f"lm_eval.tasks: lm-eval has no task {name!r}; "
                f"{did_you_mean(name, _similar(name, manager.all_tasks))}"
            )
    return manager, specs


@cache
def _index() -> TaskManager:
    """Return lm-eval's index of all tasks and groups, which is built at most once."""
    from lm_eval.tasks import TaskManager

    return TaskManager()


def _similar(name: str, tasks: list[str]) -> list[str]:
    """Return at most 20 tasks, of the thousands, that begin like ``name``."""
    start = re.split(r"[_\-]", name)[0][:4]
    return [task for task in tasks if task.startswith(start)][:20]


@cache
def definition(task: str) -> Path | None:
    """Return the path of the installed definition of one task, without building lm-eval's index.

    A definition says ``task: name`` on a line of its own; files named like the task are read
    first. The result is None where there is no definition, and where several claim the name, so
    that lm-eval's index has to decide.
    """
    import lm_eval.tasks

    folder = Path(str(lm_eval.tasks.__file__)).parent
    claim = re.compile(rf"""^["']?task["']?\s*:\s*["']?{re.escape(task)}["']?\s*$""", re.MULTILINE)
    for pattern in (f"{escape(task)}.y*ml", "*.y*ml"):
        paths = [path for path in sorted(folder.rglob(pattern)) if claim.search(_text(path))]
        if paths:
            return paths[0] if len(paths) == 1 else None
    return None


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")


def _on_local_files(name: str, path: Path, settings: LmEvalSettings, scratch: Path) -> Path:
    """Write a task that includes the installed definition but reads local files."""
    import yaml

    splits = settings.data[name]
    _check_splits(name, path, splits, settings.num_fewshot)
    files: dict[str, str] = {}
    for split, file in splits.items():
        items = scratch / f"{name}.{split}.jsonl"
        lines = (json.dumps(item, ensure_ascii=False) for item in read_items(file))
        items.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        files[split] = str(items)
    task = {
        "include": str(path),
        "task": name,
        "dataset_path": "json",
        "dataset_name": None,
        "dataset_kwargs": {"data_files": files, "cache_dir": str(scratch / "datasets")},
    }
    task_file = scratch / f"{name}.yaml"
    task_file.write_text(yaml.safe_dump(task, sort_keys=False), encoding="utf-8")
    return task_file


def _check_splits(
    name: str, path: Path, splits: Mapping[str, Path], num_fewshot: int | None
) -> None:
    from lm_eval.tasks._yaml_loader import load_yaml

    config = load_yaml(path, resolve_func=False)
    test_split = config.get("test_split") or config.get("validation_split")
    shots = config.get("num_fewshot") or 0 if num_fewshot is None else num_fewshot
    shot_split = config.get("fewshot_split") or config.get("training_split")
    for split in (test_split, shot_split if shots else None):
        if split and split not in splits:
            raise RecipeError(
                f"lm_eval.data: {name!r} reads the split {split!r}, but files are given for "
                f"{', '.join(splits) or 'none'}"
            )


def _evaluate(
    subject: Subject, settings: LmEvalSettings, manager: TaskManager, specs: list[str]
) -> dict[str, Any]:
    from lm_eval import simple_evaluate

    from amnesis_evaluation.harness.model import InMemory

    # A copy of the tokenizer, because lm-eval sets its padding token and side.
    model = InMemory(
        pretrained=subject.model,
        tokenizer=copy.deepcopy(subject.tokenizer),
        batch_size=settings.batch_size,
    )
    with _errors_in_one_line(settings):
        output = simple_evaluate(
            model,
            tasks=specs,
            num_fewshot=settings.num_fewshot,
            limit=settings.limit,
            apply_chat_template=settings.chat_template,
            task_manager=manager,
            bootstrap_iters=1000,
            log_samples=False,
        )
    results: dict[str, Any] = from_first_rank(lambda: output["results"])
    return results


@contextmanager
def _errors_in_one_line(settings: LmEvalSettings, task: str | None = None) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # lm-eval, datasets and the hub raise many kinds
        what = task or ", ".join(settings.tasks)
        raise DataError(
            f"lm_eval: {what}: {type(error).__name__}: {first_line(error)}; "
            f"without the hub give local files: lm_eval.data: {{task: {{split: file}}}}"
        ) from error


def _flat_values(results: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, float]]:
    for task, values in results.items():
        for key, value in values.items():
            metric, _, filter_name = key.partition(",")
            if isinstance(value, (int, float)) and filter_name:
                suffix = "" if filter_name == "none" else f":{filter_name}"
                yield f"lm_eval/{task}/{metric}{suffix}", float(value)
