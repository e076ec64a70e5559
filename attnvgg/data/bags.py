"""Bags in memory, in feature files and in folders of images; the check before the first epoch."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from attnvgg.data.bag_dataset import BagDataset, Inspection, Sample, offsets_of
from attnvgg.data.cache import ImageCache
from attnvgg.data.features import feature_attributes, made_of, read_features
from attnvgg.data.images import ImageDataset
from attnvgg.data.listing import images_below
from attnvgg.data.tile_folders import tile_labels
from attnvgg.data.transforms import Preprocess
from attnvgg.errors import InputError

if TYPE_CHECKING:  # it takes a second to import, and only training needs it
    import albumentations as A


class ArrayBags(BagDataset):
    """Bags whose instances are rows of one array in memory: digits, features computed before.

    A whole batch is one look-up in the array.

    Args:
        manifest: bags with a column `instances`, the numbers of their rows: "12 934 55".
        values: the instances, (n, ...); uint8 becomes (value / 255 - mean) / std, others float32.
        instance_labels: 1 for positive, (n,).
        mean: of values in [0, 1]; only for uint8.
        std: likewise.

    Raises:
        InputError: bags name no rows, or rows that the array does not have.
    """

    lengths: NDArray[np.int64]
    in_memory = True

    def __init__(
        self,
        manifest: pd.DataFrame,
        values: torch.Tensor,
        instance_labels: torch.Tensor | None = None,
        mean: float = 0.0,
        std: float = 1.0,
    ) -> None:
        super().__init__(manifest)
        members = [np.array(text.split(), dtype=np.int64) for text in manifest["instances"]]
        self.lengths = np.array([len(rows) for rows in members], dtype=np.int64)
        wrong = [
            f"{name}: {rows.max() if rows.size else 'none'}"
            for name, rows in zip(self.names, members, strict=True)
            if not 0 <= rows.max(initial=-1) < len(values)
        ]
        if wrong:
            raise InputError(
                f"Bags must name rows from 0 to {len(values) - 1} of the instances, not these:",
                wrong,
            )
        self.rows = np.concatenate(members)
        self.starts = offsets_of(self.lengths)[:-1]
        self.is_byte = values.dtype == torch.uint8
        self.values = values if self.is_byte else values.float()
        self.instance_labels = instance_labels
        self.scale, self.shift = 1 / (255 * std), -mean / std
        self.instance_shape = tuple(values.shape[1:])

    def instances(self, position: int) -> dict[str, torch.Tensor]:
        row = position % len(self)
        start = self.starts[row]
        return self._look_up(self.rows[start : start + self.lengths[row]])

    def __getitems__(self, positions: Sequence[int]) -> Sample:
        asked = np.asarray(positions, dtype=np.int64)
        bags = asked % len(self)
        lengths = self.lengths[bags]
        # counting on within a bag, from its start to its end, for all bags at once
        jump = np.repeat(self.starts[bags] - offsets_of(lengths)[:-1], lengths)
        return self._look_up(self.rows[jump + np.arange(len(jump))]) | self._of_bags(asked, lengths)

    def _look_up(self, rows: NDArray[np.int64]) -> dict[str, torch.Tensor]:
        index = torch.from_numpy(rows)
        values = self.values[index]
        if self.is_byte:
            values = values.float().mul_(self.scale).add_(self.shift)
        found = {"instances": values}
        if self.instance_labels is not None:
            found["instance_labels"] = self.instance_labels[index]
        return found


class FeatureBags(BagDataset):
    """Bags of vectors, a file each, with `coords` and `instance_labels` if the file has them.

    A file is opened whenever its bag is asked for, so memory holds the bags of a batch only.

    Args:
        manifest: bags whose `image` is a feature file.
    """

    def __init__(self, manifest: pd.DataFrame) -> None:
        super().__init__(manifest)
        self.is_mapped = all(name.lower().endswith((".npy", ".pt")) for name in self.names)

    def instances(self, position: int) -> dict[str, torch.Tensor]:
        return read_features(self.names[position % len(self)])

    def inspect(self, row: int) -> Inspection:
        found = super().inspect(row)
        if not found.shape:
            return found
        path = Path(self.names[row])
        said = feature_attributes(path)
        name = str(said.get("name", path.stem))
        problems = [] if name == path.stem else [f"{path}: has the features of {name}"]
        made = ", ".join(made_of(said).values()) or None
        return found._replace(problems=found.problems + problems, made=made)


class ImageBags(BagDataset):
    """Bags of pictures, a folder each; what an `ImageDataset` does to a picture is done to each.

    Tiles of a slide have `instance_labels` where `tile_labels` knows them.

    Args:
        manifest: bags whose `image` is a folder.
        preprocess: the deterministic way from file to tensor.
        augment: what happens to the resized square before it is normalised, drawn anew for every
            instance; absent: centre crop.
        cache: where resized squares are kept.
        seed: of the augmentation.

    Raises:
        InputError: folders hold no images.
    """

    lengths: NDArray[np.int64]

    def __init__(
        self,
        manifest: pd.DataFrame,
        preprocess: Preprocess,
        augment: A.Compose | None = None,
        cache: ImageCache | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(manifest)
        files = [images_below(Path(folder)) for folder in self.names]
        empty = [name for name, found in zip(self.names, files, strict=True) if not found]
        if empty:
            raise InputError("Bags must be folders of images; these hold none:", empty)
        self.lengths = np.array([len(found) for found in files], dtype=np.int64)
        self.instance_labels = [
            tile_labels(Path(name), [path.name for path in found])
            for name, found in zip(self.names, files, strict=True)
        ]
        self.starts = offsets_of(self.lengths)[:-1]
        pictures = pd.DataFrame({"image": [str(path) for found in files for path in found]})
        self.pictures = ImageDataset(pictures.assign(label=0), preprocess, augment, cache, seed)
        self.instance_shape = (3, preprocess.size, preprocess.size)

    def set_epoch(self, epoch: int) -> None:
        super().set_epoch(epoch)
        self.pictures.set_epoch(epoch)

    def rows(self, position: int) -> range:
        """Return the positions of a bag's instances among the `pictures`."""
        occurrence, row = divmod(position, len(self))
        start = int(self.starts[row]) + occurrence * len(self.pictures)
        return range(start, start + int(self.lengths[row]))

    def files(self, row: int) -> list[str]:
        """Return the files of a bag's instances."""
        return [self.pictures.images[picture] for picture in self.rows(row)]

    def instances(self, position: int) -> dict[str, torch.Tensor]:
        rows = self.rows(position)
        bag = {"instances": torch.stack([self.pictures[picture]["image"] for picture in rows])}
        labels = self.instance_labels[position % len(self)]
        if labels is not None:
            bag["instance_labels"] = torch.from_numpy(labels)
        return bag

    def inspect(self, row: int) -> Inspection:
        problems: list[str] = []
        for picture in self.rows(row):
            try:
                self.pictures.load(picture)
            except InputError as error:
                problems += error.offenders
        return Inspection(int(self.lengths[row]), self.instance_shape, problems)


