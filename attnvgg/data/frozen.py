"""What frozen stages made of images, on disk: written once in parts, read as memory maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from attnvgg.data.images import ImageDataset
from attnvgg.files import atomic_path

Rows = NDArray[np.float16]

PART_BYTES = 64 * 2**20  # what is computed again at most, after a kill
STEP = 16  # rows that are computed at once: parts are of whole steps
SUM_BYTES = 8


class MapStore:
    """Pooled maps of some images in some views, in a folder of files.

    A row is one view of one image: its maps one after another, channels last, in half precision.
    Rows of a view lie together, those of view 0 first. A file is some rows, and at its end the sum
    of their 64-bit words.

    Args:
        folder: of these maps alone.
        shapes: (C, h, w) of the map of each kept stage, by its number from 1 on.
        images: how many there are.
        views: of each of them.
    """

    def __init__(
        self, folder: Path, shapes: Mapping[int, tuple[int, ...]], images: int, views: int
    ) -> None:
        self.folder, self.shapes = folder, dict(sorted(shapes.items()))
        self.images, self.views = images, views
        self.width = sum(prod(shape) for shape in self.shapes.values())
        self.length = max(1, PART_BYTES // (2 * self.width) // STEP) * STEP  # rows a part
        self.opened: list[Rows] = []

    @property
    def bytes(self) -> int:
        """Return what all files take together."""
        parts = self.parts()
        return sum(2 * self.width * len(part) + SUM_BYTES for part in parts)

    def parts(self) -> list[range]:
        """Return the rows of each part."""
        total = self.images * self.views
        return [range(n, min(n + self.length, total)) for n in range(0, total, self.length)]

    def path(self, number: int) -> Path:
        """Return the file of a part."""
        return self.folder / f"{number:05d}.maps"

    def is_whole(self, number: int) -> bool:
        """Tell whether a part is there as it was written."""
        path, words = self.path(number), len(self.parts()[number]) * self.width // 4
        if not path.is_file() or path.stat().st_size != 8 * words + SUM_BYTES:
            return False
        content = np.memmap(path, np.uint64, "r")
        return _sum(content[:words]) == int(content[words])

    def write(self, number: int, rows: Rows) -> None:
        """Write a part, whole or not at all."""
        words = np.ascontiguousarray(rows).reshape(-1).view(np.uint64)
        with atomic_path(self.path(number)) as temporary, temporary.open("wb") as file:
            file.write(words.data)
            file.write(np.uint64(_sum(words)).tobytes())

    def packed(self, maps: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        """Return the rows (B, width) of maps (B, C, h, w) each, in the order of their stages."""
        return np.concatenate([m.transpose(0, 2, 3, 1).reshape(len(m), -1) for m in maps], axis=1)

    def open(self) -> None:
        """Open all parts, which have to be there: from now on nobody can take them away."""
        if not self.opened:
            self.opened = [
                np.memmap(self.path(number), np.float16, "r", shape=(len(part), self.width))
                for number, part in enumerate(self.parts())
            ]

    def read(self, rows: Sequence[int]) -> list[Tensor | None]:
        """Return maps (B, C, h, w) in half precision, None for the stages that are not kept."""
        self.open()
        found: list[Tensor | None] = [None] * max(self.shapes)
        start = 0
        for number, (channels, height, width) in self.shapes.items():
            stop = start + channels * height * width
            values = np.empty((len(rows), stop - start), np.float16)
            for target, row in zip(values, rows, strict=True):
                part, place = divmod(row, self.length)
                target[:] = self.opened[part][place, start:stop]
            image = torch.from_numpy(values).view(len(rows), height, width, channels)
            found[number - 1] = image.permute(0, 3, 1, 2)
            start = stop
        return found


class FrozenDataset(Dataset[dict[str, Any]]):
    """Images by what frozen stages made of them: `{"maps", "label", "index"}`, as a whole batch.

    `maps` has what `VGGStages` takes in place of images; a column `weight` is passed on. The first
    occurrence of an image in epoch e is its view e, the second e + 1, and so on, the views taking
    turns. View v is the augmentation that `images` has in epoch v.

    Args:
        images: the same cases, from their files.
        store: of their maps, complete when the first batch is read.
    """

    def __init__(self, images: ImageDataset, store: MapStore) -> None:
        self.images, self.store = images, store
        self.labels = torch.tensor(images.labels)
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, and thereby the views."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.images)

    def __getitems__(self, positions: Sequence[int]) -> dict[str, Any]:
        """Return the batch of these positions, see `ImageDataset`."""
        occurrences, index = np.divmod(positions, len(self))
        view = (self.epoch + occurrences) % self.store.views
        rows = torch.from_numpy(index)
        batch = {
            "maps": self.store.read((view * len(self) + index).tolist()),
            "label": self.labels[rows],
            "index": rows,
        }
        if self.images.weights is not None:
            batch["weight"] = torch.tensor(self.images.weights, dtype=torch.float32)[rows]
        return batch

    def __getitem__(self, position: int) -> dict[str, Any]:
        return self.__getitems__([position])


def _sum(words: NDArray[np.uint64]) -> int:
    """Return the sum of all words: missing pages change it, at a fifth of a CRC's cost."""
    return int(np.add.reduce(words))
