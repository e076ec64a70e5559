"""The built-in sample: synthetic dermoscopy-like pictures in the layout of the Kaggle dataset.

It lets everything run on a machine without data. The generator was fixed by reasoning about its
ceiling (the AUC of the latent score that the labels are drawn from) and its floor (what colours
and area alone can tell), never by training a network on it, and must stay so.

The same count and seed give the same pictures with any number of workers. Another version of
OpenCV or NumPy may round or compress differently, so bytes are compared on one machine only.
"""

import json
import logging
import os
from functools import partial
from pathlib import Path

import pandas as pd
from sklearn.metrics import roc_auc_score

from attnvgg.data.listing import KAGGLE_IMAGES
from attnvgg.data.synthetic.cases import Case, draw_cases
from attnvgg.data.synthetic.pictures import FEATURES, MASKS, write_picture
from attnvgg.data.synthetic.reference import floor_model, overall
from attnvgg.data.synthetic.workers import spread, worthwhile_workers
from attnvgg.errors import InputError
from attnvgg.files import atomic_folder, lock_beside

GENERATOR = 1  # raised whenever the same seed gives other pictures
COUNT, SEED, SIZE = 2000, 1234, 512
REMEDY = "remove the folder or choose another one"
ABOUT = (
    "SYNTHETIC: every picture in this folder was drawn by a program (attnvgg.data.sample). "
    "There is no photograph, no patient and no medical finding in it, and nothing measured on it "
    "says anything about melanoma in people."
)

logger = logging.getLogger(__name__)


def make_sample(
    root: str | os.PathLike[str],
    count: int = COUNT,
    seed: int = SEED,
    workers: int | None = None,
    size: int = SIZE,
) -> Path:
    """Paint the sample into `root`; a complete one with the same settings is left untouched.

    It appears whole or not at all; of several processes one paints it, and the others wait.

    Args:
        root: the folder to make.
        count: number of pictures.
        seed: of all that is drawn.
        workers: processes; None means one for each core that this process may use.
        size: side of the pictures in pixels; smaller ones are for tests.

    Returns:
        The folder.

    Raises:
        InputError: the settings make no sense, or the folder holds something else.
        OSError: the disk is full or not writable; nothing is left behind.
    """
    root = Path(root)
    settings = {"generator": GENERATOR, "count": count, "seed": seed, "size": size}
    _check_settings(settings, workers)
    if _holds(root, settings):
        return root
    with lock_beside(root):
        if _holds(root, settings):  # another process has painted it meanwhile
            return root
        logger.info("Painting %d synthetic pictures into %s.", count, root)
        with atomic_folder(root) as folder:
            _write(folder, settings, workers or worthwhile_workers(count))
    return root


def open_sample(root: str | os.PathLike[str]) -> Path | None:
    """Return the folder of a sample that is there, whatever its settings, or None if none is.

    Raises:
        InputError: its description cannot be read, or files of it are missing.
    """
    root = Path(root)
    if not (root / "sample.json").exists():
        return None
    _require_files(root, _read_settings(root))
    return root


def sample_reference(root: str | os.PathLike[str], manifest: pd.DataFrame) -> dict[str, float]:
    """The two numbers to print beside every AUC on the sample's test rows.

    Args:
        root: a sample made by `make_sample`.
        manifest: rows of that sample, with `split`.

    Returns:
        `ceiling`, the AUC of the score that the labels were drawn from, and `floor`, the AUC of
        logistic regression on colour histogram and lesion area fitted to the training rows.

    Raises:
        InputError: rows are not of this sample, or a side has only one class.
    """
    if "split" not in manifest:
        raise InputError(
            "The manifest has no column `split`: split it before asking for the floor."
        )
    truth = _read_truth(Path(root))
    names = manifest["image"].map(lambda image: Path(image).stem)
    strangers = manifest["image"][~names.isin(truth.index)]
    if len(strangers):
        raise InputError(f"Images are not of the sample in {root}:", strangers)
    rows = truth.loc[names].assign(
        label=manifest["label"].to_numpy(), split=manifest["split"].to_numpy()
    )
    train, test = (rows[rows["split"] == side] for side in ("train", "test"))
    for side, part in (("training", train), ("test", test)):
        if part["label"].nunique() < 2:
            raise InputError(f"The sample's {side} rows do not hold both classes.")
    model = floor_model().fit(train[FEATURES], train["label"])
    guesses = model.predict_proba(test[FEATURES])[:, 1]
    return {
        "ceiling": float(roc_auc_score(test["label"], test["score"])),
        "floor": float(roc_auc_score(test["label"], guesses)),
    }


