"""Engines on disk: built once, whole or not at all, and checked when they are opened."""

from __future__ import annotations

import hashlib
import json
import logging
import platform
import shutil
import stat
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from attnvgg.deploy.engines.interface import Refused, Source
from attnvgg.errors import InputError
from attnvgg.files import atomic_folder, atomic_path, cache_folder, lock_beside, write_json
from attnvgg.models.weights import digest

logger = logging.getLogger(__name__)

FORMAT = 2  # raise it when a builder makes something else of the same network
ABOUT = "engine.json"


def key_of(source: Source, kind: str, packages: Sequence[str]) -> str:
    """Return what tells this engine from all others: weights, network, kind and versions."""
    weights = source.weights
    if weights is None:
        weights = digest({n: tensor.cpu() for n, tensor in source.network.state_dict().items()})
    parts = {
        "format": FORMAT,
        "kind": kind,
        "weights": weights,
        "identity": source.identity,
        "side": None if source.any_size else source.side,
        "calibration": source.calibration_name if kind.endswith("int8") else "",
        "versions": versions(packages),
        "machine": platform.machine(),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:20]


def versions(packages: Sequence[str]) -> dict[str, str]:
    """Return the versions of installed packages, and of PyTorch, which traces."""
    found = {}
    for package in ("torch", *packages):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = ""
    return found


def kept(
    key: str,
    kind: str,
    build: Callable[[Path], None],
    verify: Callable[[Path], dict[str, Any] | None],
    cache: Path | None = None,
) -> Path:
    """Return the folder of a built engine; build it where there is none, or a damaged one.

    Processes that want the same one wait for the first to build it. One that was refused is not
    built again.

    Args:
        key: see `key_of`.
        kind: name of the engine.
        build: writes its files into a folder.
        verify: compares it with PyTorch; returns what is to be remembered of that, if it could.
        cache: folder of all engines; None: engines, in the cache folder of attnvgg.

    Raises:
        Refused: now, or when it was built.
        InputError: it cannot be built or kept.
    """
    folder = (cache or cache_folder() / "engines") / f"{kind}-{key}"
    note = folder.with_name(f"{folder.name}.refused")
    try:
        with lock_beside(folder):
            if note.is_file():
                raise Refused(note.read_text(encoding="utf-8"))
            for leftover in folder.parent.glob(f".{folder.name}-*"):  # of a process that was killed
                shutil.rmtree(leftover, ignore_errors=True)
            if folder.is_dir() and not is_whole(folder):
                logger.warning("The engine in %s is damaged: it is built again.", folder)
                shutil.rmtree(folder)
            if not folder.is_dir():
                logger.info("Building the engine %s, once; it is kept in %s", kind, folder)
                with atomic_folder(folder) as temporary:
                    build(temporary)
                    write_about(temporary, kind, _compared(verify, temporary, note))
            elif "agreement" not in read_about(folder):  # built where there was no image
                about = _compared(verify, folder, note)
                if about:
                    write_json(folder / ABOUT, read_about(folder) | about)
    except OSError as error:
        raise InputError(
            f"The engine {kind} cannot be kept in {folder}: {error.strerror or error}. Make room, "
            "or set XDG_CACHE_HOME to another place."
        ) from error
    return folder


def _compared(
    verify: Callable[[Path], dict[str, Any] | None], folder: Path, note: Path
) -> dict[str, Any]:
    """Return what `engine.json` says of the comparison; note a refusal before it is raised."""
    try:
        found = verify(folder)
    except Refused as error:
        with atomic_path(note) as temporary:
            temporary.write_text(str(error), encoding="utf-8")
        raise
    return {} if found is None else {"agreement": found}


def write_about(folder: Path, kind: str, about: dict[str, Any]) -> None:
    """Write `engine.json`: the kind, the sums of all other files, and what was handed over."""
    sums = {path.name: _sum(path) for path in sorted(folder.iterdir())}
    write_json(folder / ABOUT, {"format": FORMAT, "kind": kind, "files": sums, **about})


def read_about(folder: Path) -> dict[str, Any]:
    """Return the content of `engine.json`.

    Raises:
        InputError: it is missing, damaged or of another version.
    """
    try:
        found = json.loads((folder / ABOUT).read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(f"{folder} is no exported model: {ABOUT} cannot be read.") from error
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise InputError(f"{folder} was exported by another version: export the model again.")
    return found


def is_whole(folder: Path) -> bool:
    """Tell whether all files of an engine are there as they were written."""
    try:
        files = read_about(folder)["files"]
        return bool(files) and all(
            Path(name).name == name
            and stat.S_ISREG((folder / name).lstat().st_mode)  # no device, no link to elsewhere
            and _sum(folder / name) == wanted
            for name, wanted in files.items()
        )
    except (InputError, OSError, KeyError, AttributeError, TypeError):
        return False


def _sum(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
