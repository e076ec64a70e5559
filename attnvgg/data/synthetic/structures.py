"""Dermoscopic structures: pigment network, dots and globules, streaks, blue-white veil."""

import cv2
import numpy as np

from attnvgg.data.synthetic.shapes import ANGLES, Array, Shape, Signs, noise, rank


def network(signs: Signs, shape: Shape, rng: np.random.Generator) -> Array:
    """Pigment network (side/2, side/2) as a transmission: a honeycomb, even or atypical."""
    side = len(shape.depth)
    pitch, turn = rng.uniform(0.023, 0.031), rng.uniform(0, np.pi)
    strength = rng.uniform(0.12, 0.30)
    bend = [(0.3 + 0.5 * signs.structures) * noise(rng, 12, side, 3) for _ in range(2)]
    axis = np.arange(side, dtype=np.float32) / (side * pitch)
    honeycomb = np.zeros((side, side), np.float32)
    for direction in turn + np.array([0, np.pi / 3, 2 * np.pi / 3]):
        along = axis[None, :] * np.cos(direction) + axis[:, None] * np.sin(direction)
        along = along + bend[0] * np.cos(direction) + bend[1] * np.sin(direction)
        honeycomb += np.cos(np.float32(2 * np.pi) * along.astype(np.float32))
    lines = np.clip((1.3 - honeycomb) / 2.4, 0, 1)
    lines *= lines * (3 - 2 * lines)
    even = np.clip(1.6 * shape.depth, 0.4, 1)
    patchy = np.clip(0.6 + 1.3 * noise(rng, 6, side), 0, 2)
    return 1 - strength * lines * ((1 - signs.structures) * even + signs.structures * patchy)


def veil(signs: Signs, shape: Shape, rng: np.random.Generator) -> Array:
    """Blue-white veil (side/2, side/2): a fifth of the lesion, central or eccentric."""
    side = len(shape.depth)
    inside = shape.ragged < 1
    away = rng.uniform(0, 2 * np.pi)
    aside = np.hypot(shape.across[0] - 0.6 * np.cos(away), shape.across[1] - 0.6 * np.sin(away))
    aside += 0.25 * noise(rng, 8, side, 2)
    field = (1 - signs.structures) * shape.depth + signs.structures * aside
    return np.clip((0.28 - rank(field, inside)) / 0.12, 0, 1) * inside


def dots(signs: Signs, shape: Shape, rng: np.random.Generator, size: int) -> Array:
    """Dots and globules (size, size): even about the centre, or crowded at one margin."""
    count = int(rng.integers(10, 34))
    evenly = np.sqrt(rng.uniform(0, 0.45, count)), rng.uniform(-np.pi, np.pi, count)
    aside = rng.uniform(0.6, 0.95, count), rng.uniform(-np.pi, np.pi) + rng.normal(0, 0.4, count)
    order, disorder = 1 - signs.structures, signs.structures
    places = order * _place(shape, *evenly) + disorder * _place(shape, *aside)
    unequal = rng.lognormal(0, 0.45, count) ** (0.3 + signs.structures)
    layer = np.zeros((size, size), np.uint8)
    for place, scale in zip(places, unequal, strict=True):
        _disc(layer, place, 0.0055 * size * min(scale, 2.2), int(rng.uniform(140, 230)))
    return _soften(layer, size)


def streaks(signs: Signs, shape: Shape, rng: np.random.Generator, size: int) -> Array:
    """Radial streaks over part of the border (size, size); none if orderly."""
    count, start = 34, rng.uniform(-np.pi, np.pi)
    angles = start + rng.uniform(-1.3, 1.3, count)
    grown = np.clip(1.4 * signs.structures - rng.uniform(0.2, 1.0, count), 0, 1)
    bends, widths = rng.normal(0, 0.05, count), rng.uniform(0.017, 0.030, count)
    layer = np.zeros((size, size), np.uint8)
    for angle, length, bend, width in zip(angles, grown, bends, widths, strict=True):
        if length > 0:
            tip = 1 + (0.03 + 0.17 * length) / np.interp(_wrap(angle), ANGLES, shape.reach)
            depths = np.array([0.78, 0.95, tip, tip, 0.95])
            turns = angle + np.array([0, width, bend + width / 3, bend - width / 3, -width])
            corners = np.round(16 * _place(shape, depths, turns)).astype(np.int32)
            cv2.fillPoly(layer, [corners], 180, cv2.LINE_AA, shift=4)
    return _soften(layer, size)


def _place(shape: Shape, depth: Array, angle: Array) -> Array:
    """Pixels (N, 2) of points given by depth (1 at the border) and angle in the lesion's frame."""
    wrapped = _wrap(angle)
    reach = depth * np.interp(wrapped, ANGLES, shape.reach)
    across = reach * np.stack([np.cos(wrapped), np.sin(wrapped)])
    return shape.centre + (shape.frame @ across).T


def _wrap(angle: Array) -> Array:
    return (angle + np.pi) % (2 * np.pi) - np.pi


def _disc(layer: Array, place: Array, radius: float, value: int) -> None:
    x, y = (round(float(coordinate) * 16) for coordinate in place)
    cv2.circle(layer, (x, y), max(1, round(radius * 16)), value, cv2.FILLED, cv2.LINE_AA, shift=4)


def _soften(layer: Array, size: int) -> Array:
    return cv2.GaussianBlur(layer, (0, 0), size / 400).astype(np.float32) / 255
