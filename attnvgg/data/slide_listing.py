"""The slides among files and folders, and their names."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from attnvgg.data.listing import SLIDE_SUFFIXES, list_files, require_utf8
from attnvgg.errors import InputError


def slide_name(path: Path) -> str:
    """Return the name of a slide, a file without its suffix or a folder of tiles."""
    return path.name if path.is_dir() else path.stem


def slide_files(targets: Sequence[str | os.PathLike[str]]) -> list[Path]:
    """Return the slides among files, and in folders and below, sorted by name.

    A file that is named is taken whatever its suffix; in folders a slide is known by its suffix.

    Raises:
        InputError: something does not exist, nothing is a slide, or two slides have one name
            without suffix, so that what is computed from them would have one name, too.
    """
    paths = [Path(os.path.abspath(target)) for target in targets]
    require_utf8(paths, "The list of slides")
    missing = [path for path in paths if not path.exists()]
    if missing:
        raise InputError("There are no such slides; check their paths:", missing)
    found: set[Path] = set()
    for path in paths:
        found.update(_slides_in(path) if path.is_dir() else [path])
    if not found:
        kinds = ", ".join(SLIDE_SUFFIXES)
        raise InputError(f"No slides were found; their names must end in {kinds}, here:", paths)
    refuse_namesakes(found)
    return sorted(found, key=lambda path: (path.stem, path))


def _slides_in(folder: Path) -> list[Path]:
    files = [path for path in list_files(folder) if path.suffix.lower() in SLIDE_SUFFIXES]
    require_utf8(files, str(folder))
    return files


def refuse_namesakes(paths: Iterable[Path]) -> None:
    """Refuse slides, or folders of their tiles, that have one name.

    Raises:
        InputError: listing them.
    """
    named: dict[str, list[Path]] = {}
    for path in sorted(paths):
        named.setdefault(slide_name(path), []).append(path)
    twice = [path for same in named.values() if len(same) > 1 for path in same]
    if twice:
        raise InputError("Slides must differ in their names without suffix; rename these:", twice)
