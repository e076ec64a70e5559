"""A model at the service of requests: instances in, predictions out, in words of the answer."""

from __future__ import annotations

import logging
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from attnvgg.data.decoding import encoded_size
from attnvgg.data.inspection import WAY_OUT
from attnvgg.deploy.card import model_card
from attnvgg.deploy.serving.batcher import Batcher
from attnvgg.deploy.serving.limits import Limits, Refused
from attnvgg.errors import InputError
from attnvgg.models.card import CAUTION

logger = logging.getLogger(__name__)

CONVERT = "a server that was started with --convert takes such files"


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
        self._batcher: Batcher[Any, Any] = Batcher(self._compute, self.batch, limits.queue, observe)

    @property
    def waiting(self) -> int:
        """Return how many instances wait for the engine."""
        return self._batcher.waiting

    def submit(
        self, prepared: Sequence[Prepared], is_over: Callable[[], bool] = lambda: False
    ) -> list[Future[Any]]:
        """Let instances be computed; see `Batcher.submit`.

        Args:
            prepared: instances of a request.
            is_over: tells whether nobody waits for them any more.
        """
        return self._batcher.submit([self._item(one.values, is_over) for one in prepared])

    def close(self) -> None:
        """Finish what was submitted, and take no more."""
        self._batcher.close()

    @abstractmethod
    def files(self, instance: Any) -> Sequence[bytes]:
        """Return the image files of an instance."""

    @abstractmethod
    def size(self, instance: Any) -> int:
        """Return the bytes that an instance takes when it is decoded."""

    @abstractmethod
    def prepare(self, instance: Any, is_over: Callable[[], bool] = lambda: False) -> Prepared:
        """Check and decode an instance; takes long, so call it in a thread.

        Args:
            instance: see the class.
            is_over: tells whether nobody waits for it any more.

        Raises:
            Refused: it is too large, or cannot be used.
        """

    def measure(self, instances: Sequence[Any]) -> int:
        """Return the bytes that instances take when they are decoded; nothing is decoded for that.

        Raises:
            Refused: an image, or all together, are too large.
        """
        pixels = 0
        for place, instance in enumerate(instances):
            with numbered(place, len(instances)), told():
                for data in self.files(instance):
                    height, width = checked_size(data, self.limits.pixels)
                    pixels += height * width
                    if pixels > self.limits.all_pixels:
                        raise Refused(
                            413,
                            "The images of a request have at most "
                            f"{self.limits.all_pixels:,} pixels together.",
                        )
        return sum(map(self.size, instances))

    @abstractmethod
    def _attention(self, prepared: Prepared, found: Any) -> dict[str, Any]:
        """Return the attention of a prediction as plain values."""

    def _item(self, values: NDArray[np.float32], is_over: Callable[[], bool]) -> Any:
        """Return what is computed of an instance."""
        return values

    @abstractmethod
    def _compute(self, batch: list[Any]) -> Sequence[Any]:
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


def checked_size(data: bytes, pixels: int) -> tuple[int, int]:
    """Return (height, width) of an image, before it is decoded."""
    height, width = encoded_size(data)
    if height * width > pixels:
        raise Refused(
            413, f"The image has {width} x {height} pixels; more than {pixels:,} are not taken."
        )
    return height, width


@contextmanager
def numbered(place: int, of: int) -> Iterator[None]:
    """Let a refusal name the instance, if there are several."""
    try:
        yield
    except Refused as error:
        if of == 1:
            raise
        words = f"Instance {place} (the first is 0): {error.message}"
        raise Refused(error.status, words, error.retry_after) from error


@contextmanager
def told() -> Iterator[None]:
    """Turn a complaint about an image into a sentence for whoever sent it."""
    try:
        yield
    except Refused:
        raise
    except InputError as error:
        problem = " ".join(error.offenders) or error.message
        problem = re.sub("^image: ", "The file ", problem).replace(WAY_OUT, CONVERT)
        raise Refused(422, f"{problem[:1].upper()}{problem[1:].rstrip('.')}.") from error
