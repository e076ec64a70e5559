"""A trained model in use: images in, probabilities and maps out, by the engine that suits."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from attnvgg.data.cores import available_cores
from attnvgg.data.images import use_one_thread
from attnvgg.data.transforms import Preprocess
from attnvgg.deploy.calibration import ImageSet, of_files, of_run
from attnvgg.deploy.engines import AUTO, choose, open_chosen, open_engine, open_folder
from attnvgg.deploy.engines.interface import Images
from attnvgg.deploy.engines.store import ABOUT
from attnvgg.deploy.image_source import described_model, source_of
from attnvgg.deploy.reading import read_ahead
from attnvgg.errors import InputError
from attnvgg.evaluation.probabilities import called_class, class_names, to_probabilities
from attnvgg.models.weights import digest
from attnvgg.training.checkpoint import load_model, preprocess_of

logger = logging.getLogger(__name__)

BATCH = 8
Map = NDArray[np.float32]


class Prediction(NamedTuple):
    """What a model says of one image.

    Attributes:
        logits: (K,).
        probabilities: (1,) of class 1 for K=1, else (K,), in [0, 1].
        called: number of the class: of two by the threshold, else the likeliest.
        attn1: attention of pool-3, (H/8, W/8), or None.
        attn2: attention of pool-4, (H/16, W/16), or None.
    """

    logits: NDArray[np.float32]
    probabilities: NDArray[np.float64]
    called: int
    attn1: Map | None
    attn2: Map | None


class Predictor:
    """A trained model of images, computed by the engine of choice.

    Args:
        path_or_hub: a run folder, a saved or an exported model, or `owner/name` on the hub.
        engine: one of `attnvgg.deploy.engines.ENGINES`, or auto: what suits this machine. An
            exported model brings its own.
        threads: of the engine on the CPU; None: the choice of its library.
        calibration: images, or folders of them, to choose the ranges of 8-bit numbers with; None:
            training images of the run, if they are here.
        cache: folder of built engines; None: that of the user.
        device: cpu or cuda; auto takes a GPU where there is one.

    Attributes:
        engine: what computes.
        reason: why it was chosen.
        config: of the model: `classes`, `threshold`, `metrics` and more.
        preprocess: from a file, an opened image or pixels to (3, size, size).
        threshold: of class 1, locked on validation, or None.
        digest: of the weights, or of the exported files.
        engine_key: what tells the engine from one that was calibrated on other images.

    Raises:
        InputError: nothing loadable is there, or the engine cannot be had.
    """

    def __init__(
        self,
        path_or_hub: str | os.PathLike[str],
        engine: str = AUTO,
        *,
        threads: int | None = None,
        calibration: Iterable[str | os.PathLike[str]] | None = None,
        cache: str | os.PathLike[str] | None = None,
        device: str = AUTO,
    ) -> None:
        self.origin, self.reason = str(path_or_hub), ""
        if device not in (AUTO, "cpu", "cuda"):
            raise InputError(f'There is no device "{device}"; choose auto, cpu or cuda.')
        folder = Path(path_or_hub)
        if (folder / ABOUT).is_file():
            if device == "cuda":
                raise InputError(f"{folder} was exported for CPUs: give the run to use a GPU.")
            self._open_export(folder, engine, threads)
        else:
            model = load_model(folder if folder.is_dir() else str(path_or_hub))
            self.config, self.preprocess = model.config, preprocess_of(model)
            self.digest = digest(model.state_dict())
            sets = _image_sets(folder, calibration)
            chosen = self._choose(engine, device, sets[0] is not None)
            source = source_of(model, self.preprocess, *sets, weights=self.digest)
            place = None if cache is None else Path(cache)
            options: dict[str, Any] = {"threads": threads, "cache": place, "device": chosen[1]}
            if engine == AUTO:
                self.engine, other = open_chosen(chosen[0], source, **options)
                self.reason = other or self.reason
            else:
                self.engine = open_engine(chosen[0], source, **options)
            is_int8 = self.engine.name == "openvino-int8"
            self.engine_key = source.calibration_name if is_int8 else ""
        self.threshold: float | None = self.config.get("threshold")
        use_one_thread()

    def _open_export(self, folder: Path, engine: str, threads: int | None) -> None:
        self.engine, about = open_folder(folder, threads)
        if engine not in (AUTO, self.engine.name):
            raise InputError(
                f"{folder} was exported for the engine {self.engine.name}, not {engine}: give the "
                "run to choose another one."
            )
        self.config, self.preprocess = described_model(about, folder)
        self.reason, self.engine_key = "exported", ""
        self.digest = hashlib.sha256(json.dumps(about["files"]).encode()).hexdigest()

    def _choose(self, engine: str, device: str, can_calibrate: bool) -> tuple[str, str]:
        """Return engine and device."""
        if device == AUTO:
            on_gpu = torch.cuda.is_available() and engine in (AUTO, "eager", "compiled")
            device = "cuda" if on_gpu else "cpu"
        if device == "cuda" and not torch.cuda.is_available():
            raise InputError("There is no GPU here: use device cpu.")
        self.reason = "asked for"
        if engine == AUTO:
            engine, self.reason = choose(device, can_calibrate)
        return engine, device

    @property
    def words(self) -> str:
        """Return which engine computes and why, for people."""
        return f"{self.engine.words}: {self.reason}"

    @property
    def classes(self) -> list[str]:
        """Return the names of the classes."""
        return class_names(self.config, max(2, self.config["arguments"]["num_classes"]))

    def __call__(self, images: Iterable[Any], batch_size: int = BATCH) -> Iterator[Prediction]:
        """Yield a prediction an image, in order; files are decoded while others are computed.

        Args:
            images: files, opened images, or RGB pixels (H, W, 3).
            batch_size: images computed together.

        Raises:
            InputError: an image that cannot be used.
        """
        if batch_size < 1:
            raise InputError(f"A batch of {batch_size} images: at least 1 is needed.")
        for batch in self._batches(images, batch_size):
            yield from self.compute(batch)

    def compute(self, images: Images) -> list[Prediction]:
        """Return the predictions of preprocessed images (B, 3, H, W)."""
        logits, *maps = self.engine(images)
        probabilities = to_probabilities(logits)
        found = []
        for row in range(len(images)):
            attention: list[Map | None] = [part[row, 0] for part in maps] or [None, None]
            called = called_class(probabilities[row], self.threshold)
            found.append(Prediction(logits[row], probabilities[row], called, *attention))
        return found

    def _batches(self, images: Iterable[Any], batch_size: int) -> Iterator[Images]:
        read = read_ahead(
            ((None, _reader(self.preprocess, image)) for image in images),
            threads=available_cores(),
            ahead=2 * batch_size,
        )
        pixels = (future.result() for _, future in read)
        while part := list(islice(pixels, batch_size)):
            yield np.stack(part)


def _reader(preprocess: Preprocess, image: Any) -> Callable[[], NDArray[np.float32]]:
    return lambda: preprocess(image).numpy()


def _image_sets(
    folder: Path, calibration: Iterable[str | os.PathLike[str]] | None
) -> tuple[ImageSet | None, ImageSet | None]:
    training, validation = of_run(folder)
    if calibration is not None:
        training = of_files([Path(path) for path in calibration])
    return training, validation
