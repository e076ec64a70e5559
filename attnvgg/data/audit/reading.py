"""Every file of a data set read once, and little of it kept: a kilobyte and a half a picture."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
from tqdm import tqdm

from attnvgg.data.audit.artefacts import find_artefacts
from attnvgg.data.audit.fingerprints import Prints, fingerprint, look
from attnvgg.data.decoding import Pixels, read_image
from attnvgg.data.images import use_one_thread
from attnvgg.data.inspection import WAY_OUT, image_size
from attnvgg.errors import InputError

MIN_SIDE = 192  # px: enough for the ticks of rulers; larger JPEGs are decoded at a fraction


@dataclass(frozen=True, slots=True)
class Measured:
    """What is kept of one picture."""

    file: str
    """Digest of the file's bytes (SHA-256)."""
    pixels: str
    """Digest of the picture as decoded for the audit, at 192 px or more a side."""
    fingerprint: Prints | None
    """See `fingerprints`; None for a picture without contrast."""
    look: Prints
    """Mean colour and contrast; see `fingerprints`."""
    height: int
    width: int
    colour: tuple[float, float, float]
    """Mean red, green and blue."""
    artefacts: dict[str, bool]
    """See `find_artefacts`."""
    needs_convert: str | None
    """Why training would refuse the file unless told to convert it."""


def measure_images(paths: Sequence[str], workers: int) -> list[Measured | str]:
    """Return of each file what was measured, or the reason why it cannot be read.

    Args:
        paths: the files.
        workers: threads beside the one that calls (decoding leaves Python's lock free).
    """
    use_one_thread()
    pool = ThreadPoolExecutor(workers + 1)
    try:
        found = pool.map(measure_image, paths)
        return list(tqdm(found, "auditing images", len(paths), unit="image", disable=None))
    finally:
        pool.shutdown(cancel_futures=True)


def measure_image(path: str) -> Measured | str:
    """Return what was measured of one file, or the reason why it cannot be read."""
    refused = None
    try:
        try:
            picture = read_image(path, MIN_SIDE)
        except InputError as error:
            refused = _reason(error, path).removesuffix(f"; {WAY_OUT}")
            picture = read_image(path, MIN_SIDE, convert=True)
        height, width = image_size(path)
        with open(path, "rb") as stream:
            file = hashlib.file_digest(stream, "sha256").hexdigest()
    except InputError as error:
        return _reason(error, path)
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    red, green, blue, _ = cv2.mean(picture)
    return Measured(
        file, _digest(picture), fingerprint(picture), look(picture), height, width,
        (red, green, blue), find_artefacts(picture), refused,
    )  # fmt: skip


def _digest(picture: Pixels) -> str:
    digest = hashlib.sha256(str(picture.shape).encode())
    digest.update(picture.tobytes())
    return digest.hexdigest()


def _reason(error: InputError, path: str) -> str:
    """Return what the one offender of a refusal says, without its path."""
    offender = str(next(iter(error.offenders), error))
    return offender.removeprefix(f"{os.fspath(Path(path))}: ")
