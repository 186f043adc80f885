"""What a model is recognised by: its files, and all that its forward pass depends on."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

from amnesis.models.fingerprint import fingerprint
from amnesis_evaluation.commands.audit.records import FileDigest, ModelIdentity
from amnesis_evaluation.evaluator.cache import tokenizer_digest

if TYPE_CHECKING:
    from amnesis.contracts import Subject

# Of the files beside a model, those that loading it may read; an optimizer's state is none.
_READ = {".safetensors", ".json", ".jinja", ".model", ".txt", ".py"}


def identity_of(subject: Subject, path: str) -> ModelIdentity:
    """Return what a loaded model, which came from ``path``, is recognised by."""
    return ModelIdentity(
        name=path,
        revision=getattr(subject.model.config, "_commit_hash", None),
        fingerprint=fingerprint(subject.model, secure=True),
        tokenizer=tokenizer_digest(subject.tokenizer),
        template=subject.template.model_dump(mode="json"),
        files=digests_of(Path(path)),
    )


def files_of(folder: Path) -> list[Path]:
    """Return the files in a model's folder that loading it may read; none of a name on the hub."""
    if not folder.is_dir():
        return []
    return sorted(file for file in folder.iterdir() if file.suffix in _READ and file.is_file())


def digests_of(folder: Path) -> dict[str, FileDigest]:
    """Return the size and the SHA-256 of each of a model's files, by name."""
    digests = {}
    for file in files_of(folder):
        with file.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        digests[file.name] = FileDigest(bytes=file.stat().st_size, sha256=digest)
    return digests


def stamp_of(folder: Path) -> list[tuple[str, int, int]]:
    """Return what changes when one of a model's files does: names, sizes and times."""
    stats = [(file.name, file.stat()) for file in files_of(folder)]
    return [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]


def is_all_in_files(folder: Path) -> bool:
    """Whether a model's own files are all that it is: neither another model's nor code elsewhere.

    An adapter's folder names the model that it belongs to, and a configuration may name code.
    """
    if (folder / "adapter_config.json").exists():
        return False
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and "auto_map" not in config
