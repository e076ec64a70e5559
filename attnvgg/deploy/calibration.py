"""Images of a run: to calibrate 8 bits with, and to compare engines on."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from attnvgg.data.cache import file_key
from attnvgg.data.listing import images_below, is_image
from attnvgg.data.manifest import read_manifest
from attnvgg.data.transforms import Preprocess
from attnvgg.deploy.engines.interface import Images
from attnvgg.errors import InputError

CALIBRATED, COMPARED = 128, 128  # images
BATCH = 8


@dataclass(frozen=True)
class ImageSet:
    """Files, and where known their labels.

    Attributes:
        paths: of the files.
        labels: of them, (n,).
    """

    paths: tuple[str, ...]
    labels: tuple[int, ...] | None = None

    def name(self, preprocess: Preprocess) -> str:
        """Return what changes with any of the files, their order, or how they are preprocessed."""
        found = hashlib.sha256(json.dumps(preprocess.to_dict(), sort_keys=True).encode())
        for path in self.paths:
            found.update(file_key(os.path.abspath(path), preprocess.recipe("image")))
        return found.hexdigest()[:16]

    def batches(self, preprocess: Preprocess) -> Iterator[Images]:
        """Yield the images as the model sees them, (B, 3, size, size)."""
        for start in range(0, len(self.paths), BATCH):
            part = self.paths[start : start + BATCH]
            yield np.stack([preprocess(path).numpy() for path in part])


def of_run(run: Path) -> tuple[ImageSet | None, ImageSet | None]:
    """Return training images to calibrate with and validation images to compare on.

    Each is a fixed draw, in equal parts from the classes as far as they go. None where the folder
    is no run on images, or its images are not here (any more).
    """
    if not (run / "manifest.csv").is_file():
        return None, None
    try:
        manifest = read_manifest(run / "manifest.csv")
    except InputError:
        return None, None
    return _drawn(manifest, "train", CALIBRATED), _drawn(manifest, "val", COMPARED)


def of_files(targets: Sequence[str | Path]) -> ImageSet:
    """Return a set of files, or of the images below folders.

    Raises:
        InputError: one does not exist, or there is none at all.
    """
    paths = []
    for target in map(Path, targets):
        if not target.exists():
            raise InputError(f"{target} does not exist: give images to calibrate with.")
        paths += [target] if is_image(target) else images_below(target)
    if not paths:
        raise InputError("There are no images to calibrate with in:", targets)
    chosen = np.random.default_rng(0).permutation(len(paths))[:CALIBRATED]
    return ImageSet(tuple(str(paths[row]) for row in np.sort(chosen)))


def _drawn(manifest: pd.DataFrame, split: str, count: int) -> ImageSet | None:
    table = manifest[manifest["split"] == split]
    shuffled = table.iloc[np.random.default_rng(0).permutation(len(table))]
    turn = shuffled.groupby("label").cumcount()  # the first of each class, the second, ...
    chosen = shuffled.loc[turn.sort_values(kind="stable").index[:count]]
    if chosen.empty:
        return None
    return ImageSet(tuple(map(str, chosen["image"])), tuple(map(int, chosen["label"])))
