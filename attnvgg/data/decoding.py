"""Image files in, 8-bit RGB pixels out; whatever is not plainly that is refused by name.

A file that was converted on the quiet is a shortcut waiting to be learned: grey or rotated files
mostly come from one clinic, and that clinic mostly has one diagnosis.
"""

from __future__ import annotations

import os
import struct
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from attnvgg.errors import InputError

Pixels = NDArray[np.uint8]

MIN_SIDE = 16
MAX_PIXELS = 178_956_970  # beyond it Pillow, too, speaks of a decompression bomb
WAY_OUT = "--data.convert true converts such files"

# What decoders raise on files that are broken in one way or another.
BROKEN = (
    OSError, SyntaxError, ValueError, EOFError, TypeError, struct.error, zlib.error,
    Image.DecompressionBombError,
)  # fmt: skip

REDUCED_COLOR = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}
ODD_MODES = {
    "1": "is grey",
    "L": "is grey",
    "I": "is grey",
    "I;16": "is grey",
    "I;16B": "is grey",
    "LA": "is grey",
    "P": "has a palette",
    "PA": "has a palette",
    "CMYK": "is CMYK",
}


def inspect_image(path: str | os.PathLike[str], convert: bool = False) -> str | None:
    """Return what is wrong with an image file in words, from its header only.

    Args:
        path: the file.
        convert: accept what `read_image` can convert.
    """
    try:
        with Image.open(path) as image:
            return _problem(image, convert)
    except BROKEN as error:
        return _reason(error, Path(path))


