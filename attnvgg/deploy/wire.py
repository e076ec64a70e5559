"""How images, bags and answers travel to a served model and back."""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from attnvgg.errors import InputError

BEGINNINGS = {
    b"\xff\xd8\xff": "image/jpeg",
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"II*\x00": "image/tiff",
    b"MM\x00*": "image/tiff",
    b"BM": "image/bmp",
    b"RIFF": "image/webp",
}
File = str | os.PathLike[str] | bytes


class Answer(NamedTuple):
    """What a served model says of one image or bag.

    Attributes:
        logits: (K,).
        probabilities: one a class, sum 1.
        probability: of class 1 of two, else of the class that is called.
        called: name of the class.
        attention: as the endpoint sends it; None where it was not asked for.
        classes: names, in order.
        threshold: of class 1, or None.
        model: digest of the weights.
        engine: what computes there.
    """

    logits: NDArray[np.float64]
    probabilities: NDArray[np.float64]
    probability: float
    called: str
    attention: Mapping[str, Any] | None
    classes: tuple[str, ...]
    threshold: float | None
    model: str
    engine: str


def read_answer(content: Mapping[str, Any]) -> Answer:
    """Return the one prediction of an answer.

    Raises:
        KeyError, TypeError or ValueError: it is none.
    """
    (one,) = content["predictions"]
    return Answer(
        np.array(one["logits"], np.float64),
        np.array(one["probabilities"], np.float64),
        float(one["probability"]),
        str(one["called"]),
        one.get("attention"),
        tuple(map(str, content["classes"])),
        content["threshold"],
        str(content["model"]),
        str(content["engine"]),
    )


def packed(features: ArrayLike) -> dict[str, Any]:
    """Return features (N, D) as they travel: little-endian float32, in base64."""
    values = np.ascontiguousarray(features, "<f4")
    return {"base64": base64.b64encode(values.tobytes()).decode(), "shape": list(values.shape)}


def content_type(data: bytes) -> str:
    """Return what kind of image a file is, by how it begins."""
    kinds = (kind for beginning, kind in BEGINNINGS.items() if data.startswith(beginning))
    return next(kinds, "application/octet-stream")


def file_bytes(image: File) -> bytes:
    """Return the content of a file, or the bytes that were given in its place."""
    if isinstance(image, bytes):
        return image
    try:
        return Path(image).read_bytes()
    except OSError as error:
        raise InputError(f"{image} cannot be read: {error.strerror}.") from error
