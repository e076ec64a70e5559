"""Where on a slide there is tissue, and where only glass."""

from __future__ import annotations

import logging

import cv2
import numpy as np

HOLE = SPECK = 2_500.0  # square microns: a square of 50 microns, about five cells wide
# Otsu's threshold always finds two classes: in the noise of an empty slide, in two stains of a
# full one. Saturation (of 255) below the first is glass, above the second is not.
GLASS, STAIN = 15, 64
TINT = 48  # glass may be yellow or blue up to here; white is then what its colour is
DARK = 32  # of 255: pen, the edge of the glass, what a scanner left black; its saturation is noise
BLUR = 5  # pixels: dust and the noise of the camera

logger = logging.getLogger(__name__)


def tissue_mask(
    rgb: np.ndarray, mpp: float | None, hole: float = HOLE, speck: float = SPECK
) -> np.ndarray:
    """Return where an overview of a slide shows tissue.

    Tissue is what is stained: its saturation is above Otsu's threshold (Otsu, 1979, IEEE
    Transactions on Systems, Man, and Cybernetics 9(1)) of the whole picture. So is coloured ink.

    Args:
        rgb: the overview, uint8 (h, w, 3).
        mpp: microns per pixel of it, not of the slide; None if unknown: then holes and specks
            stay, as their areas are not known.
        hole: square microns; smaller ones inside of tissue count as tissue.
        speck: square microns; smaller pieces do not count as tissue.

    Returns:
        bool (h, w); all False if there is only glass.
    """
    saturation = _saturation(cv2.medianBlur(np.ascontiguousarray(rgb), BLUR))
    otsu, _ = cv2.threshold(saturation, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    mask = saturation > np.clip(otsu, GLASS, STAIN)
    if mpp is None:
        logger.info("Holes and specks of tissue stay: nobody says how many microns a pixel is.")
        return mask
    mask = _without_small(mask, speck / mpp**2)
    return ~_without_small(~mask, hole / mpp**2)


def _saturation(rgb: np.ndarray) -> np.ndarray:
    """Return how far colours are from that of the glass, uint8 (h, w): HSV's saturation."""
    brightness = cv2.cvtColor(rgb, cv2.COLOR_RGB2HSV)[..., 2]
    paper = np.percentile(rgb[::4, ::4], 99, axis=(0, 1))  # the lightest there is
    if paper.max() - paper.min() <= TINT / 255 * paper.max():
        whiter = np.arange(256)[:, None] * (255 / np.maximum(paper, 1))
        rgb = cv2.LUT(rgb, np.minimum(whiter, 255).astype(np.uint8)[None])
    saturation = cv2.cvtColor(rgb, cv2.COLOR_RGB2HSV)[..., 1]
    return np.where(brightness < DARK, np.uint8(0), saturation)


def _without_small(mask: np.ndarray, area: float) -> np.ndarray:
    """Return the mask without the pieces of fewer than `area` pixels; corners connect."""
    _, pieces, measures, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    large = measures[:, cv2.CC_STAT_AREA] >= area
    large[0] = False  # what is not in the mask
    return large[pieces]
