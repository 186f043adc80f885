"""``amnesis publish``: hand a run's model on, with its card and without a text of the data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from amnesis.cli.terminal import AsJson

if TYPE_CHECKING:
    from huggingface_hub import HfApi

    from amnesis.runs.results import Results

# All that is ever uploaded: what a model consists of, and what its owner wrote for its readers.
ALLOWED = (
    "README.md",
    "LICENSE",
    "LICENSE.md",
    "LICENSE.txt",
    "NOTICE",
    "*.safetensors",
    "*.safetensors.index.json",
    "config.json",
    "generation_config.json",
    "adapter_config.json",
    "amnesis.json",
    "added_tokens.json",
    "chat_template.jinja",
    "merges.txt",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
)
# What may hold rows or answers: a folder with any of it is no folder to hand on.
ROWS = ("*.parquet", "*.arrow", "*.csv", "*.tsv", "*.jsonl", "*.html", "*answers*", "*tfevents*")


@dataclass(frozen=True, kw_only=True)
class Parcel:
    """What goes, to where, and what stays.

    Attributes:
        repository: ``user/name`` on the hub.
        private: whether others may see it.
        files: what is uploaded.
        left: the names of files that are not.
        warnings: what to know before it is done.
    """

    repository: str
    private: bool
    files: Sequence[Path]
    left: Sequence[str]
    warnings: Sequence[str]

    def document(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {
            "repository": self.repository,
            "private": self.private,
            "files": {path.name: path.stat().st_size for path in self.files},
            "left": list(self.left),
            "warnings": list(self.warnings),
        }


def publish(
    run: Annotated[Path, typer.Argument(help="The folder of a run.")],
    repo: Annotated[str, typer.Option(help="Where to, user/name.")],
    public: Annotated[
        bool, typer.Option("--public", help="Let everybody see it; without this it is private.")
    ] = False,
    message: Annotated[str, typer.Option(help="Of the commit.")] = "Model and card",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List what would go, and contact nobody.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Upload a run's model, tokenizer and card to the Hugging Face hub; never rows or answers.

    The token is that of HF_TOKEN or of `hf auth login`.
    """
    from amnesis.cli import console, print_json, print_notes

    parcel = packed(run, repo, public=public)
    url = None if dry_run else send(parcel, message)
    if as_json:
        print_json({**parcel.document(), "url": url})
        return
    plain = console()
    for path in parcel.files:
        size = f"{path.stat().st_size:>14,}".replace(",", " ")
        plain.print(f"{size} bytes  {path.name}", soft_wrap=True)
    print_notes(
        [*parcel.warnings, *(f"{name} is not uploaded: no part of a model" for name in parcel.left)]
    )
    who = "for everybody to see" if public else "private"
    if url is None:
        plain.print(
            f"nothing was uploaded; it would go to {parcel.repository} ({who})", soft_wrap=True
        )
    else:
        plain.print(f"{url} ({who})", soft_wrap=True)


def packed(run: Path, repository: str, *, public: bool = False) -> Parcel:
    """Return what of a run is handed on.

    Raises:
        DataError: there is no model or no result, the folder holds what may be rows or answers, or
            a link to elsewhere.
        RecipeError: the repository's name is none.
    """
    from amnesis.errors import DataError, RecipeError
    from amnesis.runs.results import Results

    _check_name(repository, RecipeError)
    results = Results.read(run)
    model = run / "model"
    if not (model / "config.json").is_file() and not (model / "adapter_config.json").is_file():
        raise DataError(f"{model}: holds no model to hand on")
    files, left = [], []
    for path in sorted(model.rglob("*")):
        name = str(path.relative_to(model))
        if path.is_symlink():
            raise DataError(f"{path}: is a link; hand on a folder of plain files")
        if path.is_dir():
            continue
        if any(path.match(pattern) for pattern in ROWS):
            raise DataError(
                f"{path}: may hold rows or answers, and nothing of {model} is handed on with it in "
                f"there; move it elsewhere"
            )
        is_part = path.parent == model and any(path.match(pattern) for pattern in ALLOWED)
        files.append(path) if is_part else left.append(name)
    return Parcel(
        repository=repository,
        private=not public,
        files=files,
        left=left,
        warnings=_warnings(results, model),
    )


def _check_name(repository: str, error: type[Exception]) -> None:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(repository)
    except HFValidationError:
        repository = ""
    if repository.count("/") != 1:
        raise error("--repo: write user/name, of letters, digits, -, _ and .")


def _warnings(results: Results, model: Path) -> list[str]:
    from amnesis.runs.folder import MODEL_CARD

    warnings = []
    verdict = results.verdict
    if verdict is None or verdict.forgetting != "forgotten" or verdict.retention != "kept":
        said = "nothing was evaluated" if verdict is None else verdict.sentence
        warnings.append(f"the verdict on this model will not recommend it: {said}")
    if not (model / MODEL_CARD).is_file():
        warnings.append("there is no card (README.md); amnesis report writes it")
    return warnings


def send(parcel: Parcel, message: str, api: HfApi | None = None) -> str:
    """Upload a parcel in one commit, and return where it is.

    Raises:
        OutputError: the hub refuses, cannot be reached, or has the repository as a public one while
            the parcel is private.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    from amnesis.errors import OutputError

    api = HfApi(library_name="amnesis") if api is None else api
    with _worded(parcel.repository):
        api.create_repo(parcel.repository, private=parcel.private, exist_ok=True)
        if parcel.private and not api.repo_info(parcel.repository).private:
            raise OutputError(
                f"{parcel.repository}: is there already, for everybody to see; say --public, or "
                f"make it private first"
            )
        operations = [
            CommitOperationAdd(path_in_repo=path.name, path_or_fileobj=str(path))
            for path in parcel.files
        ]
        done = api.create_commit(parcel.repository, operations, commit_message=message)
    return str(done.repo_url)


@contextmanager
def _worded(repository: str) -> Iterator[None]:
    """Say in one line what the hub or the way there did wrong, and never with a token in it."""
    from huggingface_hub import get_token
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    from amnesis.errors import OutputError, one_line

    # Of whichever HTTP library the hub's client uses: no answer at all is an error of that.
    unreachable: Any = HfHubHTTPError.__bases__
    try:
        yield
    except OfflineModeIsEnabled:
        raise OutputError("HF_HUB_OFFLINE is set: nothing can be uploaded") from None
    except (OSError, *unreachable) as error:
        said = one_line(error)
        if token := get_token():
            said = said.replace(token, "(the token)")
        raise OutputError(
            f"{repository}: not uploaded: {said}; the token is that of HF_TOKEN or of hf auth "
            f"login, and must be one that may write"
        ) from None
