"""What the frozen stages of a model make of images, computed once by an engine and kept on disk."""

from __future__ import annotations

import copy
import hashlib
import json
import logging
import os
import threading
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from attnvgg.data.cache import file_key
from attnvgg.data.frozen import STEP, FrozenDataset, MapStore
from attnvgg.data.images import ImageDataset
from attnvgg.deploy.engines import Engine, Source, open_engine
from attnvgg.deploy.engines.kinds import FROM_FILES
from attnvgg.deploy.engines.store import key_of
from attnvgg.deploy.frozen_room import ABOUT, make_room
from attnvgg.deploy.reading import read_ahead
from attnvgg.errors import InputError
from attnvgg.files import lock_beside, write_json
from attnvgg.models.backbone import Trunk

logger = logging.getLogger(__name__)

FORMAT = 1
LARGEST = float(np.finfo(np.float16).max)
CALIBRATION = 128  # images


@dataclass(frozen=True)
class FrozenTrunk:
    """The stages whose maps are kept, and what computes them.

    Attributes:
        source: of the engine.
        shapes: (C, h, w) of each map by the number of its stage.
        kind: one of `ENGINES`.
        device: "cpu" or "cuda".
        threads: see `open_engine`.
    """

    source: Source
    shapes: dict[int, tuple[int, ...]]
    kind: str
    device: str = "cpu"
    threads: int | None = None

    @property
    def key(self) -> str:
        """Return what tells its maps from all others."""
        packages = FROM_FILES[self.kind].packages if self.kind in FROM_FILES else ()
        return f"{self.device}-{key_of(self.source, self.kind, packages)}"

    def open(self) -> Engine:
        """Return the engine."""
        return open_engine(self.kind, self.source, threads=self.threads, device=self.device)


def frozen_trunk(
    model: nn.Module,
    training: ImageDataset,
    kind: str,
    *,
    device: str = "cpu",
    threads: int | None = None,
) -> FrozenTrunk:
    """Return the frozen stages of a model, for the images that it is trained on.

    Args:
        model: with `stages`, some of them frozen, and `reads`.
        training: its images; 8 bits are calibrated on some of them.
        kind: one of `ENGINES`.
        device: of the engine.
        threads: of the engine.
    """
    stages: Any = model.stages
    trunk = Trunk(copy.deepcopy(stages).cpu(), stages.frozen, model.reads).eval()  # type: ignore[arg-type]
    side = training.preprocess.size
    with torch.inference_mode():
        maps = trunk(torch.zeros(1, 3, side, side))
    shapes = {n: tuple(m.shape[1:]) for n, m in zip(trunk.kept, maps, strict=True)}

    def calibration() -> list[NDArray[np.float32]]:
        rows = np.unique(np.linspace(0, len(training) - 1, CALIBRATION).astype(int))
        preprocess = training.preprocess
        plain = (preprocess.normalise(preprocess.centre(training.load(row))) for row in rows)
        return [image[None].numpy() for image in plain]

    source = Source(
        trunk, f"maps {trunk.kept}", side, any_size=False, calibration=calibration,
        calibration_name=_files_key(training),
    )  # fmt: skip
    return FrozenTrunk(source, shapes, kind, device, threads)


def plan_maps(
    trunk: FrozenTrunk,
    images: ImageDataset,
    folder: Path,
    *,
    views: int = 1,
    augmentation: str = "",
) -> FrozenDataset:
    """Return images by their maps, which `compute_maps` has to complete before they are read.

    Args:
        trunk: whose maps.
        images: the cases.
        folder: of all maps.
        views: of each image.
        augmentation: name of that of `images`.
    """
    about = {
        "format": FORMAT,
        "trunk": trunk.key,
        "preprocess": images.preprocess.to_dict(),
        "augmentation": [augmentation, version("albumentations"), images.seed]
        if images.augment is not None
        else None,
        "views": views,
        "files": _files_key(images),
    }
    key = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:20]
    return FrozenDataset(images, MapStore(folder / key, trunk.shapes, len(images), views))


def _files_key(images: ImageDataset) -> str:
    """Return what changes with any of the files, their order, or how they are decoded."""
    found = hashlib.sha256()
    for path in images.images:
        found.update(file_key(path, images.preprocess.recipe("image")))
    return found.hexdigest()


