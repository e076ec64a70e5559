"""Image files in, 8-bit RGB pixels out: complete, upright, and no larger than asked for."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from attnvgg.data.inspection import (
    BROKEN,
    describe_failure,
    find_oddities,
    find_problem,
    fits,
    refusal,
    upright_size,
)
from attnvgg.errors import InputError

Pixels = NDArray[np.uint8]

REDUCED_COLOR = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}

# What a stranger may send. Pillow knows many more; some start other programs (EPS), or take minutes
# over a file that is made for it (TIFF with millions of pages).
SENT_FORMATS = ("JPEG", "PNG", "WEBP", "BMP")
MOST_SCANS = 64  # of a JPEG: each goes over all pixels again, and cameras write ten

# Markers of JPEG segments
START_OF_FRAME = (0xC0, 0xC1, 0xC2)  # baseline, extended, progressive
START_OF_SCAN = 0xDA
EXIF, EXTENSION = 0xE1, 0xE2
END_OF_IMAGE = b"\xff\xd9"


def read_image(
    path: str | os.PathLike[str], min_side: int | None = None, convert: bool = False
) -> Pixels:
    """Decode a file completely and return its pixels, (H, W, 3) RGB.

    With `convert`, 16 bits lose their lower 8, grey is repeated, palettes are expanded,
    transparency is laid over white, the EXIF rotation is applied, CMYK becomes RGB as Pillow does
    it (with Adobe's inversion undone), and of several frames the first is taken.

    Args:
        path: the file.
        min_side: reduce by 2, 4 or 8 as long as the shorter side keeps so many pixels (see
            `reduction`); JPEGs are then decoded at that scale, which costs less.
        convert: accept such files instead of refusing them.

    Raises:
        InputError: the file is missing, broken, cut off, too small, too large, or needs `convert`.
    """
    try:
        with open(path, "rb", buffering=0) as stream:
            data = stream.read()
        return _decode(data, path, min_side, convert)
    except InputError:
        raise
    except (*BROKEN, cv2.error) as error:
        raise refusal(path, describe_failure(error, path)) from error


def decode_image(
    data: bytes, name: str = "image", min_side: int | None = None, convert: bool = False
) -> Pixels:
    """Do as `read_image`, of a file that is in memory: one of `SENT_FORMATS`.

    Args:
        data: content of the file.
        name: for the complaint.
        min_side: see `read_image`.
        convert: see `read_image`.

    Raises:
        InputError: see `read_image`.
    """
    _require_harmless(data, name)
    try:
        return _decode(data, name, min_side, convert, SENT_FORMATS)
    except InputError:
        raise
    except (*BROKEN, cv2.error) as error:
        raise refusal(name, describe_failure(error)) from error


def encoded_size(data: bytes, name: str = "image") -> tuple[int, int]:
    """Return (height, width) of an image held upright, from the header of a file in memory.

    Raises:
        InputError: it is not an image, or not of `SENT_FORMATS`.
    """
    _require_harmless(data, name)
    if size := _plain_jpeg_size(data):
        return size
    try:
        with Image.open(BytesIO(data), formats=SENT_FORMATS) as image:
            return upright_size(image)
    except BROKEN as error:
        raise refusal(name, describe_failure(error)) from error


def read_mask(path: str | os.PathLike[str], min_side: int | None = None) -> Pixels:
    """Decode a mask and return its brightest channel, (H, W), 255 inside.

    A mask of zeros and ones is taken for one of 0 and 255.

    Raises:
        InputError: the file cannot be decoded.
    """
    values: Pixels = read_image(path, convert=True).max(axis=2)
    if values.max() == 1:
        values *= 255
    height, width = values.shape
    return reduce(values, reduction(height, width, min_side))


def from_pillow(image: Image.Image, convert: bool = False) -> Pixels:
    """Return the pixels of an opened image, (H, W, 3) RGB, under the rules of `read_image`.

    Raises:
        InputError: `read_image` would refuse it as a file.
    """
    if problem := find_problem(image, convert):
        raise InputError(f"The image {problem}")
    return _to_rgb(image)


def reduction(height: int, width: int, min_side: int | None) -> int:
    """Return the largest of 8, 4, 2, 1 that leaves at least `min_side` pixels a side.

    It depends on the size alone, not on the format: the geometry of a picture is then the same
    whether it is stored as JPEG or as PNG.
    """
    if min_side is None:
        return 1
    return next((f for f in (8, 4, 2) if min(height, width) // f >= min_side), 1)


def reduce(image: Pixels, factor: int) -> Pixels:
    """Average whole blocks of `factor` x `factor` pixels; an incomplete last one is left out."""
    if factor == 1:
        return image
    height, width = image.shape[0] // factor, image.shape[1] // factor
    whole = image[: height * factor, : width * factor]
    reduced = cv2.resize(whole, (width, height), interpolation=cv2.INTER_AREA)
    return np.asarray(reduced, dtype=np.uint8)


def _require_harmless(data: bytes, name: str) -> None:
    if not data:
        raise refusal(name, "is empty")
    # 0xFF within the picture itself is always followed by 0 or a restart
    if data.startswith(b"\xff\xd8") and data.count(bytes((0xFF, START_OF_SCAN))) > MOST_SCANS:
        raise refusal(name, f"has more than {MOST_SCANS} scans, which take too long")


def _decode(
    data: bytes,
    name: str | os.PathLike[str],
    min_side: int | None,
    convert: bool,
    formats: tuple[str, ...] | None = None,
) -> Pixels:
    if size := _plain_jpeg_size(data):
        return _decode_jpeg(data, *size, min_side)
    with Image.open(BytesIO(data), formats=formats) as image:
        if problem := find_problem(image, convert) or _missing_end(image.format, data):
            raise refusal(name, problem)
        if image.format == "JPEG" and not find_oddities(image):
            return _decode_jpeg(data, image.height, image.width, min_side)
        return reduce(_to_rgb(image), reduction(image.height, image.width, min_side))


def _plain_jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Return (height, width) if this is a complete 8-bit colour JPEG without any EXIF, else None.

    Nearly all files of a data set are of this kind, and Pillow's look at a header would cost an
    eighth of their decoding.
    """
    size = None
    if not data.startswith(b"\xff\xd8"):
        return None
    for marker, content in _segments(data):
        if marker in START_OF_FRAME:
            bits, height, width, channels = struct.unpack_from(">BHHB", data, content)
            size = (height, width) if (bits, channels) == (8, 3) else None
        elif marker == EXIF or (marker == EXTENSION and data.startswith(b"MPF", content)):
            return None
        elif marker == START_OF_SCAN:
            complete = data.rfind(END_OF_IMAGE, content) > 0
            return size if size and complete and fits(*size) else None
    return None


def _segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield (marker, offset of its content) of a JPEG's segments up to the start of its scan."""
    position = 2
    while position + 16 <= len(data):
        marker = data[position + 1]
        if marker == 0xFF:  # padding
            position += 1
            continue
        yield marker, position + 4
        if marker == START_OF_SCAN:
            break
        position += 2 + int.from_bytes(data[position + 2 : position + 4])


def _missing_end(file_format: str | None, data: bytes) -> str | None:
    """Return a problem if the end of the picture is missing.

    Decoders paint what is missing grey, and at most mutter about it.
    """
    if file_format in ("JPEG", "MPO"):
        # the end of a thumbnail, which lies in a segment before the scan, does not count
        scan = next((at for marker, at in _segments(data) if marker == START_OF_SCAN), len(data))
        complete = data.rfind(END_OF_IMAGE, scan) > 0
    else:  # of the other formats, Pillow notices by itself; see the tests
        complete = file_format != "PNG" or b"IEND" in data
    return None if complete else "is cut off: the end of the picture is missing"


def _decode_jpeg(data: bytes, height: int, width: int, min_side: int | None) -> Pixels:
    factor = reduction(height, width, min_side)
    flags = REDUCED_COLOR[factor] | cv2.IMREAD_IGNORE_ORIENTATION
    image: Any = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    if image is None:
        raise ValueError("its data cannot be decoded")
    # libjpeg rounds a reduced size up; the last, incomplete block is left out as in `reduce`
    whole = image[: height // factor, : width // factor]
    return np.asarray(cv2.cvtColor(whole, cv2.COLOR_BGR2RGB), dtype=np.uint8)


def _to_rgb(image: Image.Image) -> Pixels:
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # 16 bits of grey: Pillow would clip them instead
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        colours = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", colours.size, "white"), colours)
    return np.array(image.convert("RGB"))
