"""What the camera left in a picture beside the lesion: corners, borders, rulers, ink.

The detectors are plain rules on a square of 256 px. Their limits were chosen on the built-in
sample, whose painter says what it drew; `benchmarks/audit.py` measures them on pictures that had
no part in that choice. They are made for counting over a data set, not for judging one picture:
what they miss or invent weakens a correlation with the label, but does not make one up.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from attnvgg.data.decoding import Pixels

Floats = NDArray[np.float32]

SIDE = 256
CORNER, DARK = 6, 0.4  # pixels a side; of the brightness in the middle
FRAME, FLAT, STEP = 3, 4.0, 25.0  # pixels; grey levels within a border and from it to the picture
DEPTH, PERIODS, STROKE, RHYTHM = 20, (6, 15), 1.0, 0.25  # pixels; grey levels; see `_comb`
RING = 0.40  # distance from the middle, in sides
GLOOM, MANY = 60, 500  # grey level below which colours are noise; pixels above it that suffice
FOREIGN, DULL, SHARE = 0.3, 0.95, 0.001  # log ratio; of the skin's red; of the ring's pixels
NAMES = ("dark_corners", "border", "ruler", "ink_or_patch")

_AXIS = np.linspace(-0.5, 0.5, SIDE, dtype=np.float32)
OUTSIDE = np.hypot(_AXIS[:, None], _AXIS) > RING


def find_artefacts(picture: Pixels) -> dict[str, bool]:
    """Return whether a picture (H, W, 3) shows each of `NAMES`.

    `dark_corners`: two corners or more much darker than the middle (a dermatoscope's round view).
    `border`: an even strip along a side that ends abruptly (bars, frames).
    `ruler`: dark ticks at even distances along a side.
    `ink_or_patch`: colours no skin has, away from the middle (a marker's violet, stickers).
    """
    square = np.asarray(cv2.resize(picture, (SIDE, SIDE), interpolation=cv2.INTER_AREA), np.uint8)
    grey: Any = cv2.cvtColor(square, cv2.COLOR_RGB2GRAY)
    sides = [np.rot90(grey, turn) for turn in range(4)]
    found = (
        sum(_corner_is_dark(side) for side in sides) >= 2,
        any(map(_has_border, sides)),
        max(map(_rhythm, sides)) > RHYTHM,
        _foreign_colour(square) > SHARE,
    )
    return dict(zip(NAMES, map(bool, found), strict=True))


def _corner_is_dark(grey: Pixels) -> bool:
    middle = np.median(grey[SIDE // 4 : -SIDE // 4, SIDE // 4 : -SIDE // 4])
    return bool(np.median(grey[:CORNER, :CORNER]) < DARK * middle)


def _has_border(grey: Pixels) -> bool:
    """Whether the upper strip is even along its whole length and unlike what is below it."""
    upper = grey[: SIDE // 4].astype(np.float32)
    if upper[:FRAME].std() > FLAT:
        return False
    steps = np.abs(upper[FRAME:] - upper[:-FRAME])
    # along most of the side: ticks of a ruler fill up to half of it
    return bool(np.quantile(steps, 0.3, axis=1).max() > STEP)


def _rhythm(grey: Pixels) -> float:
    """Return how periodic the dark strokes along the upper side are: their autocorrelation."""
    strokes: Any = cv2.morphologyEx(grey[:DEPTH], cv2.MORPH_BLACKHAT, np.ones((1, 7), np.uint8))
    profile = strokes.mean(axis=0)
    profile = profile - profile.mean()
    power = float((profile**2).mean())
    if power < STROKE**2:
        return 0.0
    return max(_comb(profile, lag) / power for lag in range(*PERIODS))


def _comb(profile: Floats, lag: int) -> float:
    """Return how alike a profile is one and two periods on, less how alike half a period on."""
    once, twice, between = (
        float((profile[shift:] * profile[:-shift]).mean()) for shift in (lag, 2 * lag, lag // 2)
    )
    return min(once, twice) - max(between, 0.0)


def _foreign_colour(square: Pixels) -> float:
    """Return the share of the outer ring that is far bluer or greener than the picture's skin.

    Ratios of colours, relative to the ring's medians, are free of the light's colour.
    """
    ring = square[OUTSIDE].astype(np.float32)
    ring = ring[ring.max(axis=1) > GLOOM]
    if len(ring) < MANY:
        return 0.0
    ratios = np.log((ring[:, 1:] + 8) / (ring[:, :1] + 8))  # green and blue to red
    shift = (ratios - np.median(ratios, axis=0)).max(axis=1)
    darker = ring[:, 0] < DULL * np.median(ring[:, 0])  # the glints of bubbles are brighter
    return float(((shift > FOREIGN) & darker).sum() / OUTSIDE.sum())