def open_bags(
    manifest: pd.DataFrame,
    preprocess: Preprocess | None = None,
    augment: A.Compose | None = None,
    cache: ImageCache | None = None,
    seed: int = 0,
) -> FeatureBags | ImageBags:
    """Return the bags of a manifest: folders of images, or else feature files.

    The arguments after the first are those of `ImageBags`, and nothing to feature files.

    Raises:
        InputError: some bags are folders and some are files.
    """
    is_folder = [os.path.isdir(path) for path in manifest["image"]]
    if not any(is_folder):
        return FeatureBags(manifest)
    if not all(is_folder):
        files = manifest["image"][~np.array(is_folder)]
        raise InputError("Bags must be all folders of images or all files; these are files:", files)
    return ImageBags(manifest, preprocess or Preprocess(), augment, cache, seed)


def prepare_bags(datasets: BagDataset | Iterable[BagDataset], workers: int = 0) -> None:
    """Read every bag once, so that training cannot meet a bad one; note how long each is.

    Args:
        datasets: those of one model: their instances must have one shape.
        workers: threads beside the one that calls.

    Raises:
        InputError: one for all bags that cannot be read, have no instances, NaN or infinite
            values, or instances of another shape, or from another encoder or other tiles than most.
    """
    datasets = [datasets] if isinstance(datasets, BagDataset) else list(datasets)
    jobs = [(dataset, row) for dataset in datasets for row in range(len(dataset))]
    pool = ThreadPoolExecutor(workers + 1)
    try:
        found = pool.map(lambda job: job[0].inspect(job[1]), jobs)
        seen = list(tqdm(found, "checking bags", len(jobs), unit="bag", disable=None))
    finally:
        pool.shutdown(cancel_futures=True)
    shape = _usual(one.shape for one in seen)
    made = _usual(one.made for one in seen)
    offenders = []
    for (dataset, row), one in zip(jobs, seen, strict=True):
        offenders += one.problems
        if one.shape and one.shape != shape:
            wanted = f"has instances of shape {one.shape}, most have {shape}"
            offenders.append(f"{dataset.names[row]}: {wanted}")
        elif one.made and one.made != made:
            wanted = f"has features of {one.made}, most have those of {made}"
            offenders.append(f"{dataset.names[row]}: {wanted}")
    if offenders:
        count = len(offenders := list(dict.fromkeys(offenders)))
        raise InputError(f"{count} faults were found in the bags:", offenders)
    lengths = iter(seen)
    for dataset in datasets:
        dataset.lengths = np.array([next(lengths).length for _ in range(len(dataset))])


def _usual(values: Iterable[Any]) -> Any:
    """Return what most of the values are that are known; None if none is."""
    known = Counter(value for value in values if value)
    return known.most_common(1)[0][0] if known else None
