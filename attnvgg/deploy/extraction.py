"""Features of whole slides: threads read tiles while the encoder computes.

One stream of tiles runs through all slides, so the next slide is opened, planned and read while
the last tiles of the one before are computed.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Sequence
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
from attnvgg.data.tiles import Tiles, plan_tiles, read_tile
from attnvgg.data.transforms import Preprocess
from attnvgg.deploy.feature_settings import (
    FeatureSettings,
    Precision,
    attributes_of,
    feature_path,
)
from attnvgg.deploy.reading import read_ahead
from attnvgg.deploy.tile_encoders import TileEncoder
from attnvgg.errors import InputError

Result = TypeVar("Result")

BATCHES_AHEAD = 2  # read beyond the one that is computed
AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
FULL = (errno.ENOSPC, errno.EDQUOT)


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
) -> NDArray[np.float32]:
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
    job = _Job(slide.path, _done((slide, tiles)))
    pace = Pace(batch_size, readers, str(device))
    loaded = read_ahead(job.calls(preprocess), readers, BATCHES_AHEAD * batch_size)
    with closing(loaded):
        futures = (future for _, future in loaded)
        return _encode(encoder, futures, len(tiles.coords), pace, precision)


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
        between: called between two batches; may raise to stop.

    Raises:
        InputError: the disk is full; what was written before is kept.
    """
    encoder.network.to(pace.device)
    opening = ((path, partial(_open, path, settings)) for path in slides)
    opened = read_ahead(opening, pace.readers, ahead=pace.readers)
    calls = (
        call for path, future in opened for call in _Job(path, future).calls(encoder.preprocess)
    )
    loaded = read_ahead(calls, pace.readers, BATCHES_AHEAD * pace.batch_size)
    with closing(opened), closing(loaded):
        for job, waiting in groupby(loaded, key=lambda one: one[0]):
            futures = (future for _, future in waiting)
            yield _finish(job, futures, out, encoder, settings, pace, between)


class _Job:
    """A slide on its way through the stream."""

    def __init__(self, path: Path, opened: Future[tuple[Slide, Tiles]]) -> None:
        self.path = path
        self.opened = opened
        self.failed = False

    def calls(self, preprocess: Preprocess) -> Iterator[tuple[_Job, Callable[[], Any]]]:
        """Yield what loads each tile; of a slide that did not open the call that says why."""
        if self.opened.exception() is not None:
            yield self, self.opened.result
            return
        for number in range(len(self.opened.result()[1].coords)):
            yield self, partial(self._load, preprocess, number)

    def _load(self, preprocess: Preprocess, number: int) -> Tensor | None:
        if self.failed:  # the rest of the slide is not wanted any more
            return None
        slide, tiles = self.opened.result()
        return preprocess(read_tile(slide, tiles, number))


def _open(path: Path, settings: FeatureSettings) -> tuple[Slide, Tiles]:
    slide = Slide(path, settings.slide_mpp)
    try:
        return slide, plan_tiles(
            slide, settings.mpp, settings.tile, settings.overlap, settings.tissue
        )
    except BaseException:
        slide.close()
        raise


def _finish(
    job: _Job,
    futures: Iterator[Future[Tensor]],
    out: Path,
    encoder: TileEncoder,
    settings: FeatureSettings,
    pace: Pace,
    between: Callable[[], None],
) -> Outcome:
    """Compute and write a slide, and close it once nobody reads it any more."""
    try:
        if job.opened.exception() is not None:
            next(futures).result()  # raises what opening it has raised
        slide, tiles = job.opened.result()
        features = _encode(
            encoder.network, futures, len(tiles.coords), pace, settings.precision, between
        )
    except InputError as error:
        job.failed = True
        outcome = Outcome(job.path, 0, _told(error, job.path))
    else:
        attributes = attributes_of(slide, tiles, settings, encoder)
        _write(feature_path(out, job.path), features, tiles.coords, attributes)
        outcome = Outcome(job.path, len(features), None)
    wait(list(futures))  # those of a slide that has failed
    if job.opened.exception() is None:
        job.opened.result()[0].close()
    return outcome


def _encode(
    network: nn.Module,
    futures: Iterator[Future[Tensor]],
    count: int,
    pace: Pace,
    precision: Precision,
    between: Callable[[], None] = lambda: None,
) -> NDArray[np.float32]:
    """Return the features of so many tiles that are being read, (N, D)."""
    device, features = torch.device(pace.device), np.empty((0, 0), np.float32)
    done = 0
    while done < count:
        between()
        batch = list(islice(futures, pace.batch_size))
        wait(batch)  # all of them, so that no thread reads on when one has failed
        images = torch.stack([future.result() for future in batch])  # (n, 3, H, W)
        # channels last: half as fast again for convolutions on a CPU, and with half precision
        images = images.to(device, memory_format=torch.channels_last)
        half = AUTOCAST.get(precision)
        with torch.inference_mode(), torch.autocast(device.type, half, enabled=half is not None):
            vectors = network(images).float().cpu().numpy()  # (n, D)
        if not done:
            features = np.empty((count, *vectors.shape[1:]), np.float32)
        features[done : done + len(vectors)] = vectors
        done += len(vectors)
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
