"""The tiles of a slide: a grid over its tissue, or the few with the most of it."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from attnvgg.data.regions import square_means
from attnvgg.data.resolution import same_mpp
from attnvgg.data.slides import Slide
from attnvgg.data.tissue import tissue_mask
from attnvgg.errors import InputError

MOST = 10_000_000  # tiles of a grid; more are an overlap by mistake
DETAIL, LARGEST = 64, 2048  # pixels of the mask of tissue along a tile and along the whole slide


@dataclass(frozen=True)
class Tiles:
    """Squares on a slide, all of one size; those at its border may reach beyond it.

    Attributes:
        coords: (N, 2) int64, x and y of the top-left corners, level-0 pixels.
        side: of a tile, level-0 pixels.
        size: of a tile as it is read, pixels.
        mpp: microns per pixel of a tile as it is read, where known.
        level: of the slide that tiles are read from.
        step: between neighbours, level-0 pixels.
        tissue: (N,) float64, the share of each tile that is tissue, in [0, 1].
    """

    coords: np.ndarray
    side: int
    size: int
    mpp: float | None
    level: int
    step: int
    tissue: np.ndarray

    def __len__(self) -> int:
        return len(self.coords)


def plan_tiles(
    slide: Slide, mpp: float, size: int = 256, overlap: int = 0, share: float = 0.25
) -> Tiles:
    """Return the tiles of a grid over a slide that hold enough tissue.

    The grid begins at the top-left corner of the slide and covers all of it; tiles come in rows.
    A level whose resolution is within 5 % of the wanted one is read as it is, without resampling:
    `mpp` of the tiles then is that of the level.

    Args:
        slide: what to cut.
        mpp: wanted microns per pixel.
        size: of a tile, pixels.
        overlap: of neighbours, pixels of the tile.
        share: of a tile that must be tissue, in [0, 1]; 0 takes tiles without any, too.

    Raises:
        InputError: the slide does not say its microns per pixel, is coarser than wanted, smaller
            than a tile or without enough tissue; the settings make no sense.
    """
    _check(mpp, size, overlap, share)
    scale = _scale(slide, mpp)
    side, step = round(size * scale), max(1, round((size - overlap) * scale))
    if side > min(slide.width, slide.height):
        raise InputError(
            f"{slide.path} is {slide.width} x {slide.height} pixels, smaller than a tile of "
            f"{size} pixels at {mpp:.4g} microns, {side} of its own."
        )
    xs, ys = (np.arange(0, extent - side + step, step) for extent in (slide.width, slide.height))
    if len(xs) * len(ys) > MOST:
        raise InputError(f"{slide.path} would have over {MOST:,} tiles: make them overlap less.")
    _, mask = _tissue(slide, side)
    grid = _corners(xs, ys)
    shares = square_means(mask, grid, side, slide.width, slide.height)
    enough = np.flatnonzero(shares >= share)
    if not len(enough):
        raise InputError(
            f"{slide.path} has no tile of which {share:.0%} is tissue: ask for a smaller share."
        )
    return Tiles(
        coords=grid[enough],
        side=side,
        size=size,
        mpp=slide.require_mpp() * side / size,
        level=slide.level_for(side, size),
        step=step,
        tissue=shares[enough],
    )


def panda_tiles(slide: Slide, count: int = 16, size: int = 128, downsample: float = 4.0) -> Tiles:
    """Return the tiles with the most tissue, the most first (recipe G).

    They are of a grid on the level whose downsample is nearest (by ratio) to `downsample`, which
    is padded with white, right and below, to whole tiles. Of tiles with equally much tissue, as
    where it fills all of them, those with more stain come first, as in the tiles of the PANDA
    challenge, else those further up, then further left. Needs no microns per pixel.

    Args:
        slide: what to cut.
        count: of tiles; a slide of fewer gives all.
        size: of a tile, pixels of the level.
        downsample: level-0 pixels per pixel.

    Raises:
        InputError: the slide has no tissue.
    """
    if count < 1 or size < 1 or not downsample >= 1:
        raise InputError(
            "Tiles must be at least 1, of at least 1 pixel, at a downsample of at least 1, "
            f"not {count}, {size} and {downsample}."
        )
    level = min(
        range(len(slide.downsamples)),
        key=lambda number: abs(np.log(slide.downsamples[number] / downsample)),
    )
    side = round(size * slide.downsamples[level])
    xs, ys = (np.arange(0, extent, side) for extent in (slide.width, slide.height))
    picture, mask = _tissue(slide, side)
    grid = _corners(xs, ys)
    shares = square_means(mask, grid, side, slide.width, slide.height)
    stain = mask * (255.0 - cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY))
    stains = square_means(stain, grid, side, slide.width, slide.height)
    best = np.lexsort((-stains, -shares))[:count]  # stable, so position decides the rest
    return Tiles(
        coords=grid[best],
        side=side,
        size=size,
        mpp=slide.mpp * side / size if slide.mpp else None,
        level=level,
        step=side,
        tissue=shares[best],
    )


def read_tile(slide: Slide, tiles: Tiles, number: int) -> np.ndarray:
    """Return one of the tiles as RGB uint8 (size, size, 3)."""
    x, y = tiles.coords[number]
    return slide.region(int(x), int(y), tiles.side, tiles.size)


def _check(mpp: float, size: int, overlap: int, share: float) -> None:
    if not mpp > 0 or not np.isfinite(mpp):
        raise InputError(f"A pixel of a tile must be more than 0 microns wide, not {mpp}.")
    if size < 1 or not 0 <= overlap < size:
        raise InputError(
            "A tile must have at least 1 pixel and overlap its neighbours by fewer than it has, "
            f"not {size} and {overlap}."
        )
    if not 0 <= share <= 1:
        raise InputError(f"The share of a tile that is tissue lies in [0, 1], so not at {share}.")


def _scale(slide: Slide, mpp: float) -> float:
    """Return the downsample for a wanted resolution, that of a level if it is about the same."""
    scale = mpp / slide.require_mpp()
    near = [level for level in slide.downsamples if same_mpp(level, scale)]
    if near:
        return min(near, key=lambda level: abs(np.log(level / scale)))
    if scale < 1:
        raise InputError(
            f"{slide.path} has {slide.mpp:.4g} microns per pixel, and nothing finer: ask for "
            f"{slide.mpp:.4g} or more in place of {mpp:.4g}."
        )
    return scale


def _tissue(slide: Slide, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the overview of a slide and the mask of its tissue, of which there must be some."""
    longest = max(slide.width, slide.height) * DETAIL // side
    picture = slide.overview(min(max(1, longest), LARGEST))
    mpp = slide.mpp * slide.width / picture.shape[1] if slide.mpp else None
    mask = tissue_mask(picture, mpp)
    if not mask.any():
        raise InputError(f"{slide.path} shows no tissue, only glass: leave it out.")
    return picture, mask


def _corners(xs: np.ndarray, ys: np.ndarray) -> np.ndarray:
    """Return x and y of a grid row by row, int64 (ys * xs, 2)."""
    grid = np.meshgrid(xs, ys)
    return np.stack([axis.ravel() for axis in grid], axis=1).astype(np.int64)
