"""From pixels to the model's input: the ways that vary it, for training."""

from __future__ import annotations

import os
from typing import Any, Literal

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # it would ask the network at import

import albumentations as A
import cv2
import numpy as np
from numpy.typing import NDArray

from attnvgg.data.decoding import Pixels
from attnvgg.data.stain import StainJitter
from attnvgg.data.transforms import Preprocess
from attnvgg.errors import InputError


def augmentation(
    name: Literal["tutorial", "paper", "stain", "none"], preprocess: Preprocess
) -> A.Compose:
    """Return random transforms of a resized square (and its mask), ending at `size` pixels.

    Args:
        name: tutorial: rotation by up to 10 degrees, horizontal flip, centre crop; paper: random
            crop, quarter turns, both flips (Yan et al., IPMI 2019); stain: other amounts of the
            stains of tissue, quarter turns, both flips, centre crop; none: centre crop.
        preprocess: names the sizes.
    """
    size = preprocess.size
    centre = [A.CenterCrop(size, size)] if size != preprocess.resize else []
    if name == "none":
        return A.Compose(centre)
    turns = [A.RandomRotate90(p=1), A.HorizontalFlip(), A.VerticalFlip()]
    if name == "paper":
        return A.Compose([A.RandomCrop(size, size), *turns])
    if name == "stain":
        return A.Compose([*centre, StainJitter(), *turns])
    if name != "tutorial":
        raise InputError(f"--data.augmentation {name} is none of tutorial, paper, stain, none")
    # the border is reflected: black corners are a shortcut for a model
    rotation = RotationAndFlip(limit=10, border_mode=cv2.BORDER_REFLECT_101, p=1)
    return A.Compose([rotation, *centre])


class RotationAndFlip(A.Rotate):
    """`A.Rotate` and `A.HorizontalFlip` in one step, with the mask interpolated like the image.

    The matrices that `A.Rotate` makes for boxes and points would cost more than the picture.
    """

    def get_params_dependent_on_data(
        self, params: dict[str, Any], data: dict[str, Any]
    ) -> dict[str, Any]:
        """Draw angle and flip; the centre of the picture stays where it is."""
        height, width = params["shape"][:2]
        angle = self.py_random.uniform(*self.limit)
        matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), angle, 1)
        if self.py_random.random() < 0.5:
            matrix[0] = (0, 0, width - 1) - matrix[0]  # column x becomes width - 1 - x
        return {"matrix": matrix}

    def apply(self, img: Pixels, matrix: NDArray[np.float64], **params: Any) -> Pixels:
        """Turn an image, (H, W) or (H, W, C)."""
        height, width = img.shape[:2]
        turned = cv2.warpAffine(
            img, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=self.border_mode
        )
        return np.asarray(turned, dtype=np.uint8)

    apply_to_mask = apply
