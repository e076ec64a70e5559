"""`attnvgg predict`: from any number of images to a table of predictions."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tqdm import tqdm

from attnvgg.cli.common import Incomplete, parse_with_output, run_command
from attnvgg.data.cores import available_cores
from attnvgg.deploy.batch_prediction import (
    PartDone,
    PredictionPace,
    converting,
    header_of,
    part_worker,
    predict_parts,
)
from attnvgg.deploy.fleet import over_ray
from attnvgg.deploy.prediction_job import Job, broken_path, is_listing_of_broken, open_job
from attnvgg.deploy.prediction_listing import Listing, list_images
from attnvgg.deploy.prediction_panels import Panels, require_maps
from attnvgg.deploy.predictor import Predictor
from attnvgg.errors import InputError
from attnvgg.training.signals import Interrupted, StopRequest

logger = logging.getLogger(__name__)

RUN = {"type": str, "help": "run folder, saved or exported model, or owner/name on the hub"}
TARGET = {"type": Path, "help": "folder of images, CSV with a column image, or an image"}
AT_LEAST_ONE = ("batch_size", "threads", "workers", "part")


@dataclass(frozen=True)
class PredictConfig:
    """Predict all images of a folder or a table, into a table that evaluate can judge.

    Parts are kept as they are done, so the same command goes on where it was stopped. Images that
    cannot be used are passed over and listed in <stem>.broken.csv. Columns label, group, split,
    sex, age, site and source of a table are kept.
    """

    run: str = field(metadata={"positional": RUN})
    target: Path = field(metadata={"positional": TARGET})
    output: Path = Path("predictions.csv")
    """Table to write (-o); an older one is replaced when all images are done."""
    overlays: Path | None = None
    """Folder for a picture an image of image | pool-3 | pool-4; null: none are drawn."""
    engine: str = "auto"
    """eager, compiled, onnx, openvino, openvino-int8, or auto: what suits this machine."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto takes the GPU where there is one."""
    batch_size: int = 8
    """Images that are computed together."""
    threads: int | None = None
    """CPU threads that compute; null: the engine's choice."""
    workers: int | None = None
    """Threads that decode; null: one a core."""
    convert: bool = False
    """Accept 16-bit, CMYK, grey, palette, transparent and EXIF-rotated files, converted."""
    part: int = 256
    """Images a part: what a killed process loses at most."""
    restart: bool = False
    """Drop the parts of an earlier job that was stopped, and begin anew."""
    cluster: Literal["none", "ray"] = "none"
    """ray: parts are spread over the cores (or GPUs) of the Ray cluster of RAY_ADDRESS, or of this
    machine. All of its machines must see the model, the images and the folder of the table."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return run_command(predict, PredictConfig, argv, "predict", parse_with_output)


def predict(config: PredictConfig) -> None:
    """Predict what is not predicted yet, and join the parts."""
    check(config)
    listing = list_images(config.target)
    predictor = _open(config)
    logger.info("Engine: %s", predictor.words)
    predict_listed(config, predictor, listing)


def predict_listed(config: PredictConfig, predictor: Predictor, listing: Listing) -> None:
    """Predict images by an opened model, write the table, and say what is in it."""
    side = predictor.preprocess.size
    (probe,) = predictor.compute(np.zeros((1, 3, side, side), np.float32))
    if config.overlays is not None:
        require_maps(probe)
        config.overlays.mkdir(parents=True, exist_ok=True)
    asked = _identity(config, predictor)
    with open_job(config.output, asked, listing, config.part, config.restart) as job:
        seconds, new = _work(config, predictor, job)
        job.join(config.output, header_of(job.known, len(probe.logits)))
        called, broken = job.counted()
        judgeable = "label" in job.known and job.judgeable()
    rate = f"{new / seconds:.1f} images a second" if new else "none of them new"
    counts = ", ".join(f"{name} {called[name]}" for name in predictor.classes)
    logger.info(
        "Written: %s, %d images, %s, by %s; called %s.",
        config.output, job.count - broken, rate, predictor.words, counts,
    )  # fmt: skip
    if judgeable:
        threshold = predictor.threshold
        locked = "" if threshold is None else f" --threshold {threshold}"
        logger.info("To judge them: attnvgg evaluate %s%s", config.output, locked)
    if broken:
        raise Incomplete(
            f"{broken} of {job.count} images were passed over: {broken_path(config.output)} says "
            "which and why."
        )


def check(config: PredictConfig) -> None:
    """Refuse options that cannot be, before anything is opened.

    Raises:
        InputError: listing them.
    """
    wrong = [
        f"--{name} {value}: must be at least 1"
        for name in AT_LEAST_ONE
        if (value := getattr(config, name)) is not None and value < 1
    ]
    output, target = config.output.absolute(), config.target.absolute()
    if not output.parent.is_dir():
        wrong.append(f"--output {config.output}: there is no folder {output.parent}")
    elif output.is_dir() or not os.access(output.parent, os.W_OK):
        wrong.append(f"--output {config.output}: cannot be written there")
    if output.suffix.lower() != ".csv" or (output.exists() and not output.is_file()):
        wrong.append(f"--output {config.output}: must be a file that ends with .csv")
    replaced = {output.resolve(), broken_path(output).resolve()}
    if target.resolve() in replaced:
        wrong.append(f"--output {config.output}: would replace {config.target}, which is read")
    its_own = [Path(config.run) / name for name in ("predictions.csv", "manifest.csv")]
    if replaced & {path.resolve() for path in its_own}:
        wrong.append(f"--output {config.output}: would replace a file of the run")
    broken = broken_path(output)
    if broken.exists() and not is_listing_of_broken(broken):
        wrong.append(f"--output {config.output}: {broken} is in the way, and of something else")
    if (overlays := config.overlays) is not None:
        if overlays.exists() and not overlays.is_dir():
            wrong.append(f"--overlays {overlays}: is not a folder")
        if target.is_dir() and overlays.resolve().is_relative_to(target.resolve()):
            wrong.append(f"--overlays {overlays}: would be taken for images of {config.target}")
    if wrong:
        raise InputError("These options cannot be:", wrong)


def _open(config: PredictConfig) -> Predictor:
    predictor = Predictor(config.run, config.engine, threads=config.threads, device=config.device)
    return converting(predictor, config.convert)


def _identity(config: PredictConfig, predictor: Predictor) -> dict[str, Any]:
    """Return what decides the table, beside the images."""
    overlays = config.overlays
    return {
        "model": predictor.digest,
        "classes": predictor.classes,
        "threshold": predictor.threshold,
        "engine": [predictor.engine.words, predictor.engine_key],
        "preprocessing": predictor.preprocess.to_dict(),
        "overlays": None if overlays is None else str(overlays.absolute()),
    }


def _work(config: PredictConfig, predictor: Predictor, job: Job) -> tuple[float, int]:
    """Predict the parts that are missing; return the seconds, and the number of their images."""
    missing = job.missing()
    new = sum(map(job.length, missing))
    before = job.count - new
    if before:
        logger.info("%d of %d images are predicted already.", before, job.count)
    start = time.perf_counter()
    bar = tqdm(
        desc="predicting", total=job.count, initial=before, unit="image",
        smoothing=0.05, disable=None,
    )  # fmt: skip
    with bar, StopRequest() as stop:
        run = _over_ray if config.cluster == "ray" else _here
        lost = [
            done.number for done in run(config, predictor, job, missing, bar, stop) if done.lost
        ]
    if lost:
        raise Incomplete(
            f"{len(lost)} of {len(job.starts)} parts are missing, because every process that "
            "worked on them died: run the same command again."
        )
    return time.perf_counter() - start, new


def _here(
    config: PredictConfig,
    predictor: Predictor,
    job: Job,
    missing: list[int],
    bar: tqdm[Any],
    stop: StopRequest,
) -> Iterator[PartDone]:
    panels = None if config.overlays is None else Panels.of(predictor, config.overlays)

    def between(images: int) -> None:
        bar.update(images)
        _stop_when_told(stop)

    pace = PredictionPace(config.batch_size, config.workers or available_cores())
    return predict_parts(predictor, job, missing, pace, panels, between)


def _over_ray(
    config: PredictConfig,
    predictor: Predictor,
    job: Job,
    missing: list[int],
    bar: tqdm[Any],
    stop: StopRequest,
) -> Iterator[PartDone]:
    """Spread parts over a cluster; every worker computes with one thread, by the same engine."""
    overlays = None if config.overlays is None else config.overlays.absolute()
    run = os.path.abspath(config.run) if os.path.exists(config.run) else config.run
    setup = partial(
        part_worker,
        partial(_open, replace(config, run=run, engine=predictor.engine.name, threads=1)),
        job.absolute(),
        PredictionPace(config.batch_size, config.workers or 1),
        overlays,
    )
    device = getattr(predictor.engine, "device", None)
    gpus = device is not None and device.type == "cuda"
    between = partial(_stop_when_told, stop)
    for done in over_ray(setup, missing, gpus, between, lambda n: PartDone(n, 0, lost=True)):
        bar.update(done.images)
        yield done


def _stop_when_told(stop: StopRequest) -> None:
    if stop:
        raise Interrupted(
            "stopped; finished parts are kept: run the same command again to go on.", stop.signum
        )
