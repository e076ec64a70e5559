"""What stays of a picture when it is resized, recompressed, mirrored or turned by 90 degrees.

A fingerprint is the discrete cosine transform of the grey middle of a picture, 32x32 px, of which
the 16x16 lowest frequencies are kept, without the mean. Mirroring a picture multiplies the
coefficient (u, v) by (-1)^u or (-1)^v; a quarter turn also swaps u and v. Hence

- the sorted pairs (|c_uv|, |c_vu|) are the same for all eight ways to hold a picture (`keys`), and
- the correlation in the best of the eight needs no picture to be turned (`similarity`).

Each coefficient is multiplied by its frequency, as the derivative of the picture would be: all
lesions are dark blobs on light skin, and differ in what is finer. Only the middle is looked at,
since the round black edge of one dermatoscope is the same in all of its pictures.

A fingerprint knows neither colour nor contrast, and of a plain lesion, without texture or hair, it
knows little more than the outline. Hence pictures have a `look`, too.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from attnvgg.data.decoding import Pixels

Prints = NDArray[np.float32]

WHOLE, MIDDLE, KEPT = 46, 32, 16  # px of the picture and of its middle; frequencies of each axis
COARSE = 12  # px of the whole picture where only its colour and contrast are asked about
FLATTEST = 2.0  # grey levels of standard deviation: with less, noise is all there is to compare
ORDER = 6  # keys are made of u + v up to this
BATCH = 20_000  # pairs compared at a time

_AXIS = np.arange(KEPT)
FREQUENCY = np.hypot(_AXIS[:, None], _AXIS).astype(np.float32)  # 0 for the mean
_SIGNS = np.stack([np.ones(KEPT), (-1.0) ** _AXIS])  # of one axis, as it is and mirrored
MIRRORS = np.einsum("au,bv->uvab", _SIGNS, _SIGNS).reshape(KEPT**2, 4).astype(np.float32)


def fingerprint(picture: Pixels) -> Prints | None:
    """Return the fingerprint of a picture (H, W, 3), of norm 1, (16, 16); None if it is flat.

    The picture is squeezed into a square first: copies are, too, and a turn swaps the sides.
    """
    grey: Any = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    margin = (WHOLE - MIDDLE) // 2
    square = cv2.resize(grey, (WHOLE, WHOLE), interpolation=cv2.INTER_AREA).astype(np.float32)
    middle = square[margin:-margin, margin:-margin]
    if middle.std() < FLATTEST:
        return None
    values = np.asarray(cv2.dct(middle)[:KEPT, :KEPT]) * FREQUENCY
    return np.asarray(values / np.linalg.norm(values), np.float32)


def look(picture: Pixels) -> Prints:
    """Return mean and standard deviation of red, green and blue, in grey levels, (6,).

    They are those of a coarse square, which is nearly the same in copies of any size and quality.
    """
    square = cv2.resize(picture, (COARSE, COARSE), interpolation=cv2.INTER_AREA)
    return np.concatenate(cv2.meanStdDev(square)).ravel().astype(np.float32)


def keys(prints: Prints) -> Prints:
    """Return numbers by which alike pictures are found, whichever way they are held.

    Args:
        prints: fingerprints, (N, 16, 16).

    Returns:
        (N, 27); their distance is at most that of the fingerprints in the best orientation.
    """
    sizes = np.abs(prints)
    columns = []
    for u in range(ORDER + 1):
        for v in range(u, ORDER + 1 - u):
            columns.append(np.maximum(sizes[:, u, v], sizes[:, v, u]))
            if u != v:
                columns.append(np.minimum(sizes[:, u, v], sizes[:, v, u]))
    return np.stack(columns[1:], axis=1)  # the first is the mean


def similarity(prints: Prints, pairs: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the correlation of each pair in the best of its eight orientations.

    Args:
        prints: fingerprints, (N, 16, 16).
        pairs: rows of them, (M, 2).

    Returns:
        From -1 to 1, (M,).
    """
    best = np.empty(len(pairs))
    for start in range(0, len(pairs), BATCH):
        first, second = (prints[side] for side in pairs[start : start + BATCH].T)
        held = [_mirrored(first * turned) for turned in (second, second.transpose(0, 2, 1))]
        best[start : start + BATCH] = np.max(held, axis=(0, 2))
    return best


def _mirrored(products: Prints) -> Prints:
    """Return the correlations for the four ways to mirror the second of each pair, (M, 4)."""
    return products.reshape(-1, KEPT * KEPT) @ MIRRORS