def _holds(root: Path, settings: dict[str, int]) -> bool:
    """Whether the folder holds exactly this sample; False if there is nothing yet."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    found = _read_settings(root)
    if found != settings:
        raise InputError(f"{root} holds another sample ({found}, wanted {settings}): {REMEDY}.")
    _require_files(root, settings)
    return True


def _check_settings(settings: dict[str, int], workers: int | None) -> None:
    _, count, seed, size = settings.values()
    if count < 1 or seed < 0 or size < 32 or size % 2 or (workers is not None and workers < 1):
        raise InputError(
            "A sample needs a count of at least 1, a seed of at least 0, an even size of at least "
            "32 and at least 1 worker; "
            f"got count {count}, seed {seed}, size {size}, workers {workers}."
        )


def _read_settings(root: Path) -> dict[str, int]:
    """What the sample in the folder says that it was made with."""
    try:
        found = json.loads((root / "sample.json").read_text(encoding="utf-8"))
        return {key: int(found[key]) for key in ("generator", "count", "seed", "size")}
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(f"{root} exists and is not a sample: {REMEDY}.") from None


def _require_files(root: Path, settings: dict[str, int]) -> None:
    names = [case.image_id for case in draw_cases(settings["count"], settings["seed"])]
    files = [root / "marking.csv", root / "sample_truth.csv"]
    files += [root / KAGGLE_IMAGES / f"{name}.jpg" for name in names]
    files += [root / MASKS / f"{name}.png" for name in names]
    missing = [path for path in files if not path.is_file()]
    if missing:
        raise InputError(f"The sample in {root} has lost files, so {REMEDY}:", missing)


def _write(folder: Path, settings: dict[str, int], workers: int) -> None:
    """Write the whole sample into a folder that nobody reads yet."""
    cases = draw_cases(settings["count"], settings["seed"])
    (folder / KAGGLE_IMAGES).mkdir(parents=True)
    (folder / MASKS).mkdir()
    job = partial(write_picture, folder=folder, seed=settings["seed"], size=settings["size"])
    truth = pd.DataFrame(spread(job, cases, workers))
    marking = pd.DataFrame([_marking(case) for case in cases])
    marking.to_csv(folder / "marking.csv", index=False)
    truth.to_csv(folder / "sample_truth.csv", index=False, float_format="%.6g")
    summary = {
        "synthetic": True,
        "about": ABOUT,
        **settings,
        "malignant": int(marking["target"].sum()),
        "patients": int(marking["patient_id"].nunique()),
        **overall(truth, marking["target"], marking["patient_id"]),
    }
    (folder / "sample.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    (folder / "SAMPLE.txt").write_text(ABOUT + "\n", encoding="utf-8")


def _marking(case: Case) -> dict[str, object]:
    """A row of marking.csv, as the Kaggle dataset has it."""
    return {
        "image_id": case.image_id,
        "target": case.label,
        "patient_id": case.patient_id,
        "sex": case.sex,
        "age_approx": float(case.age),
        "anatom_site_general_challenge": case.site,
        "source": "SYNTHETIC",
    }


def _read_truth(root: Path) -> pd.DataFrame:
    try:
        return pd.read_csv(root / "sample_truth.csv").set_index("image_id")
    except FileNotFoundError:
        raise InputError(f"{root} is not a sample: it has no sample_truth.csv.") from None
