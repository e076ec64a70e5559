"""Decoded pictures on disk, so that every epoch but the first reads pixels instead of JPEGs.

Entries of one size share one sparse file that is used as a hash table: the key of an entry says
in which slots it may lie. Reading is a `pread`, writing a `pwrite`; there is no index to load, no
folder to scan and no lock to hold, so any number of processes share a cache and a crash leaves
nothing to repair. A file an entry would cost three times as much to write.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import math
import os
import shutil
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

logger = logging.getLogger(__name__)

Pixels = NDArray[np.uint8]

VERSION = 1
PAGE = 4096
WAYS = 16  # slots an entry may lie in: of a table that is half full, one in 65,000 is turned away
STRIDE = 64  # entries between two looks at the disk

HEADER = struct.Struct("=16sQd")  # key, checksum, when it was last wanted (seconds)
EMPTY = bytes(16)


def file_key(path: str, recipe: str) -> bytes:
    """Return the key of what a recipe makes of a file in its present state.

    Args:
        path: absolute.
        recipe: everything else that decides the pixels.

    Raises:
        OSError: there is no such file.
    """
    state = os.stat(path)
    name = f"{path}\0{state.st_size}\0{state.st_mtime_ns}\0{recipe}"
    return hashlib.blake2b(name.encode("utf-8", "surrogateescape"), digest_size=16).digest()


class _Entry(NamedTuple):
    """Header of one slot."""

    offset: int
    owner: bytes
    checksum: int
    wanted: float


class _Table:
    """One sparse file of slots of one size."""

    def __init__(self, path: Path, slot_bytes: int, slots: int) -> None:
        self.path, self.slot_bytes, self.slots = path, slot_bytes, slots
        self.file = -1
        self.file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)

    def __del__(self) -> None:
        if self.file >= 0:
            os.close(self.file)

    def candidates(self, key: bytes) -> Iterator[_Entry]:
        """Yield the slots in which an entry may lie, in the order in which they are filled."""
        first, step = struct.unpack("=QQ", key)  # a step of its own, or full slots would cluster
        for way in range(WAYS):
            offset = (first + way * (step | 1)) % self.slots * self.slot_bytes
            header = os.pread(self.file, HEADER.size, offset).ljust(HEADER.size, b"\0")
            yield _Entry(offset, *HEADER.unpack(header))

    def find(self, key: bytes) -> _Entry | None:
        """Return the header of an entry, or None; no slot is ever emptied again."""
        for entry in self.candidates(key):
            if entry.owner == key:
                return entry
            if entry.owner == EMPTY:
                break
        return None


class ImageCache:
    """A bounded cache that many processes may share, keyed by file, its state and a recipe.

    It is bounded by `limit_bytes` for the whole folder and leaves `reserve_bytes` of the disk
    free. When it is full it stops adding: every epoch reads all pictures once, and under such a
    scan the least recently used entry is the very one that is wanted next. Only entries that
    nobody asked for since this cache was opened give way to new ones, oldest first.

    An entry is recomputed if its file has changed in place, size or time. A torn one (a crash,
    two writers in one slot) does not match its checksum and counts as absent. A disk that cannot
    be written turns the cache off with one warning.
    """

    def __init__(
        self, folder: str | os.PathLike[str], limit_bytes: int, reserve_bytes: int = 2**30
    ) -> None:
        self.folder = Path(folder)
        self.limit_bytes, self.reserve_bytes = limit_bytes, reserve_bytes
        self.opened = time.time()
        self._tables: dict[int, _Table] = {}
        self._allowance = 0
        self._off = limit_bytes <= 0 or not hasattr(os, "preadv")  # Windows has no preadv

    def __reduce__(self) -> tuple[type[ImageCache], tuple[Path, int, int]]:
        # another process opens the files itself
        return ImageCache, (self.folder, self.limit_bytes, self.reserve_bytes)

    def get(self, key: bytes, shape: tuple[int, ...]) -> Pixels | None:
        """Return the pixels that were stored under a `file_key`, or None."""
        if (table := self._table(math.prod(shape))) is None:
            return None
        try:
            if (entry := table.find(key)) is None:
                return None
            pixels = np.empty(shape, np.uint8)
            os.preadv(table.file, [pixels.data], entry.offset + HEADER.size)
            if _checksum(pixels) != entry.checksum:
                return None
            if entry.wanted < self.opened:
                os.pwrite(table.file, HEADER.pack(key, entry.checksum, time.time()), entry.offset)
        except OSError as error:
            self._turn_off(error)
            return None
        return pixels

    def put(self, key: bytes, pixels: Pixels) -> None:
        """Store pixels under a `file_key`, if there is room for them."""
        if (table := self._table(pixels.nbytes)) is None:
            return
        try:
            if (offset := self._slot(table, key)) is not None:
                header = HEADER.pack(key, _checksum(pixels), time.time())
                os.pwritev(table.file, [header, pixels.data], offset)
        except OSError as error:
            self._turn_off(error)

    def _slot(self, table: _Table, key: bytes) -> int | None:
        """Return where to write an entry: over itself, into an empty slot, over an unwanted one."""
        unwanted = []
        for entry in table.candidates(key):
            if entry.owner == key:
                return entry.offset
            if entry.owner == EMPTY:
                if self._may_grow(table):
                    return entry.offset
                break
            if entry.wanted < self.opened:
                unwanted.append((entry.wanted, entry.offset))
        return min(unwanted)[1] if unwanted else None

    def _may_grow(self, table: _Table) -> bool:
        """Return whether the folder may take one more slot; looks at the disk now and then."""
        if self._allowance < table.slot_bytes:
            self._allowance = min(self._room(table), STRIDE * table.slot_bytes)
        self._allowance -= table.slot_bytes
        return self._allowance >= 0

    def _room(self, table: _Table) -> int:
        """Return how many bytes may be added, after removing tables that nobody wants any more."""
        others = sorted(self._others(table))
        while True:
            used = os.fstat(table.file).st_blocks * 512 + sum(size for _, size, _ in others)
            free = shutil.disk_usage(self.folder).free - self.reserve_bytes
            room = min(self.limit_bytes - used, free)
            if room >= table.slot_bytes or not others or others[0][0] >= self.opened:
                return room
            others.pop(0)[2].unlink(missing_ok=True)

    def _others(self, table: _Table) -> Iterator[tuple[float, int, Path]]:
        """Yield (last change, bytes on disk, path) of the other tables in the folder."""
        for path in self.folder.glob("*.slots"):
            with contextlib.suppress(FileNotFoundError):  # another process made room
                state = path.stat()
                if path != table.path:
                    yield state.st_mtime, state.st_blocks * 512, path

    def _table(self, entry_bytes: int) -> _Table | None:
        """Return the table for entries of this size; None if there is no cache (any more)."""
        if entry_bytes not in self._tables and not self._off:
            slot_bytes = -(-(HEADER.size + entry_bytes) // PAGE) * PAGE
            slots = self.limit_bytes // slot_bytes
            if slots == 0:
                return None
            name = f"v{VERSION}-{entry_bytes}-{slots}.slots"
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                self._tables[entry_bytes] = _Table(self.folder / name, slot_bytes, slots)
            except OSError as error:
                self._turn_off(error)
        return None if self._off else self._tables[entry_bytes]

    def _turn_off(self, error: OSError) -> None:
        if not self._off:
            logger.warning("The image cache %s is off: %s.", self.folder, error.strerror)
        self._off = True


def _checksum(pixels: Pixels) -> int:
    """Return the sum of all 64-bit words: missing pages change it, at a fifth of a CRC's cost."""
    words = np.frombuffer(pixels.data, np.uint64, pixels.size // 8)
    rest = pixels.reshape(-1)[words.size * 8 :].tobytes()
    return (int(np.add.reduce(words)) + int.from_bytes(rest)) % 2**64
