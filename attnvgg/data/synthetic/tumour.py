"""Tumour-like growth for the sample of slides: what a pathologist grades, and colour does not tell.

Gleason's patterns, roughly: 3, small round glands, each with a lumen; 4, glands fused into sheets
with holes; 5, sheets of cells without any gland. Nuclei are large, dark and crowded in all of them.
"""

from __future__ import annotations

import cv2
import numpy as np

from attnvgg.data.synthetic.shapes import Array
from attnvgg.data.synthetic.tissue import enlarge, field, sheet

# pattern -> px between glands (or holes), their least and greatest radius
GLANDS = {3: (94, 34, 46), 4: (76, 12, 24)}
# pattern -> px between nuclei, their least and greatest radius
NUCLEI = {3: (18, 5.0, 7.5), 4: (18, 5.0, 8.0), 5: (21, 5.0, 10.0)}
LUMEN = 0.12  # of the dyes is left where a gland is hollow
WAVE = 10  # px by which outlines follow the dyes of the real tissue
STROMA = slice(448, None)  # columns of the real picture without glands


def grow(rng: np.random.Generator, shape: tuple[int, int], pattern: int) -> Array:
    """Return amounts of the two dyes (H, W, 2) where one of the patterns 3, 4, 5 grows."""
    blue, pink = cv2.split(sheet(rng, shape, scale=1.3))
    wave = WAVE * (blue - blue.mean())
    cells = (0.8 + 1.2 * blue) * nuclei(rng, wave, *NUCLEI[pattern])
    solid = cv2.merge([0.2 * blue + cells, 0.3 + 0.3 * pink])
    if pattern == 5:
        return solid
    distance, radius = _nearest(rng, shape, *GLANDS[pattern])
    depth = (distance + wave + 4 * enlarge(field(rng, shape, 40), shape)) / radius
    if pattern == 4:
        return solid * _both(np.clip(4 * (depth - 1), LUMEN, 1))
    inside = np.clip(8 * (1 - depth), 0, 1)
    wall = inside * np.clip(8 * (depth - 0.42), LUMEN, 1)
    return _both(wall) * solid + _both(1 - inside) * sheet(rng, shape, columns=STROMA)


def _both(values: Array) -> Array:
    """The same for each of the two dyes; much faster than broadcasting."""
    return cv2.merge([values, values])


def nuclei(
    rng: np.random.Generator, wave: Array, spacing: float, least: float, most: float
) -> Array:
    """Return the darkness, 0 to 1, of crowded nuclei of random size (px) and strength.

    Their outlines are bent by `wave` (H, W), in pixels.
    """
    distance, radius = _nearest(rng, wave.shape, spacing, least, most)
    strength = 0.6 + 0.4 * (radius * 7.31 % 1)  # any number that differs between nuclei
    return strength * np.clip((radius - distance - wave) / 3 + 0.5, 0, 1)


def _nearest(
    rng: np.random.Generator, shape: tuple[int, int], spacing: float, least: float, most: float
) -> tuple[Array, Array]:
    """Return the distance (px) to the nearest of scattered points, and that point's radius."""
    rows, columns = (int(side // spacing) + 1 for side in shape)
    y, x = np.mgrid[:rows, :columns].astype(np.float64)
    x[1::2] += 0.5  # a honeycomb, shaken
    points = np.stack([y.ravel(), x.ravel()], -1) + rng.uniform(-0.3, 0.3, (y.size, 2))
    y, x = np.floor(points * spacing).astype(int).T
    kept = (y >= 0) & (x >= 0) & (y < shape[0]) & (x < shape[1])
    empty = np.ones(shape, np.uint8)
    empty[y[kept], x[kept]] = 0
    distance, nearest = cv2.distanceTransformWithLabels(
        empty, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    radii = rng.uniform(least, most, nearest.max() + 1).astype(np.float32)
    return distance, radii[nearest]
