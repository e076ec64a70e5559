"""Whether a map lies where the lesion is: three figures an image, and their negative control.

Each is quoted for the mask and for what is outside of it (1 - mask): a map that finds lesions
scores higher inside, one that is spread evenly scores by area alone.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from attnvgg.errors import InputError
from attnvgg.explain.overlays import upsample

Values = NDArray[np.float64]
Flags = NDArray[np.bool_]

CUT = 0.5  # of a map stretched to [0, 1], as in the paper


class Found(NamedTuple):
    """How well one map finds one region.

    Attributes:
        jaccard: overlap of the region with where the stretched map is at least a half.
        pointing: 1 where the highest place lies in the region (Zhang et al., ECCV 2016); of
            several highest places their share in it.
        mass: share of the map's weight that lies in the region.
    """

    jaccard: float
    pointing: float
    mass: float


class Localisation(NamedTuple):
    """Figures of a set of maps, NaN where an image has no mask, an empty or a full one.

    Attributes:
        inside: columns as in `Found`, for the mask, (n, 3).
        outside: the same for its complement, (n, 3).
        area: share of the image that the mask covers, (n,): what chance gives mass and pointing.
        empty: masks without a pixel, or without one outside of it.
        flat: maps that prefer no place to another.
    """

    inside: Values
    outside: Values
    area: Values
    empty: int
    flat: int


def enlarge(attention: ArrayLike, side: int) -> Values:
    """Return a map (h, w) on the pixels of the model's input, (side, side), bilinear."""
    values, _ = upsample(np.asarray(attention, np.float32), side, side, input_size=side)
    return values.astype(np.float64)


def find(attention: Values, region: Flags) -> Found:
    """Return how well a map finds a region (Yan et al., IPMI 2019, section 3.3 for the Jaccard).

    A flat map marks nothing, and is spread evenly: its Jaccard is 0, the other two the area.

    Args:
        attention: weights of at least 0, (H, W).
        region: with at least one pixel, (H, W).

    Raises:
        InputError: another shape, an empty region, or weights that are negative or not finite.
    """
    if attention.shape != region.shape or not region.any():
        raise InputError(
            f"A map {attention.shape} needs a region of its own shape that is not empty, "
            f"not {region.shape}."
        )
    low, high = attention.min(), attention.max()
    if not np.isfinite(high) or not low >= 0:
        raise InputError("The weights of a map must be finite and at least 0.")
    if is_flat(attention):
        return Found(0.0, float(region.mean()), float(region.mean()))
    marked = (attention - low) / (high - low) >= CUT
    overlap = (marked & region).sum() / (marked | region).sum()
    pointing = region[attention == high].mean()
    return Found(float(overlap), float(pointing), float(attention[region].sum() / attention.sum()))


def is_flat(attention: Values) -> bool:
    """Tell whether a map prefers no place to another, up to rounding."""
    return bool(attention.max() - attention.min() <= 1e-6 * attention.max())


def localise(maps: ArrayLike, masks: ArrayLike, known: ArrayLike | None = None) -> Localisation:
    """Compare a map an image with the mask of that image.

    Args:
        maps: weights (n, h, w).
        masks: in [0, 1], (n, side, side), on the pixels of the model's input.
        known: which images have a mask at all, (n,); all if absent.

    Raises:
        InputError: not as many maps as masks.
    """
    weights, regions = np.asarray(maps), np.asarray(masks) >= CUT
    has_mask = np.ones(len(regions), bool) if known is None else np.asarray(known, bool)
    if len(weights) != len(regions) or len(has_mask) != len(regions):
        raise InputError(f"{len(weights)} maps and {len(regions)} masks do not belong together.")
    inside = np.full((len(weights), len(Found._fields)), np.nan)
    outside, area = inside.copy(), np.full(len(weights), np.nan)
    empty = flat = 0
    for row in np.flatnonzero(has_mask):
        region = regions[row]
        if region.all() or not region.any():
            empty += 1
            continue
        large = enlarge(weights[row], len(region))
        inside[row], outside[row] = find(large, region), find(large, ~region)
        area[row] = region.mean()
        flat += is_flat(large)
    return Localisation(inside, outside, area, empty, flat)
