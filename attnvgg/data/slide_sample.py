"""The built-in sample of slides: synthetic biopsies in the layout of the PANDA challenge.

It lets the commands for slides run on a machine without data. The generator was fixed by reasoning
about its ceiling (what one knows who sees the planted regions through the 16 tiles) and its floor
(what the mean colour of the tissue tells), never by training a network on it, and must stay so.

The folder holds

    train.csv                  image_id, data_provider, isup_grade, gleason_score, patient_id
    train_images/<id>.tiff     downsamples 1, 4 and 16
    regions/<id>.png           255 where tumour-like growth was planted, at downsample 8
    sample.json, SAMPLE.txt    how it was made

Library versions may round or compress differently: bytes are compared on one machine only.
"""

from __future__ import annotations

import json
import logging
import os
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from attnvgg.data.cores import available_cores
from attnvgg.data.decoding import read_mask
from attnvgg.data.regions import REGIONS, region_file, square_means
from attnvgg.data.slides import Slide
from attnvgg.data.synthetic.slide_cases import (
    DOWNSAMPLE,
    IMAGES,
    SlideCase,
    draw_case,
    draw_slide_cases,
)
from attnvgg.data.synthetic.slides import SIZE, draw_slide
from attnvgg.data.synthetic.tissue import GRID, real_tissue
from attnvgg.data.synthetic.workers import spread
from attnvgg.data.tiles import panda_tiles
from attnvgg.data.tissue import tissue_mask
from attnvgg.errors import InputError
from attnvgg.files import atomic_folder, cache_folder, lock_beside

__all__ = ["default_folder", "draw_slide", "mean_colour_floor", "region_ceiling", "slide_sample"]

GENERATOR = 1  # raised whenever the same seed gives other slides
COUNT, SEED = 240, 0
FEW = 60  # slides, below which floor and ceiling are left to chance
OVERVIEW = 256  # px of the longest side at which the floor looks at a slide
REMEDY = "remove the folder or choose another one"
ABOUT = (
    "SYNTHETIC: every slide in this folder was composed by a program (attnvgg.data.slide_sample) "
    "from one picture of colonic tissue. There is no patient and no medical finding in it, and "
    "nothing measured on it says anything about cancer in people."
)

logger = logging.getLogger(__name__)


