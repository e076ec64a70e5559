"""The painter: synthetic skin with one pigmented lesion.

Every sign of malignancy is a matter of order, not of ink. Lesions are given their area, their
colours and the share of each colour, their dots and their veil by lots that do not know the signs;
the signs decide how these are *arranged*: round or lopsided, smooth or ragged, in rings or in
blotches, even or scattered. So the colours of a picture and the size of its lesion tell little
(the floor of the sample), and the spatial organisation tells what there is to know.

Colours of the lesion are transmissions, multiplied with the skin, as pigment lies on skin of any
tone. Fields of low frequency are computed at half the size.
"""

import cv2
import numpy as np

from attnvgg.data.synthetic import structures
from attnvgg.data.synthetic.shapes import (
    Array,
    Mask,
    Shape,
    Signs,
    draw_shape,
    enlarge,
    noise,
    rank,
    rgb,
)

SKIN_TONES = np.array(
    [(0.93, 0.79, 0.72), (0.88, 0.71, 0.61), (0.81, 0.61, 0.49), (0.68, 0.48, 0.36),
     (0.50, 0.33, 0.24)], np.float32
)  # fmt: skip
BROWNS = np.array([(0.83, 0.71, 0.60), (0.65, 0.48, 0.38), (0.40, 0.28, 0.23)], np.float32)
ACCENTS = np.array(
    [(0.20, 0.16, 0.17), (0.46, 0.51, 0.60), (0.84, 0.60, 0.56), (0.94, 0.96, 1.00)], np.float32
)  # black, blue-grey, red, white as a scar
VEIL = np.array((0.56, 0.63, 0.74), np.float32)
INK = np.array((0.26, 0.18, 0.16), np.float32)


def paint(signs: Signs, tone: float, rng: np.random.Generator, size: int) -> tuple[Array, Mask]:
    """Paint one lesion on skin.

    Args:
        signs: how disordered the lesion is.
        tone: of the skin, from 0 (very fair) to 1 (dark).
        rng: everything the signs do not decide; the draws do not depend on the signs.
        size: side of the picture in pixels, even.

    Returns:
        The RGB picture (size, size, 3) in [0, 1], and the lesion's region (size, size).
    """
    skin_rng, shape_rng, colour_rng, net_rng, dot_rng, streak_rng = rng.spawn(6)
    picture = _skin(tone, skin_rng, size)
    shape = draw_shape(signs, shape_rng, size)
    colours = _colours(signs, shape, colour_rng)
    colours *= rgb(structures.network(signs, shape, net_rng))
    region, opacity = _edge(signs, shape, shape_rng, size)
    picture *= 1 - rgb(opacity) * enlarge(1 - colours, size)
    dots = structures.dots(signs, shape, dot_rng, size) * opacity
    streaks = structures.streaks(signs, shape, streak_rng, size)
    picture *= 1 - rgb(np.maximum(dots, streaks), 1 - INK)
    return picture, region | (streaks > 0.3)


def _skin(tone: float, rng: np.random.Generator, size: int) -> Array:
    """Skin (size, size, 3): melanin and redness in patches, furrows, pores."""
    place = tone * (len(SKIN_TONES) - 1)
    base = [np.interp(place, range(len(SKIN_TONES)), channel) for channel in SKIN_TONES.T]
    melanin, redness = (enlarge(noise(rng, 3, size // 4, 4), size) for _ in range(2))
    ridges = np.abs(enlarge(noise(rng, 26, size // 2, 2), size))
    grain = cv2.GaussianBlur(rng.standard_normal((size, size), np.float32), (0, 0), size / 400)
    shade = 1 + 0.012 * melanin + 0.022 * np.minimum(ridges, 1.0) + 0.02 * grain
    flushed = shade * (1 - 0.014 * redness)
    return cv2.merge([np.float32(base[0]) * shade, *(np.float32(b) * flushed for b in base[1:])])


def _edge(signs: Signs, shape: Shape, rng: np.random.Generator, size: int) -> tuple[Mask, Array]:
    """The lesion's region and its opacity (size, size): fading if benign, else cut off in parts."""
    inside = (shape.ragged < 1).astype(np.uint8)
    signed: Array = cv2.distanceTransform(inside, cv2.DIST_L2, 3)
    signed -= cv2.distanceTransform(1 - inside, cv2.DIST_L2, 3)
    signed = enlarge(signed / len(inside), size)
    softness = rng.uniform(0.020, 0.036)
    segments = np.cos(2 * shape.angle + rng.uniform(0, 2 * np.pi)) > -0.6
    abrupt = (1 - signs.border) * softness + signs.border * 0.003
    width = np.where(segments, abrupt, (1 - 0.5 * signs.border) * softness)
    width = cv2.GaussianBlur(width.astype(np.float32), (0, 0), size / 80)
    ramp = np.clip(0.5 + signed / (2 * enlarge(width, size)), 0, 1)
    return signed > 0, ramp * ramp * (3 - 2 * ramp)


def _colours(signs: Signs, shape: Shape, rng: np.random.Generator) -> Array:
    """Colour of the lesion (side/2, side/2, 3): one palette, in rings or in eccentric blotches.

    A field that is concentric in orderly lesions and blotched in disorderly ones is turned into
    ranks over the lesion, and the palette is dealt out by rank: each colour covers the same share
    whatever the order.
    """
    side, radius = len(shape.depth), shape.radius
    lean = rng.uniform(0, 2 * np.pi)
    tilt = np.cos(lean) * shape.across[0] + np.sin(lean) * shape.across[1]
    inside = shape.ragged < 1
    rings = rank(shape.depth + 0.8 * signs.asymmetry * tilt, inside)
    rings += 0.11 * noise(rng, 1.8 / radius, side, 4)
    blotches = rank(noise(rng, 1.1 / radius, side, 3), inside)
    order = rank((1 - signs.colours) * rings + signs.colours * blotches, inside)
    colours = _palette(rng)[np.minimum(order * 256, 255).astype(np.int32)]
    colours *= rgb(1 + 0.08 * noise(rng, 6 / radius, side, 4))
    veil = rng.uniform(0.45, 0.75) * (rng.random() < 0.3) * structures.veil(signs, shape, rng)
    return colours * rgb(1 - veil) + rgb(veil, VEIL)


def _palette(rng: np.random.Generator) -> Array:
    """Three browns and up to two accents as a table (256, 3), the accents in the middle."""
    browns = BROWNS[:: rng.choice([-1, -1, 1])] * rng.uniform(0.85, 1.12, (3, 1))
    accents = ACCENTS[rng.permutation(4)[: rng.choice(3, p=[0.45, 0.4, 0.15])]]
    tints = np.concatenate([accents, browns]) * rng.uniform(0.95, 1.05, (1, 3))
    share = np.concatenate([rng.uniform(0.3, 0.6, len(accents)), rng.uniform(0.7, 1.3, 3)])
    stops = np.cumsum(share) / share.sum()
    table = tints[np.searchsorted(stops, np.linspace(0, 0.9999, 256))].astype(np.float32)
    return cv2.blur(table, (1, 55), borderType=cv2.BORDER_REPLICATE)
