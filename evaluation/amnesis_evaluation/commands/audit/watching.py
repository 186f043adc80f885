"""Watching a folder: the models in it that are complete, and were not audited yet."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

from amnesis_evaluation.commands.audit.identity import digests_of, files_of
from amnesis_evaluation.commands.audit.records import Record

QUIET = 5.0  # seconds for which nothing of a model was written, before it counts as complete


def complete_models(folder: Path, now: float | None = None) -> Iterator[Path]:
    """Yield the models in a folder, at any depth, that nobody writes any more, by name."""
    now = time.time() if now is None else now
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if {"config.json", "adapter_config.json"} & set(names) and is_complete(Path(place), now):
            yield Path(place)


def is_complete(folder: Path, now: float) -> bool:
    """Whether a model's folder has all of its files, each whole, and has been let be for a while.

    A writer that is slow between two files may be taken for done only where all that an index
    lists is there, and a tokenizer.
    """
    try:
        files = files_of(folder)
        weights = [file for file in files if file.suffix == ".safetensors"]
        names = {file.name for file in files}
        for file in files:
            if file.suffix == ".json":
                document = json.loads(file.read_text(encoding="utf-8"))
                is_index = file.name.endswith(".safetensors.index.json")
                if is_index and not set(document["weight_map"].values()) <= names:
                    return False
        is_whole = bool(weights) and all(map(_is_whole, weights))
        has_tokenizer = bool({"tokenizer.json", "tokenizer_config.json"} & names)
        # A clock ahead of ours must not keep a model waiting for ever.
        return is_whole and has_tokenizer and not 0 <= now - _last_change(folder, files) < QUIET
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return False  # written or deleted at this moment


def _is_whole(file: Path) -> bool:
    """Whether a safetensors file is as long as its header says."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if not 0 < length <= size - 8:
            return False
        header = json.loads(stream.read(length))
    ends = [one["data_offsets"][1] for name, one in header.items() if name != "__metadata__"]
    return bool(size == 8 + length + max(ends, default=0))


def _last_change(folder: Path, files: Sequence[Path]) -> float:
    """Return when a model's files were last written, moved or renamed, in seconds since 1970."""
    stats = [folder.stat(), *(file.stat() for file in files)]
    return max(max(stat.st_mtime, stat.st_ctime) for stat in stats)


def is_audited(folder: Path, name: str, policy: str, records: Sequence[Record]) -> bool:
    """Whether the model in a folder, as it is now, was audited by a policy of this SHA-256.

    Its files are read only where their times do not tell.
    """
    before = [one for one in records if one.model.name == name and one.policy.sha256 == policy]
    if not before:
        return False
    files, record = files_of(folder), before[-1]
    sizes = {file.name: file.stat().st_size for file in files}
    if sizes != {file_name: entry.bytes for file_name, entry in record.model.files.items()}:
        return False
    if _last_change(folder, files) < datetime.fromisoformat(record.time).timestamp():
        return True
    return digests_of(folder) == record.model.files
