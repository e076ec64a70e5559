"""Loading and augmenting 512x512 JPEGs on one core: ours against the tutorial's way.

Times are those of `dataset[i]`, from the file to a normalised tensor (3, 224, 224). All ways take
turns on the same few pictures, so that a machine that slows down slows them all, and the ratios
are medians over the turns.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import torch

from attnvgg.data.augmentation import augmentation
from attnvgg.data.cache import ImageCache
from attnvgg.data.decoding import read_image
from attnvgg.data.images import ImageDataset
from attnvgg.data.transforms import Preprocess
from benchmarks.baseline import TutorialDataset

IMAGES, SIDE, TURN, ROUNDS = 200, 512, 20, 12
# The spectrum and grain that give files as large as real photographs of this size: 54 and 85 KB at
# quality 90 and 95 (scikit-image's cat has 58 and 83, its coffee 60 and 88, its retina 41 and 60).
SLOPE, NOISE = 1.45, 1.0
TUTORIAL = "the tutorial's way"
FIRST = "ours, first pass (check, decode, write cache)"
UNCACHED = "ours, without a cache"
WARM = "ours, from the cache"


def photograph(rng: np.random.Generator) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return a picture (512, 512, 3) with the falling spectrum of photographs, and some grain."""
    rows, columns = np.fft.fftfreq(SIDE)[:, None], np.fft.rfftfreq(SIDE)
    frequency = np.hypot(rows, columns)
    frequency[0, 0] = 1

    def field(slope: float) -> np.ndarray[Any, np.dtype[np.float64]]:
        spectrum = np.fft.rfft2(rng.standard_normal((SIDE, SIDE))) / frequency**slope
        values = np.fft.irfft2(spectrum, s=(SIDE, SIDE))
        return values / values.std()

    light = 28 * field(SLOPE)
    colours = [
        level + light + 10 * field(1.8) + NOISE * rng.standard_normal((SIDE, SIDE))
        for level in (110, 130, 180)
    ]
    return np.stack(colours, axis=2).clip(0, 255).astype(np.uint8)


def make_photographs(folder: Path) -> list[str]:
    """Write JPEGs of quality 90 to 95 and return their paths."""
    rng = np.random.default_rng(0)
    paths = [str(folder / f"{number:03d}.jpg") for number in range(IMAGES)]
    for path in paths:
        quality = int(rng.integers(90, 96))
        cv2.imwrite(path, photograph(rng), [cv2.IMWRITE_JPEG_QUALITY, quality])
    return paths


@contextmanager
def one_core() -> Iterator[None]:
    """Keep this thread on one core, and the libraries on one thread."""
    torch_threads, cv2_threads = torch.get_num_threads(), cv2.getNumThreads()
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_setaffinity") else set()
    try:
        torch.set_num_threads(1)
        cv2.setNumThreads(1)
        if cores:
            os.sched_setaffinity(0, {max(cores)})
        yield
    finally:
        torch.set_num_threads(torch_threads)
        cv2.setNumThreads(cv2_threads)
        if cores:
            os.sched_setaffinity(0, cores)


def measure(paths: list[str], folder: Path) -> dict[str, list[float]]:
    """Return the milliseconds an image of each way, one figure a turn."""
    manifest = pd.DataFrame({"image": paths, "label": 0})
    preprocess = Preprocess()
    augment = augmentation("tutorial", preprocess)
    uncached = ImageDataset(manifest, preprocess, augment)
    tutorial = TutorialDataset(paths)
    times: dict[str, list[float]] = {name: [] for name in (TUTORIAL, FIRST, WARM, UNCACHED)}
    for turn in range(ROUNDS):
        with tempfile.TemporaryDirectory(dir=folder) as cold:
            cached = ImageDataset(manifest, preprocess, augment, ImageCache(cold, 2**30, 0))
            ways: list[tuple[str, Callable[[int], object]]] = [
                (TUTORIAL, tutorial.__getitem__),
                (FIRST, cached.__getitem__),
                (WARM, cached.__getitem__),
                (UNCACHED, uncached.__getitem__),
            ]
            for start in range(0, len(paths), TURN):
                for name, load in ways:
                    began = time.perf_counter()
                    for index in range(start, start + TURN):
                        load(index)
                    # the first round warms up: imports, memory that the system hands out anew
                    if turn > 0:
                        times[name].append((time.perf_counter() - began) / TURN * 1e3)
    return times


def decoding_difference(paths: list[str]) -> tuple[float, int]:
    """Return mean and largest difference in grey levels of `load` to decoding in full.

    The reference is the exact mean over areas of the picture decoded in full.
    """
    preprocess = Preprocess()
    total, largest = 0.0, 0
    for path in paths[:50]:
        full = cv2.resize(read_image(path), (224, 224), interpolation=cv2.INTER_AREA)
        apart = np.abs(preprocess.load(path).astype(int) - full)
        total, largest = total + float(apart.mean()), max(largest, int(apart.max()))
    return total / 50, largest


def run() -> list[dict[str, Any]]:
    """Return a row a way: its name, milliseconds an image, and how many times as fast it is."""
    with tempfile.TemporaryDirectory() as name, one_core():
        folder = Path(name)
        paths = make_photographs(folder)
        times = measure(paths, folder)
        size = statistics.mean(Path(path).stat().st_size for path in paths) / 1e3
        mean, largest = decoding_difference(paths)
    rows = []
    for way, values in times.items():
        ratio = statistics.median(a / b for a, b in zip(times[TUTORIAL], values, strict=True))
        rows.append({"way": way, "milliseconds": statistics.median(values), "ratio": ratio})
    shared = {"kilobytes": size, "difference_mean": mean, "difference_largest": largest}
    return [row | shared for row in rows]


def main() -> None:
    """Print the table."""
    rows = run()
    first = rows[0]
    print(f"data: {SIDE}x{SIDE} JPEGs of {first['kilobytes']:.0f} KB to tensors of 224, one core")
    for row in rows:
        rate = 1e3 / row["milliseconds"]
        print(
            f"  {row['way']:<46} {row['milliseconds']:6.2f} ms  {rate:6.0f} images/s"
            f"  {row['ratio']:5.2f}x"
        )
    print(
        f"  scaled against full decoding: {first['difference_mean']:.2f} grey levels apart in the "
        f"mean, {first['difference_largest']} at most"
    )


if __name__ == "__main__":
    main()
