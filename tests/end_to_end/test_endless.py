"""What never ends, or as good as never, is bounded and named: exit code 2 and one line, soon."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from amnesis.cli.app import main
from amnesis.data import chats

NESTED = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
ANCHORS = "a0: &a0 [x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 8)}]\n" for k in range(1, 12)
)


@pytest.fixture
def place(tmp_path: Path, tiny_folder: Path, qa_rows: Any, write_rows: Any) -> Path:
    files = write_rows(forget=qa_rows[:4], retain=qa_rows[4:])
    recipe = {
        "model": str(tiny_folder),
        "objective": "ga",
        "regularizer": "nll",
        "benchmark": {"name": "own", **{name: str(file) for name, file in files.items()}},
        "training": {"steps": 1},
        "evaluate": {"metrics": ["probability"], "bootstrap": 0},
    }
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe), encoding="utf-8")
    return tmp_path


@pytest.fixture(autouse=True)
def _bounded() -> Iterator[None]:
    """What is not bounded fails the test instead of keeping it for ever."""

    def stop(*_: Any) -> None:
        raise AssertionError("it has no end")

    handler = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, 40)
    yield
    signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    signal.signal(signal.SIGVTALRM, handler)


def said(capfd: Any) -> str:
    """Return what was said from the error on, which may list several problems."""
    lines = capfd.readouterr().err.splitlines()
    (start,) = [place for place, line in enumerate(lines) if line.startswith("error: ")]
    words = "\n".join(lines[start:])
    assert "Traceback" not in words
    assert len(words) < 800
    return str(words)


def configured(place: Path, **values: Any) -> None:
    file = place / "model" / "config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps({**config, **values}), encoding="utf-8")


@pytest.mark.parametrize("kind", ["a pipe", "zeros", "anchors"])
def test_a_recipe(place: Path, kind: str, capfd: Any) -> None:
    path = place / "endless.yaml"
    if kind == "a pipe":
        os.mkfifo(path)
    elif kind == "zeros":
        path.symlink_to("/dev/zero")
    else:
        path.write_text(ANCHORS, encoding="utf-8")
    for command in ("run", "finetune"):
        assert main([command, str(path)]) == 2
        assert "endless.yaml: " in said(capfd)
    assert main(["evaluate", str(place / "model"), "--recipe", str(path)]) == 2
    assert "endless.yaml: " in said(capfd)


@pytest.mark.parametrize("kind", ["a pipe", "zeros"])
def test_rows(place: Path, kind: str, capfd: Any) -> None:
    path = place / "endless.jsonl"
    if kind == "a pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
    assert main(["run", str(place / "recipe.yaml"), f"benchmark.forget={path}", "--check"]) == 2
    assert "endless.jsonl: is not a file that can be read to its end" in said(capfd)


@pytest.mark.parametrize(
    ("template", "words"),
    [
        (NESTED, "the chat template took more than 1 seconds over one conversation"),
        ("{{ 'x' * 5000000 }}", "the chat template makes 5000000 characters"),
        ("{% for a in range(10 ** 9) %}{% endfor %}", "the chat template refuses the messages"),
    ],
)
def test_a_chat_template(
    place: Path, template: str, words: str, capfd: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chats, "MAX_SECONDS", 1.0)
    (place / "model" / "chat_template.jinja").write_text(template, encoding="utf-8")
    line = ["run", str(place / "recipe.yaml"), "template={format: chat}", "--device", "cpu"]
    before = signal.getsignal(signal.SIGALRM)
    assert main([*line, "--out", str(place / "out")]) == 2
    assert words in said(capfd)
    assert signal.getsignal(signal.SIGALRM) is before
    assert not (place / "out").exists()


@pytest.mark.parametrize("command", ["run", "check", "evaluate", "finetune"])
def test_a_model_of_a_million_layers(place: Path, command: str, capfd: Any) -> None:
    configured(place, num_hidden_layers=1_000_000)
    recipe = str(place / "recipe.yaml")
    new = {
        "model": {"architecture": "llama", "config": {"num_hidden_layers": 1_000_000}},
        "benchmark": json.loads((place / "recipe.yaml").read_text(encoding="utf-8"))["benchmark"],
        "sets": ["forget"],
    }
    (place / "finetune.yaml").write_text(json.dumps(new), encoding="utf-8")
    line = {
        "run": ["run", recipe, "--out", str(place / "out")],
        "check": ["run", recipe, "--check"],
        "evaluate": ["evaluate", str(place / "model"), "--recipe", recipe],
        "finetune": ["finetune", str(place / "finetune.yaml"), "--out", str(place / "out")],
    }[command]
    assert main([*line, "--device", "cpu"]) == 2
    assert "num_hidden_layers 1000000, and no model has more than 10000" in said(capfd)
    assert not (place / "out").exists()


def test_weights_that_are_a_pipe(place: Path, capfd: Any) -> None:
    (place / "model" / "model.safetensors").unlink()
    os.mkfifo(place / "model" / "model.safetensors")
    assert main(["run", str(place / "recipe.yaml"), "--check"]) == 2
    assert "holds no weights" in said(capfd)


def test_a_learning_rate_without_a_use(place: Path, capfd: Any) -> None:
    line = ["run", str(place / "recipe.yaml"), "--check"]
    assert main([*line, "training.learning_rate=1e38"]) == 2
    assert "training.learning_rate" in said(capfd)
