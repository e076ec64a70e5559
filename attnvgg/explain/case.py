"""One case as it is drawn: an image, what the model attended to in it, and what it said."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import ArrayLike

from attnvgg.data.transforms import Region
from attnvgg.errors import InputError
from attnvgg.explain.overlays import Interpolation, Kind, Pixels, overlay


@dataclass(frozen=True, eq=False)
class Case:
    """An image with its two maps."""

    image: Pixels
    """RGB (H, W, 3), in source pixels."""
    attn1: ArrayLike
    """Weights at pool-3, (h, w)."""
    attn2: ArrayLike
    """Weights at pool-4, (h, w)."""
    probability: float
    """Of the class `scored`."""
    predicted: str
    """Class that the model called."""
    label: str | None = None
    """True class, where known; another one than `predicted` is marked as an error."""
    scored: str | None = None
    """Class that the probability is of; `predicted` if absent."""
    name: str = ""
    region: Region | None = None
    """What the model saw, see `upsample`."""
    mask: ArrayLike | None = None
    """Lesion (H, W), outlined where at least half of its maximum."""
    input_size: int | None = None
    """Side of the model's input, see `upsample`."""
    class_map: ArrayLike | None = None
    """What speaks for the class that the probability is of (Grad-CAM), (h, w) in [0, 1]."""

    def __post_init__(self) -> None:
        if self.mask is not None and np.shape(self.mask) != self.image.shape[:2]:
            raise InputError(
                f"The mask of {self.name or 'a case'} is {np.shape(self.mask)}, "
                f"but its image {self.image.shape[:2]}."
            )

    @property
    def wrong(self) -> bool:
        """Tell whether the model called another class than the true one."""
        return self.label is not None and self.label != self.predicted

    def panels(self, kind: Kind, interpolation: Interpolation = "bilinear") -> list[Pixels]:
        """Return the image, the overlays of pool-3 and pool-4 and of a class map, each (H, W, 3).

        Args:
            kind: see `scale_map`.
            interpolation: see `upsample`.
        """
        maps: list[tuple[ArrayLike, Kind]] = [(self.attn1, kind), (self.attn2, kind)]
        if self.class_map is not None:
            maps.append((self.class_map, "sigmoid"))  # the scale from 0 to 1
        overlays = [
            overlay(self.image, weights, self.region, scale, interpolation, self.input_size)
            for weights, scale in maps
        ]
        return [self.image, *overlays]

    def reduced(self, longest: int) -> Case:
        """Return the same case with blocks of pixels averaged: photographs have 24 million.

        Args:
            longest: pixels of the longer side, which keeps at least as many and less than twice.
        """
        height, width, _ = self.image.shape
        factor = max(height, width) // longest
        if factor < 2:
            return self
        rows, columns, region = height, width, self.region
        if region is not None:
            # Without the last, incomplete blocks one factor holds along both sides, and the region
            # stays where it was. Without a region the map spans whatever picture there is.
            rows, columns = height // factor * factor, width // factor * factor
            region = Region(*(length / factor for length in region))
        size = (width // factor, height // factor)
        image = cv2.resize(self.image[:rows, :columns], size, interpolation=cv2.INTER_AREA)
        mask = self.mask
        if mask is not None:
            whole = np.asarray(mask, np.float32)[:rows, :columns]
            mask = cv2.resize(whole, size, interpolation=cv2.INTER_AREA)
        return replace(self, image=np.asarray(image, np.uint8), region=region, mask=mask)
