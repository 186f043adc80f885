"""Faults of the world end in one line and exit code 2, whichever library words them."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors import SafetensorError

from amnesis.cli.app import main

FULL = OSError(errno.ENOSPC, "No space left on device")
FULL_OF_SAFETENSORS = SafetensorError(
    "Error while serializing: I/O error: No space left on device (os error 28)"
)
FULL_OF_TORCH = RuntimeError(
    "[enforce fail at inline_container.cc:664] . unexpected pos 64 vs 0: PytorchStreamWriter "
    "failed writing file data/0: file write failed"
)
UNREADABLE = OSError(errno.EIO, "Input/output error")


@pytest.fixture
def line(
    tiny_folder: Path,
    qa_rows: Any,
    write_rows: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> list[str]:
    """The command line of a run in ``tmp_path / "out"``."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    files = write_rows(forget=qa_rows[:4], retain=qa_rows[4:])
    recipe = {
        "model": str(tiny_folder),
        "objective": "npo",
        "regularizer": "kl",
        "combiner": "gru",
        "benchmark": {"name": "own", **{name: str(path) for name, path in files.items()}},
        "training": {"steps": 4, "batch_size": 2, "save_every": 2},
        "evaluate": {"metrics": ["probability"], "bootstrap": 0},
    }
    path = tmp_path / "recipe.yaml"
    path.write_text(json.dumps(recipe), encoding="utf-8")
    return ["run", str(path), "--out", str(tmp_path / "out"), "--device", "cpu"]


def said(capfd: Any) -> str:
    """Return the last line that was said, after lines of progress: the error, in one line."""
    *progress, words = capfd.readouterr().err.splitlines()
    assert words.startswith("error: ")
    assert not [line for line in progress if "error" in line or "Traceback" in line]
    assert "defect" not in words
    return str(words)


def failing(real: Any, error: Exception, when: Callable[[str], bool]) -> Any:
    """Return a writer that fails where one of its arguments is such a path."""

    def write(*arguments: Any, **options: Any) -> Any:
        if any(when(str(value)) for value in (*arguments, *options.values())):
            raise error
        return real(*arguments, **options)

    return write


