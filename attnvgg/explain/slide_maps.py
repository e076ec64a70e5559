"""What a model attended to on a slide: as a map in pixels, as a TIFF, as polygons for QuPath.

Places are pixels of level 0 throughout. A map at downsample d has a pixel for every square of d by
d of them, the first at the slide's origin, so that a pixel of the map times d is a place.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from attnvgg.data.regions import square_means
from attnvgg.data.slide_writer import write_pyramid
from attnvgg.errors import InputError
from attnvgg.explain.bag_case import BagCase
from attnvgg.explain.overlays import Floats, Kind, Pixels, ScaledMap, jet, scale_relative
from attnvgg.files import atomic_path

LARGEST = 2**28  # pixels of a map: a gigabyte of numbers
BARE = 255  # white, where there is no tile

MEASURES: dict[Kind, tuple[str, str]] = {
    "softmax": ("attention", "attention x tiles"),
    "sigmoid": ("probability", "probability"),
}


@dataclass(frozen=True, eq=False)
class SlideCase:
    """A slide whose tiles are the instances of a bag."""

    bag: BagCase
    """With `weights` and `coords`, the top-left corners of the tiles."""
    side: int
    """Of a tile, in level-0 pixels."""
    width: int
    """Of the slide, in level-0 pixels."""
    height: int
    """Likewise."""
    overview: Pixels
    """The whole slide, small, RGB (h, w, 3)."""
    mpp: float | None = None
    """Microns per pixel of level 0, where known."""
    mask: NDArray[np.bool_] | None = None
    """Region that is to be found, over the whole slide at any size (h, w), where known."""

    def __post_init__(self) -> None:
        name = self.bag.name
        if self.bag.values is None or self.bag.coords is None:
            raise InputError(f"A map of {name} needs a weight and a place for each of its tiles.")
        size = (self.width, self.height)
        outside = (self.coords + self.side <= 0) | (self.coords >= size)
        if outside.any():
            count = int(outside.any(axis=1).sum())
            raise InputError(
                f"{count} of the {len(outside)} tiles lie beyond {name}, which is {self.width} x "
                f"{self.height} px: they are of another slide."
            )

    @property
    def coords(self) -> NDArray[np.int64]:
        """Top-left corners of the tiles, (N, 2), x and y."""
        return np.asarray(self.bag.coords, dtype=np.int64)

    @property
    def shown(self) -> NDArray[np.float64]:
        """What the colours mean, (N,): attention times the number of tiles, or a probability."""
        assert self.bag.values is not None
        return self.bag.values * (len(self.bag) if self.bag.kind == "softmax" else 1)

    @property
    def order(self) -> NDArray[np.int64]:
        """Numbers of the tiles, the one of most weight first."""
        return np.argsort(-self.shown, kind="stable")

    def map(self, downsample: float) -> Floats:
        """Return `shown` as a map, see `heat_map`."""
        return heat_map(
            self.coords, self.side, self.shown, self.width, self.height, downsample
        )  # (h, w)


def heat_map(
    coords: ArrayLike,
    side: int,
    weights: ArrayLike,
    width: int,
    height: int,
    downsample: float,
) -> Floats:
    """Lay tiles onto the pixels of a slide.

    A pixel has the mean of the tiles that its centre lies in; tiles may reach over the border.

    Args:
        coords: top-left corners (N, 2), x and y in level-0 pixels.
        side: of a tile, in level-0 pixels.
        weights: (N,).
        width: of the slide, in level-0 pixels.
        height: likewise.
        downsample: level-0 pixels a pixel of the map, in both directions; at most `side`, so that
            no tile is lost.

    Returns:
        Map (ceil(height / downsample), ceil(width / downsample)), NaN where no tile is.

    Raises:
        InputError: a map that would be too large, or too coarse for the tiles.
    """
    places, values = np.asarray(coords, dtype=np.float64), np.asarray(weights, dtype=np.float64)
    if places.shape != (len(values), 2) or values.ndim != 1:
        raise InputError(f"Tiles need x, y and a weight each, not {places.shape}, {values.shape}.")
    if not 1 <= downsample <= side:
        raise InputError(
            f"A map at downsample {downsample:g} cannot show tiles of {side} px: choose a finer "
            "level with --level."
        )
    size = np.ceil(np.array([width, height]) / downsample).astype(np.int64)
    if size.prod() > LARGEST:
        raise InputError(
            f"A map of {size[0]} x {size[1]} px is too large: choose a coarser level with --level."
        )
    total, count = np.zeros(size[::-1]), np.zeros(size[::-1], dtype=np.int32)  # (h, w)
    # the first pixel whose centre is in the tile, and the first beyond it
    starts = np.ceil(places / downsample - 0.5).astype(np.int64).clip(0, size)
    stops = np.ceil((places + side) / downsample - 0.5).astype(np.int64).clip(0, size)
    for (left, top), (right, bottom), value in zip(starts, stops, values, strict=True):
        total[top:bottom, left:right] += value
        count[top:bottom, left:right] += 1
    total[count == 0] = np.nan
    return (total / np.maximum(count, 1)).astype(np.float32)


def on_scale(values: NDArray[Any], kind: Kind) -> ScaledMap:
    """Place what `SlideCase.shown` returns, or a map of it, on the colour scale."""
    if kind == "softmax":
        return scale_relative(values)
    return ScaledMap(values.astype(np.float32), np.zeros(values.shape, dtype=bool))


def colours(values: NDArray[Any], kind: Kind) -> Pixels:
    """Return the colours of a map, RGBA (h, w, 4), transparent where no tile is."""
    bare = np.isnan(values)
    levels = np.rint(255 * np.nan_to_num(on_scale(values, kind).values)).astype(np.uint8)
    painted = jet()[levels, 0]  # (h, w, 3)
    return np.dstack([painted, np.where(bare, 0, 255).astype(np.uint8)])


def write_map(path: str | os.PathLike[str], case: SlideCase, downsample: float) -> None:
    """Write the colours of the map as a pyramidal TIFF, white where no tile is.

    Its microns per pixel are those of the slide times the downsample, and its description says in
    JSON how it lies on level 0. Exact weights are in the GeoJSON; these are colours.

    Raises:
        InputError: see `heat_map`.
    """
    painted = colours(case.map(downsample), case.bag.kind)  # (h, w, 4)
    painted[painted[..., 3] == 0, :3] = BARE
    said = {
        "slide": case.bag.name,
        "downsample": downsample,
        "width": case.width,
        "height": case.height,
        "mpp": case.mpp,
        "colours": f"{MEASURES[case.bag.kind][1]}, "
        + ("log2 from 1/16 to 16" if case.bag.kind == "softmax" else "0 to 1")
        + ", OpenCV's JET",
    }
    mpp = None if case.mpp is None else case.mpp * downsample
    rgb = np.ascontiguousarray(painted[..., :3])
    write_pyramid(path, rgb, mpp, description=json.dumps(said))


def write_polygons(path: str | os.PathLike[str], case: SlideCase, top: int) -> None:
    """Write a square a tile as GeoJSON, which QuPath opens when it is dropped on the slide.

    Each has QuPath's type `tile`, its colour on the map, the class `Top N` or `Other` and as
    measurements its weight and its rank, 1 for the most. What reaches over the border is cut.

    Args:
        path: file to write, `.geojson`.
        case: what to write.
        top: tiles of most weight that get a class of their own.
    """
    encode = json.JSONEncoder(allow_nan=False).encode  # json.dumps makes one a call
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write('{"type": "FeatureCollection", "features": [\n')
        for number, feature in enumerate(polygons(case, top)):
            file.write((",\n" if number else "") + encode(feature))
        file.write("\n]}\n")


def polygons(case: SlideCase, top: int) -> Iterator[dict[str, Any]]:
    """Yield the features of `write_polygons`, in the order of the tiles."""
    assert case.bag.values is not None
    kind, size = case.bag.kind, (case.width, case.height)
    name, relative = MEASURES[kind]
    ranks = np.empty(len(case.bag), dtype=np.int64)
    ranks[case.order] = np.arange(1, len(ranks) + 1)
    starts, stops = case.coords.clip(0, size), (case.coords + case.side).clip(0, size)
    painted = colours(case.shown[None], kind)[0, :, :3]
    tiles = (starts, stops, ranks, case.bag.values, case.shown, painted)
    classes = (
        {"name": "Other", "color": [111, 111, 111]},
        {"name": f"Top {top}", "color": [179, 55, 47]},
    )
    for (left, up), (right, low), rank, weight, times, colour in zip(
        *(values.tolist() for values in tiles), strict=True
    ):
        properties = {
            "objectType": "tile",
            "classification": classes[rank <= top],
            "color": colour,
            "measurements": {name: weight, relative: times, "rank": rank},
        }
        ring = [[left, up], [right, up], [right, low], [left, low], [left, up]]
        geometry = {"type": "Polygon", "coordinates": [ring]}
        yield {"type": "Feature", "geometry": geometry, "properties": properties}


def found_shares(case: SlideCase) -> NDArray[np.float64] | None:
    """Return what share of each tile is region that is to be found, (N,), if that is known."""
    if case.mask is None:
        return None
    return square_means(case.mask, case.coords, case.side, case.width, case.height)
