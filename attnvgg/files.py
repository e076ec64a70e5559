"""Atomic writing: a reader sees the old file or the new one, never half of one."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary name beside `path` that becomes `path` when the block succeeds.

    The temporary name keeps the suffix, because many writers choose the format by it. When the
    block fails (a full disk, a signal turned into an exception) nothing is left behind.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(
        prefix=f".{target.stem}-", suffix=target.suffix, dir=target.parent
    )
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        _flush(temporary)
        temporary.chmod(0o666 & ~_umask())
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: str | os.PathLike[str], content: Any) -> None:
    """Write plain values as JSON, atomically; what is not a number in JSON is an error."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")


@contextmanager
def atomic_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary folder beside `path` that becomes `path` when the block succeeds.

    Raises:
        FileExistsError: `path` exists already and is not an empty folder.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        yield temporary
        temporary.chmod(0o777 & ~_umask())
        if target.is_dir() and any(target.iterdir()):
            raise FileExistsError(f"{target} exists already")
        os.replace(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def cache_folder() -> Path:
    """Return where attnvgg keeps, for this user, what can be made again."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return home / "attnvgg"


def lock_beside(path: str | os.PathLike[str]) -> FileLock:
    """Return the lock under which processes make `path`, so that it is made once.

    It stays as a hidden file: to remove it would let two who wait for it in together.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(target.parent / f".{target.name}.lock")


def _flush(path: Path) -> None:
    """Push the bytes to the disk, so that a power cut after the rename cannot lose them."""
    with path.open("rb") as stream:
        os.fsync(stream.fileno())


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
