"""Unpacking an archive from elsewhere: all is checked, and its folder appears whole or never."""

from __future__ import annotations

import errno
import shutil
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath, PureWindowsPath

from tqdm import tqdm

from attnvgg.errors import InputError
from attnvgg.files import atomic_folder

MAX_EXPANSION = 100  # text shrinks tenfold and photographs not at all; bombs a thousandfold
BLOCK = 4096  # what a file of one byte takes on most disks
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
IMPOSSIBLE = {errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.EINVAL}
DAMAGED = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, RuntimeError, ValueError)


class BadArchive(InputError):
    """The archive is damaged, unsafe or not what it should be: extracting it again cannot help.

    Its message says what is wrong with "it".
    """

    def about(self, subject: str) -> InputError:
        """Return the same complaint as a sentence about `subject`."""
        end = ":" if self.offenders else "."
        return InputError(f"{subject}: {self.message}{end}", self.offenders)


def extract_archive(archive: Path, folder: Path, check: Callable[[Path], None]) -> None:
    """Extract a ZIP archive into `folder`, which appears only after everything has been verified.

    Each member is read to its end, which verifies its length and CRC while it is written to a
    temporary folder beside `folder`; one pass over the archive is enough.

    Args:
        archive: the ZIP file; it is left as it is.
        folder: where its content goes; absent or empty.
        check: called with the temporary folder; raises if the content is not the expected one.

    Raises:
        BadArchive: damaged, encrypted, or a member that would leave the folder, is a link, or
            announces far more bytes than the archive can hold.
        InputError: too little disk space.
    """
    try:
        with zipfile.ZipFile(archive) as bundle, atomic_folder(folder) as temporary:
            _refuse_unsafe(bundle.infolist(), archive)
            _extract_members(bundle, temporary)
            check(temporary)
    except InputError:
        raise
    except OSError as error:
        if error.errno in FULL:
            raise InputError(
                f"The disk filled up while {archive.name} was extracted; nothing is left "
                f"half-written: make room and run this again."
            ) from error
        if error.errno in IMPOSSIBLE:
            raise BadArchive(f"it has impossible names ({error.strerror})") from error
        raise
    except DAMAGED as error:
        raise BadArchive(f"it is damaged ({error})") from error


def require_space(folder: Path, needed: int, purpose: str) -> None:
    """Raise InputError if the disk of `folder` has fewer than `needed` bytes left."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise InputError(
            f"{purpose} needs {gibibytes(needed)} in {folder.resolve()}, "
            f"and {gibibytes(free)} are free."
        )


def gibibytes(size: int) -> str:
    """Return a number of bytes in words."""
    return f"{size / 2**30:.2f} GiB"


def _refuse_unsafe(members: list[zipfile.ZipInfo], archive: Path) -> None:
    problems = [
        f"{member.filename!r}: {problem}" for member in members if (problem := _problem(member))
    ]
    if problems:
        raise BadArchive("it has members that are not safe", problems)
    announced = sum(member.file_size for member in members)
    if announced > MAX_EXPANSION * archive.stat().st_size:
        raise BadArchive(
            f"it says that it expands to {gibibytes(announced)}, "
            f"more than {MAX_EXPANSION} times its own size"
        )
    on_disk = sum(-(-member.file_size // BLOCK) * BLOCK for member in members)
    require_space(archive.parent, on_disk, f"Extracting {archive.name}")


def _problem(member: zipfile.ZipInfo) -> str | None:
    name = member.filename
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or PureWindowsPath(name).drive:
        return "an absolute path"
    if ".." in path.parts:
        return "a path that leaves the folder"
    if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "a link or special file"
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return "an unusual compression"
    return None


def _extract_members(bundle: zipfile.ZipFile, folder: Path) -> None:
    total = sum(member.file_size for member in bundle.infolist())
    with tqdm(total=total, unit="B", unit_scale=True, unit_divisor=1024, desc="extracting") as bar:
        for member in bundle.infolist():
            target = folder / member.filename
            if member.is_dir():
                target.mkdir(parents=True, exist_ok=True)
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            with bundle.open(member) as source, target.open("xb") as sink:
                shutil.copyfileobj(source, sink)
            bar.update(member.file_size)
