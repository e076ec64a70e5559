"""A model at the service of requests: instances in, predictions out, in words of the answer."""

from __future__ import annotations

import logging
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from attnvgg.data.decoding import decode_image, encoded_size, reduction
from attnvgg.data.image_statistics import bag_statistics, image_statistics
from attnvgg.data.inspection import WAY_OUT
from attnvgg.data.transforms import Preprocess, Region
from attnvgg.deploy.bag_predictor import BagPrediction, BagPredictor
from attnvgg.deploy.card import model_card
from attnvgg.deploy.engines import AUTO
from attnvgg.deploy.engines.store import ABOUT
from attnvgg.deploy.predictor import Prediction, Predictor
from attnvgg.deploy.serving.batcher import Batcher
from attnvgg.deploy.serving.limits import Limits, Refused
from attnvgg.errors import InputError
from attnvgg.explain import Case, Kind, grid_png
from attnvgg.models import BagClassifier
from attnvgg.models.card import CAUTION
from attnvgg.training.checkpoint import load_model

logger = logging.getLogger(__name__)

IMAGE_BATCH, BAG_BATCH = 8, 16
DRAWN = 512  # pixels to which the shorter side of a drawn image may be reduced
CONVERT = "a server that was started with --convert takes such files"
SYNTHETIC = "SYNTHETIC data: the model was trained on drawn pictures, not on photographs."


class Prepared(NamedTuple):
    """An instance of a request, checked and decoded.

    Attributes:
        values: (3, size, size) of an image, (N, ...) of a bag.
        size: (height, width) in source pixels of an image, (N,) of a bag.
        statistics: of an image's pixels, or of a bag's values, where somebody keeps them.
    """

    values: NDArray[np.float32]
    size: tuple[int, ...]
    statistics: dict[str, float] | None = None


