"""A table of image files as a dataset, and the check of every file before the first epoch."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pandas as pd
import torch
from torch.utils.data import Dataset
from tqdm import tqdm

from attnvgg.data.cache import ImageCache, file_key
from attnvgg.data.decoding import Pixels, read_image
from attnvgg.data.inspection import image_size, inspect_image, refusal
from attnvgg.data.transforms import Preprocess
from attnvgg.errors import InputError

if TYPE_CHECKING:  # it takes a second to import, and only training needs it
    import albumentations as A

__all__ = ["ImageDataset", "inspect_image", "prepare_images", "read_image", "start_worker"]

GRACE_SECONDS = 20
TOLD = (signal.SIGINT, signal.SIGTERM)  # what a group of processes is told to stop by


class ImageDataset(Dataset[dict[str, Any]]):
    """The cases of a manifest as samples `{"image", "label", "index"}`.

    `image` is float32 (3, size, size), `index` the row of the manifest. A column `weight` is
    passed on as float32. If the manifest has a column `mask`, a sample also has `mask`, float32
    (1, size, size) in [0, 1], and `has_mask`: rows without a mask get zeros and False, so that
    samples can be stacked.

    Samples are asked for by *position*: positions beyond the last row begin again at the first.
    The augmentation is a pure function of (seed, epoch, position): it does not depend on the
    workers, survives a restart, and differs between two occurrences of a case in one epoch.

    Args:
        manifest: the cases, one a row.
        preprocess: the deterministic way from file to tensor.
        augment: what happens to the resized square before it is normalised; absent: centre crop.
        cache: where resized squares are kept.
        seed: of the augmentation.
    """

    def __init__(
        self,
        manifest: pd.DataFrame,
        preprocess: Preprocess,
        augment: A.Compose | None = None,
        cache: ImageCache | None = None,
        seed: int = 0,
    ) -> None:
        use_one_thread()
        self.preprocess, self.augment, self.cache, self.seed = preprocess, augment, cache, seed
        self.images = [os.path.abspath(path) for path in manifest["image"]]
        self.labels: list[int] = manifest["label"].tolist()
        self.weights: list[float] | None = None
        if "weight" in manifest:
            self.weights = manifest["weight"].tolist()
        self.masks: list[str | None] | None = None
        if "mask" in manifest:
            known = manifest["mask"].notna()
            paths = zip(manifest["mask"], known, strict=True)
            self.masks = [os.path.abspath(path) if there else None for path, there in paths]
        side = preprocess.resize
        self.entries: dict[str, tuple[str, tuple[int, ...]]] = {
            "image": (preprocess.recipe("image"), (side, side, 3)),
            "mask": (preprocess.recipe("mask"), (side, side)),
        }
        self.generator = np.random.Generator(np.random.PCG64(0))
        self.state: dict[str, Any] = {**self.generator.bit_generator.state}
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose augmentation is drawn."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.images)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return map(self.__getitem__, range(len(self)))

    def __getitem__(self, position: int) -> dict[str, Any]:
        row = position % len(self)
        pixels = self.load(row)
        if self.masks is not None:
            pixels = np.dstack([pixels, self.load_mask(row)])
        elif self.augment is not None:
            # OpenCV warps four channels in half the time of three
            pixels = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2RGBA), dtype=np.uint8)
        pixels = self._augmented(pixels, position)
        image = self.preprocess.normalise(pixels)
        sample = {"image": image, "label": self.labels[row], "index": row}
        if self.weights is not None:
            sample["weight"] = np.float32(self.weights[row])
        if self.masks is not None:
            mask = torch.from_numpy(pixels[None, ..., 3].astype(np.float32) / 255)
            sample |= {"mask": mask, "has_mask": self.masks[row] is not None}
        return sample

    def load(self, row: int) -> Pixels:
        """Return the resized centre square of an image, (resize, resize, 3)."""
        path = self.images[row]
        return self._cached(path, "image", lambda: self.preprocess.load(path))

    def load_mask(self, row: int) -> Pixels:
        """Return the mask of that square, (resize, resize), 255 inside; zeros if there is none.

        Raises:
            InputError: it has another size than its image.
        """
        side = self.preprocess.resize
        path = self.masks[row] if self.masks is not None else None
        if path is None:
            return np.zeros((side, side), np.uint8)

        def make() -> Pixels:
            size, wanted = image_size(path), image_size(self.images[row])
            if size != wanted:
                raise refusal(path, f"has {size} rows and columns of pixels, its image {wanted}")
            return self.preprocess.load_mask(path)

        return self._cached(path, "mask", make)

    def _cached(self, path: str, kind: str, make: Callable[[], Pixels]) -> Pixels:
        """Return what the cache has of this file, or else make it and put it there."""
        if self.cache is None:
            return make()
        recipe, shape = self.entries[kind]
        try:
            key = file_key(path, recipe)  # before it is read: it may change meanwhile
        except OSError:
            return make()  # which says what is wrong with the file
        pixels = self.cache.get(key, shape)
        if pixels is None:
            pixels = make()
            self.cache.put(key, pixels)
        return pixels

    def _augmented(self, pixels: Pixels, position: int) -> Pixels:
        if self.augment is None:
            return self.preprocess.centre(pixels)
        # One stream for all transforms: `set_random_seed` would seed each of them alike, and two
        # flips would always coincide. A new NumPy generator would cost as much as the rotation.
        chance = random.Random((self.seed << 64) + (self.epoch << 32) + position)
        self.state["state"]["state"] = chance.getrandbits(128)
        self.generator.bit_generator.state = self.state
        self.augment.set_random_state(self.generator, chance)
        augmented: Pixels = self.augment(image=pixels)["image"]
        return augmented


def prepare_images(datasets: ImageDataset | Iterable[ImageDataset], workers: int = 0) -> None:
    """Decode every file that the cache does not hold yet, so that training cannot meet a bad one.

    Args:
        datasets: whose images and masks to read.
        workers: threads beside the one that calls (decoding leaves Python's lock free).

    Raises:
        InputError: one for all files that cannot be used, with the reason of each.
    """
    datasets = [datasets] if isinstance(datasets, ImageDataset) else list(datasets)
    jobs = [(dataset, row) for dataset in datasets for row in range(len(dataset))]
    offenders: list[str] = []
    pool = ThreadPoolExecutor(workers + 1)
    try:
        found = pool.map(_offenders, jobs)
        for new in tqdm(found, "checking images", len(jobs), unit="image", disable=None):
            offenders += new
    finally:
        pool.shutdown(cancel_futures=True)
    if offenders:
        count = len(offenders := list(dict.fromkeys(offenders)))
        raise InputError(f"{count} of the image files cannot be used:", offenders)


def _offenders(job: tuple[ImageDataset, int]) -> list[str]:
    """Load an image and its mask; return what is wrong with them."""
    dataset, row = job
    found: list[str] = []
    for load in (dataset.load, dataset.load_mask):
        try:
            load(row)
        except InputError as error:
            found += error.offenders
    return found


def start_worker(worker_id: int) -> None:
    """Set up a loader process.

    There are no seeds to set: augmentation takes its own from (seed, epoch, position).
    """
    use_one_thread()
    # Ctrl-C and batch systems reach the whole group: the parent finishes its step and ends us in
    # good order. Were SIGTERM ignored, a parent that crashed would wait for us without end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(GRACE_SECONDS))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, TOLD)


def use_one_thread() -> None:
    """Keep OpenCV from starting threads: several pictures at a time are faster than one by many.

    This must happen before loader processes are forked. A child has none of its parent's threads
    but waits for them as soon as it uses OpenCV's pool, or changes its size: for ever.
    """
    if cv2.getNumThreads() != 1:
        cv2.setNumThreads(1)
