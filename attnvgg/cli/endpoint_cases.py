"""Validation and test cases of a run, or of a table, sent to a served model."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

from attnvgg.cli.bag_cases import BagCases, load_bag_cases
from attnvgg.cli.bag_runs import read_bag_manifest
from attnvgg.data.bags import FeatureBags
from attnvgg.data.sources import load_source
from attnvgg.deploy.endpoint import Endpoint
from attnvgg.deploy.reading import read_ahead
from attnvgg.deploy.wire import Answer
from attnvgg.errors import InputError
from attnvgg.training.bag_config import DIGITS, TrainBagsConfig
from attnvgg.training.run import RunFolder, read_cases

logger = logging.getLogger(__name__)

FOLDER = "endpoint"  # in a run
Call = Callable[[], Answer]


@dataclass(frozen=True)
class Sent:
    """Cases for a served model.

    Attributes:
        manifest: cases with their split.
        rows: of those that are sent.
        call: sends the case of a row of the manifest.
        folder: where the answers go.
        own: predictions of the run itself, to compare with; may be missing.
    """

    manifest: pd.DataFrame
    rows: NDArray[np.intp]
    call: Callable[[Endpoint, int], Answer]
    folder: Path
    own: Path | None = None


def cases_of_run(run: RunFolder, config: Any) -> Sent:
    """Return the validation and test cases of a run.

    Args:
        run: on images or on bags.
        config: of the run.

    Raises:
        InputError: the run is of several models, or its cases are gone.
    """
    if config.seeds > 1 or getattr(config, "folds", 1) > 1:
        part = "seed" if config.seeds > 1 else "fold"
        raise InputError(
            f"{run.path} is of several {part}s, and an endpoint serves one model: give the folder "
            f"of that {part}, such as {next(run.path.glob(f'{part}-*'), run.path / part)}."
        )
    if isinstance(config, TrainBagsConfig):
        if config.data.source in DIGITS and config.model.encoder == "identity":
            raise InputError(
                f"{run.path} takes what the encoder of its run makes of digits, which no endpoint "
                "knows: give a run whose model takes the digits."
            )
        cases = load_bag_cases(config, read_bag_manifest(run))
        manifest, call = cases.manifest, _bag_sender(cases, config)
    else:
        manifest = read_cases(run)
        call = partial(_send_image, manifest["image"].tolist())
    rows = np.flatnonzero(manifest["split"].isin(["val", "test"]))
    if not len(rows):
        raise InputError(f"{run.manifest} has neither validation nor test rows.")
    return Sent(manifest, rows, call, run.path / FOLDER, run.predictions)


def cases_of_table(path: Path) -> Sent:
    """Return the cases of a CSV with the columns image and label; without a split all are tested.

    Raises:
        InputError: see `load_source`.
    """
    manifest = load_source("csv", path)
    if "split" not in manifest:
        manifest["split"] = "test"
    rows = np.flatnonzero(manifest["split"].isin(["val", "test"]))
    if not len(rows):
        raise InputError(f"{path} has neither validation nor test rows.")
    call = partial(_send_image, manifest["image"].tolist())
    return Sent(manifest, rows, call, path.with_name(f"{path.stem}_{FOLDER}"))


def send_all(endpoint: Endpoint, cases: Sent, requests: int) -> list[Answer]:
    """Return the answers of all cases, in their order, several being asked for at a time.

    Raises:
        InputError: a case was not answered; it is named, and no others are sent.
    """

    def calls() -> Iterator[tuple[int, Call]]:
        return ((row, partial(cases.call, endpoint, row)) for row in cases.rows.tolist())

    answers = []
    for row, future in tqdm(
        read_ahead(calls(), requests, requests), "asking", len(cases.rows), disable=None
    ):
        try:
            answers.append(future.result())
        except InputError as error:
            name = cases.manifest["image"].iloc[row]
            raise InputError(f"{error.message} It was asked of:", [name]) from error
    return answers


def _send_image(files: Sequence[str], endpoint: Endpoint, row: int) -> Answer:
    return endpoint.predict_image(files[row])


def _bag_sender(cases: BagCases, config: TrainBagsConfig) -> Callable[[Endpoint, int], Answer]:
    """Return what sends the bag of a row, before any preprocessing: the endpoint has its own."""
    if cases.digits is not None:
        pixels, members = cases.digits.images, cases.manifest["instances"].tolist()

        def send_digits(endpoint: Endpoint, row: int) -> Answer:
            return endpoint.predict_bag([_png(pixels[int(one)]) for one in members[row].split()])

        return send_digits
    rows = cases.rows("val", "test").index
    position = {row: number for number, row in enumerate(rows)}
    dataset: Any = cases.dataset(config, "val", "test")

    def send_bag(endpoint: Endpoint, row: int) -> Answer:
        if isinstance(dataset, FeatureBags):
            bag = dataset.instances(position[row])["instances"].numpy()
            return endpoint.predict_bag(features=bag)
        return endpoint.predict_bag(dataset.files(position[row]))

    return send_bag


def _png(pixels: NDArray[np.uint8]) -> bytes:
    return bytes(cv2.imencode(".png", pixels)[1])
