"""A job of predictions on disk: what it is, its parts, and the table that they are joined into.

All of it lies in a hidden folder beside the table, so that a process that is killed loses the
parts under way and nothing else.
"""

from __future__ import annotations

import csv
import errno
import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock, Timeout

from attnvgg.deploy.prediction_listing import Cells, Listing
from attnvgg.errors import InputError
from attnvgg.files import atomic_path, write_json

FORMAT = 1
ABOUT, NAMES, LOCK = "job.json", "listing.jsonl", "lock"
PROBLEMS = ("index", "image", "problem")
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Row(NamedTuple):
    """An image to predict."""

    place: int
    """Its number in the listing."""
    image: str
    """Absolute path."""
    known: Cells
    """What is known of it."""


class Part(NamedTuple):
    """What became of some images, as it is kept on disk."""

    images: int
    broken: int
    called: dict[str, int]
    """How many were called each class."""
    rows: str
    """Lines of the table."""
    problems: str
    """Lines of the table of broken images."""


@dataclass(frozen=True)
class Job:
    """Images and the parts of them that are done. Small, whatever the number of images.

    Attributes:
        folder: of the parts and the listing.
        known: see `Listing`.
        count: of the images.
        size: images a part; the last one has what is left.
        starts: where each part starts in the listing, in bytes.
    """

    folder: Path
    known: tuple[str, ...]
    count: int
    size: int
    starts: tuple[int, ...]

    def absolute(self) -> Job:
        """Return the same job for a process in another folder."""
        return replace(self, folder=self.folder.absolute())

    def length(self, number: int) -> int:
        """Return the number of images of a part."""
        return min(self.size, self.count - number * self.size)

    def rows(self, number: int) -> Iterator[Row]:
        """Yield the images of a part."""
        with (self.folder / NAMES).open("rb") as stream:
            stream.seek(self.starts[number])
            for offset, line in enumerate(islice(stream, self.length(number))):
                image, *known = json.loads(line)
                yield Row(number * self.size + offset, image, tuple(known))

    def missing(self) -> list[int]:
        """Return the numbers of the parts that are not done, or are damaged."""
        return [n for n in range(len(self.starts)) if not self._is_whole(n)]

    def _is_whole(self, number: int) -> bool:
        try:
            part = Part(**json.loads(self._path(number).read_bytes()))
            lines = part.rows.count("\n"), part.problems.count("\n")
            images = self.length(number)
            # a name may hold a line's end: then there are more of them
            return part.images == images and sum(lines) >= images and lines[1] >= part.broken
        except (OSError, ValueError, TypeError, AttributeError):
            return False

    def judgeable(self) -> bool:
        """Tell whether the labels are whole numbers, as `evaluate` wants them."""
        place = self.known.index("label")
        return all(
            row.known[place].isdigit() for n in range(len(self.starts)) for row in self.rows(n)
        )

    def write(self, number: int, part: Part) -> None:
        """Keep a part."""
        with full_disk_told():
            write_json(self._path(number), part._asdict())

    def parts(self) -> Iterator[Part]:
        """Yield all parts in order.

        Raises:
            InputError: one is damaged.
        """
        for number in range(len(self.starts)):
            path = self._path(number)
            try:
                yield Part(**json.loads(path.read_bytes()))
            except (ValueError, TypeError) as error:
                raise InputError(f"{path} is damaged: remove it and run again.") from error

    def counted(self) -> tuple[Counter[str], int]:
        """Return how many images were called each class, and how many were passed over."""
        called: Counter[str] = Counter()
        broken = 0
        for part in self.parts():
            called.update(part.called)
            broken += part.broken
        return called, broken

    def join(self, output: Path, header: Sequence[str]) -> None:
        """Write the table and, where there are any, that of the broken images."""
        with full_disk_told():
            if any(part.broken for part in self.parts()):
                self._write(broken_path(output), PROBLEMS, (part.problems for part in self.parts()))
            else:
                broken_path(output).unlink(missing_ok=True)
            self._write(output, header, (part.rows for part in self.parts()))

    def _write(self, path: Path, header: Sequence[str], texts: Iterator[str]) -> None:
        with atomic_path(path) as temporary, temporary.open("w", newline="") as stream:
            csv.writer(stream, lineterminator="\n").writerow(header)
            stream.writelines(texts)

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:06d}.json"


