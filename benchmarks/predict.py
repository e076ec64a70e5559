"""From JPEG files to predictions.csv at 224 px: `attnvgg predict` against the published way.

Both have the same weights and files; the published way decodes in full with Pillow, resizes with
torchvision and computes in 32 bits, its loader with no process (the default) or with two,
whichever is faster. The two take turns in one process, models opened before. Weights are random:
they do not change the time, and 8 bits are calibrated on images as in any run.
"""

from __future__ import annotations

import csv
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch.utils.data import DataLoader
from torchvision import transforms

from attnvgg.cli.predict import PredictConfig, predict_listed
from attnvgg.data.listing import images_below
from attnvgg.data.manifest import write_manifest
from attnvgg.data.sample import make_sample
from attnvgg.data.transforms import Preprocess
from attnvgg.deploy.prediction_listing import list_images
from attnvgg.deploy.predictor import Predictor
from attnvgg.models import AttnVGG
from attnvgg.models.published import published_name
from benchmarks.baseline import MEAN, STD, TutorialAttnVGG, TutorialDataset

IMAGES, BATCH, ROUNDS, BAR = 32, 8, 5, 5.0
MANY = (500, 2000)  # images, for the memory


class PublishedImages(TutorialDataset):
    """The tutorial's way to evaluate: decode in full, resize, crop, normalise."""

    def __init__(self, paths: list[str]) -> None:
        super().__init__(paths)
        self.transform = transforms.Compose(
            [
                transforms.Resize(224),
                transforms.CenterCrop(224),
                transforms.ToTensor(),
                transforms.Normalize(MEAN, STD),
            ]
        )


def published(model: TutorialAttnVGG, paths: list[str], output: Path, workers: int) -> None:
    """Write the predictions of images as one would with the published code."""
    loader = DataLoader(PublishedImages(paths), batch_size=BATCH, num_workers=workers)
    found = []
    with torch.no_grad():
        for images in loader:
            found += model(images)[0].sigmoid().squeeze(1).tolist()
    with output.open("w", newline="") as stream:
        csv.writer(stream).writerows(zip(paths, found, strict=True))


def make_run(folder: Path) -> AttnVGG:
    """Write a run with random weights and images to calibrate with; return its model."""
    torch.manual_seed(0)
    model = AttnVGG(1, normalize_attn=True).eval()
    extra = {"preprocess": Preprocess().to_dict(), "classes": ["benign", "malignant"]}
    model.save_pretrained(folder / "best", threshold=0.5, **extra)
    paths = images_below(make_sample(folder / "sample", IMAGES))
    images = [str(path) for path in paths if path.suffix == ".jpg"]
    table = pd.DataFrame({"image": images, "label": np.arange(len(images)) % 2})
    table["split"] = np.where(np.arange(len(images)) % 4 < 3, "train", "val")
    write_manifest(table, folder / "manifest.csv")
    return model


def opened(folder: Path) -> Predictor:
    """Return the model of the run; its engine is kept there, too."""
    return Predictor(folder, cache=folder / "engines")


def write_table(path: Path, images: list[str], count: int) -> None:
    """Write a CSV of so many images, the same ones again and again."""
    pd.DataFrame({"image": [images[n % len(images)] for n in range(count)]}).to_csv(path)


def measure(folder: Path) -> tuple[dict[str, list[float]], str]:
    """Return the seconds of each way, a figure a round, and which engine ours took."""
    model = TutorialAttnVGG(1, normalize_attn=True).eval()
    state = make_run(folder).state_dict()
    model.load_state_dict({published_name(name): value for name, value in state.items()})
    images = pd.read_csv(folder / "manifest.csv")["image"].tolist()
    write_table(folder / "images.csv", images, IMAGES)
    predictor = opened(folder)
    config = PredictConfig(str(folder), folder / "images.csv", folder / "ours.csv")
    output = folder / "published.csv"
    ways: dict[str, Callable[[], None]] = {
        "published, 0 workers": lambda: published(model, images, output, 0),
        "published, 2 workers": lambda: published(model, images, output, 2),
        "attnvgg predict": lambda: predict_listed(config, predictor, list_images(config.target)),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(ROUNDS + 1):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            if turn:  # the first warms up
                times[name].append(time.perf_counter() - start)
    ours = pd.read_csv(config.output)["probability"]
    apart = (ours - pd.read_csv(output, header=None)[1]).abs().mean()
    return times, f"{predictor.words}; probabilities {apart:.4f} apart in the mean"


def peak_memory(folder: Path, count: int) -> float:
    """Return the largest MiB in memory of a fresh process that predicts so many images."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        peak = pool.apply(_peak, (folder, count))
        pool.close()
        pool.join()
    return peak


def _peak(folder: Path, count: int) -> float:
    images = pd.read_csv(folder / "manifest.csv")["image"].tolist()
    write_table(folder / f"{count}.csv", images, count)
    config = PredictConfig(str(folder), folder / f"{count}.csv", folder / f"{count}-ours.csv")
    predict_listed(config, opened(folder), list_images(config.target))
    # not getrusage: what it tells begins with the memory of the process that started this one
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in x)
    return int(line.split()[1]) / 1024


def main() -> None:
    """Print times, the ratio, and memory."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        times, words = measure(folder)
        print(f"predict: {IMAGES} JPEGs of 512x512 to predictions.csv at 224 px, {words}")
        for way, values in times.items():
            seconds = statistics.median(values)
            print(f"  {way:<22} {1e3 * seconds / IMAGES:6.1f} ms an image")
        *theirs, ours = times.values()
        best = min(theirs, key=statistics.median)
        ratios = [a / b for a, b in zip(best, ours, strict=True)]
        ratio = statistics.median(ratios)
        met = "met" if ratio >= BAR else "MISSED"
        print(f"predict: {ratio:.1f}x ({min(ratios):.1f}-{max(ratios):.1f})")
        print(f"  bar       at least {BAR:g}x: {met}")
        for count in MANY:
            print(f"  memory    {peak_memory(folder, count):6.0f} MiB at most for {count} images")


if __name__ == "__main__":
    main()
