"""Bags as datasets: samples one by one, and whole batches without padding.

A sample is `{"instances" (N, ...), "label", "index"}`, a ragged batch the same of B bags: the
instances one after another (sum N, ...), `offsets` (B + 1) where each bag begins and the last
ends, `label` (B,) and `index` (B,). Where known, both have `weight`, `instance_labels` (N,), 1 for
positive, and `coords` (N, 2), level-0 pixels, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from attnvgg.errors import InputError

Sample = dict[str, Any]
CHECKED_ROWS = 8192
PER_INSTANCE = ("instances", "instance_labels", "coords")


class Inspection(NamedTuple):
    """What reading a bag has shown."""

    length: int
    """Instances."""
    shape: tuple[int, ...]
    """Of one instance; () where none could be read."""
    problems: list[str]
    """In words, each beginning with the name of the bag or its file."""
    made: str | None = None
    """What made the features, and of what tiles, where their file says so."""


class BagDataset(Dataset[Sample]):
    """The bags of a manifest; a subclass says what the instances of a row are.

    Bags are asked for by *position*: positions beyond the last row begin again at the first.
    `index` is the row of the manifest.

    Attributes:
        names: the key of each bag.
        lengths: instances of each bag, (bags,); None until `prepare_bags` has counted them.
        in_memory: whether reading a bag costs nothing.
        is_mapped: whether bags are views of their files, which another process would copy.
    """

    lengths: NDArray[np.int64] | None = None
    in_memory = False
    is_mapped = False

    def __init__(self, manifest: pd.DataFrame) -> None:
        self.names: list[str] = manifest["image"].tolist()
        self.labels = torch.from_numpy(manifest["label"].to_numpy(np.int64, copy=True))
        self.weights: torch.Tensor | None = None
        if "weight" in manifest:
            self.weights = torch.from_numpy(manifest["weight"].to_numpy(np.float32, copy=True))
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def instance_shape(self) -> tuple[int, ...]:
        """Shape of one instance, as the first bag has it."""
        return tuple(self.instances(0)["instances"].shape[1:])

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, on which augmentation depends."""
        self.epoch = epoch

    def instances(self, position: int) -> dict[str, torch.Tensor]:
        """Return the `instances` at a position and what is known of each of them."""
        raise NotImplementedError

    def inspect(self, row: int) -> Inspection:
        """Read a bag whole and return what was found."""
        try:
            bag = self.instances(row)["instances"]
        except InputError as error:
            return Inspection(0, (), error.offenders or [f"{self.names[row]}: {error}"])
        # a part at a time: a mapped bag may be larger than the memory
        finite = all(bool(part.isfinite().all()) for part in bag.split(CHECKED_ROWS))
        problems = [] if finite else [f"{self.names[row]}: has values that are NaN or infinite"]
        return Inspection(len(bag), tuple(bag.shape[1:]), problems)

    def __getitem__(self, position: int) -> Sample:
        row = position % len(self)
        sample: Sample = self.instances(position)
        sample |= {"label": int(self.labels[row]), "index": row}
        if self.weights is not None:
            sample["weight"] = self.weights[row]
        return sample

    def __getitems__(self, positions: Sequence[int]) -> Sample:
        bags = [self.instances(position) for position in positions]
        lengths = [len(bag["instances"]) for bag in bags]
        batch = {}
        if any("instance_labels" in bag for bag in bags):
            for bag, length in zip(bags, lengths, strict=True):
                bag.setdefault("instance_labels", torch.full((length,), torch.nan))
        for key in PER_INSTANCE:
            parts = [bag[key] for bag in bags if key in bag]
            if len(parts) == len(bags):
                # one bag alone stays where it is: it may be a file larger than the memory
                batch[key] = torch.cat(parts) if len(parts) > 1 else parts[0]
        return batch | self._of_bags(np.asarray(positions), np.asarray(lengths))

    def _of_bags(self, positions: NDArray[np.int64], lengths: NDArray[np.int64]) -> Sample:
        """Return the part of a batch that has a value a bag."""
        index = torch.from_numpy(positions % len(self))
        batch = {
            "offsets": torch.from_numpy(offsets_of(lengths)),
            "label": self.labels[index],
            "index": index,
        }
        if self.weights is not None:
            batch["weight"] = self.weights[index]
        return batch


def offsets_of(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return where each bag begins in the concatenation, and where the last ends."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