def read_image(
    path: str | os.PathLike[str], min_side: int | None = None, convert: bool = False
) -> Pixels:
    """Decode a file completely and return its pixels, (H, W, 3) RGB.

    With `convert`, 16 bits lose their lower 8, grey is repeated, palettes are
    expanded, transparency is laid over white, the EXIF rotation is applied, CMYK becomes RGB as
    Pillow does it, and of several frames the first is taken.

    Args:
        path: the file.
        min_side: reduce by 2, 4 or 8 as long as the shorter side keeps so many pixels (see
            `reduction`); JPEGs are then decoded at that scale, which costs less.
        convert: accept such files instead of refusing them.

    Raises:
        InputError: the file is missing, broken, cut off, too small, too large, or needs `convert`.
    """
    try:
        data = Path(path).read_bytes()
        with Image.open(BytesIO(data)) as image:
            if problem := _problem(image, convert) or _cut(image.format, data):
                raise refusal(path, problem)
            factor = reduction(image.height, image.width, min_side)
            if image.format == "JPEG" and not _oddities(image):
                return _decode_jpeg(data, image.height // factor, image.width // factor, factor)
            return reduce(_eight_bit_rgb(image), factor)
    except InputError:
        raise
    except (*BROKEN, cv2.error) as error:
        raise refusal(path, _reason(error, Path(path))) from error


def read_mask(path: str | os.PathLike[str], min_side: int | None = None) -> Pixels:
    """Decode a mask and return its brightest channel, (H, W), 255 inside.

    A mask of zeros and ones is taken for one of 0 and 255.

    Raises:
        InputError: the file cannot be decoded.
    """
    values: Pixels = read_image(path, convert=True).max(axis=2)
    if values.max() == 1:
        values *= 255
    return reduce(values, reduction(len(values), len(values.T), min_side))


def image_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Return (height, width) of an image held upright, from its header.

    Raises:
        InputError: it cannot be opened.
    """
    try:
        with Image.open(path) as image:
            width, height = image.size
            return (width, height) if _orientation(image) >= 5 else (height, width)
    except BROKEN as error:
        raise refusal(path, _reason(error, Path(path))) from error


def refusal(path: str | os.PathLike[str], problem: str) -> InputError:
    """Return the error that names one file; `prepare_images` gathers many of them into one."""
    return InputError("An image cannot be used:", [f"{os.fspath(path)}: {problem}"])


def from_pillow(image: Image.Image, convert: bool = False) -> Pixels:
    """Return the pixels of an opened image, (H, W, 3) RGB, under the rules of `read_image`.

    Raises:
        InputError: `read_image` would refuse it as a file.
    """
    if problem := _problem(image, convert):
        raise InputError(f"The image {problem}")
    return _eight_bit_rgb(image)


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
    return np.asarray(
        cv2.resize(whole, (width, height), interpolation=cv2.INTER_AREA), dtype=np.uint8
    )


def _decode_jpeg(data: bytes, height: int, width: int, factor: int) -> Pixels:
    flags = REDUCED_COLOR[factor] | cv2.IMREAD_IGNORE_ORIENTATION
    image: Any = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    if image is None:
        raise ValueError("its data cannot be decoded")
    # libjpeg rounds a reduced size up; the last, incomplete block is left out as in `reduce`
    return np.asarray(cv2.cvtColor(image[:height, :width], cv2.COLOR_BGR2RGB), dtype=np.uint8)


def _eight_bit_rgb(image: Image.Image) -> Pixels:
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # 16 bits of grey: Pillow would clip them instead
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        colours = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", colours.size, "white"), colours)
    return np.array(image.convert("RGB"))


def _problem(image: Image.Image, convert: bool) -> str | None:
    """Return what is wrong with an opened, not yet decoded image."""
    width, height = image.size
    if width * height > MAX_PIXELS:
        return f"has {width}x{height} pixels; more than {MAX_PIXELS:,} are refused"
    if min(width, height) < MIN_SIDE:
        return f"has {width}x{height} pixels; at least {MIN_SIDE} a side are needed"
    if image.mode not in ("RGB", "RGBA", *ODD_MODES) or (
        image.mode == "I" and not _is_16_bit(image)
    ):
        return f"has pixels of the kind {image.mode}, which are not 8 or 16 bits of grey or colour"
    oddities = _oddities(image)
    return None if convert or not oddities else f"{' and '.join(oddities)}; {WAY_OUT}"


def _oddities(image: Image.Image) -> list[str]:
    """Return in words whatever makes an image other than upright opaque 8-bit RGB."""
    found = []
    if _is_16_bit(image):
        found.append("has 16 bits a channel")
    if image.mode in ODD_MODES:
        found.append(ODD_MODES[image.mode])
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        found.append("is partly transparent (has an alpha channel)")
    if _orientation(image) != 1:
        found.append(f"is rotated by its EXIF tag (orientation {_orientation(image)})")
    frames = getattr(image, "n_frames", 1)
    if frames > 1:
        found.append(f"holds {frames} frames")
    return found


def _is_16_bit(image: Image.Image) -> bool:
    # Pillow reports 16-bit RGB as mode "RGB"; only the decoder's arguments tell
    return image.mode.startswith("I;16") or ";16" in str(getattr(image, "tile", ""))


def _orientation(image: Image.Image) -> int:
    # The base class's method: that of PNG files would decode the picture to look behind it
    value = Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1)
    return value if value in range(2, 9) else 1


def _cut(file_format: str | None, data: bytes) -> str | None:
    """Return a problem if the end of the picture is missing.

    Decoders paint what is missing grey, and at most mutter about it.
    """
    if file_format in ("JPEG", "MPO"):
        complete = data.find(b"\xff\xd9", _start_of_scan(data)) >= 0
    elif file_format == "PNG":
        complete = data.rfind(b"IEND") >= 0
    else:
        return None  # Pillow decodes the others and says so itself
    return None if complete else "is cut off: the end of the picture is missing"


def _start_of_scan(data: bytes) -> int:
    """Return where the pixels of a JPEG begin, behind its segments (and their thumbnails)."""
    position = 2
    while position + 4 <= len(data) and data[position + 1] != 0xDA:
        padding = data[position + 1] == 0xFF
        position += 1 if padding else 2 + int.from_bytes(data[position + 2 : position + 4])
    return position


def _reason(error: Exception, path: Path) -> str:
    """Return a decoder's or the system's complaint as a problem in words."""
    if isinstance(error, Image.DecompressionBombError):
        return f"has more than {MAX_PIXELS:,} pixels, which are refused"
    if isinstance(error, OSError) and error.errno is not None:
        return "is missing" if isinstance(error, FileNotFoundError) else str(error.strerror)
    if path.stat().st_size == 0:
        return "is empty"
    if isinstance(error, UnidentifiedImageError):
        return "is not an image (or a broken one)"
    return f"is broken: {error}"
