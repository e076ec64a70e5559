"""Squares on a picture of a whole slide, and regions that are known on one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

REGIONS = "regions"  # folder of the masks, beside that of the slides


def region_file(slide: Path) -> Path:
    """Return where the mask of a slide would be: `regions/<slide>.png`, white inside, any size.

    `regions` lies beside the folder of the slides, or of their folders.
    """
    homes = slide.absolute().parents[1:3]
    home = next((home for home in homes if (home / REGIONS).is_dir()), homes[0])
    return home / REGIONS / f"{slide.stem}.png"


def square_means(
    picture: NDArray[np.generic], coords: NDArray[np.int64], side: int, width: int, height: int
) -> NDArray[np.float64]:
    """Return the mean of a picture over squares of the slide, (N,); beyond the slide it is 0.

    Sums of any square are four values of the integral picture, between whose points it is exactly
    bilinear: the picture may be coarser or finer than the squares, and their size costs nothing.

    Args:
        picture: of the whole slide, at any size, (h, w).
        coords: top left corners in level-0 pixels, (N, 2).
        side: of a square in level-0 pixels.
        width: of the slide in level-0 pixels.
        height: likewise.
    """
    table = cv2.integral(picture.astype(np.float64))  # (h + 1, w + 1)
    scale = np.array([picture.shape[1] / width, picture.shape[0] / height])
    (left, top), (right, low) = (coords * scale).T, ((coords + side) * scale).T
    sums = _at(table, right, low) - _at(table, left, low)
    sums -= _at(table, right, top) - _at(table, left, top)
    means = sums / (side**2 * scale.prod())
    return np.asarray(np.round(means, 9) + 0.0)  # rounding errors must not break ties


def _at(table: NDArray[Any], x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a table between its points."""
    last = np.array(table.shape) - 1
    x, y = x.clip(0, last[1]), y.clip(0, last[0])
    column, row = x.astype(int).clip(0, last[1] - 1), y.astype(int).clip(0, last[0] - 1)
    x, y = x - column, y - row
    upper = table[row, column] * (1 - x) + table[row, column + 1] * x
    lower = table[row + 1, column] * (1 - x) + table[row + 1, column + 1] * x
    return np.asarray(upper * (1 - y) + lower * y)