def parts_folder(output: Path) -> Path:
    """Return where the parts of a table lie until they are joined."""
    return output.with_name(f".{output.name}.parts")


def broken_path(output: Path) -> Path:
    """Return where the images are listed that were passed over."""
    return output.with_name(f"{output.stem}.broken.csv")


def is_listing_of_broken(path: Path) -> bool:
    """Tell whether a file is such a list, which may be replaced."""
    with path.open("rb") as stream:
        return stream.readline().strip() == ",".join(PROBLEMS).encode()


@contextmanager
def open_job(
    output: Path, asked: dict[str, Any], listing: Listing, size: int, restart: bool = False
) -> Iterator[Job]:
    """Yield the job that makes a table; its parts are kept until the block succeeds.

    Args:
        output: the table.
        asked: what decides the predictions beside the images, as JSON: another job has another.
        listing: of the images.
        size: images a part.
        restart: whether parts of another job are dropped.

    Raises:
        InputError: there are parts of another job, or another process makes this table.
    """
    folder = parts_folder(output)
    fresh = not folder.is_dir()
    with full_disk_told(), _alone(folder, output):
        try:
            job = _opened(folder, asked, listing, size, restart)
        except BaseException:
            if fresh:
                shutil.rmtree(folder)
            raise
        yield job
        shutil.rmtree(folder)


def _opened(folder: Path, asked: dict[str, Any], listing: Listing, size: int, restart: bool) -> Job:
    with atomic_path(folder / NAMES) as temporary:
        digest, count, starts = _write_listing(temporary, listing.rows, size)
        asked = {**asked, "format": FORMAT, "images": digest, "known": listing.known, "part": size}
        asked = json.loads(json.dumps(asked))
        kept = _kept(folder)
        parts = list(folder.glob("[0-9]*.json"))
        if restart:
            for path in parts:
                path.unlink()
        elif parts and kept != asked:
            other = ", ".join(name for name in asked if kept.get(name) != asked[name])
            raise InputError(
                f"{folder} holds the parts of another job (other: {other}): give --restart "
                "to drop them, or another --output."
            )
    write_json(folder / ABOUT, asked)
    return Job(folder, listing.known, count, size, starts)


def _kept(folder: Path) -> dict[str, Any]:
    """Return what the parts in a folder were made by; nothing where that cannot be read."""
    try:
        found = json.loads((folder / ABOUT).read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _write_listing(
    path: Path, rows: Iterator[Cells], size: int
) -> tuple[str, int, tuple[int, ...]]:
    """Write a line an image; return the digest of all, their number and where parts start."""
    digest, starts, at, count = hashlib.sha256(), [], 0, 0
    with path.open("wb") as stream:
        for count, cells in enumerate(rows, 1):
            if count % size == 1 or size == 1:
                starts.append(at)
            line = json.dumps(cells).encode() + b"\n"
            at += stream.write(line)
            digest.update(line)
    return digest.hexdigest(), count, tuple(starts)


@contextmanager
def _alone(folder: Path, output: Path) -> Iterator[None]:
    """Keep other processes out of a folder, which is made."""
    busy = f"Another process writes {output}: wait for it, or give another --output."
    folder.mkdir(exist_ok=True)
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise InputError(busy) from None
    try:
        if not os.path.exists(folder / LOCK):  # the other one has finished this very moment
            raise InputError(busy)
        yield
    finally:
        lock.release()


@contextmanager
def full_disk_told() -> Iterator[None]:
    """Turn a full disk into a sentence; whatever is finished by then is kept."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise InputError(
            "The disk is full; the parts that are finished are kept: make room and run the same "
            "command again."
        ) from error
