"""Extraction of features: how well reading and computing overlap, as ratios.

Against storage that answers slowly and costs no core (a reader that sleeps), the larger of reading
alone and computing alone is the bound; on slides on a disk, where reading costs cores too, it is
that or the seconds that both take of all cores together, whichever is larger.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from skimage.data import immunohistochemistry

from attnvgg.data.cores import available_cores
from attnvgg.data.slide_writer import write_slide
from attnvgg.data.slides import Slide
from attnvgg.data.tiles import Tiles, plan_tiles, read_tile
from attnvgg.deploy.extraction import Pace, encode_tiles, extract
from attnvgg.deploy.feature_settings import FeatureSettings
from attnvgg.deploy.reading import read_ahead
from attnvgg.deploy.tile_encoders import EncoderChoice, TileEncoder, open_encoder

TILES, BATCH, READERS, ROUNDS = 256, 8, 2, 3
STORAGE = (0.5, 1.0, 2.0)  # seconds of reading alone, a second of computing alone
SLIDES, REPEATS = 12, 4
BAR = 1.15


class Spent(NamedTuple):
    """Seconds by the clock, and of all cores."""

    wall: float
    cores: float


class SleepingSlide:
    """A slide on storage that takes a fixed time to answer, and no core."""

    def __init__(self, seconds: float) -> None:
        self.path = Path("sleeping.tiff")
        self.seconds = seconds
        self.tile = immunohistochemistry()[:256, :256].copy()

    def region(self, x: int, y: int, side: int, size: int) -> np.ndarray:
        """Return the same tile, late."""
        time.sleep(self.seconds)
        return self.tile


def spent(work: Callable[[], Any]) -> tuple[Any, Spent]:
    """Return what the work returns, and what it took."""
    wall, cores = time.perf_counter(), time.process_time()
    result = work()
    return result, Spent(time.perf_counter() - wall, time.process_time() - cores)


def read_all(encoder: TileEncoder, slides: list[tuple[Any, Tiles]]) -> list[torch.Tensor]:
    """Read every tile, with as many threads as extraction has, and compute nothing."""

    def load(slide: Slide, tiles: Tiles, number: int) -> torch.Tensor:
        return encoder.preprocess(read_tile(slide, tiles, number))

    calls = (
        (None, partial(load, slide, tiles, number))
        for slide, tiles in slides
        for number in range(len(tiles.coords))
    )
    with closing(read_ahead(calls, READERS, len(slides) * TILES)) as loaded:
        return [future.result() for _, future in loaded]


def compute_all(encoder: TileEncoder, images: list[torch.Tensor]) -> None:
    """Encode what was read, as extraction does: a batch a core, on one thread each."""

    def compute(start: int) -> torch.Tensor:
        with torch.inference_mode():
            batch = torch.stack(images[start : start + BATCH])
            return encoder.network(batch.to(memory_format=torch.channels_last)).float()

    threads = torch.get_num_threads()
    calls = ((None, partial(compute, start)) for start in range(0, len(images), BATCH))
    with closing(read_ahead(calls, threads, threads, partial(torch.set_num_threads, 1))) as done:
        for _, vectors in done:
            vectors.result()
    torch.set_num_threads(threads)


def sleeping(encoder: TileEncoder, share: float) -> tuple[float, float, float]:
    """Return seconds of reading alone, of computing alone, and of both at a time."""
    coords = np.zeros((TILES, 2), np.int64)
    tiles = Tiles(coords, 256, 256, 0.5, 0, 256, np.ones(TILES))
    images = read_all(encoder, [(SleepingSlide(0), tiles)])
    _, computing = spent(partial(compute_all, encoder, images))
    slide = cast(Slide, SleepingSlide(share * computing.wall * READERS / TILES))
    _, reading = spent(partial(read_all, encoder, [(slide, tiles)]))
    both = partial(encode_tiles, encoder.network, encoder.preprocess, slide, tiles, BATCH, READERS)
    return reading.wall, computing.wall, spent(both)[1].wall


def real(encoder: TileEncoder, paths: list[Path], folder: Path) -> tuple[Spent, Spent, float, int]:
    """Return what reading and computing take alone, seconds of the command's work, and tiles."""
    settings = FeatureSettings(mpp=0.5)

    def read() -> list[torch.Tensor]:
        opened = [Slide(path) for path in paths]
        images = read_all(encoder, [(slide, plan_tiles(slide, 0.5)) for slide in opened])
        for slide in opened:
            slide.close()
        return images

    images, reading = spent(read)
    _, computing = spent(partial(compute_all, encoder, images))
    with tempfile.TemporaryDirectory(dir=folder) as out:
        work = extract(paths, Path(out), encoder, settings, Pace(BATCH, READERS))
        outcomes, both = spent(partial(list, work))
    assert sum(outcome.tiles for outcome in outcomes) == len(images)
    return reading, computing, both.wall, len(images)


def make_slides(folder: Path) -> list[Path]:
    """Write slides of real tissue."""
    tissue = immunohistochemistry()
    piece = np.vstack([np.hstack([tissue, tissue[:, ::-1]]), np.hstack([tissue[::-1], tissue])])
    picture = np.tile(piece, (REPEATS // 2, REPEATS // 2, 1))
    paths = [folder / f"slide-{number}.tiff" for number in range(SLIDES)]
    for path in paths:
        write_slide(path, picture, 0.5)
    return paths


def main() -> None:
    """Print the ratios; medians of several rounds."""
    cores = available_cores()
    encoder = open_encoder(EncoderChoice(weights="random", image_size=64))
    print(f"Features of tiles of 256 px, ResNet-18 at 64 px, {READERS} readers, {cores} cores:")
    for share in STORAGE:
        rounds = [sleeping(encoder, share) for _ in range(ROUNDS)]
        ratio = statistics.median(both / max(alone) for *alone, both in rounds)
        reading, computing, both = (
            statistics.median(values) for values in zip(*rounds, strict=True)
        )
        print(
            f"  slow storage: reading {reading:.2f} s, computing {computing:.2f} s, both "
            f"{both:.2f} s: {ratio:.2f} x the larger (bar {BAR})"
        )
    with tempfile.TemporaryDirectory() as name:
        paths = make_slides(Path(name))
        ratios, rates = [], []
        for _ in range(ROUNDS):
            reading, computing, both, count = real(encoder, paths, Path(name))
            bound = max(reading.wall, computing.wall, (reading.cores + computing.cores) / cores)
            ratios.append(both / bound)
            rates.append(count / both)
            print(
                f"  slides: reading {reading.wall:.2f} s ({reading.cores:.2f} of cores), computing "
                f"{computing.wall:.2f} s ({computing.cores:.2f}), both {both:.2f} s"
            )
    print(
        f"  slides: {statistics.median(ratios):.2f} x the bound (bar {BAR}), "
        f"{statistics.median(rates):.0f} tiles a second"
    )


if __name__ == "__main__":
    main()
