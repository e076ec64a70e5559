"""One picture and its mask, from a case to the files.

Kept free of pandas, scikit-learn and torch, so that a worker which paints starts at once.
"""

from pathlib import Path

import cv2
import numpy as np

from attnvgg.data.listing import KAGGLE_IMAGES
from attnvgg.data.synthetic.artefacts import FREQUENCY, add_artefacts
from attnvgg.data.synthetic.cases import ARTEFACTS, PAINT, Case, stream
from attnvgg.data.synthetic.lesions import paint
from attnvgg.data.synthetic.shapes import Array

MASKS = "masks"
JPEG_QUALITY = 92
BINS = 8
FEATURES = [f"{channel}_{i}" for channel in ("red", "green", "blue") for i in range(BINS)] + [
    "area"
]


def write_picture(case: Case, folder: Path, seed: int, size: int) -> dict[str, object]:
    """Paint and write one picture and its mask; return its row of sample_truth.csv."""
    floats, region = paint(case.signs, case.tone, stream(seed, PAINT, case.number), size)
    floats, shown = add_artefacts(floats, stream(seed, ARTEFACTS, case.number))
    picture = cv2.convertScaleAbs(floats, alpha=255)
    quality = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    jpeg = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), quality)[1]
    mask = cv2.imencode(".png", region.astype(np.uint8) * 255)[1]
    # Not cv2.imwrite: it only answers False when the disk is full.
    (folder / KAGGLE_IMAGES / f"{case.image_id}.jpg").write_bytes(jpeg.tobytes())
    (folder / MASKS / f"{case.image_id}.png").write_bytes(mask.tobytes())
    return {
        "image_id": case.image_id,
        "score": case.signs.score,
        **case.signs._asdict(),
        **{name: int(name in shown) for name in FREQUENCY},
        **features(picture, region),
    }


def features(picture: Array, region: Array) -> dict[str, float]:
    """Shares of the RGB picture's pixels in eight bins of each channel, and of the lesion in it."""
    counts = [cv2.calcHist([picture], [c], None, [BINS], [0, 256]).ravel() for c in range(3)]
    shares = [*np.concatenate(counts) / region.size, region.mean()]
    return {name: float(share) for name, share in zip(FEATURES, shares, strict=True)}
