"""What stops a run says where it stands and loses nothing."""

from __future__ import annotations

import copy
import errno
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers.trainer_callback import TrainerCallback

import amnesis
from amnesis.contracts import LikelihoodTerm
from amnesis.errors import Interrupted, NonFiniteError, OutputError, ResourceError
from amnesis.storage import write_model, write_text
from amnesis.training import checkpoints


def unlearner(model: Any, tokenizer: Any, output: Path, **options: Any) -> amnesis.Unlearner:
    training = {"steps": 6, "batch_size": 2, "learning_rate": 1e-3, "save_every": 2}
    training |= options.pop("training", {})
    names = {"objective": "ga", "regularizer": "nll", "combiner": "sago", **options}
    return amnesis.Unlearner(
        model, tokenizer, **names, training=training, output=output, device="cpu"
    )


class Poisoned(LikelihoodTerm):
    """Gives NaN from its third call on."""

    calls: list[int] = []

    def terms(self, logps: Any, mask: Any, ref_logps: Any = None) -> Any:
        self.calls.append(1)
        return logps * (float("nan") if len(self.calls) > 2 else 1.0)


def test_a_loss_that_is_not_finite_names_step_stream_and_term(
    tiny_llama: Any, tiny_tokenizer: Any, qa_rows: Any, tmp_path: Path
) -> None:
    run = unlearner(tiny_llama, tiny_tokenizer, tmp_path, objective=Poisoned())
    with pytest.raises(NonFiniteError) as raised:
        run.fit(qa_rows[:4], qa_rows[4:])
    said = str(raised.value)
    assert "step 2: the forget stream's loss is nan" in said
    assert "Poisoned" in said
    assert "the checkpoint of step 2 is kept" in said
    assert all(p.isfinite().all() for p in tiny_llama.parameters())
    assert checkpoints.latest(tmp_path)[0] == tmp_path / f"{2:08d}"


class Steep(LikelihoodTerm):
    """A finite loss with an infinite gradient."""

    def terms(self, logps: Any, mask: Any, ref_logps: Any = None) -> Any:
        return (logps * 0).abs().sqrt() + logps


def test_a_gradient_that_is_not_finite_names_the_stream(
    tiny_llama: Any, tiny_tokenizer: Any, qa_rows: Any, tmp_path: Path
) -> None:
    run = unlearner(tiny_llama, tiny_tokenizer, tmp_path, regularizer=Steep(), combiner="sum")
    with pytest.raises(NonFiniteError, match="step 0: the retain gradient's norm is nan"):
        run.fit(qa_rows[:4], qa_rows[4:])


def test_out_of_memory_says_what_to_lower(
    tiny_llama: Any, tiny_tokenizer: Any, qa_rows: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    def full(*_: Any, **__: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    monkeypatch.setattr(type(tiny_llama), "forward", full)
    with pytest.raises(ResourceError, match=r"micro_batch_size \(now 2; .*max_length \(now 512\)"):
        unlearner(tiny_llama, tiny_tokenizer, tmp_path).fit(qa_rows[:4], qa_rows[4:])


class CtrlC(TrainerCallback):  # type: ignore[misc]
    """Presses Ctrl-C in the midst of the fourth step."""

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == 3:
            os.kill(os.getpid(), signal.SIGINT)


def test_ctrl_c_writes_a_checkpoint_and_the_run_goes_on(
    tiny_llama: Any, tiny_tokenizer: Any, qa_rows: Any, tmp_path: Path
) -> None:
    start = copy.deepcopy(tiny_llama)
    training = {"steps": 6, "save_every": None}
    before = signal.getsignal(signal.SIGINT)
    run = unlearner(tiny_llama, tiny_tokenizer, tmp_path, training=training, callbacks=[CtrlC()])
    with pytest.raises(Interrupted, match=r"interrupted after step 4 of 6"):
        run.fit(qa_rows[:4], qa_rows[4:])
    assert checkpoints.latest(tmp_path)[0] == tmp_path / f"{4:08d}"
    assert signal.getsignal(signal.SIGINT) is before
    again = unlearner(copy.deepcopy(start), tiny_tokenizer, tmp_path, training=training)
    resumed = again.fit(qa_rows[:4], qa_rows[4:], resume=True)
    whole = unlearner(start, tiny_tokenizer, tmp_path / "whole", training=training)
    assert resumed.trajectory == whole.fit(qa_rows[:4], qa_rows[4:]).trajectory


@pytest.mark.parametrize("what", ["write_text", "write_model"])
def test_a_full_disk_loses_nothing_that_was_there(
    tiny_llama: Any, tiny_tokenizer: Any, tmp_path: Path, monkeypatch: Any, what: str
) -> None:
    target = tmp_path / "model"
    if what == "write_text":
        write_text(target, "the old one")
    else:
        write_model(target, tiny_llama, tiny_tokenizer)
    before = {p.name: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="No space left on device; what was there before"):
        if what == "write_text":
            write_text(target, "the new one")
        else:
            write_model(target, tiny_llama, tiny_tokenizer)
    assert {p.name: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before
