"""Images of the bags of a run: to calibrate 8 bits with, and to compare engines on."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd

from attnvgg.data.bag_manifest import read_bags
from attnvgg.data.listing import images_below
from attnvgg.data.transforms import Preprocess
from attnvgg.deploy.calibration import CALIBRATED, COMPARED, ImageSet
from attnvgg.deploy.encoder_engines import EncoderImages
from attnvgg.errors import InputError

BAGS = 32  # of a split: its images are drawn from so many bags


def images_of_run(run: Path, preprocess: Preprocess) -> EncoderImages | None:
    """Return images of training bags to calibrate with, and of validation bags to compare on.

    Each is a fixed draw. None where the folder is no run on folders of images, or they are not
    here (any more).

    Args:
        run: a run folder, or that of one of its seeds.
        preprocess: of an image.
    """
    try:
        manifest = next(
            read_bags(path, may_be_gone=True)
            for path in (run / "manifest.csv", run.parent / "manifest.csv")
            if path.is_file()
        )
    except (StopIteration, InputError):
        return None
    if "split" not in manifest:
        return None
    training, held_out = _drawn(manifest, "train", CALIBRATED), _drawn(manifest, "val", COMPARED)
    if training is None or held_out is None:
        return None
    return EncoderImages(
        training.name(preprocess),
        lambda: list(training.batches(preprocess)),
        lambda: list(held_out.batches(preprocess)),
    )


def _drawn(manifest: pd.DataFrame, split: str, count: int) -> ImageSet | None:
    folders = [
        path for path in manifest["image"][manifest["split"] == split] if os.path.isdir(path)
    ]
    rng = np.random.default_rng(0)
    chosen = [folders[row] for row in np.sort(rng.permutation(len(folders))[:BAGS])]
    files = [str(path) for folder in chosen for path in images_below(Path(folder))]
    rows = np.sort(rng.permutation(len(files))[:count])
    return ImageSet(tuple(files[row] for row in rows)) if len(rows) else None
