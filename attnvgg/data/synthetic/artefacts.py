"""What the camera and the room add to a picture, whatever the lesion.

Nothing here sees the lesion, the label or the signs: each picture gets its artefacts from a stream
of random numbers of its own, so no artefact tells anything about malignancy.
"""

import cv2
import numpy as np

from attnvgg.data.synthetic.shapes import Array, rgb

FREQUENCY = {"hair": 0.40, "bubbles": 0.20, "ink": 0.12, "ruler": 0.15, "vignette": 0.30}


def add_artefacts(picture: Array, rng: np.random.Generator) -> tuple[Array, frozenset[str]]:
    """Lay artefacts, illumination and the camera's faults over a picture.

    Args:
        picture: RGB (size, size, 3) in [0, 1]; written over.
        rng: a stream of its own, apart from the one the lesion is drawn from.

    Returns:
        The picture and the names, keys of `FREQUENCY`, of the artefacts that it shows.
    """
    lots = rng.random(len(FREQUENCY))
    shown = frozenset(
        name for name, lot in zip(FREQUENCY, lots, strict=True) if lot < FREQUENCY[name]
    )
    for name, draw in (("ink", _ink), ("hair", _hair), ("bubbles", _bubbles), ("ruler", _ruler)):
        if name in shown:
            draw(picture, rng)
    _illuminate(picture, rng)
    if "vignette" in shown:
        _vignette(picture, rng)
    return _camera(picture, rng), shown


def _blend(picture: Array, layer: Array, colour: tuple[float, ...]) -> None:
    """Blend a colour into the picture by a layer of opacities 0-255."""
    opacity = layer.astype(np.float32) / 255
    picture *= rgb(1 - opacity)
    picture += rgb(opacity, colour)


def _hair(picture: Array, rng: np.random.Generator) -> None:
    """Curved hairs, mostly along one direction."""
    size = len(picture)
    layer: Array = np.zeros(picture.shape[:2], np.uint8)
    along, shade = rng.uniform(0, np.pi), rng.uniform(0.04, 0.22)
    steps = np.linspace(-0.5, 0.5, 24)
    for _ in range(rng.integers(3, 19)):
        direction, bend = along + rng.normal(0, 0.45), rng.normal(0, 0.22)
        length, middle = rng.uniform(0.3, 1.2), rng.uniform(0, 1, 2)
        forward = np.array([np.cos(direction), np.sin(direction)])
        sideways = np.array([-forward[1], forward[0]])
        path = middle + np.outer(steps * length, forward) + np.outer(bend * steps**2, sideways)
        points = np.round(path * size * 16).astype(np.int32)[:, None]
        thickness = max(1, round(rng.uniform(0.002, 0.0055) * size))
        value = int(rng.integers(150, 240))
        cv2.polylines(layer, [points], False, value, thickness, cv2.LINE_AA, shift=4)
    layer = cv2.GaussianBlur(layer, (0, 0), size / 900)
    _blend(picture, layer, (shade * 1.15, shade * 0.9, shade * 0.75))


