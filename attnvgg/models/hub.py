"""The Hugging Face hub: a saved model from it and to it, and one sentence where it fails."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnvgg.errors import InputError

if TYPE_CHECKING:
    from attnvgg.models.pretrained import Pretrained

REPOSITORY = re.compile(r"[\w-][\w.-]*/[\w.-]+")
PINNED = re.compile(rf"({REPOSITORY.pattern})@([\w.-]+)")  # owner/name@revision
TOKEN = "HF_TOKEN"  # the variable's name, not a token
README = "README.md"


def is_repository(name: str) -> bool:
    """Tell whether a name is one of a repository, owner/name."""
    return REPOSITORY.fullmatch(name) is not None


def split_revision(name: str) -> tuple[str, str | None]:
    """Return a name and the revision that may stand behind it.

    >>> split_revision("owner/name@v1.0"), split_revision("owner/name")
    (('owner/name', 'v1.0'), ('owner/name', None))
    """
    found = PINNED.fullmatch(name)
    return (found[1], found[2]) if found else (name, None)


def fetch(name: str, files: Sequence[str], revision: str | None = None) -> Path:
    """Return the folder of a repository's files, fetched where they are not in the cache.

    Raises:
        InputError: they cannot be had.
    """
    # Imported here, because it takes long and a model on disk does not need it.
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=list(files)))
    except Exception as error:  # its network library, hence its errors, change with versions
        wanted = name if revision is None else f"{name} at {revision}"
        raise InputError(
            f"{wanted} is neither a folder here nor could it be fetched from the hub: "
            f"{_reason(error)}"
        ) from error


def push(model: Pretrained, repository: str, card: str, *, private: bool = True) -> str:
    """Upload a model with its card, in one commit, and return its address.

    The token is that of the environment, HF_TOKEN, and goes nowhere but to the hub.

    Args:
        model: is saved to a temporary folder first.
        repository: owner/name; made if it does not exist.
        card: its README.md.
        private: of a repository that is made; an existing one stays as it is.

    Raises:
        InputError: a name that is none, no token, or the hub refuses or cannot be reached.
    """
    if not is_repository(repository):
        raise InputError(f"{repository} is no name of a repository: give owner/name.")
    token = os.environ.get(TOKEN, "").strip()
    if not token:
        raise InputError(f"Set the variable {TOKEN} to a token that may write to {repository}.")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_folder(model, folder, card)
        return _told(lambda: _upload(repository, folder, private, token), repository, token)


def write_folder(model: Pretrained, folder: Path, card: str) -> dict[str, int]:
    """Write what is uploaded; return its files and their bytes."""
    model.save_pretrained(folder)
    (folder / README).write_text(card, encoding="utf-8")
    return {path.name: path.stat().st_size for path in sorted(folder.iterdir())}


def _upload(repository: str, folder: Path, private: bool, token: str) -> str:
    from huggingface_hub import HfApi

    api = HfApi(token=token, library_name="attnvgg")
    address = api.create_repo(repository, private=private, exist_ok=True)
    api.upload_folder(
        repo_id=repository, folder_path=folder, commit_message="Upload the model and its card"
    )
    return str(address)


def _told(work: Callable[[], str], repository: str, token: str) -> str:
    try:
        return work()
    except Exception as error:  # see `fetch`
        # without a cause: what the client raises may hold the request, and so the token
        raise InputError(
            f"{repository} could not be written on the hub: {_reason(error, token)}"
        ) from None


def _reason(error: Any, secret: str = "") -> str:
    """Return the first line of an error, and never a token."""
    said = str(error).strip().partition("\n")[0] or type(error).__name__
    said = said.replace(secret, "***") if secret else said
    return re.sub(r"hf_\w{8,}", "***", said)
