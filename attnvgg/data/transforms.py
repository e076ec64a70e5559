"""From pixels to the model's input: the deterministic way."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import Any, Literal, NamedTuple, Self

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from attnvgg.data.decoding import (
    Pixels,
    decode_image,
    from_pillow,
    read_image,
    read_mask,
    reduce,
    reduction,
)
from attnvgg.errors import InputError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# Raise it when `load` computes something else: cached entries of the old kind are then ignored.
LOAD_VERSION = 1


class Region(NamedTuple):
    """A square of source pixels; (0, 0) is the upper left corner of the upper left pixel."""

    top: float
    left: float
    side: float


@dataclass(frozen=True)
class Preprocess:
    """The deterministic way from a picture to the model's input.

    The centre square of `crop` times the shorter side is resized to `resize` pixels (up to here:
    `load`, which the cache holds); its centre of `size` pixels is normalised. Training,
    evaluation and a loaded model use the same one.
    """

    size: int = 224
    """Side of the model's input in pixels."""
    resize: int = 224
    """Side to which the centre square is resized, at least `size`."""
    crop: float = 1.0
    """Side of the centre square as a share of the shorter side, in (0, 1]."""
    mean: tuple[float, float, float] = IMAGENET_MEAN
    """Mean of each colour, for values in [0, 1]."""
    std: tuple[float, float, float] = IMAGENET_STD
    """Standard deviation of each colour."""
    convert: bool = False
    """Convert files that are not upright opaque 8-bit RGB instead of refusing them."""

    def __post_init__(self) -> None:
        if not 0 < self.size <= self.resize:
            raise InputError(f"resize ({self.resize}) must be at least size ({self.size}) and 1")
        if not 0 < self.crop <= 1:
            raise InputError(f"crop ({self.crop}) must lie in (0, 1]")
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != 3 or not all(math.isfinite(value) for value in values):
                raise InputError(f"{name} {values} must be three numbers, one a colour")
        if min(self.std) <= 0:
            raise InputError(f"std {self.std} must be positive")

    def __call__(
        self, source: str | os.PathLike[str] | bytes | Image.Image | Pixels
    ) -> torch.Tensor:
        """Return the model's input, (3, size, size).

        Args:
            source: a file, its content, an opened image, or RGB pixels (H, W, 3).

        Raises:
            InputError: the picture is one that `read_image` refuses.
        """
        return self.normalise(self.centre(self.load(source)))

    def load(self, source: str | os.PathLike[str] | bytes | Image.Image | Pixels) -> Pixels:
        """Return the resized centre square, (resize, resize, 3)."""
        if isinstance(source, bytes):
            return self._square(decode_image(source, "image", self._min_side, self.convert))
        if isinstance(source, str | os.PathLike):
            return self._square(read_image(source, self._min_side, self.convert))
        if isinstance(source, Image.Image):
            source = from_pillow(source, self.convert)
        if not isinstance(source, np.ndarray):
            raise InputError(f"An image is a file, an opened image or pixels, not {source!r}.")
        if source.dtype != np.uint8 or source.ndim != 3 or source.shape[2] != 3:
            raise InputError(f"Pixels must be uint8 (H, W, 3), not {source.dtype} {source.shape}")
        height, width, _ = source.shape
        return self._square(reduce(source, reduction(height, width, self._min_side)))

    def load_mask(self, path: str | os.PathLike[str]) -> Pixels:
        """Return a mask cut and resized like its image, (resize, resize), 255 inside."""
        return self._square(read_mask(path, self._min_side))

    def region(self, height: int, width: int, min_side: int | None = None) -> Region:
        """Return the square of source pixels that the model's input covers.

        Args:
            height: of the upright source in pixels.
            width: of the upright source in pixels.
            min_side: with which the picture was decoded, see `read_image`: the square is then
                in the pixels of what came out.
        """
        factor = reduction(height, width, self._min_side)
        top, left, side = self._centre_square(height // factor, width // factor)
        scale = factor * side / self.resize  # source pixels a pixel of the resized square
        margin = (self.resize - self.size) // 2
        region = (top * factor + margin * scale, left * factor + margin * scale, self.size * scale)
        reduced = reduction(height, width, min_side)
        return Region(*(length / reduced for length in region))

    def centre(self, image: Pixels) -> Pixels:
        """Cut the centre (size, size) out of the resized square."""
        start = (self.resize - self.size) // 2
        return image[start : start + self.size, start : start + self.size]

    def normalise(self, image: Pixels) -> torch.Tensor:
        """Return pixels (H, W, 3 or more) as (3, H, W), less the mean, over the deviation.

        A byte has 256 values: one look-up a pixel, in exactly torchvision's numbers.
        """
        planes = np.empty((3, *image.shape[:2]), np.float32)
        for channel, table, plane in zip(cv2.split(image), self._tables, planes, strict=False):
            cv2.LUT(channel, table, dst=plane)
        return torch.from_numpy(planes)

    def denormalise(self, tensor: torch.Tensor) -> Pixels:
        """Return the pixels, (H, W, 3), of a model's input, (3, H, W)."""
        values = tensor.detach().cpu().double().permute(1, 2, 0).numpy()
        scaled = (values * np.array(self.std) + np.array(self.mean)) * 255
        return np.rint(scaled).clip(0, 255).astype(np.uint8)

    def recipe(self, kind: Literal["image", "mask"]) -> str:
        """Return everything besides the file that decides what `load` or `load_mask` returns."""
        settings = (LOAD_VERSION, kind, self.resize, self.crop, self.convert, cv2.__version__)
        return json.dumps(settings)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as written to `config.json`."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Return what `to_dict` described.

        Raises:
            InputError: a key that this version does not know.
        """
        unknown = set(values) - {item.name for item in fields(cls)}
        if unknown:
            raise InputError(f"Unknown settings of the preprocessing: {sorted(unknown)}")
        settings: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in values.items()
        }
        return cls(**settings)

    @property
    def _min_side(self) -> int:
        # the square that is cut out must still have as many pixels as it is resized to
        return math.ceil(self.resize / self.crop)

    def _centre_square(self, height: int, width: int) -> tuple[int, int, int]:
        side = max(1, round(self.crop * min(height, width)))
        return (height - side) // 2, (width - side) // 2, side

    def _square(self, image: Pixels) -> Pixels:
        top, left, side = self._centre_square(*image.shape[:2])
        square = image[top : top + side, left : left + side]
        if side == self.resize:
            return np.ascontiguousarray(square)
        # Below a factor of 2 every pixel still counts in a bilinear mean of 2 x 2, and the exact
        # mean over areas, which costs five times as much, differs by less than a grey level.
        filter_ = cv2.INTER_AREA if side >= 2 * self.resize else cv2.INTER_LINEAR
        resized = cv2.resize(square, (self.resize, self.resize), interpolation=filter_)
        return np.asarray(resized, dtype=np.uint8)

    @cached_property
    def _tables(self) -> NDArray[np.float32]:
        """Normalised value of each byte, (3, 256), computed in torchvision's order."""
        values = torch.arange(256, dtype=torch.uint8).float().div(255).expand(3, 256)
        mean, std = torch.tensor(self.mean), torch.tensor(self.std)
        tables: NDArray[np.float32] = ((values - mean[:, None]) / std[:, None]).numpy()
        return tables
