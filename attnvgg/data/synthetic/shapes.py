"""The four signs, the outline of a lesion and the fields that everything in it is placed by.

Lengths are fractions of the picture's side unless a name says otherwise.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]  # of float32
Mask = NDArray[np.bool_]

ANGLES = np.linspace(-np.pi, np.pi, 721, dtype=np.float32)


class Signs(NamedTuple):
    """The four dermoscopic signs of the ABCD rule, each from 0 (none) to 1 (extreme).

    Stolz et al., "ABCD rule of dermatoscopy", Eur J Dermatol 4 (1994); the weights of `score` are
    our own, near to its 1.3 A + 0.1 B + 0.5 C + 0.5 D once each sign is scaled to its range, with
    more given to the border.
    """

    asymmetry: float
    border: float
    colours: float
    structures: float

    @property
    def score(self) -> float:
        """The weighted sum of the signs, from 0 to 1."""
        return (
            0.30 * self.asymmetry
            + 0.20 * self.border
            + 0.25 * self.colours
            + 0.25 * self.structures
        )


class Shape(NamedTuple):
    """Where the lesion lies; fields are (side/2, side/2)."""

    depth: Array  # 0 at the centre, 1 at the border, larger outside; smooth and concentric
    ragged: Array  # the same, bent by the irregular border: the lesion is where it is below 1
    angle: Array  # in the lesion's own frame
    across: Array  # (2, side/2, side/2) position in the lesion's own frame, in radii
    reach: Array  # (721,) distance from the centre to the border at each of ANGLES, in radii
    frame: Array  # (2, 2) from the lesion's own frame to pixels of the picture
    centre: Array  # (2,) in pixels of the picture
    radius: float  # of a disc of the lesion's area


def draw_shape(signs: Signs, rng: np.random.Generator, size: int) -> Shape:
    """Place and outline the lesion; its area is drawn before, and apart from, the signs."""
    side = size // 2
    area = float(np.clip(np.exp(rng.normal(np.log(0.21), 0.25)), 0.12, 0.34))
    turn, stretch = rng.uniform(-np.pi, np.pi), rng.uniform(1.0, 1.16)
    radius, centre = float(np.sqrt(area / np.pi)), size * (0.5 + rng.uniform(-0.05, 0.05, 2))
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    frame = rotation @ np.diag([stretch, 1 / stretch]) * (radius * size)
    axis = 2 * np.arange(side) + 1.0
    offsets = np.stack(np.meshgrid(axis - centre[0], axis - centre[1]))
    across = np.einsum("ij,jyx->iyx", np.linalg.inv(frame), offsets).astype(np.float32)
    angle = np.arctan2(across[1], across[0])
    lopsided = np.maximum(1 + signs.asymmetry * _lobes(rng), 0.5)
    teeth = np.maximum(1 + signs.border * _teeth(rng), 0.6)
    depth = np.hypot(across[0], across[1]) / np.interp(angle, ANGLES, lopsided)
    fringe = signs.border * 0.11 * noise(rng, 3 / radius, side, 2)
    ragged = depth / np.interp(angle, ANGLES, teeth) + fringe * np.minimum(depth, 1)
    limit = np.quantile(ragged, area)
    depth /= np.quantile(depth, area)
    reach = lopsided * teeth * limit
    fields = depth.astype(np.float32), (ragged / limit).astype(np.float32), angle, across
    return Shape(*fields, reach, frame, centre, radius)


def _lobes(rng: np.random.Generator) -> Array:
    """Large bulges of the outline (721,), on one side rather than on the other."""
    phase = rng.uniform(0, 2 * np.pi, 4)
    weight = np.array([0.27, 0.13, 0.18, 0.08]) * rng.uniform(0.7, 1.2, 4)
    order = np.arange(1, 5)
    return np.cos(ANGLES[:, None] * order + phase) @ weight


def _teeth(rng: np.random.Generator) -> Array:
    """Small bulges and notches of the outline (721,)."""
    order = np.arange(8, 23)
    phase, weight = rng.uniform(0, 2 * np.pi, 15), rng.uniform(0.3, 1, 15) * order**-0.5
    teeth = np.cos(ANGLES[:, None] * order + phase) @ weight
    teeth *= 0.06 / teeth.std()
    for at, width in zip(rng.uniform(-np.pi, np.pi, 4), rng.uniform(0.07, 0.14, 4), strict=True):
        away = np.abs((ANGLES - at + np.pi) % (2 * np.pi) - np.pi)
        teeth -= 0.22 * np.exp(-((away / width) ** 2))
    return teeth


def noise(rng: np.random.Generator, cells: float, side: int, octaves: int = 1) -> Array:
    """Smooth noise (side, side) of mean 0 and variance 1, with `cells` lumps to a side."""
    total = np.zeros((side, side), np.float32)
    for octave in range(octaves):
        count = min(max(2, round(cells * 2**octave)), side) + 1
        lumps = rng.standard_normal((count, count), np.float32)
        total += cv2.resize(lumps, (side, side), interpolation=cv2.INTER_CUBIC) * 0.55**octave
    return (total - total.mean()) / total.std()


def rank(field: Array, inside: Mask) -> Array:
    """Turn a field into ranks in [0, 1] among its values inside the lesion."""
    steps = np.linspace(0, 1, 65)
    return np.interp(field, np.quantile(field[inside], steps), steps).astype(np.float32)


def enlarge(field: Array, size: int) -> Array:
    """A field or picture at the full size."""
    return cv2.resize(field, (size, size), interpolation=cv2.INTER_LINEAR)


def rgb(field: Array, colour: Sequence[float] | Array | None = None) -> Array:
    """A colour (white if none) with the strength of a field; faster than broadcasting."""
    planes = [field] * 3 if colour is None else [field * np.float32(part) for part in colour]
    return cv2.merge(planes)
