"""Which images are to be predicted, and what is known of them: one at a time, never all at once."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from attnvgg.data.listing import is_file_or_gone, is_hidden, is_image, require_folder
from attnvgg.data.manifest import SPLITS
from attnvgg.data.tables import PLACEHOLDERS
from attnvgg.errors import InputError

TRUTH = ("label", "group", "split")
FACTS = ("sex", "age", "site", "source")

Cells = tuple[str, ...]


class Listing(NamedTuple):
    """Images, in the order in which they will be written.

    Attributes:
        known: names of what is known of every image, some of `TRUTH` and `FACTS`.
        rows: absolute path and then those, image by image; at least one.
    """

    known: tuple[str, ...]
    rows: Iterator[Cells]


def list_images(target: Path) -> Listing:
    """Return the images that a folder, a CSV file or an image stands for.

    A folder stands for all visible images below it. A CSV has a column `image`, whose paths are
    absolute or relative to the CSV; of its other columns those of a manifest are kept. Beside
    a label there is always a group (the image itself where none is given) and a split (test).

    Raises:
        InputError: nothing is there, or no image, or the table is none; also while iterating.
    """
    known: tuple[str, ...] = ()
    if target.suffix.lower() == ".csv":
        known, rows = _of_table(target)
    elif target.is_file() and is_image(target):
        rows = iter([(os.path.abspath(target),)])
    else:
        require_folder(target, "a folder of images, a CSV with a column image, or an image")
        rows = ((path,) for path in walk_images(target))
    first = next(rows, None)
    if first is None:
        raise InputError(f"{target} holds no images.")
    return Listing(known, chain([first], rows))


def walk_images(folder: Path) -> Iterator[str]:
    """Yield the visible images in a folder and below; only one folder's names are in memory.

    Links are followed and each folder is entered once; what is linked comes last. A link to
    nothing is listed, too: whoever opens it will say so.
    """
    entered: set[str] = set()
    waiting = [os.path.abspath(folder)]
    for top in waiting:  # which grows
        for name, folders, files in os.walk(top, onerror=_raise):
            place = Path(name)
            folders[:] = sorted(child for child in folders if not is_hidden(Path(child)))
            if (real := os.path.realpath(name)) in entered:
                folders.clear()
                continue
            entered.add(real)
            waiting += [str(place / child) for child in folders if (place / child).is_symlink()]
            files.sort()
            for file in files:
                path = place / file
                if is_image(path) and not is_hidden(path) and is_file_or_gone(path):
                    yield str(path)


def _raise(error: OSError) -> None:
    raise error


def _of_table(path: Path) -> tuple[tuple[str, ...], Iterator[Cells]]:
    """Return the names of what is known, and the rows."""
    if not path.is_file():
        problem = "is not a file" if path.exists() else "does not exist"
        raise InputError(f"{path} {problem}: expected a CSV with a column image.")
    _, names = next(_records(path), (0, []))
    header = [name.strip() for name in names]
    named = [name for name in header if name]
    if len(set(named)) < len(named):
        raise InputError(f"{path} has columns of the same name: {', '.join(named)}.")
    if "image" not in header:
        found = ", ".join(named) or "none"
        raise InputError(f"{path} lacks the column image; its columns are: {found}.")
    known = [name for name in (*TRUTH, *FACTS) if name in header]
    if "label" in known:
        known = [*TRUTH, *(name for name in known if name not in TRUTH)]
    return tuple(known), _rows(path, header, known)


def _rows(path: Path, header: list[str], known: list[str]) -> Iterator[Cells]:
    folder = os.path.abspath(path.parent)
    records = _records(path)
    next(records)
    for line, record in records:
        cells = dict(zip(header, map(str.strip, record), strict=False))
        if any(record[len(header) :]):
            raise InputError(f"{path} has more values than columns in line {line}.")
        if not cells["image"]:
            raise InputError(f"{path} names no image in line {line}.")
        image = os.path.abspath(os.path.join(folder, cells["image"]))
        yield image, *(_told(name, cells.get(name, ""), image) for name in known)


def _told(name: str, text: str, image: str) -> str:
    """Return what is known of an image under a name."""
    if name == "group" and text.casefold() in PLACEHOLDERS:
        return image
    if name == "split":
        return SPLITS.get(text.casefold(), text) or "test"
    return text


def _records(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the lines of a CSV that are not blank, with their numbers."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.reader(stream, strict=True)
            for record in reader:
                if any(map(str.strip, record)):
                    yield reader.line_num, record
    except (csv.Error, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as CSV in UTF-8: {error}.") from None