WRITERS: dict[str, tuple[str, Exception, str]] = {
    "the model's safetensors": (
        "transformers.modeling_utils.safe_save_file", FULL_OF_SAFETENSORS, "/model/"
    ),
    "a checkpoint's weights": (
        "transformers.modeling_utils.safe_save_file", FULL_OF_SAFETENSORS, "/checkpoint-2/"
    ),
    "a checkpoint's optimizer": ("torch.save", FULL_OF_TORCH, "optimizer.pt"),
    "a combiner's state": ("safetensors.torch.save_file", FULL_OF_SAFETENSORS, "combiner"),
    "the reference's cache": ("safetensors.torch.save_file", FULL_OF_SAFETENSORS, "/reference/"),
    "the examples": ("pyarrow.parquet.write_table", FULL, "examples.parquet"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk(
    line: list[str], name: str, capfd: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pyarrow.parquet
    import safetensors.torch
    import torch
    import transformers.modeling_utils as modeling

    homes = {
        "torch": torch,
        "transformers.modeling_utils": modeling,
        "safetensors.torch": safetensors.torch,
        "pyarrow.parquet": pyarrow.parquet,
    }
    where, error, place = WRITERS[name]
    module, _, function = where.rpartition(".")
    real = getattr(homes[module], function)
    with monkeypatch.context() as full:
        full.setattr(homes[module], function, failing(real, error, lambda text: place in text))
        assert main(line) == 2
    words = said(capfd)
    assert "o space left on device" in words or "file write failed" in words
    resumed = [*line, "--resume"]
    assert main(resumed) == 0, capfd.readouterr().err  # once there is space again


def test_a_disk_that_cannot_be_read(
    line: list[str], tmp_path: Path, capfd: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("forget.jsonl", "recipe.yaml", "config.json", "tokenizer.json"):
        with monkeypatch.context() as broken:
            read = failing(Path.read_text, UNREADABLE, lambda text, name=name: text.endswith(name))  # type: ignore[misc]
            opened = failing(open, UNREADABLE, lambda text, name=name: text.endswith(name))  # type: ignore[misc]
            broken.setattr(Path, "read_text", read)
            broken.setattr("builtins.open", opened)
            code = main(line)
        assert (name, code) == (name, 2)
        assert said(capfd)
    assert not (tmp_path / "out").exists()


def test_results_of_an_evaluation_are_there_only_with_their_examples(
    line: list[str], tmp_path: Path, capfd: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pyarrow.parquet

    out = tmp_path / "evaluated"
    evaluate = ["evaluate", str(tmp_path / "model"), "--recipe", line[1], "--device", "cpu"]
    full = failing(pyarrow.parquet.write_table, FULL, lambda text: "examples.parquet" in text)
    with monkeypatch.context() as disk:
        disk.setattr(pyarrow.parquet, "write_table", full)
        assert main([*evaluate, "--out", str(out)]) == 2
    assert "No space left" in said(capfd)
    assert not (out / "results.json").exists()
    assert main([*evaluate, "--out", str(out)]) == 0, capfd.readouterr().err


DAMAGED = {
    "what training went through": "checkpoints/fitted.json",
    "the evaluation before it": "checkpoints/before.json",
    "the trained model": "model/model.safetensors",
    "its configuration": "model/config.json",
}


@pytest.mark.parametrize("how", ["torn", "of another kind"])
@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_file_on_resume(
    line: list[str], tmp_path: Path, name: str, how: str, capfd: Any
) -> None:
    assert main(line) == 0
    out = tmp_path / "out"
    (out / "results.json").unlink()
    file = out / DAMAGED[name]
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2] if how == "torn" else b"[3]")
    capfd.readouterr()
    assert main([*line, "--resume"]) == 2
    words = said(capfd)
    assert str(file if "model/" not in DAMAGED[name] else out / "model") in words
    assert "delete " in words
    to_delete = words.split("delete ")[1].split(",")[0]  # which it says helps, and it does
    Path(str(file) if to_delete == "it" else to_delete).unlink()
    assert main([*line, "--resume"]) == 0, capfd.readouterr().err


def test_damaged_results_of_a_run_that_is_done(line: list[str], tmp_path: Path, capfd: Any) -> None:
    assert main(line) == 0
    capfd.readouterr()
    for content in ("{", "[1]", '{"before": 3}', "9" * 5000):
        (tmp_path / "out" / "results.json").write_text(content, encoding="utf-8")
        assert main([*line, "--resume"]) == 2
        assert "results.json" in said(capfd)


def test_a_damaged_entry_of_either_cache_is_made_anew_and_named(
    line: list[str], tmp_path: Path, capfd: Any
) -> None:
    evaluate = ["evaluate", str(tmp_path / "model"), "--recipe", line[1], "--device", "cpu"]
    assert main(line) == 0
    assert main([*evaluate, "--json"]) == 0
    capfd.readouterr()
    (scores,) = (tmp_path / "cache").rglob("*.safetensors")
    (entry,) = (tmp_path / "cache").rglob("*.json")
    for file in (scores, entry):
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    assert main([*line, "--overwrite"]) == 0
    assert f"cached reference scores were damaged, and are computed anew: {scores}" in (
        capfd.readouterr().out
    )
    assert main([*evaluate, "--json"]) == 0
    again = json.loads(capfd.readouterr().out)
    note = f"a cached evaluation was damaged, and is made anew: {entry}"
    assert note in again["notes"]
    assert main([*evaluate, "--json"]) == 0
    third = json.loads(capfd.readouterr().out)
    assert third == {**again, "notes": [one for one in again["notes"] if one != note]}