def slide_sample(
    folder: str | os.PathLike[str] | None = None,
    count: int = COUNT,
    seed: int = SEED,
    workers: int | None = None,
    size: tuple[int, int] = SIZE,
) -> Path:
    """Draw the sample of slides; a complete one with the same settings is left untouched.

    It appears whole or not at all; of several processes one draws it, and the others wait.

    Args:
        folder: to make; None means one in the user's cache.
        count: number of slides.
        seed: of all that is drawn.
        workers: processes; None means one for each core that this process may use.
        size: width and height of a slide in px, half of them turned; smaller ones are for tests.

    Returns:
        The folder.

    Raises:
        InputError: the settings make no sense, or the folder holds something else.
        OSError: the disk is full or not writable; nothing is left behind.
    """
    root = default_folder() if folder is None else Path(folder)
    settings = {"generator": GENERATOR, "count": count, "seed": seed, "size": list(size)}
    _check_settings(settings, workers)
    if _holds(root, settings):
        return root
    real_tissue()  # whoever lacks scikit-image is told at once, and by one sentence
    with lock_beside(root):
        if _holds(root, settings):  # another process has drawn it meanwhile
            return root
        logger.info("Drawing %d synthetic slides into %s.", count, root)
        with atomic_folder(root) as temporary:
            _write(temporary, settings, workers or max(1, min(available_cores(), count // 4)))
    return root


def default_folder() -> Path:
    """Return where the sample lies unless told otherwise."""
    return cache_folder() / "slide-sample"


def mean_colour_floor(folder: str | os.PathLike[str]) -> float:
    """What can be told without looking: the AUC of logistic regression on the tissue's mean colour.

    Every slide is judged by a model fitted to other patients (five folds).

    Args:
        folder: a sample, or anything else in PANDA's layout with a `patient_id`.

    Raises:
        InputError: there are too few slides with or without tumour for five folds.
    """
    table = _read_table(Path(folder))
    labels = (table["isup_grade"] > 0).to_numpy(int)
    if min(labels.sum(), (1 - labels).sum()) < 5:
        raise InputError(f"{folder} needs 5 slides with tumour and 5 without for its floor.")
    colours = np.stack([_mean_colour(path) for path in _slides(Path(folder), table)])
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    folds = StratifiedGroupKFold(5)
    guesses = cross_val_predict(
        model, colours, labels, groups=table["patient_id"], cv=folds, method="predict_proba"
    )
    return float(roc_auc_score(labels, guesses[:, 1]))


def region_ceiling(folder: str | os.PathLike[str]) -> float:
    """What can be told at most: the AUC of one who sees the planted regions, but only in the tiles.

    A slide's score is the largest share of growth in one of its 16 tiles.

    Args:
        folder: a sample.

    Raises:
        InputError: it has only slides with tumour, or only slides without.
    """
    root = Path(folder)
    table = _read_table(root)
    labels = table["isup_grade"] > 0
    if labels.nunique() < 2:
        raise InputError(f"{folder} needs slides with tumour and slides without for its ceiling.")
    scores = [tile_shares(root, name).max() for name in table["image_id"]]
    return float(roc_auc_score(labels, scores))


def tile_shares(folder: Path, image_id: str) -> np.ndarray:
    """Return the share of each of a slide's 16 tiles that planted growth covers, (N,)."""
    path = folder / IMAGES / f"{image_id}.tiff"
    if not region_file(path).is_file():
        raise InputError(f"{folder} is not a sample of slides: it has no region of {image_id}.")
    with Slide(path) as slide:
        tiles, width, height = panda_tiles(slide), slide.width, slide.height
    mask = read_mask(region_file(path)) > 0
    return square_means(mask, tiles.coords, tiles.side, width, height)


def _mean_colour(path: Path) -> np.ndarray:
    with Slide(path) as slide:
        overview = slide.overview(OVERVIEW)
        mpp = None if slide.mpp is None else slide.mpp * slide.width / overview.shape[1]
    tissue = tissue_mask(overview, mpp)
    if not tissue.any():
        raise InputError(f"{path} shows no tissue, so it has no mean colour.")
    return np.asarray(overview[tissue].mean(0))


def _slides(root: Path, table: pd.DataFrame) -> list[Path]:
    return [root / IMAGES / f"{name}.tiff" for name in table["image_id"]]


def _read_table(root: Path) -> pd.DataFrame:
    try:
        return pd.read_csv(root / "train.csv", dtype={"image_id": str, "patient_id": str})
    except FileNotFoundError:
        raise InputError(f"{root} is not a sample of slides: it has no train.csv.") from None


def _holds(root: Path, settings: dict[str, Any]) -> bool:
    """Whether the folder holds exactly this sample; False if there is nothing yet."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    try:
        found = json.loads((root / "sample.json").read_text(encoding="utf-8"))
        found = {key: found[key] for key in settings}
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(f"{root} exists and is not a sample of slides: {REMEDY}.") from None
    if found != settings:
        raise InputError(f"{root} holds another sample ({found}, wanted {settings}): {REMEDY}.")
    names = [case.image_id for case in draw_slide_cases(settings["count"], settings["seed"])]
    files = [root / "train.csv"]
    files += [root / IMAGES / f"{name}.tiff" for name in names]
    files += [root / REGIONS / f"{name}.png" for name in names]
    missing = [path for path in files if not path.is_file()]
    if missing:
        raise InputError(f"The sample in {root} has lost files, so {REMEDY}:", missing)
    return True


def _check_settings(settings: dict[str, Any], workers: int | None) -> None:
    sides = settings["size"]
    wrong_size = len(sides) != 2 or any(side < 32 * GRID or side % GRID for side in sides)
    too_few = settings["count"] < 1 or (workers is not None and workers < 1)
    if too_few or settings["seed"] < 0 or wrong_size:
        raise InputError(
            "A sample of slides needs a count of at least 1, a seed of at least 0, sides of at "
            f"least {32 * GRID} that are multiples of {GRID}, and at least 1 worker; got count "
            f"{settings['count']}, seed {settings['seed']}, size {sides}, workers {workers}."
        )


def _write(folder: Path, settings: dict[str, Any], workers: int) -> None:
    """Write the whole sample into a folder that nobody reads yet."""
    count, seed, size = settings["count"], settings["seed"], tuple(settings["size"])
    cases = draw_slide_cases(count, seed)
    (folder / IMAGES).mkdir()
    (folder / REGIONS).mkdir()
    spread(partial(draw_case, folder=folder, seed=seed, size=size), cases, workers)
    pd.DataFrame([_row(case) for case in cases]).to_csv(folder / "train.csv", index=False)
    summary = {"synthetic": True, "about": ABOUT, **settings, "region_downsample": DOWNSAMPLE}
    (folder / "sample.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    (folder / "SAMPLE.txt").write_text(ABOUT + "\n", encoding="utf-8")


def _row(case: SlideCase) -> dict[str, object]:
    """A row of train.csv: PANDA's columns, and the patient."""
    return {
        "image_id": case.image_id,
        "data_provider": case.provider,
        "isup_grade": case.isup,
        "gleason_score": case.gleason,
        "patient_id": f"SP_{case.patient:04d}",
    }
