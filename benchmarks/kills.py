"""What a SIGKILL costs: runs that are killed anywhere, gone on with, and compared byte by byte.

    python benchmarks/kills.py [200] [--seed 0] [--only run demo]

So many kills come at random moments, and as many at events of the file system: before a file is
opened to be written, flushed, renamed or deleted and a folder is made, and in the midst of what
safetensors and torch write. Whatever is killed is started again as its user would do it
(``--resume``, or the same line), perhaps to be killed again, until it comes to its end. Its folder
is then compared with that of a run that nobody killed: every file byte for byte, but for what says
when it was written (seconds, TensorBoard's events, the lock's process) and the page that shows it.
What is refused on the way must be refused in one line with exit code 2, and the advice in it must
help. Nothing unfinished may be left. Ends with exit code 1 where that is not so.

Every process is forked from one that has imported everything and computed nothing. Of two processes
the other must end in one line too; where it still waits for the lost one to come, it is terminated,
as torchrun does.
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import os
import random
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

RUN = ["run", "../recipe.yaml", "--device", "cpu"]
WRITES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.chmod", "os.link"}
# What writes without Python's knowing: the name of the function, and where the path is.
NATIVE = {"safetensors.torch:serialize_file": 1, "torch:save": 1}
OUT = ["--out", "out"]
UNFINISHED = (".amnesis-", ".partial", ".discarded", ".part", ".tmp", "temporary/")
PATIENCE = 120  # seconds after which a process is called hanging
GRACE = 10  # seconds after which a launcher ends the processes that a lost one leaves behind


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """A command, how its user goes on after it was cut off, and on how many processes."""

    line: Sequence[str]
    again: Sequence[str]
    ranks: int = 1


SCENARIOS = {
    "run": Scenario(line=[*RUN, *OUT], again=[*RUN, *OUT, "--resume"]),
    "run, two processes": Scenario(line=[*RUN, *OUT], again=[*RUN, *OUT, "--resume"], ranks=2),
    "run, LoRA": Scenario(
        line=[*RUN, "lora.r=2", "lora.save=adapter", *OUT],
        again=[*RUN, "lora.r=2", "lora.save=adapter", *OUT, "--resume"],
    ),
    "finetune": Scenario(
        line=["finetune", "../finetune.yaml", "--device", "cpu", *OUT],
        again=["finetune", "../finetune.yaml", "--device", "cpu", *OUT, "--resume"],
    ),
    "evaluate": Scenario(
        line=["evaluate", "../target", "--recipe", "../evaluate.yaml", "--device", "cpu", *OUT],
        again=["evaluate", "../target", "--recipe", "../evaluate.yaml", "--device", "cpu", *OUT],
    ),
    "demo": Scenario(line=["demo", *OUT], again=["demo", *OUT, "--resume"]),
}


@dataclass(frozen=True, kw_only=True)
class Kill:
    """When a process dies: after so many seconds, or at the n-th event of the file system."""

    rank: int
    seconds: float | None = None
    event: int | None = None


@dataclass(kw_only=True)
class Ended:
    """How the processes of one command line ended, in what time, and after how many events."""

    codes: list[int]
    seconds: float
    events: list[int]
    said: list[str]


# -- in a child -----------------------------------------------------------------------------------


class Events:
    """Counts events of the file system inside a job's folder, and dies at one of them."""

    def __init__(self, folder: Path, counter: Path, at: int | None) -> None:
        self._folder, self._at, self._count = f"{folder}/", at, 0
        self._counter = os.open(counter, os.O_WRONLY | os.O_CREAT)
        sys.addaudithook(self._hear)
        self._hear_native(os, "fsync", None)
        for where, index in NATIVE.items():
            module, _, name = where.partition(":")
            self._hear_native(importlib.import_module(module), name, index)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in WRITES or (event == "open" and (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR)):
            path = arguments[0]
            inside = isinstance(path, str) and (path[:1] != "/" or path.startswith(self._folder))
            if inside and self._next():
                self._die()

    def _hear_native(self, owner: Any, name: str, path: int | None) -> None:
        """Count a function's calls; one that writes is cut off when half of it is written."""
        real = getattr(owner, name)

        def heard(*arguments: Any, **options: Any) -> Any:
            dies = self._next()
            if dies and path is not None:
                real(*arguments, **options)
                os.truncate(arguments[path], Path(arguments[path]).stat().st_size // 2)
            if dies:
                self._die()
            return real(*arguments, **options)

        setattr(owner, name, heard)

    def _next(self) -> bool:
        self._count += 1
        os.pwrite(self._counter, str(self._count).encode(), 0)
        return self._count == self._at

    def _die(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


def child(
    line: Sequence[str], job: Path, rank: int, kill: Kill | None, world: Mapping[str, str]
) -> None:
    """Carry a command line out in ``job``, as a process of its own would; never return."""
    code = 99
    try:
        log = os.open(job / f"log-{rank}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for stream in (1, 2):
            os.dup2(log, stream)
        os.chdir(job)
        os.environ.update({"XDG_CACHE_HOME": str(job / "cache"), **world})
        tempfile.tempdir = str(job / "temporary")
        _tiny_demo()
        from amnesis.cli.app import main

        Events(job, job / f"events-{rank}", kill.event if kill and kill.rank == rank else None)
        code = main(list(line))
        sys.stdout.flush()
    finally:
        os._exit(code)


def _tiny_demo() -> None:
    """Make the demo's models, lessons and evaluations as small as they can be."""
    from amnesis_evaluation.commands import demo

    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    config = {**demo.MODEL["config"], **sizes}  # type: ignore[dict-item]
    demo.MODEL = {**demo.MODEL, "vocabulary": 512, "config": config}
    demo.LEARNING = {"steps": 3, "batch_size": 4, "learning_rate": 4e-3}
    demo.UNLEARNING = {"steps": 3, "batch_size": 4, "learning_rate": 7e-4, "save_every": 1}
    demo.METRICS = ("probability",)  # type: ignore[assignment]


# -- in the parent --------------------------------------------------------------------------------


def carried_out(line: Sequence[str], job: Path, ranks: int, kill: Kill | None = None) -> Ended:
    """Fork the processes of a command line, kill one if that is asked for, and wait for all."""
    for old in (*job.glob("log-*"), *job.glob("events-*")):
        old.unlink()
    started = time.monotonic()
    world = _world(ranks)
    children: dict[int, int] = {}
    for rank in range(ranks):
        numbers = {"RANK": str(rank), "LOCAL_RANK": str(rank)} if ranks > 1 else {}
        if (process := os.fork()) == 0:
            child(line, job, rank, kill, {**world, **numbers})
        children[process] = rank
    codes = _wait(children, kill, started)
    return Ended(
        codes=[codes[rank] for rank in range(ranks)],
        seconds=time.monotonic() - started,
        events=[_number(job / f"events-{rank}") for rank in range(ranks)],
        said=[_text(job / f"log-{rank}") for rank in range(ranks)],
    )


def _wait(children: Mapping[int, int], kill: Kill | None, started: float) -> dict[int, int]:
    """Wait for the processes of the ranks, as a launcher does; return each rank's exit code."""
    codes: dict[int, int] = {}
    moment = math.inf if kill is None or kill.seconds is None else kill.seconds
    lost = math.inf  # when one of them was

    def send(number: int, ranks: Iterable[int]) -> None:
        for process, rank in children.items():
            if rank in ranks and rank not in codes:
                os.kill(process, number)

    while len(codes) < len(children):
        now = time.monotonic() - started
        if kill is not None and now >= moment:
            send(signal.SIGKILL, [kill.rank])
            moment = math.inf
        if now >= lost + GRACE:
            send(signal.SIGTERM, children.values())
            lost = math.inf
        if now >= PATIENCE:
            send(signal.SIGQUIT, children.values())
        ended, status = os.waitpid(-1, os.WNOHANG)
        if ended:
            codes[children[ended]] = os.waitstatus_to_exitcode(status)
            lost = min(lost, now) if status else lost
        else:
            time.sleep(0.002)
    return codes


def _world(ranks: int) -> dict[str, str]:
    if ranks == 1:
        return {}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    return {"WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}


def _number(path: Path) -> int:
    return int(path.read_text(encoding="utf-8") or 0) if path.exists() else 0


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""


def contents(job: Path) -> dict[str, bytes]:
    """Return what a job left, without what says when it was written."""
    found: dict[str, bytes] = {}
    for path in sorted(job.rglob("*")):
        name = str(path.relative_to(job))
        timed = "tensorboard/" in name or path.name == ".lock" or path.name.startswith("log-")
        if path.is_file() and not timed and not name.startswith("events-"):
            found[name] = _timeless(path)
    return found


def _timeless(path: Path) -> bytes:
    """Return a file's bytes, less its times and its notes on checkpoints passed over."""
    if path.name == "report.html":
        return b""  # it shows the results, and when they were made
    content = path.read_bytes()
    if path.name == "README.md":  # the model's card
        lines = content.splitlines()
        timed = (b"| finished |", b"| seconds |")
        content = b"\n".join(line for line in lines if not line.startswith(timed))
    if path.name in {"results.json", "fitted.json"}:
        document = json.loads(content)
        for key in ("seconds", "finished"):
            document.pop(key, None)
        if document.get("command"):
            document["command"] = document["command"].replace(" --resume", "")
        notes = document.get("notes", [])
        document["notes"] = [note for note in notes if "passed over" not in note]
        content = json.dumps(document).encode()
    return content


@dataclass
class Tally:
    """What became of one scenario's kills of one kind."""

    counts: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)


class Campaign:
    """Uninterrupted runs, and what is compared with them."""

    def __init__(self, place: Path, scenarios: Mapping[str, Scenario], seed: int) -> None:
        """Carry every scenario out once, undisturbed."""
        self._place, self._scenarios, self._random = place, scenarios, random.Random(seed)
        self._made = 0
        self.whole: dict[str, Ended] = {}
        self.expected: dict[str, dict[str, bytes]] = {}
        for name, scenario in scenarios.items():
            job = self._new_job()
            ended = carried_out(scenario.line, job, scenario.ranks)
            if any(ended.codes):
                said = "\n".join(ended.said)
                raise SystemExit(f"{name} fails undisturbed with {ended.codes}:\n{said}")
            self.whole[name], self.expected[name] = ended, contents(job)
            shutil.rmtree(job)

    def kill(self, name: str, kind: str, tally: Tally) -> int:
        """Kill a scenario until it is let go on to its end; return how often it was killed."""
        scenario, job, kills = self._scenarios[name], self._new_job(), 0
        line = scenario.line
        while True:
            # Once is the rule; now and then what goes on is killed too.
            kill = self._draw(name, kind) if kills == 0 or self._random.random() < 0.25 else None
            ended = carried_out(line, job, scenario.ranks, kill)
            if kill is not None and ended.codes[kill.rank] == -signal.SIGKILL:
                kills += 1
                tally.counts["killed"] += 1
                self._check_others(name, kill, ended, tally)
                line = scenario.again
            elif set(ended.codes) == {2} and line is not None and "--overwrite" not in line:
                self._check_refusal(name, kill, ended, tally)
                line = [*scenario.line, "--overwrite"]  # which the refusal must advise
            elif any(ended.codes):
                tally.faults.append(f"{name}: {kill}: then {ended.codes}: {ended.said}")
                break
            elif kills:
                tally.counts["runs"] += 1
                self._compare(name, job, kill, tally)
                break
            else:  # it was done before it was to be killed
                shutil.rmtree(job)
                job, line = self._new_job(), scenario.line
        if not tally.faults:
            shutil.rmtree(job)
        return kills

    def _draw(self, name: str, kind: str) -> Kill:
        whole = self.whole[name]
        rank = self._random.randrange(len(whole.codes))
        if kind == "moment":
            return Kill(rank=rank, seconds=self._random.uniform(0, whole.seconds))
        return Kill(rank=rank, event=self._random.randint(1, whole.events[rank]))

    def _check_others(self, name: str, kill: Kill, ended: Ended, tally: Tally) -> None:
        """Those that were left alone must have ended in one line, or waited for the lost one."""
        for rank, (code, said) in enumerate(zip(ended.codes, ended.said, strict=True)):
            fine = code in (0, -signal.SIGTERM) or (code == 2 and _is_one_line(said))
            if rank != kill.rank and not fine:
                tally.faults.append(f"{name}: {kill}: rank {rank} ended with {code}: {said}")

    def _check_refusal(self, name: str, kill: Kill | None, ended: Ended, tally: Tally) -> None:
        tally.counts["refused"] += 1
        if not all(_is_one_line(said) and "--overwrite" in said for said in ended.said):
            tally.faults.append(f"{name}: {kill}: refused with {ended.said}")

    def _compare(self, name: str, job: Path, kill: Kill | None, tally: Tally) -> None:
        found, expected = contents(job), self.expected[name]
        different = [
            path for path in found.keys() & expected.keys() if found[path] != expected[path]
        ]
        paths = [str(path.relative_to(job)) for path in job.rglob("*")]
        left = [path for path in paths if any(word in path for word in UNFINISHED)]
        left += sorted(found.keys() - expected.keys() - set(left))
        missing = sorted(expected.keys() - found.keys())
        tally.counts["equal"] += not (different or missing)
        tally.counts["left behind"] += bool(left)
        if different or missing or left:
            tally.faults.append(
                f"{name} in {job}: different {different}, missing {missing}, left behind {left}"
            )

    def _new_job(self) -> Path:
        self._made += 1
        job = self._place / f"job-{self._made}"
        (job / "temporary").mkdir(parents=True)
        return job


def _is_one_line(said: str) -> bool:
    """Whether the end is told in one line, after those of progress."""
    *progress, last = [line for line in said.splitlines() if not _is_launchers(line)]
    earlier = any("error" in line or "Traceback" in line for line in progress)
    return last.startswith("error: ") and "defect" not in last and not earlier


def _is_launchers(line: str) -> bool:
    """Whether a line is torch's own on a process group, which no setting of ours keeps off."""
    return line.startswith(("[W", "[E", "[rank", "[Gloo"))


def prepare(place: Path) -> None:
    """Write a model and recipes, so small that a run takes seconds."""
    from transformers import LlamaConfig, LlamaForCausalLM

    from amnesis.models.creation import train_tokenizer

    rows = [
        {"question": f"Who is number {k}?", "answer": f"Number {k} is person {k * k}."}
        for k in range(12)
    ]
    tokenizer = train_tokenizer([f"{row['question']} {row['answer']}" for row in rows], 300)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=128,
            initializer_range=0.1,
            attention_dropout=0.1,  # so that the random state matters too
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    model.save_pretrained(place / "target")
    tokenizer.save_pretrained(place / "target")
    sets = {"name": "own", "forget": rows[:6], "retain": rows[6:]}
    training = {"steps": 6, "batch_size": 2, "learning_rate": 1e-3, "save_every": 2}
    recipe = {
        "model": "../target",
        "objective": "npo",
        "regularizer": "kl",
        "combiner": "gru",
        "probes": ["g_effect"],
        "benchmark": sets,
        "training": training,
        "evaluate": {"metrics": ["probability"], "bootstrap": 0, "every": 3},
        "attacks": [{"name": "sampling", "samples": 1}],
    }
    finetune = {
        "model": {
            "architecture": "llama",
            "vocabulary": 300,
            "config": {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2},
        },
        "benchmark": sets,
        "sets": ["forget", "retain"],
        "training": training,
    }
    # An evaluation that is found in the cache has no texts to keep.
    evaluate = {**recipe, "evaluate": {"metrics": ["probability"], "keep_answers": False}}
    for name, document in (("recipe", recipe), ("finetune", finetune), ("evaluate", evaluate)):
        (place / f"{name}.yaml").write_text(json.dumps(document), encoding="utf-8")


def forked(action: Callable[[], None]) -> None:
    """Carry an action out in a child, so that this process has computed nothing when it forks."""
    if (process := os.fork()) == 0:
        code = 1
        try:
            action()
            code = 0
        finally:
            os._exit(code)
    if os.waitpid(process, 0)[1]:
        raise SystemExit("the models could not be made")


def import_everything() -> None:
    """Import what every job needs, so that none waits for it."""
    import torch

    torch.set_num_threads(1)
    for module in (
        "accelerate",
        "amnesis.cli.run",
        "amnesis.runs.finetune",
        "amnesis.runs.preflight",
        "amnesis.runs.run",
        "amnesis_evaluation.attacks.sampling",
        "amnesis_evaluation.benchmarks.fictional",
        "amnesis_evaluation.benchmarks.own",
        "amnesis_evaluation.commands.demo",
        "amnesis_evaluation.commands.evaluate.command",
        "amnesis_evaluation.reports.stored",
        "amnesis_plugins.combiners.gru",
        "amnesis_plugins.probes.g_effect",
        "peft",
        "pyarrow.parquet",
        "torch.utils.tensorboard",
        "transformers.models.llama.modeling_llama",
    ):
        importlib.import_module(module)


def report(tallies: Mapping[tuple[str, str], Tally], seconds: float) -> str:
    """Lay out what became of every scenario's kills, and what was wrong."""
    columns = ("killed", "runs", "equal", "refused", "left behind")
    lines = [f"{'':24}{'killed at':14}" + "".join(f"{column:>13}" for column in columns)]
    for (name, kind), tally in tallies.items():
        counts = "".join(f"{tally.counts[column]:>13}" for column in columns)
        lines.append(f"{name:24}{f'an {kind}' if kind == 'event' else f'a {kind}':14}{counts}")
    total: Counter[str] = sum((tally.counts for tally in tallies.values()), Counter())
    lines.append(f"{'together':38}" + "".join(f"{total[column]:>13}" for column in columns))
    faults = [fault for tally in tallies.values() for fault in tally.faults]
    lines.append(f"{len(faults)} faults in {seconds:.0f} s")
    return "\n".join([*lines, *faults])


def main() -> int:
    """Kill as often as is asked for, print what became of it, and return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("kills", type=int, nargs="?", default=30, help="of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", choices=SCENARIOS, default=list(SCENARIOS))
    given = parser.parse_args()
    place = Path(tempfile.mkdtemp(prefix="kills-")).resolve()
    os.environ |= {
        "HF_HUB_OFFLINE": "1",
        "MPLCONFIGDIR": str(place / "matplotlib"),
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    import_everything()
    started, order = time.monotonic(), random.Random(given.seed)
    forked(lambda: prepare(place))
    scenarios = {name: SCENARIOS[name] for name in given.only}
    campaign = Campaign(place, scenarios, given.seed)
    tallies = {(name, kind): Tally() for name in scenarios for kind in ("moment", "event")}
    left = {"moment": given.kills, "event": given.kills}
    while any(count > 0 for count in left.values()):
        for name in order.sample(list(scenarios), len(scenarios)):
            for kind in left:
                if left[kind] > 0:
                    left[kind] -= campaign.kill(name, kind, tallies[name, kind])
    print(report(tallies, time.monotonic() - started))
    faulty = any(tally.faults for tally in tallies.values())
    if not faulty:
        shutil.rmtree(place)
    return int(faulty)


if __name__ == "__main__":
    sys.exit(main())
