"""What a model was trained on, in the statistics of an audit trail: computed once, then kept."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import numpy as np
import pandas as pd
from tqdm import tqdm

from attnvgg.cli.bag_cases import BagCases, load_bag_cases
from attnvgg.cli.bag_runs import read_bag_manifest, read_bags_config
from attnvgg.data.cores import available_cores
from attnvgg.data.image_statistics import bag_statistics, image_statistics
from attnvgg.data.inspection import image_size
from attnvgg.data.tables import read_table
from attnvgg.deploy.bag_predictor import BagPredictor
from attnvgg.deploy.predictor import Predictor
from attnvgg.deploy.serving.trail import flat, record_of
from attnvgg.errors import InputError
from attnvgg.files import atomic_path
from attnvgg.models import Pretrained
from attnvgg.models.weights import digest
from attnvgg.training.bag_config import TrainBagsConfig
from attnvgg.training.checkpoint import load_model, preprocess_of
from attnvgg.training.run import RunFolder, read_cases, read_task

logger = logging.getLogger(__name__)

FILE = "drift_reference.csv"
MOST = 5000  # training cases: a fixed draw of more
WHEN, WHO = ("time", "request_id", "called"), "model"

Device = Literal["auto", "cpu", "cuda"]


def reference_of(run: RunFolder, engine: str, device: Device) -> tuple[str, pd.DataFrame]:
    """Return the digest of a run's model, and the statistics of its training and validation cases.

    Rows of training have the statistics of the input, rows of validation what the model said: of
    the images that it was trained on it says other things than of new ones.

    Args:
        run: of one model.
        engine: what computes what the model says, as in `Predictor`.
        device: likewise.

    Raises:
        InputError: the run has no model, or its images are gone.
    """
    model = load_model(run.path)
    name = digest(model.state_dict())
    path = run.path / FILE
    kept = _read(path, name)
    if kept is not None:
        logger.info("Reference: %s.", path)
        return name, kept
    logger.info("Reference: computed once from the run's images, then kept in %s.", path)
    of = _of_bags if read_task(run) == "bags" else _of_images
    rows = list(of(run, model, engine, device))
    table = pd.DataFrame(rows).drop(columns=[*WHEN], errors="ignore").assign(model=name)
    with atomic_path(path) as temporary:
        table.to_csv(temporary, index=False)
    return name, table


def statistics_of(table: pd.DataFrame) -> tuple[list[str], list[str]]:
    """Return the names of the statistics of the input, and those of what the model said."""
    names = [str(name) for name in table if name not in ("split", WHO)]
    training = table[table["split"] == "train"]
    given = [name for name in names if training[name].notna().any()]
    return given, [name for name in names if name not in given]


def _read(path: Any, name: str) -> pd.DataFrame | None:
    """Return the kept reference, if it is of this model."""
    if not path.is_file():
        return None
    try:
        table = read_table(path)
        if set(table[WHO]) != {name} or set(table["split"]) != {"train", "val"}:
            return None
        values = table.drop(columns=["split", WHO]).replace("", "nan").astype(float)
    except (InputError, KeyError, ValueError):
        return None
    return table[["split", WHO]].join(values)


def _draw(rows: pd.DataFrame) -> pd.DataFrame:
    chosen = np.random.default_rng(0).permutation(len(rows))[:MOST]
    return rows.iloc[np.sort(chosen)]


def _of_images(
    run: RunFolder, model: Pretrained, engine: str, device: Device
) -> Iterator[dict[str, Any]]:
    preprocess = preprocess_of(model)
    manifest = read_cases(run)
    training, held_out = (manifest[manifest["split"] == name] for name in ("train", "val"))
    _require(run, training, held_out)

    def statistics(path: str) -> dict[str, Any]:
        height, width = image_size(path)
        found = image_statistics(preprocess.load(path))
        return {"split": "train", "width": width, "height": height, **found}

    paths = _draw(training)["image"].tolist()
    with ThreadPoolExecutor(available_cores()) as pool:
        yield from _bar(pool.map(statistics, paths), "training images", len(paths))
    predictor = Predictor(run.path, engine, device=device)
    paths = held_out["image"].tolist()
    for one in _bar(predictor(paths), "validation images", len(paths)):
        yield {"split": "val"} | flat(record_of("", predictor.digest, one))


def _of_bags(
    run: RunFolder, model: Pretrained, engine: str, device: Device
) -> Iterator[dict[str, Any]]:
    config: TrainBagsConfig = read_bags_config(run)
    cases = load_bag_cases(config, read_bag_manifest(run))
    _require(run, cases.rows("train"), cases.rows("val"))
    for bag in _bags(config, cases, "train"):
        yield {"split": "train"} | bag_statistics(bag)
    predictor = BagPredictor(run.path, engine, device=device)
    for one in predictor(_bags(config, cases, "val")):
        # how many instances there are is told of the training bags
        said = flat(record_of("", predictor.digest, one))
        yield {"split": "val"} | {key: value for key, value in said.items() if key != "instances"}


def _bags(config: TrainBagsConfig, cases: BagCases, split: str) -> Iterator[Any]:
    dataset: Any = cases.dataset(config, split)
    order = np.random.default_rng(0).permutation(len(dataset))[:MOST]
    for row in _bar(np.sort(order), f"{split} bags", len(order)):
        yield dataset[int(row)]["instances"].numpy()


def _bar(items: Any, words: str, total: int) -> Any:
    return tqdm(items, words, total, unit="case", leave=False, disable=None)


def _require(run: RunFolder, training: pd.DataFrame, held_out: pd.DataFrame) -> None:
    if training.empty or held_out.empty:
        raise InputError(f"{run.manifest} has no training or no validation rows to compare with.")