def compute_maps(
    trunk: FrozenTrunk, datasets: Sequence[FrozenDataset], limit_bytes: int, workers: int
) -> None:
    """Compute the maps that are not kept yet, or are damaged.

    Each part is there whole or not at all; killed, it goes on where it was. Of several processes
    one computes, and the others wait.

    Args:
        trunk: whose maps.
        datasets: of `plan_maps`, in folders beside each other.
        limit_bytes: bound of all folders together.
        workers: threads that load images.

    Raises:
        InputError: there is no room, or a map does not fit into half precision.
    """
    engine: Engine | None = None
    home = datasets[0].store.folder.parent
    try:
        home.mkdir(parents=True, exist_ok=True)
        with lock_beside(home):
            make_room([dataset.store for dataset in datasets], home, limit_bytes)
        for dataset in datasets:
            with lock_beside(dataset.store.folder):
                missing = _missing(dataset.store)
                if missing:
                    engine = engine or trunk.open()
                    _compute(dataset, missing, engine, workers)
                os.utime(dataset.store.folder / ABOUT)  # it was wanted now
                dataset.store.open()
    except OSError as error:
        raise InputError(
            f"The maps of the frozen stages cannot be kept in {home}: "
            f"{error.strerror or error}. Make room, or choose another --frozen.cache."
        ) from error


def _missing(store: MapStore) -> list[int]:
    """Return the parts that have to be computed, after removing what is half-written."""
    store.folder.mkdir(parents=True, exist_ok=True)
    for leftover in store.folder.glob(".*-*"):
        leftover.unlink()
    missing = [number for number in range(len(store.parts())) if not store.is_whole(number)]
    damaged = [number for number in missing if store.path(number).exists()]
    if damaged:
        logger.warning(
            "%d of %d files of maps in %s are damaged: they are computed again.",
            len(damaged), len(store.parts()), store.folder,
        )  # fmt: skip
    about = {"format": FORMAT, "images": store.images, "views": store.views, "shapes": store.shapes}
    write_json(store.folder / ABOUT, about)
    return missing


class _Views:
    """Rows of a store as they are computed from: the images in their views; for many threads."""

    def __init__(self, images: ImageDataset) -> None:
        self.images, self.own = images, threading.local()

    def load(self, row: int) -> NDArray[np.float32]:
        """Return the image of a row, (3, H, W)."""
        if not hasattr(self.own, "images"):  # its augmentation draws from a state of its own
            self.own.images = copy.deepcopy(self.images)
        view, index = divmod(row, len(self.images))
        self.own.images.set_epoch(view)
        image: Tensor = self.own.images[index]["image"]
        return image.numpy()


def _compute(dataset: FrozenDataset, missing: list[int], engine: Engine, workers: int) -> None:
    """Compute some parts, in steps that do not reach over the end of one.

    Images are loaded by threads: processes would be forked from one that runs an engine, whose
    library may not outlive that.
    """
    store, views = dataset.store, _Views(dataset.images)
    ranges = [store.parts()[number] for number in missing]
    calls = ((row, partial(views.load, row)) for part in ranges for row in part)
    total = sum(map(len, ranges))
    bar = tqdm(
        desc=f"frozen stages ({engine.name})", total=total, unit="image", disable=None, leave=False
    )
    with bar, closing(read_ahead(calls, max(1, workers), ahead=2 * STEP)) as read:
        images = (future.result() for _, future in read)
        for number, part in zip(missing, ranges, strict=True):
            rows = []
            for start in range(0, len(part), STEP):
                step = np.stack(list(islice(images, min(STEP, len(part) - start))))
                rows.append(_half(store, engine, step))
                bar.update(len(step))
            store.write(number, np.concatenate(rows))


def _half(
    store: MapStore, engine: Callable[[Any], Any], images: NDArray[np.float32]
) -> NDArray[np.float16]:
    """Return the rows of a step.

    Raises:
        InputError: a value is larger than half precision can hold.
    """
    rows = store.packed(engine(images))
    largest = float(rows.max())  # after ReLU none is negative
    if not largest <= LARGEST:
        raise InputError(
            f"The maps of the frozen stages reach {largest:.3g}, and half precision ends at "
            f"{LARGEST:.0f}: take a backbone with batch norm (_bn), or leave out --frozen.views."
        )
    return rows.astype(np.float16)
