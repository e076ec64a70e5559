"""`attnvgg extract_features`: from slides to a file of tile features each."""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from tqdm import tqdm

from attnvgg.cli.common import Incomplete, run_command
from attnvgg.data.slide_listing import slide_files
from attnvgg.data.slide_sample import slide_sample
from attnvgg.deploy.engines.kinds import check_available
from attnvgg.deploy.extraction import Outcome, Pace, extract
from attnvgg.deploy.feature_settings import FeatureSettings, kept_calibration, unfinished
from attnvgg.deploy.fleet import joined_process, over_ray, share_of, slide_worker
from attnvgg.deploy.tile_calibration import Calibration, first_readable
from attnvgg.deploy.tile_encoders import EncoderChoice, open_encoder
from attnvgg.errors import InputError
from attnvgg.training.signals import Interrupted, StopRequest

logger = logging.getLogger(__name__)

AT_LEAST = {"batch_size": 1, "readers": 1, "tile": 1, "threads": 1, "image_size": 32}
SLIDES = {
    "nargs": "*",
    "type": Path,
    "help": "slides, or folders of them; none: the built-in sample of drawn slides",
}


@dataclass(frozen=True)
class ExtractConfig(FeatureSettings):
    """Turn every tile of slides into a vector: a file of features a slide, as CLAM and TRIDENT
    write them.

    Slides that are finished are skipped, so the same command goes on where it was stopped. Under
    torchrun the slides are dealt over its processes.
    """

    slides: list[Path] = field(default_factory=list, metadata={"positional": SLIDES})
    encoder: Literal["torchvision", "timm", "attnvgg"] = "torchvision"
    """Library of the network, without its last layer."""
    backbone: str | None = None
    """Network; null: resnet18, of attnvgg vgg16_bn."""
    weights: str | None = None
    """imagenet, random (always the same) or a file; null: imagenet, for the sample random."""
    model: str | None = None
    """Model of ours that encodes, in place of the three above: run folder or hub repository."""
    image_size: int | None = None
    """Side to which tiles are resized in pixels; null: 224, or what the network asks for."""
    out: Path = Path("features")
    """Folder of the feature files."""
    batch_size: int = 64
    """Tiles that are computed together."""
    readers: int = 2
    """Threads that read tiles, a process."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto takes the GPU where there is one."""
    threads: int | None = None
    """CPU threads that compute, a batch each; null: PyTorch's choice."""
    calibration: list[Path] | None = None
    """Of --precision int8: slides, or folders of them, to calibrate on: [a.tiff,b.tiff]. null:
    those of the features that are in --out, else the first four of the slides."""
    cluster: Literal["none", "ray"] = "none"
    """ray: a worker a GPU (or core) of the Ray cluster of RAY_ADDRESS, or of this machine. All of
    its machines must see the slides and the folder of the features."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return run_command(extract_features, ExtractConfig, argv, "extract_features")


def extract_features(config: ExtractConfig) -> None:
    """Extract the features of all slides that have none yet."""
    check(config)
    with joined_process() as process:
        if process.rank:
            logging.getLogger("attnvgg").setLevel(logging.ERROR)
        if config.cluster == "ray" and process.world > 1:
            raise InputError("--cluster ray spreads the slides itself: start it without torchrun.")
        slides = process.from_first(lambda: slide_files(config.slides or [_sample()]))
        settings = _settings(config)
        calibration = process.from_first(lambda: _calibration(config, settings, slides))
        encoder = open_encoder(replace(_choice(config), calibration=calibration))
        # one decides for all, because files appear while a slower process is still looking
        waiting = process.from_first(lambda: unfinished(slides, config.out, settings, encoder))
        config.out.mkdir(parents=True, exist_ok=True)
        logger.info("%d slides, %d to do, by %s.", len(slides), len(waiting), encoder.name)
        start = time.perf_counter()
        with StopRequest() as stop:
            between = partial(_stop_when_told, stop)
            if config.cluster == "ray":
                mine, done = waiting, _over_ray(config, encoder.choice, waiting, between)
            else:
                mine, pace = share_of(waiting, process), _pace(config, process.local_rank)
                done = extract(mine, config.out, encoder, settings, pace, between)
            found = process.gather(_collect(done, len(mine)))
        _report(found, config.out, time.perf_counter() - start)


def check(config: ExtractConfig) -> None:
    """Refuse options that cannot be, before anything is read.

    Raises:
        InputError: listing them.
    """
    wrong = [
        f"--{name} {value}: must be at least {lowest}"
        for name, lowest in AT_LEAST.items()
        if (value := getattr(config, name)) is not None and value < lowest
    ]
    for name in ("mpp", "slide_mpp"):
        if (value := getattr(config, name)) is not None and not 0 < value < math.inf:
            wrong.append(f"--{name} {value}: must be above 0")
    if not 0 <= config.overlap < config.tile:
        wrong.append(f"--overlap {config.overlap}: must be at least 0 and below --tile")
    if not 0 <= config.tissue <= 1:
        wrong.append(f"--tissue {config.tissue}: must lie from 0 to 1")
    if config.model is not None and (config.backbone or config.weights or config.image_size):
        wrong.append("--model: has a backbone, weights and image size of its own")
    if config.out.exists() and not config.out.is_dir():
        wrong.append(f"--out {config.out}: is not a folder")
    if config.precision == "int8" and config.device == "cuda":
        wrong.append("--precision int8: is computed on the CPU, not with --device cuda")
    if config.precision != "int8" and config.calibration is not None:
        wrong.append("--calibration: is for --precision int8")
    if wrong:
        raise InputError("These options cannot be:", wrong)
    if config.precision == "int8":
        check_available("openvino-int8")
    if config.device == "cuda" and config.cluster == "none" and not torch.cuda.is_available():
        raise InputError("With --device cuda a GPU is needed, and PyTorch sees none: use cpu.")
    if config.precision == "fp16" and not _on_gpu(config) and config.cluster == "none":
        raise InputError("--precision fp16 needs a GPU: use bf16 or no.")


def _sample() -> Path:
    logger.info("No slides are named: these are the drawn ones of the built-in sample.")
    return slide_sample() / "train_images"


def _choice(config: ExtractConfig) -> EncoderChoice:
    """Return the encoder, with absolute paths: the feature files say where it was."""
    weights = config.weights or ("imagenet" if config.slides else "random")
    if weights not in ("imagenet", "random"):
        weights = os.path.abspath(weights)
    if config.model is None:
        backbone = config.backbone
        return EncoderChoice(config.encoder, backbone, weights, None, config.image_size)
    model = os.path.abspath(config.model) if os.path.exists(config.model) else config.model
    return EncoderChoice("attnvgg", None, None, model)


def _calibration(
    config: ExtractConfig, settings: FeatureSettings, slides: Sequence[Path]
) -> Calibration | None:
    """Return what 8 bits are calibrated on; added features get the engine of those there."""
    if config.precision != "int8":
        return None
    kept = kept_calibration(config.out, settings)
    if config.calibration is None:
        return kept or Calibration.of(first_readable(slides, settings.tiles), settings.tiles)
    asked = Calibration.of(slide_files(config.calibration), settings.tiles)
    if kept is not None and kept.name != asked.name:
        raise InputError(
            f"The features in {config.out} were calibrated on others than {asked.words}: leave "
            "--calibration out to go on with theirs, or choose another --out. Theirs:",
            kept.slides,
        )
    return kept or asked


def _settings(config: ExtractConfig) -> FeatureSettings:
    return FeatureSettings(
        **{key.name: getattr(config, key.name) for key in fields(FeatureSettings)}
    )


def _pace(config: ExtractConfig, local_rank: int = 0) -> Pace:
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    device = f"cuda:{local_rank % torch.cuda.device_count()}" if _on_gpu(config) else "cpu"
    return Pace(config.batch_size, config.readers, device)


def _on_gpu(config: ExtractConfig) -> bool:
    may = config.device != "cpu" and config.precision != "int8"
    return may and (config.device == "cuda" or torch.cuda.is_available())


def _over_ray(
    config: ExtractConfig, choice: EncoderChoice, slides: list[Path], between: Callable[[], None]
) -> Iterator[Outcome]:
    device = "cpu" if config.precision == "int8" else config.device
    pace = Pace(config.batch_size, config.readers, device)
    setup = partial(slide_worker, choice, config.out.absolute(), _settings(config), pace)
    gpus = None if device == "auto" else device == "cuda"
    return over_ray(setup, slides, gpus, between, _lost)


def _lost(slide: Path) -> Outcome:
    return Outcome(slide, 0, f"{slide}: every process that read it died: is it a slide at all?")


def _collect(done: Iterator[Outcome], count: int) -> tuple[list[Outcome], str | None]:
    """Return what became of the slides, and what ended the work before they were all done."""
    outcomes: list[Outcome] = []
    try:
        for outcome in tqdm(done, "extracting", count, unit="slide", disable=None):
            outcomes.append(outcome)
            if outcome.problem is not None:
                logger.warning("Passed over: %s", outcome.problem)
    except InputError as error:  # kept until all processes are done: torchrun ends them with one
        return outcomes, str(error)
    return outcomes, None


def _report(found: Sequence[tuple[list[Outcome], str | None]], out: Path, seconds: float) -> None:
    """Say what was done, and raise what could not be."""
    outcomes = sorted(outcome for mine, _ in found for outcome in mine)
    problems = [outcome.problem for outcome in outcomes if outcome.problem is not None]
    tiles = sum(outcome.tiles for outcome in outcomes)
    logger.info(
        "Written: %s, %d slides, %d tiles, %.1f tiles a second.",
        out,
        len(outcomes) - len(problems),
        tiles,
        tiles / seconds,
    )
    for _, failure in found:
        if failure is not None:
            raise InputError(failure)
    if problems:
        others = "; the others are done" if len(problems) < len(outcomes) else ""
        raise Incomplete(
            f"{len(problems)} of {len(outcomes)} slides were passed over{others}:", problems
        )


def _stop_when_told(stop: StopRequest) -> None:
    if stop:
        raise Interrupted(
            "stopped; finished slides are kept: run the same command again to go on.", stop.signum
        )