def _bubbles(picture: Array, rng: np.random.Generator) -> None:
    """Air in the gel: bright rims with a highlight."""
    size = len(picture)
    layer: Array = np.zeros(picture.shape[:2], np.uint8)
    for _ in range(rng.integers(2, 14)):
        x, y = (int(place) for place in rng.uniform(0, size, 2))
        radius = max(2, int(size * np.exp(rng.normal(-4.3, 0.5))))
        cv2.circle(layer, (x, y), radius, int(rng.integers(50, 130)), 1, cv2.LINE_AA)
        glint = (x - radius // 3, y - radius // 3)
        cv2.circle(layer, glint, max(1, radius // 5), 220, cv2.FILLED, cv2.LINE_AA)
    _blend(picture, cv2.GaussianBlur(layer, (0, 0), size / 700), (1.0, 0.99, 0.97))


def _ink(picture: Array, rng: np.random.Generator) -> None:
    """A surgical marker's violet or blue stroke across a corner."""
    size = len(picture)
    layer: Array = np.zeros(picture.shape[:2], np.uint8)
    turn, reach = rng.uniform(0, 2 * np.pi), rng.uniform(0.50, 0.62)
    sweep = turn + np.linspace(-0.35, 0.35, 16) * rng.uniform(0.4, 1.0)
    wobble = reach * (1 + 0.02 * rng.standard_normal(16))
    path = 0.5 + wobble[:, None] * np.stack([np.cos(sweep), np.sin(sweep)], axis=1)
    thickness = max(2, round(size * rng.uniform(0.02, 0.05)))
    points = np.round(path * size * 16).astype(np.int32)[:, None]
    cv2.polylines(layer, [points], False, 200, thickness, cv2.LINE_AA, shift=4)
    layer = cv2.GaussianBlur(layer, (0, 0), size / 150)
    patches: Array = rng.uniform(0.55, 1.0, (24, 24)).astype(np.float32)
    patches = cv2.resize(patches, (size, size), interpolation=cv2.INTER_CUBIC)
    violet = (rng.uniform(0.22, 0.40), rng.uniform(0.18, 0.28), rng.uniform(0.50, 0.62))
    _blend(picture, np.clip(layer * patches, 0, 255).astype(np.uint8), violet)


def _ruler(picture: Array, rng: np.random.Generator) -> None:
    """Millimetre ticks along one side."""
    size = len(picture)
    layer: Array = np.zeros(picture.shape[:2], np.uint8)
    gap, margin = size * rng.uniform(0.028, 0.05), size * rng.uniform(0.0, 0.03)
    thickness = max(1, round(size / 256))
    for number, at in enumerate(np.arange(rng.uniform(0, gap), size, gap)):
        length = size * (0.055 if number % 5 == 0 else 0.03)
        start, end = (round(at), round(margin)), (round(at), round(margin + length))
        cv2.line(layer, start, end, 210, thickness, cv2.LINE_AA)
    layer = np.ascontiguousarray(np.rot90(layer, int(rng.integers(4))))
    _blend(picture, layer, (0.10, 0.10, 0.12))


def _illuminate(picture: Array, rng: np.random.Generator) -> None:
    """Uneven light and a cast of colour."""
    size = len(picture)
    axis = np.linspace(-1, 1, size, dtype=np.float32)
    turn, strength = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.09)
    slope = strength * (np.cos(turn) * axis[None, :] + np.sin(turn) * axis[:, None])
    hollow = rng.uniform(0, 0.08) * (axis[None, :] ** 2 + axis[:, None] ** 2)
    light = (rng.uniform(0.94, 1.07) * (1 + slope - hollow)).astype(np.float32)
    cast = rng.normal(1, 0.025, 3).astype(np.float32)
    picture *= rgb(light, cast)


def _vignette(picture: Array, rng: np.random.Generator) -> None:
    """The dark tube of the dermatoscope around a round field of view."""
    size = len(picture)
    axis = np.linspace(-1, 1, size, dtype=np.float32)
    x, y = rng.normal(0, 0.03, 2)
    radius, softness = rng.uniform(1.02, 1.3), rng.uniform(0.02, 0.10)
    distance = np.hypot((axis - x)[None, :], (axis - y)[:, None])
    inside = np.clip((radius - distance) / softness, 0, 1).astype(np.float32)
    picture *= rgb(0.04 + 0.96 * inside)


def _camera(picture: Array, rng: np.random.Generator) -> Array:
    """Slight defocus, then the sensor's noise."""
    size = len(picture)
    defocus = size / 512 * rng.uniform(0.4, 1.5)
    picture = cv2.GaussianBlur(picture, (0, 0), defocus)
    sensitivity = np.float32(rng.uniform(0.003, 0.012))
    picture += rgb(sensitivity * rng.standard_normal((size, size), np.float32))
    return np.clip(picture, 0, 1, out=picture)
