"""An attention map as colours over its image, on a scale that is the same for every image.

Stretching each map to its own range makes a flat map look hot. The scale is therefore fixed:
sigmoid maps are shown on [0, 1]; softmax maps as weight x number of positions (1 = no
preference) on log2 from 1/16 to 16, with 1 in the middle of the colours.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache
from typing import Any, Literal, NamedTuple

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from attnvgg.data.transforms import Region
from attnvgg.errors import InputError

Kind = Literal["softmax", "sigmoid", "per-image"]
Interpolation = Literal["bilinear", "nearest"]
Floats = NDArray[np.float32]
Flags = NDArray[np.bool_]
Pixels = NDArray[np.uint8]

OCTAVES = 4  # the softmax scale ends at 2**-4 and 2**4 times the uniform weight
IMAGE_SHARE = 0.6
COLOUR_SHARE = 0.4


class ScaledMap(NamedTuple):
    """Places on the colour scale, `values` (h, w) in [0, 1]; `clipped` (h, w) were beyond it."""

    values: Floats
    clipped: Flags


def map_kind(config: Mapping[str, Any]) -> Kind:
    """Return the scale of a model's maps, by the configuration that is saved with it."""
    return "softmax" if config["arguments"].get("normalize_attn") else "sigmoid"


def scale_map(attention: ArrayLike, kind: Kind = "softmax") -> ScaledMap:
    """Place attention weights on the colour scale.

    Args:
        attention: weights (h, w); those of a softmax sum to 1, those of a sigmoid are in [0, 1].
        kind: softmax and sigmoid are fixed scales; per-image stretches the map to its own range
            (a flat one lies in the middle), so that colours of two maps cannot be compared.

    Raises:
        InputError: not a map, or not one of this kind.
    """
    weights = np.asarray(attention, dtype=np.float64)
    _check(weights, kind)
    if kind == "sigmoid":
        return ScaledMap(weights.astype(np.float32), np.zeros(weights.shape, dtype=bool))
    if kind == "per-image":
        low, high = weights.min(), weights.max()
        values = (weights - low) / (high - low) if high > low else np.full(weights.shape, 0.5)
        return ScaledMap(values.astype(np.float32), np.zeros(weights.shape, dtype=bool))
    return scale_relative(weights * weights.size)


def scale_relative(relative: NDArray[Any]) -> ScaledMap:
    """Place weights relative to a uniform one on the scale of a softmax.

    Args:
        relative: of any shape; NaN, where there is none, stays NaN and is not clipped.
    """
    with np.errstate(divide="ignore"):
        octaves = np.log2(relative)  # a weight of 0 is clipped like any small one
    values = 0.5 + octaves.clip(-OCTAVES, OCTAVES) / (2 * OCTAVES)
    return ScaledMap(values.astype(np.float32), np.abs(octaves) > OCTAVES)


def upsample(
    values: Floats,
    height: int,
    width: int,
    region: Region | None = None,
    interpolation: Interpolation = "bilinear",
    input_size: int | None = None,
) -> tuple[Floats, Flags]:
    """Lay a map onto source pixels, by the exact place of each pixel's centre.

    Args:
        values: map (h, w).
        height: of the source image in pixels.
        width: of the source image in pixels.
        region: what the model saw; the whole image if absent.
        interpolation: bilinear between the centres of the cells, flat beyond the outermost;
            nearest gives each cell its own block of pixels.
        input_size: side of the model's input. Needed only where it is no multiple of the
            stride: pooling drops the last rows and columns, and no cell stands for them.

    Returns:
        Values (height, width), 0 where no cell is, and whether there is a cell (height, width).
    """
    top, left, tall, wide = (
        (0.0, 0.0, float(height), float(width))
        if region is None
        else (region.top, region.left, region.side, region.side)
    )
    tall *= _covered(values.shape[0], input_size)
    wide *= _covered(values.shape[1], input_size)
    rows, seen_rows = _axis(height, values.shape[0], top, tall, interpolation)
    columns, seen_columns = _axis(width, values.shape[1], left, wide, interpolation)
    seen: Flags = np.logical_and.outer(seen_rows, seen_columns)
    # OpenCV multiplies such small matrices at once; NumPy wakes threads that cost far more.
    large = cv2.gemm(rows, values, 1, None, 0)  # type: ignore[call-overload]  # (height, w)
    large = cv2.gemm(large, columns, 1, None, 0, flags=cv2.GEMM_2_T)  # type: ignore[call-overload]
    return np.asarray(large, dtype=np.float32), seen


