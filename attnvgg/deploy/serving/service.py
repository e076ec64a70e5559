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


def checked_size(data: bytes, pixels: int) -> tuple[int, int]:
    """Return (height, width) of an image, before it is decoded."""
    height, width = encoded_size(data)
    if height * width > pixels:
        raise Refused(
            413, f"The image has {width} x {height} pixels; more than {pixels:,} are not taken."
        )
    return height, width


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
