"""Writing pyramidal TIFFs that OpenSlide and QuPath open: slides to test with, maps of slides."""

from __future__ import annotations

import os
from collections.abc import Iterator
from types import ModuleType
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from attnvgg.errors import InputError
from attnvgg.files import atomic_path

TILE = 256  # px
BIG = 2**31  # bytes of pixels from which on the offsets of a classic TIFF might not suffice

Pixels = NDArray[np.uint8]


def write_slide(
    path: str | os.PathLike[str],
    rgb: Pixels,
    mpp: float | None,
    levels: int = 3,
    factor: int = 4,
    vendor: Literal["generic", "aperio"] = "generic",
    quality: int = 85,
) -> None:
    """Write a picture as a scanner does: tiles of JPEG at several levels; atomically.

    Args:
        path: file to make: `.tiff`, or `.svs` where the vendor is Aperio.
        rgb: level 0, (H, W, 3).
        mpp: microns per pixel of level 0; None leaves it unsaid.
        levels: of the pyramid, level 0 included; none gets smaller than a pixel.
        factor: downsample from one level to the next.
        vendor: Aperio's files say their mpp in the description, others in the resolution.
        quality: of the JPEG, 1 to 100.

    Raises:
        InputError: the picture is not RGB of bytes, or a number makes no sense; no tifffile.
    """
    _check(rgb, mpp, (levels, factor))
    description = None
    if vendor == "aperio":
        height, width = rgb.shape[:2]
        scale = "" if mpp is None else f"|AppMag = {10 / mpp:.4g}|MPP = {mpp:.8g}"
        # the line before the first bar is the header, by which OpenSlide knows the vendor
        description = (
            "Aperio Image Library v12.0.0\r\n"
            f"{width}x{height} [0,0 {width}x{height}] ({TILE}x{TILE}) JPEG/RGB Q={quality}{scale}"
        )
    compression = {"compression": "jpeg", "compressionargs": {"level": quality}}
    unit = mpp if vendor == "generic" else None
    _write(path, rgb, unit, (levels, factor), {**compression, "description": description})


def write_pyramid(
    path: str | os.PathLike[str],
    rgb: Pixels,
    mpp: float | None,
    levels: int | None = None,
    factor: int = 2,
    description: str | None = None,
) -> None:
    """Write a picture without loss as a pyramid of tiles; atomically.

    Args:
        path: file to make, `.tiff`.
        rgb: level 0, (H, W, 3).
        mpp: microns per pixel of that picture; None leaves it unsaid.
        levels: level 0 included; None adds levels until one fits into a tile.
        factor: downsample from one level to the next.
        description: ASCII text for the TIFF's tag of that name.

    Raises:
        InputError: as `write_slide`.
    """
    _check(rgb, mpp, (1 if levels is None else levels, factor))
    if levels is None:
        levels, longest = 1, max(rgb.shape[:2])
        while longest > TILE:
            levels, longest = levels + 1, longest // factor
    options = {"compression": "zlib", "predictor": True, "description": description}
    _write(path, rgb, mpp, (levels, factor), options)


def _write(
    path: str | os.PathLike[str],
    rgb: Pixels,
    mpp: float | None,
    pyramid: tuple[int, int],
    options: dict[str, Any],
) -> None:
    """Write every level as a directory of its own, all but the first marked as reduced."""
    tifffile = _tifffile()
    levels, factor = pyramid
    with (
        atomic_path(path) as temporary,
        tifffile.TiffWriter(temporary, bigtiff=rgb.nbytes > BIG) as writer,
    ):
        for level in range(levels):
            pixels = _reduced(rgb, factor**level)
            writer.write(
                _tiles(pixels),
                shape=pixels.shape,
                dtype=np.uint8,
                photometric="rgb",
                tile=(TILE, TILE),
                subfiletype=int(level > 0),
                metadata=None,
                software=False,
                **_resolution(mpp, rgb.shape[1] / pixels.shape[1]),
                **options,
            )


def _reduced(rgb: Pixels, downsample: int) -> Pixels:
    """A level made from level 0, and not from the level before: roundings do not add up."""
    if downsample == 1:
        return rgb
    height, width = (max(1, side // downsample) for side in rgb.shape[:2])
    return np.asarray(cv2.resize(rgb, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def _tiles(pixels: Pixels) -> Iterator[Pixels]:
    """Yield the tiles row by row; the last ones repeat the border, so that no black bleeds in."""
    height, width = pixels.shape[:2]
    for y in range(0, height, TILE):
        for x in range(0, width, TILE):
            tile = pixels[y : y + TILE, x : x + TILE]
            missing = TILE - tile.shape[0], TILE - tile.shape[1]
            if any(missing):
                tile = np.pad(tile, ((0, missing[0]), (0, missing[1]), (0, 0)), "edge")
            yield np.ascontiguousarray(tile)


def _resolution(mpp: float | None, downsample: float) -> dict[str, Any]:
    """The tags for microns per pixel: pixels per centimetre."""
    if mpp is None:
        return {}
    density = 1e4 / (mpp * downsample)
    return {"resolution": (density, density), "resolutionunit": "CENTIMETER"}


def _check(rgb: Pixels, mpp: float | None, pyramid: tuple[int, int]) -> None:
    if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8 or rgb.size == 0:
        raise InputError(
            f"A slide is written from bytes of shape (height, width, 3), not {rgb.dtype} "
            f"of {rgb.shape}."
        )
    levels, factor = pyramid
    if levels < 1 or factor < 2 or (mpp is not None and not 0 < mpp < 1e4):
        raise InputError(
            "A slide needs at least 1 level, a factor of at least 2 and microns per pixel above "
            f"0, not {levels}, {factor} and {mpp}."
        )


def _tifffile() -> ModuleType:
    try:
        import imagecodecs  # noqa: F401  # tifffile looks for it only when it compresses
        import tifffile
    except ImportError:
        raise InputError('Writing slides needs tifffile: pip install "attnvgg[slides]".') from None
    return tifffile
