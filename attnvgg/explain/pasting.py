"""Whether things beside the lesion move the probability: rulers, colour patches and ink.

In collections of real pictures they go with the diagnosis (Winkler et al., JAMA Dermatology 2019:
ink; Rieger et al., ICML 2020: patches), and a model may have learned them. They are pasted here
where there is none of the lesion, and a patch in the colour of the skin around says what pasting
alone does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from attnvgg.errors import InputError

Pixels = NDArray[np.uint8]
Layer = NDArray[np.float32]
Draw = Callable[[int, np.random.Generator], Layer]

TRIES = 60
SHRINK = 0.8  # a thing that finds no room is made so much smaller, down to a third


class Pasted(NamedTuple):
    """A picture with something on it: pixels (H, W, 3), and how opaque it is, (H, W) in [0, 1]."""

    image: Pixels
    layer: Layer


def paste(name: str, image: Pixels, mask: NDArray[np.bool_], seed: int = 0) -> Pasted | None:
    """Lay an artefact over a picture where there is none of the lesion, nor right beside it.

    Args:
        name: one of `ARTEFACTS`.
        image: square, RGB (side, side, 3); it is left as it is.
        mask: lesion, (side, side).
        seed: of place, size and colour; the patches in colour and in skin's share their place.

    Returns:
        None where there is no room: the lesion fills the picture.

    Raises:
        InputError: an unknown artefact, not a square, or a mask of another size.
    """
    if name not in ARTEFACTS:
        raise InputError(f"Known artefacts are {', '.join(ARTEFACTS)}, not {name}.")
    side = len(image)
    if image.shape != (side, side, 3) or mask.shape != (side, side):
        raise InputError(f"A square with its mask is needed, not {image.shape} and {mask.shape}.")
    margin = max(1, side // 64)
    kernel = np.ones((2 * margin + 1, 2 * margin + 1), np.uint8)
    near = cv2.dilate(mask.astype(np.uint8), kernel) > 0
    draw, colours = ARTEFACTS[name]
    random = np.random.default_rng(seed)
    layer = _place(draw, near, random)
    if layer is None:
        return None
    if colours:
        colour = np.array(colours[random.integers(len(colours))], np.float32)
    else:
        colour = np.median(image[~near], axis=0).astype(np.float32)
    opaque = layer[..., None]
    mixed = image * (1 - opaque) + colour * opaque
    return Pasted(np.rint(mixed).clip(0, 255).astype(np.uint8), layer)


def _place(draw: Draw, near: NDArray[np.bool_], random: np.random.Generator) -> Layer | None:
    """Draw it anew, and smaller after a while, until it does not touch what it must not."""
    side = len(near)
    for number in range(TRIES):
        scale = max(1 / 3, SHRINK ** (number // 10))
        layer = draw(round(side * scale), random)
        whole = np.zeros((side, side), np.float32)
        spare = side - len(layer)  # a smaller one is laid into a corner
        top, left = random.integers(0, 2, 2) * spare
        whole[top : top + len(layer), left : left + len(layer)] = layer
        if not (whole[near] > 0).any():
            return whole
    return None


def _ruler(side: int, random: np.random.Generator) -> Layer:
    """Millimetre ticks along one side."""
    layer = np.zeros((side, side), np.uint8)
    gap, thickness = side * random.uniform(0.03, 0.05), max(1, round(side / 200))
    for number, at in enumerate(np.arange(gap / 2, side, gap)):
        length = side * (0.075 if number % 5 == 0 else 0.045)
        cv2.line(layer, (round(at), 0), (round(at), round(length)), 225, thickness, cv2.LINE_AA)
    return _turned(layer, random)


def _patch(side: int, random: np.random.Generator) -> Layer:
    """A round sticker, partly beyond the edge."""
    layer = np.zeros((side, side), np.uint8)
    radius = side * random.uniform(0.12, 0.2)
    along, depth = side * random.uniform(0.1, 0.9), radius * random.uniform(-0.1, 0.6)
    cv2.circle(layer, (round(along), round(depth)), round(radius), 255, cv2.FILLED, cv2.LINE_AA)
    return _turned(layer, random)


def _ink(side: int, random: np.random.Generator) -> Layer:
    """A surgical marker's stroke across a corner."""
    layer = np.zeros((side, side), np.uint8)
    reach = side * random.uniform(0.12, 0.3)
    steps = np.linspace(-0.05, 1.05, 12)
    wobble = reach * (1 + 0.05 * random.standard_normal(12))
    points = np.stack([wobble * steps, wobble * (1 - steps)], axis=1)
    thickness = max(2, round(side * random.uniform(0.025, 0.05)))
    path = [np.round(points * 16).astype(np.int32)[:, None]]
    cv2.polylines(layer, path, False, 215, thickness, cv2.LINE_AA, shift=4)
    return _turned(cv2.GaussianBlur(layer, (0, 0), max(0.3, side / 220)), random)


def _turned(layer: NDArray[Any], random: np.random.Generator) -> Layer:
    turned = np.rot90(layer, int(random.integers(4)))
    return np.ascontiguousarray(turned, dtype=np.float32) / np.float32(255)


# name -> how it is drawn, and its colours; without any, that of the skin around the lesion
ARTEFACTS: dict[str, tuple[Draw, tuple[tuple[int, int, int], ...]]] = {
    "ruler": (_ruler, ((25, 25, 30),)),
    "patch": (_patch, ((235, 200, 40), (60, 110, 200), (70, 160, 80), (210, 60, 50))),
    "ink": (_ink, ((80, 55, 145), (60, 60, 150))),
    "skin patch": (_patch, ()),
}
