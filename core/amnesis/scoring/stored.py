"""Reference scores on disk: a file for each set of texts that was scored at once.

A file holds three tensors, whatever the number of its texts: their keys, where the scores of each
end, and all scores one after the other. It is named by its keys, so that a run of the same texts
finds its file at once; of others the keys alone are read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Set
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from amnesis.storage import clear_scratch, write_tensors

if TYPE_CHECKING:
    from torch import Tensor

_SUFFIX = ".safetensors"
_BYTES = 16  # of a key


def read_scores(
    folder: Path, keys: Set[str], note: Callable[[str], None] | None
) -> dict[str, Tensor]:
    """Return what is stored of these texts' scores; no file is read that holds none of them.

    A damaged file is deleted, and told to ``note``.
    """
    clear_scratch(folder)
    missing = set(keys)
    scores: dict[str, Tensor] = {}
    own = f"{_digest(keys)}{_SUFFIX}"
    for file in sorted(folder.glob(f"*{_SUFFIX}"), key=lambda path: (path.name != own, path.name)):
        if not missing:
            break
        try:
            found = _read(file, missing)
        except FileNotFoundError:
            continue  # deleted meanwhile
        except _DamagedError:
            with suppress(OSError):
                file.unlink()
            if note is not None:
                note(f"cached reference scores were damaged, and are computed anew: {file}")
            continue
        scores |= found
        missing -= found.keys()
    return scores


def write_scores(folder: Path, scores: Mapping[str, Tensor]) -> None:
    """Write scores by text's key into a new file, which is renamed into place.

    Raises:
        OutputError: it cannot be written.
    """
    import torch

    keys = sorted(scores)
    packed = torch.frombuffer(bytearray(bytes.fromhex("".join(keys))), dtype=torch.uint8)
    ends = torch.tensor([scores[key].numel() for key in keys]).cumsum(0)
    values = torch.cat([scores[key].reshape(-1) for key in keys])
    tensors = {"keys": packed.view(-1, _BYTES), "ends": ends, "scores": values}
    metadata = {"digest": _digest_of(tensors)}
    write_tensors(folder / f"{_digest(keys)}{_SUFFIX}", tensors, metadata)


class _DamagedError(Exception):
    """A file is not what was written."""


def _read(file: Path, missing: set[str]) -> dict[str, Tensor]:
    """Return the scores in a file of texts that are missing.

    Raises:
        _DamagedError: the file is not what was written.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "pt") as stored:
            text = stored.get_tensor("keys").numpy().tobytes().hex()
            keys = [text[start : start + 2 * _BYTES] for start in range(0, len(text), 2 * _BYTES)]
            if missing.isdisjoint(keys):
                return {}
            names: Any = stored.keys()
            tensors = {name: stored.get_tensor(name) for name in names}
            digest = (stored.metadata() or {}).get("digest")
    except FileNotFoundError:
        raise
    except (SafetensorError, OSError) as error:
        raise _DamagedError from error
    if digest != _digest_of(tensors):
        raise _DamagedError
    ends: list[int] = tensors["ends"].tolist()
    places = zip(keys, [0, *ends], ends, strict=False)
    # A part of a file must not keep all of it in memory.
    whole = missing.issuperset(keys)
    parts = ((key, tensors["scores"][start:end]) for key, start, end in places if key in missing)
    return {key: part if whole else part.clone() for key, part in parts}


def _digest(keys: Iterable[str]) -> str:
    return hashlib.blake2b("".join(sorted(keys)).encode(), digest_size=_BYTES).hexdigest()


def _digest_of(tensors: Mapping[str, Tensor]) -> str:
    import torch

    digest = hashlib.blake2b(digest_size=_BYTES)
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
