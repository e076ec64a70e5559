"""One slide of the sample: cores of tissue on glass, perhaps with a tumour-like region, scanned.

A core is a miniature, a quarter of a millimetre wide instead of one; cells have their real size.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from attnvgg.data.synthetic.shapes import Array, Mask
from attnvgg.data.synthetic.tissue import GRID, enlarge, field, grid, weave
from attnvgg.data.synthetic.tumour import grow

SIZE = (2560, 2048)  # width and height in px of level 0; one in two slides is turned

# ISUP grade -> Gleason's pattern that prevails, the other one, share of the tissue that they take
GROWTH = {
    1: (3, 3, 0.14),
    2: (3, 4, 0.20),
    3: (4, 3, 0.28),
    4: (4, 4, 0.36),
    5: (4, 5, 0.46),
}
PREVAILS = 0.7  # of the region's area
CRUMB = 0.1  # of it is too little to stand alone


class Laboratory(NamedTuple):
    """How slides of one place look."""

    dyes: tuple[tuple[float, float, float], tuple[float, float, float]]
    glass: tuple[int, int, int]
    mpp: float


LABORATORIES = {
    "synthetic_north": Laboratory(
        ((0.65, 0.70, 0.29), (0.10, 0.75, 0.33)), (244, 243, 246), 0.5032
    ),
    "synthetic_south": Laboratory(
        ((0.72, 0.64, 0.27), (0.18, 0.70, 0.46)), (240, 239, 235), 0.4862
    ),
}


def draw_slide(
    seed: int | np.random.SeedSequence,
    isup: int,
    laboratory: Laboratory = LABORATORIES["synthetic_north"],
    size: tuple[int, int] = SIZE,
) -> tuple[NDArray[np.uint8], Mask]:
    """Draw a slide.

    Args:
        seed: decides everything that the others leave open.
        isup: grade, 0 to 5; from 1 on a region of tumour-like growth is planted.
        laboratory: whose stain and scanner.
        size: width and height in px, multiples of `GRID`; half of the slides are turned.

    Returns:
        The picture (H, W, 3), and where the growth is (H, W).
    """
    # What grows has a chance of its own: around it, a slide of another grade is the same slide.
    rng, growing = np.random.default_rng(seed).spawn(2)
    shape = size[1], size[0]
    dyes, blur = _stain(rng, laboratory), rng.uniform(0.4, 0.9)
    glass = np.diag(laboratory.glass).astype(np.float32)
    tissue = _cores(rng, shape)
    region = _region(growing, tissue, shape, isup)
    picture = _empty(rng, shape, laboratory)
    for place, cover, growth in _pieces(tissue, region):
        amounts = weave(rng, (cover.shape[0] * GRID, cover.shape[1] * GRID))
        density = cv2.transform(amounts, dyes)
        if growth.any():
            _plant(growing, amounts, density, growth, dyes, isup)
        density *= _each(_cover(cover, amounts), 3)
        shade = cv2.transform(np.expm1(-density), glass)  # the light that is missing
        shade = cv2.GaussianBlur(shade, (0, 0), blur)
        picture[place] = cv2.add(picture[place], shade, dtype=cv2.CV_8U)
    mask = enlarge(region, shape) > 0.5
    if rng.random() < 0.5:
        picture = np.asarray(cv2.rotate(picture, cv2.ROTATE_90_CLOCKWISE), np.uint8)
        mask = np.rot90(mask, -1)
    return picture, mask


def _stain(rng: np.random.Generator, laboratory: Laboratory) -> Array:
    """Return optical density by dye, (3, 2): no two slides are stained alike."""
    dyes = np.array(laboratory.dyes) + rng.normal(0, 0.02, (2, 3))
    return (dyes.clip(0.02) * np.exp(rng.normal(0, 0.13, (2, 1)))).T.astype(np.float32)


def _cores(rng: np.random.Generator, shape: tuple[int, int]) -> Array:
    """Return 1 in tissue and 0 on glass, on the grid: two or three long, bent, frayed cores."""
    height, width = grid(shape)
    count = int(rng.integers(2, 4))
    tissue = np.zeros((height, width), np.float32)
    x = np.arange(width)
    for number in range(count):
        tilt = np.linspace(-1, 1, width) * rng.normal(0, 0.02)
        middle = height * ((number + 0.5) / count + tilt + 0.028 * field(rng, shape, 700)[0])
        half = height * 0.26 / count * (1 + 0.12 * field(rng, shape, 300)[1])
        start, stop = width * rng.uniform(0.03, 0.12), width * rng.uniform(0.88, 0.97)
        ends = np.minimum(x - start, stop - x)
        half = np.minimum(half, np.sqrt(np.maximum(ends, 0) * 1.5 * half))
        away = np.abs(np.arange(height)[:, None] - middle) - half
        frayed = away + 1.6 * field(rng, shape, 90, 3)
        tissue = np.maximum(tissue, np.clip(0.5 - frayed / 2, 0, 1) * (ends > 0))
    return tissue.astype(np.float32)


def _cover(tissue: Array, amounts: Array) -> Array:
    """Return 1 in tissue and 0 on glass, (H, W), frayed where the tissue is loose.

    Args:
        tissue: on the grid.
        amounts: of the dyes, (H, W, 2).
    """
    edge = 0.5 - 0.15 * amounts[..., 1]
    return np.clip(6 * (enlarge(tissue, amounts.shape[:2]) - edge), 0, 1)


def _region(rng: np.random.Generator, tissue: Array, shape: tuple[int, int], isup: int) -> Array:
    """Return 1 where the tumour-like growth is, on the grid: the grade's share of the tissue.

    It is what lies nearest to a few places of the tissue, by a distance with hills.
    """
    region = np.zeros_like(tissue)
    inside = tissue > 0.5
    if isup == 0 or not inside.any():
        return region
    places = np.argwhere(inside)
    share = GROWTH[isup][2] * rng.uniform(0.85, 1.15)
    centres = places[rng.integers(len(places), size=1 + int(share > 0.3))]
    distance = np.linalg.norm(places[:, None] - centres, axis=2).min(1)
    distance += 6 * field(rng, shape, 250, 2)[inside]
    region[inside] = distance < np.quantile(distance, share)
    _, pieces, boxes, _ = cv2.connectedComponentsWithStats(region.astype(np.uint8))
    areas = boxes[:, cv2.CC_STAT_AREA]
    return region * (areas >= CRUMB * region.sum())[pieces]


def _pieces(tissue: Array, region: Array) -> Iterator[tuple[tuple[slice, slice], Array, Array]]:
    """Yield where each piece of tissue lies (px), and its tissue and growth on the grid there."""
    _, numbers, boxes, _ = cv2.connectedComponentsWithStats((tissue > 0).astype(np.uint8))
    for number, (x, y, width, height, _) in enumerate(boxes[1:], 1):
        here = slice(y, y + height), slice(x, x + width)
        own = numbers[here] == number
        place = slice(GRID * y, GRID * (y + height)), slice(GRID * x, GRID * (x + width))
        yield place, tissue[here] * own, region[here] * own


def _plant(
    rng: np.random.Generator,
    amounts: Array,
    density: Array,
    region: Array,
    dyes: Array,
    isup: int,
) -> None:
    """Replace tissue by tumour-like growth, whose mean colour is that of the tissue it replaces.

    Args:
        rng: decides everything.
        amounts: of the dyes in the tissue (H, W, 2).
        density: its optical density (H, W, 3); changed.
        region: 1 where the growth is, on the grid.
        dyes: see `_stain`.
        isup: grade, at least 1.
    """
    prevailing, other, _ = GROWTH[isup]
    y, x = (slice(GRID * found.min(), GRID * (found.max() + 1)) for found in np.nonzero(region))
    part, here = enlarge(region, density.shape[:2])[y, x], density[y, x]
    inside = (part > 0.5).astype(np.uint8)
    growth = grow(rng, part.shape, prevailing)
    if other != prevailing:
        hills = enlarge(field(rng, part.shape, 250), part.shape)
        limit = np.quantile(hills[inside > 0], PREVAILS)
        share = _each(np.clip(0.5 + 4 * (hills - limit), 0, 1), 2)
        growth += share * (grow(rng, part.shape, other) - growth)
    wanted, found = cv2.mean(amounts[y, x], inside), cv2.mean(growth, inside)
    growth = cv2.transform(growth, dyes * np.divide(wanted[:2], found[:2]).astype(np.float32))
    growth *= _match(growth, here, inside)
    here += _each(part, 3) * (growth - here)


def _match(density: Array, wanted: Array, inside: Array) -> Array:
    """Return the factor of each channel by which as much light passes as elsewhere, (3,).

    Args:
        density: optical density (H, W, 3).
        wanted: that of something else (H, W, 3).
        inside: where they are compared (H, W).
    """
    chosen = np.nonzero(inside.ravel())[0]
    chosen = chosen[:: 1 + len(chosen) // 20_000]
    density = density.reshape(-1, 3)[chosen]
    light = np.exp(-wanted.reshape(-1, 3)[chosen]).mean(0)
    low, high = np.full(3, 0.2), np.full(3, 5.0)
    for _ in range(20):  # more dye always lets less light through
        middle = (low + high) / 2
        dark = np.exp(-middle.astype(np.float32) * density).mean(0) < light
        low, high = np.where(dark, low, middle), np.where(dark, middle, high)
    return ((low + high) / 2).astype(np.float32)


def _empty(
    rng: np.random.Generator, shape: tuple[int, int], laboratory: Laboratory
) -> NDArray[np.uint8]:
    """Return what a camera sees of bare glass: not quite white, with noise."""
    patch = np.array(laboratory.glass) + rng.normal(0, 2, (257, 509, 3))  # odd: never lines up
    repeats = -(-shape[0] // 257), -(-shape[1] // 509), 1
    tiled = np.tile(np.clip(patch, 0, 255).astype(np.uint8), repeats)
    return np.ascontiguousarray(tiled[: shape[0], : shape[1]])


def _each(values: Array, channels: int) -> Array:
    """The same for each of the channels; much faster than broadcasting."""
    return cv2.merge([values] * channels)
