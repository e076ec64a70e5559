"""Variation of the stains of a tissue section, as if another laboratory had made it."""

from __future__ import annotations

from typing import Any

import albumentations as A
import cv2
import numpy as np
from numpy.typing import NDArray

from attnvgg.data.decoding import Pixels

# Optical density of red, green and blue for a unit of haematoxylin, eosin and DAB: Ruifrok &
# Johnston, Anal. Quant. Cytol. Histol. 2001.
STAINS = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
UNMIX = np.linalg.inv(STAINS)
SPREAD = 0.2

_GREY = np.arange(256, dtype=np.float32)
_DENSITY = -np.log((_GREY + 1) / 256)  # of each byte; white has none


class StainJitter(A.ImageOnlyTransform):
    """Multiply the amount of each stain by a factor of its own; white stays white.

    After Tellez et al., IEEE Trans. Med. Imaging 2018, without their shifts, which tint the glass.
    Density is linear in the stains, so all of it is one 3 x 3 matrix. `A.HEStain` is not used: it
    knows two stains, drops what they do not explain (here 40 grey levels) and is slower.

    Args:
        spread: factors are from 1 - spread to 1 + spread.
        p: probability.
    """

    def __init__(self, spread: float = SPREAD, p: float = 1.0) -> None:
        super().__init__(p=p)
        self.spread = spread

    def get_params(self) -> dict[str, Any]:
        """Draw the factors of the three stains."""
        return {"factors": [1 + self.py_random.uniform(-self.spread, self.spread) for _ in STAINS]}

    def apply(self, img: Pixels, factors: list[float], **params: Any) -> Pixels:
        """Return the picture, (H, W, 3 or more); channels after the third stay as they are."""
        changed = img.copy()
        changed[..., :3] = restained(np.ascontiguousarray(img[..., :3]), factors)
        return changed


def restained(image: Pixels, factors: list[float]) -> Pixels:
    """Return RGB pixels (H, W, 3) with the amounts of the three stains multiplied."""
    mixing: NDArray[np.float64] = UNMIX @ np.diag(factors) @ STAINS  # densities are rows
    density = cv2.transform(cv2.LUT(image, _DENSITY), mixing.T)
    return cv2.convertScaleAbs(np.maximum(cv2.exp(-density) * 256 - 1, 0))  # type: ignore[return-value]
