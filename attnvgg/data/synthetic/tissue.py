"""Tissue for the sample of slides, woven from one real picture of it.

The picture is scikit-image's of colonic glands, stained for a protein (brown) with blue nuclei.
Its two dyes are unmixed and used as if they were those of a routine stain: haematoxylin for the
nuclei, eosin for the rest.
"""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

from attnvgg.data.synthetic.shapes import Array, noise
from attnvgg.errors import InputError

# Optical densities of haematoxylin and DAB in red, green, blue: Ruifrok & Johnston, "Quantification
# of histochemical staining by color deconvolution", Anal Quant Cytol Histol 23 (2001).
DYES = np.array([[0.65, 0.70, 0.29], [0.27, 0.57, 0.78]])
LUMP, BEND = 400, 55  # px over which the warp changes its direction, px by which it displaces
GRID = 8  # px between the places where smooth things are worked out


@lru_cache(maxsize=1)
def real_tissue() -> Array:
    """Return how much of the two dyes the real picture holds, (512, 512, 2), never negative.

    Raises:
        InputError: there is no scikit-image.
    """
    try:
        from skimage.data import immunohistochemistry
    except ImportError:
        raise InputError(
            'The sample of slides needs scikit-image: pip install "attnvgg[slides]".'
        ) from None
    density = -np.log((immunohistochemistry().astype(np.float64) + 1) / 256)
    blue, brown = np.moveaxis((density @ np.linalg.pinv(DYES)).clip(0), -1, 0)
    # Eosin stains the fibres between the glands almost as much as the glands, DAB hardly at all.
    amounts = np.stack([1.4 * blue, 0.62 * np.sqrt(brown)], -1).astype(np.float32)
    amounts.setflags(write=False)
    return amounts


def weave(rng: np.random.Generator, shape: tuple[int, int]) -> Array:
    """Return amounts of the two dyes (H, W, 2) in tissue of which no place comes twice.

    Two sheets, each bent in its own way, take over from each other along smooth borders.
    """
    first, second = sheet(rng, shape), sheet(rng, shape)
    share = enlarge(np.clip(0.5 + 3 * field(rng, shape, 500), 0, 1), shape)
    first -= second
    first *= cv2.merge([share, share])
    first += second
    return first


def sheet(
    rng: np.random.Generator,
    shape: tuple[int, int],
    scale: float = 1.0,
    columns: slice = slice(None),
) -> Array:
    """Return the real tissue (H, W, 2) turned, shifted, bent, and mirrored where it ends.

    Args:
        rng: decides everything.
        shape: height and width.
        scale: pixels of the real picture for one of ours; above 1 everything is smaller.
        columns: of the real picture, to take from.
    """
    height, width = grid(shape)
    angle = rng.uniform(0, 2 * np.pi)
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    places = np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1) * GRID
    bend = np.stack([field(rng, shape, LUMP), field(rng, shape, LUMP)], -1)
    places = places @ turn.T + rng.uniform(0, 4096, 2) + BEND * bend
    where = enlarge(places.astype(np.float32), shape)
    source, border = real_tissue()[:, columns], cv2.BORDER_REFLECT
    return cv2.remap(source, where, np.empty(0), cv2.INTER_LINEAR, borderMode=border)


def field(rng: np.random.Generator, shape: tuple[int, int], lump: float, octaves: int = 1) -> Array:
    """Return smooth noise of mean 0 and variance 1, at every `GRID`th pixel of the shape.

    Args:
        rng: decides everything.
        shape: height and width in pixels.
        lump: size of its hills in pixels.
        octaves: each adds hills of half the size.
    """
    height, width = grid(shape)
    side = max(height, width, 32)  # noise needs some room to be noise
    return noise(rng, GRID * side / lump, side, octaves)[:height, :width]


def grid(shape: tuple[int, int]) -> tuple[int, int]:
    """Return how many places of the grid a shape in pixels has."""
    return -(-shape[0] // GRID), -(-shape[1] // GRID)


def enlarge(values: Array, shape: tuple[int, int]) -> Array:
    """Return what was worked out on the grid at every pixel."""
    height, width = (GRID * side for side in values.shape[:2])
    full = cv2.resize(values, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(full[: shape[0], : shape[1]], np.float32)