def overlay(
    image: Pixels,
    attention: ArrayLike,
    region: Region | None = None,
    kind: Kind = "softmax",
    interpolation: Interpolation = "bilinear",
    input_size: int | None = None,
) -> Pixels:
    """Return the image under the colours of a map: 0.6 image + 0.4 OpenCV's JET.

    Outside the region there is no colour to add: the image is left with its 0.6, that is darker.

    Args:
        image: RGB (H, W, 3), in source pixels.
        attention: weights (h, w), see `scale_map`.
        region: what the model saw, see `upsample`.
        kind: see `scale_map`.
        interpolation: see `upsample`.
        input_size: see `upsample`.

    Raises:
        InputError: not an image, or not a map of this kind.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise InputError(
            f"An overlay needs an image uint8 (H, W, 3), not {image.dtype} {image.shape}."
        )
    values = scale_map(attention, kind).values
    height, width, _ = image.shape
    large, seen = upsample(values, height, width, region, interpolation, input_size)
    levels = cv2.convertScaleAbs(large, alpha=255)  # rounds
    colours = cv2.applyColorMap(levels, jet())
    if not seen.all():
        colours[~seen] = 0
    blended = cv2.addWeighted(image, IMAGE_SHARE, colours, COLOUR_SHARE, 0)
    return np.asarray(blended, dtype=np.uint8)


@cache
def jet() -> Pixels:
    """Return OpenCV's JET from low to high, RGB (256, 1, 3), the shape of its own tables."""
    levels = np.arange(256, dtype=np.uint8).reshape(256, 1)  # one shape in OpenCV 4 and 5
    table = cv2.applyColorMap(levels, cv2.COLORMAP_JET)[..., ::-1]  # OpenCV's order is BGR
    return np.ascontiguousarray(table, dtype=np.uint8)


def _axis(
    length: int, cells: int, start: float, extent: float, interpolation: Interpolation
) -> tuple[Floats, Flags]:
    """Return the share (length, cells) that each cell has in each pixel, and which pixels count.

    Both resizings are separable, so a pair of small matrices does them exactly; OpenCV's affine
    warp rounds places to 1/32 of a pixel.
    """
    centres = (np.arange(length) + 0.5 - start) * (cells / extent)  # in cells, edge at 0
    seen = (centres >= 0) & (centres < cells)
    if interpolation == "nearest":
        shares = np.floor(centres)[:, None] == np.arange(cells)
    else:
        places = (centres - 0.5).clip(0, cells - 1)
        shares = np.maximum(0, 1 - np.abs(places[:, None] - np.arange(cells)))
    return shares.astype(np.float32) * seen[:, None], seen


def _covered(cells: int, input_size: int | None) -> float:
    """Return the share of the input's side that the cells stand for; strides are powers of 2."""
    if input_size is None:
        return 1.0
    stride = 2.0 ** math.floor(math.log2(input_size / cells))
    return cells * stride / input_size


def _check(weights: NDArray[np.float64], kind: Kind) -> None:
    if weights.ndim != 2 or not weights.size:
        raise InputError(f"An attention map has rows and columns, not the shape {weights.shape}.")
    if not np.isfinite(weights).all():
        raise InputError("The attention map holds values that are not finite.")
    if kind == "sigmoid" and not (weights.min() >= 0 and weights.max() <= 1):
        raise InputError("A sigmoid map lies in [0, 1]; is this one of a softmax?")
    if kind == "softmax" and not (weights.min() >= 0 and abs(weights.sum() - 1) < 0.01):
        raise InputError(f"A softmax map sums to 1, not {weights.sum():.4g}; is it a sigmoid's?")
