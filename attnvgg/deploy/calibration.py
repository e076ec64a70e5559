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
from attnvgg.data.tables import located, read_table, require_columns
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
    path = run / "manifest.csv"
    if not path.is_file():
        return None, None
    try:
        manifest = read_table(path)  # `read_manifest` would look for all of its files
        require_columns(manifest, ("image", "label", "split"), str(path))
        return _drawn(manifest, "train", CALIBRATED, run), _drawn(manifest, "val", COMPARED, run)
    except (InputError, ValueError):
        return None, None


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


def _drawn(manifest: pd.DataFrame, split: str, count: int, run: Path) -> ImageSet | None:
    table = manifest[manifest["split"] == split]
    shuffled = table.iloc[np.random.default_rng(0).permutation(len(table))]
    turn = shuffled.groupby("label").cumcount()  # the first of each class, the second, ...
    chosen = shuffled.loc[turn.sort_values(kind="stable").index[:count]]
    paths = located(chosen["image"], run)
    if chosen.empty or not all(map(os.path.isfile, paths)):
        return None
    return ImageSet(tuple(map(str, paths)), tuple(map(int, chosen["label"])))
