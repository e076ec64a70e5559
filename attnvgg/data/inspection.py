"""What an image file says about itself, and whether that is good enough to learn from.

Whatever is not plainly upright opaque 8-bit RGB is refused by name. A file that was converted on
the quiet is a shortcut waiting to be learned: grey or rotated files mostly come from one clinic,
and that clinic mostly has one diagnosis.
"""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

from PIL import ExifTags, Image, UnidentifiedImageError

from attnvgg.errors import InputError

MIN_SIDE = 16
MAX_PIXELS = 178_956_970  # beyond it Pillow, too, speaks of a decompression bomb
WAY_OUT = "--data.convert true (visualize: --convert true) converts such files"

# What Pillow raises on files that are broken in one way or another.
BROKEN = (
    OSError, SyntaxError, ValueError, EOFError, TypeError, KeyError, IndexError, OverflowError,
    struct.error, zlib.error, Image.DecompressionBombError,
)  # fmt: skip

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
            return find_problem(image, convert)
    except BROKEN as error:
        return describe_failure(error, path)


def image_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Return (height, width) of an image held upright, from its header.

    Raises:
        InputError: it cannot be opened.
    """
    try:
        with Image.open(path) as image:
            return upright_size(image)
    except BROKEN as error:
        raise refusal(path, describe_failure(error, path)) from error


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Return (height, width) of an opened image, held upright."""
    width, height = image.size
    return (width, height) if _orientation(image) >= 5 else (height, width)


def refusal(path: str | os.PathLike[str], problem: str) -> InputError:
    """Return the error that names one file; `prepare_images` gathers many of them into one."""
    return InputError("An image cannot be used:", [f"{os.fspath(path)}: {problem}"])


def fits(height: int, width: int) -> bool:
    """Return whether a picture is neither too small to show anything nor dangerously large."""
    return min(height, width) >= MIN_SIDE and height * width <= MAX_PIXELS


def find_problem(image: Image.Image, convert: bool) -> str | None:
    """Return what is wrong with an opened, not yet decoded image."""
    width, height = image.size
    if not fits(height, width):
        return (
            f"has {width}x{height} pixels; at least {MIN_SIDE} a side are needed, "
            f"and more than {MAX_PIXELS:,} are refused"
        )
    known = image.mode in ("RGB", "RGBA", *ODD_MODES)
    if not known or (image.mode == "I" and not _is_16_bit(image)):
        return f"has pixels of the kind {image.mode}, which are not 8 or 16 bits of grey or colour"
    oddities = find_oddities(image)
    return None if convert or not oddities else f"{' and '.join(oddities)}; {WAY_OUT}"


def find_oddities(image: Image.Image) -> list[str]:
    """Return in words whatever makes an image other than upright opaque 8-bit RGB."""
    found = []
    if _is_16_bit(image):
        found.append("has 16 bits a channel")
    if image.mode in ODD_MODES:
        found.append(ODD_MODES[image.mode])
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        found.append("has an alpha channel")
    if _orientation(image) != 1:
        found.append(f"is rotated by its EXIF tag (orientation {_orientation(image)})")
    frames = getattr(image, "n_frames", 1)
    if frames > 1:
        found.append(f"holds {frames} frames")
    return found


def describe_failure(error: Exception, path: str | os.PathLike[str] | None = None) -> str:
    """Return what a decoder or the system complained about, as a problem in words.

    Args:
        error: the complaint.
        path: the file; None for bytes that were in memory already.
    """
    if isinstance(error, Image.DecompressionBombError):
        return f"has more than {MAX_PIXELS:,} pixels, which are refused"
    if isinstance(error, FileNotFoundError):
        return "is missing"
    if isinstance(error, OSError) and error.errno is not None:
        return f"cannot be read: {error.strerror}"
    if path is not None and Path(path).stat().st_size == 0:
        return "is empty"
    if isinstance(error, UnidentifiedImageError):
        return "is not an image, or a broken one"
    return f"is broken: {error}"


def _is_16_bit(image: Image.Image) -> bool:
    # Pillow reports 16-bit RGB as mode "RGB"; only the decoder's arguments tell
    return image.mode.startswith("I;16") or ";16" in str(getattr(image, "tile", ""))


def _orientation(image: Image.Image) -> int:
    # The base class's method: that of PNG files would decode the picture to look behind it
    value = Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1)
    return value if value in range(2, 9) else 1
