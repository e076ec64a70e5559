"""Regions that are known on a slide, and how much of a tile lies in one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

REGIONS = "regions"  # folder of the masks, beside that of the slides


def region_file(slide: Path) -> Path:
    """Return where the mask of a slide would be: `regions/<slide>.png`, white inside, any size."""
    return slide.absolute().parent.parent / REGIONS / f"{slide.stem}.png"


def region_shares(
    mask: NDArray[np.bool_], coords: NDArray[np.int64], side: int, width: int, height: int
) -> NDArray[np.float64]:
    """Return what share of each tile a region covers, (N,).

    A pixel of the mask belongs to a tile that its centre lies in; beyond the slide is no region.

    Args:
        mask: of the whole slide, at any size.
        coords: top left corners in level-0 pixels, (N, 2).
        side: of a tile in level-0 pixels.
        width: of the slide in level-0 pixels.
        height: likewise.
    """
    tall, wide = mask.shape
    scale = np.array([wide / width, tall / height])
    starts = np.ceil(coords * scale - 0.5).astype(np.int64)
    stops = np.ceil((coords + side) * scale - 0.5).astype(np.int64)
    areas = (stops - starts).prod(axis=1)
    cut = zip(starts.clip(0).tolist(), stops.clip(0).tolist(), strict=True)
    hits = [mask[top:low, left:right].sum() for (left, top), (right, low) in cut]
    return np.array(hits) / np.maximum(areas, 1)
