"""Whole-slide images, opened with OpenSlide.

Positions are pixels of level 0, the finest, also where a coarser level is read; sizes of what comes
back are its own pixels. Colours are those of the file: no colour profile is applied.
"""

from __future__ import annotations

import ctypes
import logging
import math
import os
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

import cv2
import numpy as np

from attnvgg.data.resolution import positive, same_mpp, stated_mpp
from attnvgg.errors import InputError

STRIP = 1 << 19  # pixels of a level at once, 2 MiB: what stays in the processor is thrice as fast

logger = logging.getLogger(__name__)


class Slide:
    """A slide that is open for reading until it is closed; a context manager.

    Threads may share one and read at the same time, as long as none closes it. Processes open
    their own.

    Attributes:
        path: the file.
        width, height: of level 0.
        mpp: microns per pixel of level 0, or None where neither the file nor the user says so.
        magnification: of the objective, where the file says so.
        downsamples: of each level, level-0 pixels per pixel; the first is 1.
    """

    def __init__(self, path: str | os.PathLike[str], mpp: float | None = None) -> None:
        """Open a slide.

        Args:
            path: a file in any format of OpenSlide.
            mpp: microns per pixel of level 0 if the user knows better than the file.

        Raises:
            InputError: the file is missing, not a slide, or broken; the microns make no sense.
        """
        if mpp is not None and not (math.isfinite(mpp) and mpp > 0):
            raise InputError(f"A pixel must be more than 0 microns wide, not {mpp}.")
        self.path = Path(path)
        self._library = _openslide()
        self._handle = _open(self._library, self.path)
        try:
            self._sizes = self._handle.level_dimensions
            self.width, self.height = self._sizes[0]
            self.downsamples: tuple[float, ...] = tuple(self._handle.level_downsamples)
            properties = dict(self._handle.properties)
        except self._library.OpenSlideError as error:
            self.close()
            raise _broken(self.path, error) from error
        self.magnification = positive(properties.get("openslide.objective-power"))
        self.mpp, self._doubt = stated_mpp(properties)
        if mpp is not None:
            self._state(mpp)

    def __enter__(self) -> Slide:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        self._handle.close()

    def require_mpp(self) -> float:
        """Return the microns per pixel of level 0.

        Raises:
            InputError: they are not known.
        """
        if self.mpp is None:
            raise InputError(f"{self.path} {self._doubt}: give --slide_mpp.")
        return self.mpp

    def level_for(self, side: int, size: int) -> int:
        """Return the coarsest level on which `side` level-0 pixels are at least `size` pixels."""
        enough = [i for i, scale in enumerate(self.downsamples) if round(side / scale) >= size]
        return max(enough, key=self.downsamples.__getitem__, default=0)

    def region(self, x: int, y: int, side: int, size: int) -> np.ndarray:
        """Return a square of `side` level-0 pixels whose top-left corner is (x, y).

        It is read from the coarsest level that need not be enlarged; where that has more pixels
        than wanted, they are averaged by area. Beyond the slide, and where the scanner left out
        what is empty, it is white.

        Returns:
            RGB uint8 (size, size, 3).

        Raises:
            InputError: the file is broken there. OpenSlide then refuses to read on at all.
        """
        level = self.level_for(side, size)
        wide = max(1, round(side / self.downsamples[level]))
        return _on_white(_resized(self._read(x, y, level, wide, wide), size, size))

    def overview(self, longest: int = 2048) -> np.ndarray:
        """Return the whole slide, made smaller until no side is above `longest`.

        It spans the slide exactly, so a pixel of it is `width / overview.shape[1]` level-0 pixels
        wide; white where there is no data. Memory stays bounded on a slide without coarse levels.

        Returns:
            RGB uint8 (h, w, 3).

        Raises:
            InputError: the file is broken.
        """
        shrink = max(1.0, max(self.width, self.height) / longest)
        wide, high = (max(1, round(side / shrink)) for side in (self.width, self.height))
        fine = [i for i, (w, h) in enumerate(self._sizes) if w >= wide and h >= high]
        level = max(fine, key=self.downsamples.__getitem__, default=0)
        full_width, full_height = self._sizes[level]
        rows = max(1, STRIP * high // (full_width * full_height))
        picture = np.empty((high, wide, 3), np.uint8)
        for top in range(0, high, rows):
            bottom = min(top + rows, high)
            # whole rows of the level: off by less than one of its own, which is below ours
            first, last = top * full_height // high, -(-bottom * full_height // high)
            y = round(first * self.height / full_height)
            strip = self._read(0, y, level, full_width, last - first)
            picture[top:bottom] = _on_white(_resized(strip, wide, bottom - top))
        return picture

    def _read(self, x: int, y: int, level: int, width: int, height: int) -> np.ndarray:
        """Return BGRA, colours multiplied by alpha, (height, width, 4) in pixels of the level.

        This is what OpenSlide's own `read_region` reads before it makes a picture of Pillow's, out
        of which the pixels would be copied twice: over a tenth of the time of a tile.
        """
        pixels = np.empty((height, width, 4), np.uint8)
        target = pixels.ctypes.data_as(ctypes.POINTER(ctypes.c_uint32))
        lowlevel, handle = self._library.lowlevel, self._handle._osr
        try:
            lowlevel._read_region(handle, target, int(x), int(y), level, width, height)
        except self._library.OpenSlideError as error:
            raise _broken(self.path, error) from error
        return pixels

    def _state(self, mpp: float) -> None:
        """Believe the user more than the file, and say so where they do not agree."""
        if self.mpp is not None and not same_mpp(self.mpp, mpp):
            logger.warning(
                "%s says that a pixel is %.4g microns wide; as you say, it is taken as %.4g.",
                self.path,
                self.mpp,
                mpp,
            )
        self.mpp = mpp


def opens_as_slide(path: Path) -> bool:
    """Return whether OpenSlide can read a file, by its beginning: a plain picture it cannot."""
    return _openslide().OpenSlide.detect_format(path) is not None


def _openslide() -> ModuleType:
    try:
        import openslide
    except (ImportError, OSError):  # OSError: the binding is there, the library is not
        raise InputError('OpenSlide is needed: pip install "attnvgg[slides]".') from None
    return openslide


def _open(library: ModuleType, path: Path) -> Any:
    """Return OpenSlide's handle of a file."""
    if path.is_dir():
        raise InputError(f"{path} is a folder, not a slide: name a file.")
    try:
        with path.open("rb"):  # OpenSlide has one sentence for all that follows
            pass
        return library.OpenSlide(path)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist: check the path of the slide.") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from error
    except library.OpenSlideUnsupportedFormatError:
        raise InputError(
            f"{path} is not a slide that OpenSlide reads (a plain picture, or cut off?): "
            "it must be a format of a scanner or a TIFF in tiles."
        ) from None
    except library.OpenSlideError as error:
        raise _broken(path, error) from error


def _broken(path: Path, error: Exception) -> InputError:
    reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
    return InputError(f"{path} is broken, copy it again: {reason}.")


def _on_white(pixels: np.ndarray) -> np.ndarray:
    """Return BGRA with colours multiplied by alpha as RGB on white."""
    rgb = cv2.cvtColor(pixels, cv2.COLOR_BGRA2RGB)
    # alpha is the top byte of a little-endian number, and the least of these has the least of it
    if pixels.view("<u4").min() >> 24 < 255:
        rgb += 255 - pixels[..., 3:]
    return rgb


def _resized(pixels: np.ndarray, width: int, height: int) -> np.ndarray:
    """Return the picture in that size, averaged by area.

    OpenCV averages over whole numbers of pixels many times faster than over others, so the
    picture is first brought to a multiple of its size, which changes it little.
    """
    whole = [
        max(1, round(had / wanted))
        for had, wanted in zip(pixels.shape[:2], (height, width), strict=True)
    ]
    multiple = (width * whole[1], height * whole[0])
    if pixels.shape[1::-1] != multiple:
        pixels = cv2.resize(pixels, multiple, interpolation=cv2.INTER_LINEAR)
    if multiple != (width, height):
        pixels = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
    return pixels
