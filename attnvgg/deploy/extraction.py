"""Features of whole slides: threads read tiles while others compute.

One stream of tiles runs through all slides, so the next slide is opened, planned and read while
the last tiles of the one before are computed. A batch holds tiles of one slide only, so a slide's
features do not depend on its neighbours.

On a CPU every thread computes a batch of its own, on one core. Sharing a batch among the cores
makes all of them wait for each other after every layer, and for a core that is reading.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import groupby, islice
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from attnvgg.data.feature_files import write_features
from attnvgg.data.slides import Slide
from attnvgg.data.tiles import Tiles
from attnvgg.data.transforms import Preprocess
from attnvgg.deploy.encoder_engines import EngineEncoder
from attnvgg.deploy.feature_settings import (
    FeatureSettings,
    Precision,
    attributes_of,
    feature_path,
)
from attnvgg.deploy.reading import read_ahead
from attnvgg.deploy.slide_job import SlideJob, open_slide
from attnvgg.deploy.tile_encoders import TileEncoder
from attnvgg.errors import InputError

Result = TypeVar("Result")
Features = NDArray[np.float32]

BATCHES_AHEAD = 2  # read beyond the one that is computed
AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class Pace:
    """How tiles are read and computed."""

    batch_size: int = 64
    """Tiles that are computed together."""
    readers: int = 2
    """Threads that read tiles."""
    device: str = "cpu"
    """Where they are computed."""


class Outcome(NamedTuple):
    """What became of a slide."""

    slide: Path
    tiles: int
    """Number of its features; 0 where there is a problem."""
    problem: str | None
    """Why it was passed over, in words that begin with its path."""


def encode_tiles(
    encoder: nn.Module,
    preprocess: Preprocess,
    slide: Slide,
    tiles: Tiles,
    batch_size: int = 64,
    readers: int = 2,
    device: str | torch.device = "cpu",
    precision: Precision = "no",
) -> Features:
    """Return the features of tiles, (N, D); they are read while others are computed.

    Args:
        encoder: (n, 3, size, size) to (n, D), in eval mode and on the device.
        preprocess: from a tile to its input.
        slide: open.
        tiles: on it.
        batch_size: tiles that are computed together.
        readers: threads that read.
        device: of the encoder.
        precision: of its arithmetic.

    Raises:
        InputError: a tile cannot be read, or features are not finite.
    """
    job = SlideJob(slide.path, _done((slide, tiles)))
    pace = Pace(batch_size, readers, str(device))
    calls = job.calls(preprocess)
    with closing(_encoded(calls, encoder, pace, precision)) as encoded:
        return _joined(future for _, future in encoded)


def extract(
    slides: Sequence[Path],
    out: Path,
    encoder: TileEncoder,
    settings: FeatureSettings,
    pace: Pace,
    between: Callable[[], None] = lambda: None,
) -> Iterator[Outcome]:
    """Write a feature file a slide, and yield in their order what became of each.

    A slide that cannot be read is passed over. A file appears when it is complete.

    Args:
        slides: files.
        out: folder of the feature files.
        encoder: of the tiles; is moved to the device.
        settings: which tiles.
        pace: how they are read and computed.
        between: called between two batches, and while a slide is being opened; may raise to stop.

    Raises:
        InputError: the disk is full; what was written before is kept.
    """
    encoder.network.to(pace.device)
    opening = ((path, partial(open_slide, path, settings)) for path in slides)
    # a slide on a disk that does not answer must not hold up whoever stops this
    opened = read_ahead(opening, pace.readers, ahead=pace.readers, wait=False)
    jobs = (SlideJob(path, future) for path, future in opened)
    calls = (call for job in jobs for call in job.calls(encoder.preprocess, between))
    encoded = _encoded(calls, encoder.network, pace, settings.precision)
    with closing(opened), closing(encoded):
        for job, batches in groupby(encoded, key=lambda one: one[0]):
            futures = (future for _, future in batches)
            yield _finish(job, futures, out, encoder, settings, between)


def _finish(
    job: SlideJob,
    batches: Iterator[Future[Features]],
    out: Path,
    encoder: TileEncoder,
    settings: FeatureSettings,
    between: Callable[[], None],
) -> Outcome:
    """Write the features of a slide, and close it once nobody reads it any more."""
    try:
        features = _joined(batches, between)
    except InputError as error:
        job.failed = True
        outcome = Outcome(job.path, 0, _told(error, job.path))
    else:
        slide, tiles = job.opened.result()
        attributes = attributes_of(slide, tiles, settings, encoder)
        _write(feature_path(out, job.path), features, tiles.coords, attributes)
        outcome = Outcome(job.path, len(features), None)
    wait(list(batches))  # those of a slide that has failed
    if job.opened.exception() is None:
        job.opened.result()[0].close()
    return outcome


def _encoded(
    calls: Iterator[tuple[SlideJob, Callable[[], Tensor | None]]],
    network: nn.Module,
    pace: Pace,
    precision: Precision,
) -> Generator[tuple[SlideJob, Future[Features]], None, None]:
    """Load tiles by these calls, and yield the features of each batch, begun ahead, in order."""
    loaded = read_ahead(calls, pace.readers, BATCHES_AHEAD * pace.batch_size)

    def batches() -> Iterator[tuple[SlideJob, Callable[[], Features]]]:
        for job, tiles in groupby(loaded, key=lambda one: one[0]):
            futures = (future for _, future in tiles)
            while batch := list(islice(futures, pace.batch_size)):
                yield job, partial(_encode, network, batch, pace.device, precision)

    on_cpu = torch.device(pace.device).type == "cpu"
    threads = torch.get_num_threads()
    many = threads if on_cpu else 1
    computed = read_ahead(batches(), many, many, _use_one_core if on_cpu else None)
    try:
        with closing(loaded), closing(computed):
            yield from computed
    finally:
        torch.set_num_threads(threads)  # for threads that begin later


def _use_one_core() -> None:
    torch.set_num_threads(1)  # of this thread, and of those that begin after it


def _encode(
    network: nn.Module, batch: list[Future[Any]], device: str, precision: Precision
) -> Features:
    """Return the features of tiles that are being read, (n, D)."""
    wait(batch)  # all of them, so that no thread reads on when one has failed
    images = torch.stack([future.result() for future in batch])  # (n, 3, H, W)
    # channels last: half as fast again for convolutions on a CPU, and with half precision
    by_engine = isinstance(network, EngineEncoder)
    layout = torch.contiguous_format if by_engine else torch.channels_last
    images = images.to(device, memory_format=layout)
    half = AUTOCAST.get(precision)
    on = torch.device(device).type
    with torch.inference_mode(), torch.autocast(on, half, enabled=half is not None):
        return np.asarray(network(images).float().cpu())  # (n, D)


def _joined(
    batches: Iterator[Future[Features]], between: Callable[[], None] = lambda: None
) -> Features:
    """Return the features of a whole slide, (N, D)."""
    parts = []
    for batch in batches:
        between()
        parts.append(batch.result())
    features = np.concatenate(parts)
    if not np.isfinite(features).all():
        raise InputError("The encoder makes features that are NaN or infinite: try --precision no.")
    return features


def _write(path: Path, features: Any, coords: Any, attributes: dict[str, Any]) -> None:
    try:
        write_features(path, features, coords, attributes)
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise InputError(
            f"The disk of {path.parent} is full; the slides that are finished are kept: make room "
            "and run the same command again."
        ) from error


def _told(error: InputError, path: Path) -> str:
    """Return an error in a line that names its slide."""
    text = " ".join([error.message, *error.offenders])
    return text if str(path) in text else f"{path}: {text}"


def _done(result: Result) -> Future[Result]:
    future: Future[Result] = Future()
    future.set_result(result)
    return future