class Service(ABC):
    """A model of images or of bags; `submit` is for any thread.

    Args:
        predictor: the model and its engine.
        limits: see `Limits`.
        observe: told size and seconds of each batch.

    Attributes:
        kind: images or bags.
        card: what the model is, for people and for programs.
        batch: instances that are computed together.
    """

    kind: Literal["images", "bags"]
    batch: int

    def __init__(
        self,
        predictor: Any,
        limits: Limits,
        observe: Callable[[int, float], None] = lambda size, seconds: None,
    ) -> None:
        self.predictor, self.limits = predictor, limits
        self.classes: list[str] = predictor.classes
        self.threshold: float | None = predictor.threshold
        self.digest: str = predictor.digest
        self.card: dict[str, Any] = model_card(
            predictor.config, kind=self.kind, digest=self.digest, origin=predictor.origin
        ) | {"engine": predictor.words}
        self.engine_words: str = predictor.words
        self.synthetic = bool(predictor.config.get("synthetic"))
        self.keeps_statistics = False
        self._warm()
        self._batcher: Batcher[NDArray[np.float32], Any] = Batcher(
            self._compute, self.batch, limits.queue, observe
        )

    @property
    def waiting(self) -> int:
        """Return how many instances wait for the engine."""
        return self._batcher.waiting

    def submit(self, prepared: Sequence[Prepared]) -> list[Future[Any]]:
        """Let instances be computed; see `Batcher.submit`."""
        return self._batcher.submit([instance.values for instance in prepared])

    def close(self) -> None:
        """Finish what was submitted, and take no more."""
        self._batcher.close()

    @abstractmethod
    def prepare(self, instance: Any) -> Prepared:
        """Check and decode an instance; takes long, so call it in a thread.

        Raises:
            Refused: it is too large, or cannot be used.
        """

    @abstractmethod
    def _attention(self, prepared: Prepared, found: Any) -> dict[str, Any]:
        """Return the attention of a prediction as plain values."""

    @abstractmethod
    def _compute(self, batch: list[NDArray[np.float32]]) -> Sequence[Any]:
        """Return the predictions of instances."""

    @abstractmethod
    def _warm(self) -> None:
        """Compute something, so that the first request does not wait for memory and kernels."""

    def answer(self, prepared: Prepared, found: Any, attention: bool = False) -> dict[str, Any]:
        """Return a prediction as plain values.

        Raises:
            Refused: the model had no number to say, as for values near the largest there are.
        """
        if not np.isfinite(found.logits).all():
            raise Refused(422, "The model has no finite answer to these values.")
        probabilities = found.probabilities.tolist()
        if len(probabilities) == 1:
            probabilities = [1.0 - probabilities[0], probabilities[0]]
        scored = 1 if len(probabilities) == 2 else found.called
        words = {
            "logits": [float(value) for value in found.logits],
            "probabilities": probabilities,
            "probability": probabilities[scored],
            "called": self.classes[found.called],
        }
        return words | ({"attention": self._attention(prepared, found)} if attention else {})

    def envelope(self, predictions: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Return the whole answer to a request."""
        return {
            "model": self.digest,
            "engine": self.predictor_engine,
            "classes": self.classes,
            "threshold": self.threshold,
            "synthetic": self.synthetic,
            "predictions": list(predictions),
            "caution": CAUTION,
        }

    @property
    def predictor_engine(self) -> str:
        """Return the name of the engine."""
        engine = self.predictor.engine
        return "eager" if engine is None else engine.name


class ImageService(Service):
    """A model of images. An instance is the content of an image file."""

    kind = "images"
    batch = IMAGE_BATCH
    predictor: Predictor

    def prepare(self, instance: bytes) -> Prepared:
        """Check and decode an image; see `Service.prepare`."""
        preprocess = self.predictor.preprocess
        with _told():
            size = _checked_size(instance, self.limits.pixels)
            pixels = preprocess.load(instance)
        statistics = image_statistics(pixels) if self.keeps_statistics else None
        return Prepared(preprocess.normalise(preprocess.centre(pixels)).numpy(), size, statistics)

    def case(self, data: bytes, found: Prediction, name: str = "") -> Case:
        """Return an image with its maps, to be drawn; it is decoded again, not larger than needed.

        Raises:
            Refused: the model has no maps.
        """
        if found.attn1 is None or found.attn2 is None:
            raise Refused(406, "This model has no attention maps to draw: ask for JSON.")
        preprocess = self.predictor.preprocess
        height, width = encoded_size(data)
        side = max(DRAWN, preprocess.resize)
        factor = reduction(height, width, side)
        region = preprocess.region(height, width)
        return Case(
            image=decode_image(data, "image", side, preprocess.convert),
            attn1=found.attn1,
            attn2=found.attn2,
            probability=float(found.probabilities[-1 if len(self.classes) == 2 else found.called]),
            predicted=self.classes[found.called],
            scored=self.classes[1 if len(self.classes) == 2 else found.called],
            name=name,
            region=Region(*(length / factor for length in region)),
            input_size=preprocess.size,
        )

    def figure(self, data: bytes, found: Prediction, name: str = "") -> bytes:
        """Return image | pool-3 | pool-4 with colour bar and decision, as a PNG file."""
        note = f"{SYNTHETIC} {CAUTION}" if self.synthetic else CAUTION
        case = self.case(data, found, name)
        return grid_png([case], kind=self.map_kind, threshold=self.threshold, caption=note)

    @property
    def map_kind(self) -> Kind:
        """Return how the model's maps are normalised."""
        return "softmax" if self.predictor.config["arguments"]["normalize_attn"] else "sigmoid"

    def _attention(self, prepared: Prepared, found: Prediction) -> dict[str, Any]:
        if found.attn1 is None or found.attn2 is None:
            raise Refused(406, "This model has no attention maps: ask without attention.")
        region = self.predictor.preprocess.region(*prepared.size)
        return {
            "pool-3": found.attn1.tolist(),
            "pool-4": found.attn2.tolist(),
            "normalization": self.map_kind,
            "region": region._asdict(),
        }

    def _compute(self, batch: list[NDArray[np.float32]]) -> list[Prediction]:
        return self.predictor.compute(np.stack(batch))

    def _warm(self) -> None:
        side = self.predictor.preprocess.size
        for size in range(1, self.batch + 1):
            self.predictor.compute(np.zeros((size, 3, side, side), np.float32))


class BagService(Service):
    """A model of bags. An instance is a mapping with `images` (files) or `features` (N, D)."""

    kind = "bags"
    batch = BAG_BATCH
    predictor: BagPredictor

    @property
    def takes_images(self) -> bool:
        """Tell whether the instances of a bag are images."""
        saved = self.predictor.config.get("preprocess", {})
        return saved.get("kind", "image") != "features" and self.predictor.preprocess is not None

    def prepare(self, instance: Mapping[str, Any]) -> Prepared:
        """Check and decode a bag; see `Service.prepare`."""
        if self.takes_images != ("images" in instance):
            wanted = "images" if self.takes_images else "features"
            raise Refused(422, f'A bag of this model holds "{wanted}".')
        if not len(next(iter(instance.values()))):
            raise Refused(422, "A bag without instances has no prediction.")
        if not self.takes_images:
            bag = instance["features"]
        else:
            bag = np.stack([self._instance(data) for data in instance["images"]])
        with _told():
            self.predictor.require(bag.shape[1:])
        if not np.isfinite(bag).all():
            raise Refused(422, "A bag holds values that are NaN or infinite.")
        statistics = bag_statistics(bag) if self.keeps_statistics else None
        return Prepared(bag, (len(bag),), statistics)

    def _instance(self, data: bytes) -> NDArray[np.float32]:
        preprocess: Any = self.predictor.preprocess
        with _told():
            _checked_size(data, self.limits.pixels)
            return np.asarray(preprocess(data).numpy())

    def _attention(self, prepared: Prepared, found: BagPrediction) -> dict[str, Any]:
        single = found.instance_probabilities
        return {
            "weights": None if found.attention is None else found.attention.tolist(),
            "instance_probabilities": None if single is None else single.tolist(),
        }

    def _compute(self, batch: list[NDArray[np.float32]]) -> list[BagPrediction]:
        return list(self.predictor(batch))

    def _warm(self) -> None:
        if (shape := self.predictor.instance_shape) is not None:
            for size in (1, 2, 16):
                list(self.predictor([np.zeros((size, *shape), np.float32)]))


def open_service(
    path_or_hub: str,
    limits: Limits,
    engine: str = AUTO,
    *,
    threads: int | None = None,
    device: str = AUTO,
    convert: bool = False,
    observe: Callable[[int, float], None] = lambda size, seconds: None,
) -> Service:
    """Load a model of whatever kind and put it at service.

    Args:
        path_or_hub: a run folder, a saved or an exported model, a file of weights, or `owner/name`.
        limits: see `Limits`.
        engine: see `Predictor`.
        threads: see `Predictor`.
        device: see `Predictor`.
        convert: accept files that are not upright opaque 8-bit RGB, converted.
        observe: see `Batcher`.

    Raises:
        InputError: nothing loadable is there, or the engine cannot be had.
    """
    options: dict[str, Any] = {"engine": engine, "threads": threads, "device": device}
    if not _is_of_bags(path_or_hub):
        predictor = Predictor(path_or_hub, **options)
        if convert:
            predictor.preprocess = replace(predictor.preprocess, convert=True)
        return ImageService(predictor, limits, observe)
    bags = BagPredictor(path_or_hub, **options)
    if convert and isinstance(bags.preprocess, Preprocess):
        bags.preprocess = replace(bags.preprocess, convert=True)
    return BagService(bags, limits, observe)


def _is_of_bags(path_or_hub: str) -> bool:
    is_exported = (Path(path_or_hub) / ABOUT).is_file()  # only models of images are
    return not is_exported and isinstance(load_model(path_or_hub), BagClassifier)


def _checked_size(data: bytes, pixels: int) -> tuple[int, int]:
    """Return (height, width) of an image, before it is decoded."""
    height, width = encoded_size(data)
    if height * width > pixels:
        raise Refused(
            413, f"The image has {width} x {height} pixels; more than {pixels:,} are not taken."
        )
    return height, width


@contextmanager
def _told() -> Iterator[None]:
    """Turn a complaint about an image into a sentence for whoever sent it."""
    try:
        yield
    except Refused:
        raise
    except InputError as error:
        problem = " ".join(error.offenders) or error.message
        problem = re.sub("^image: ", "The image ", problem).replace(WAY_OUT, CONVERT)
        raise Refused(422, f"{problem[:1].upper()}{problem[1:].rstrip('.')}.") from error
