"""What can be said of an image, or of a bag, in a few numbers: to notice that others arrive."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from attnvgg.data.decoding import Pixels
from attnvgg.errors import InputError

DARK = 32  # levels of grey of 255; below is nearly black, as corners of dermoscopes and margins
IMAGE_STATISTICS = (
    "brightness", "contrast", "saturation", "red", "green", "blue", "sharpness", "dark",
)  # fmt: skip
BAG_STATISTICS = ("instances", "level", "spread", "difference")


def image_statistics(pixels: Pixels) -> dict[str, float]:
    """Return statistics of an image; compare only those of images of one size.

    Args:
        pixels: uint8 (H, W, 3) RGB; here those of `Preprocess.load`, so that the size of a file
            does not count.

    Returns:
        `brightness` and `contrast`: mean and standard deviation of grey, in [0, 1];
        `saturation`: mean of (max - min) / max over the colours of a pixel, in [0, 1];
        `red`, `green`, `blue`: their means, in [0, 1];
        `sharpness`: variance of the Laplacian of grey, in squared levels of 255 (Pech-Pacheco et
        al., Diatom autofocusing in brightfield microscopy, ICPR 2000);
        `dark`: share of pixels whose grey is below 32 of 255.

    Raises:
        InputError: something else than pixels.
    """
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
        raise InputError(f"Pixels must be uint8 (H, W, 3), not {pixels.dtype} {pixels.shape}.")
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    mean, deviation = (float(part[0, 0]) for part in cv2.meanStdDev(grey))
    red, green, blue = cv2.mean(pixels)[:3]
    _, edges = cv2.meanStdDev(cv2.Laplacian(grey, cv2.CV_16S))
    saturation = cv2.mean(cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV))[1]
    dark = int(np.count_nonzero(grey < DARK)) / grey.size
    values = (mean / 255, deviation / 255, saturation / 255, red / 255, green / 255, blue / 255)
    return dict(zip(IMAGE_STATISTICS, (*values, float(edges[0, 0]) ** 2, dark), strict=True))


def bag_statistics(instances: NDArray[np.floating]) -> dict[str, float]:
    """Return statistics of a bag, whatever its instances are.

    Args:
        instances: (N, ...) as the model takes them.

    Returns:
        `instances`: N; `level` and `spread`: mean and standard deviation of all values;
        `difference`: mean standard deviation of a value over the instances, 0 if all are alike.

    Raises:
        InputError: a bag without instances.
    """
    if not len(instances) or not instances.size:
        raise InputError("A bag without instances has no statistics.")
    rows = instances.reshape(len(instances), -1)
    means, deviations = (part.astype(np.float64) for part in (rows.mean(0), rows.std(0)))
    spread = np.sqrt(means.var() + (deviations**2).mean())  # between the values, and within each
    found = (len(rows), means.mean(), spread, deviations.mean())
    return dict(zip(BAG_STATISTICS, map(float, found), strict=True))
