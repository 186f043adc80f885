"""``--engine ray``: the same study, worked on by the workers of a Ray cluster."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from amnesis.discovery.registry import default_registry
from amnesis.errors import AmnesisError, RecipeError, ResourceError, first_line
from amnesis_evaluation.commands.sweep.work import Checked, Machine, check, ended, open_study, work

if TYPE_CHECKING:
    from amnesis.progress import ProgressCallback
    from amnesis_evaluation.commands.sweep.settings import Sweep
    from amnesis_evaluation.commands.sweep.study import SharedStudy

POLL = 2.0  # seconds between two looks at the study


def work_on_ray(
    checked: Checked,
    study: SharedStudy,
    machine: Machine,
    workers: int | None,
    progress: ProgressCallback,
    said: Callable[[str], None],
) -> None:
    """Let a Ray cluster's workers run a study's trials: that of ``RAY_ADDRESS``, or one made here.

    A worker has one GPU where the cluster has any, and one CPU else; ``workers`` defaults to as
    many as there are. The sweep's folder, and what its recipe reads, must be where all of them see
    it, under the same path. Ray starts a worker that dies again, and its trial is taken up.

    Raises:
        RecipeError: Ray is not installed.
        ResourceError: there is no cluster where ``RAY_ADDRESS`` says.
        AmnesisError: what a worker met that other trials would meet too.
    """
    ray = _ray(machine)
    try:
        ray.init(ignore_reinit_error=True, log_to_driver=False, include_dashboard=False)
    except Exception as error:  # Ray has no error of its own for this
        raise ResourceError(f"--engine ray: no cluster answers: {first_line(error)}") from error
    try:
        _wait(ray, checked, study, machine, workers, progress, said)
    finally:
        ray.shutdown()


def _wait(
    ray: Any,
    checked: Checked,
    study: SharedStudy,
    machine: Machine,
    workers: int | None,
    progress: ProgressCallback,
    said: Callable[[str], None],
) -> None:
    resources = ray.cluster_resources()
    gpus = int(resources.get("GPU", 0))
    count = workers or gpus or int(resources.get("CPU", 1))
    member = ray.remote(num_cpus=1, num_gpus=1 if gpus else 0, max_retries=3)(_member)
    arguments = (
        checked.sweep,
        study.folder.resolve(),
        Path.cwd(),
        machine.device,
        machine.trust_remote_code,
        machine.reference_cache,
    )
    said(f"{count} workers on {len(ray.nodes())} machine{'s' if len(ray.nodes()) > 1 else ''}")
    waiting = [member.remote(*arguments) for _ in range(count)]
    while waiting:
        done, waiting = ray.wait(waiting, timeout=POLL)
        progress("trials", ended(study.trials()), study.size())
        for one in done:
            try:
                ray.get(one)
            except ray.exceptions.RayTaskError as error:
                cause = error.cause
                raise (cause if isinstance(cause, AmnesisError) else error) from None


def _member(
    sweep: Sweep,
    folder: Path,
    directory: Path,
    device: str | None,
    trust_remote_code: bool,
    reference_cache: Path | None,
) -> None:
    """Work on the study in a process of the cluster."""
    from amnesis.cli import quiet_libraries
    from amnesis.cli.terminal import spoken

    os.chdir(directory)  # the recipe's paths are relative to it
    quiet_libraries()
    machine = Machine(
        device=device,
        trust_remote_code=trust_remote_code,
        reference_cache=reference_cache,
        registry=default_registry(),
    )
    checked = check(sweep, machine)
    with spoken():
        work(checked, open_study(checked, folder), folder, machine, _nothing, _nothing)


def _nothing(*_: object) -> None:
    pass


def _ray(machine: Machine) -> Any:
    try:
        import ray
    except ImportError:
        raise RecipeError(
            "--engine ray needs the library ray, which is not installed: pip install 'amnesis[ray]'"
        ) from None
    if machine.registry is not default_registry():
        raise RecipeError(
            "--engine ray: the workers use every plugin that is installed where they are, so "
            "--without-plugin does not go with it"
        )
    return ray
