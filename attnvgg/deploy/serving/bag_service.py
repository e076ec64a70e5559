"""A model of bags at the service of requests: tiles or features in, probability and weights out."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attnvgg.data.image_statistics import bag_statistics
from attnvgg.deploy.bag_predictor import BagPrediction, BagPredictor
from attnvgg.deploy.serving.limits import Refused
from attnvgg.deploy.serving.service import Prepared, Service, checked_size, told

BATCH = 16
LARGEST = 224  # pixels a side of an instance, where the model does not say


class Watched:
    """A bag that cannot be read any more when nobody waits for what is computed of it.

    A bag that is larger than a batch is read part by part: so it ends within one.
    """

    def __init__(self, values: NDArray[np.float32], is_over: Callable[[], bool]) -> None:
        self._values, self._is_over = values, is_over
        self.shape, self.dtype = values.shape, values.dtype

    def __len__(self) -> int:
        return len(self._values)

    def __getitem__(self, rows: slice) -> NDArray[np.float32]:
        if self._is_over():
            raise Refused(504, "Nobody waits for this bag any more.")
        return self._values[rows]


class BagService(Service):
    """A model of bags. An instance is a mapping with `images` (files) or `features` (N, D)."""

    kind = "bags"
    batch = BATCH
    predictor: BagPredictor

    @property
    def takes_images(self) -> bool:
        """Tell whether the instances of a bag are images."""
        saved = self.predictor.config.get("preprocess", {})
        return saved.get("kind", "image") != "features" and self.predictor.preprocess is not None

    def files(self, instance: Mapping[str, Any]) -> Sequence[bytes]:
        """Return the tiles of a bag, or none if it holds features."""
        return instance.get("images", ())

    def size(self, instance: Mapping[str, Any]) -> int:
        """Return the bytes of a bag as the model takes it."""
        if not self.takes_images:
            return int(instance["features"].nbytes)
        shape = self.predictor.instance_shape or (3, LARGEST, LARGEST)
        return 4 * math.prod(shape) * len(instance["images"])

    def prepare(
        self, instance: Mapping[str, Any], is_over: Callable[[], bool] = lambda: False
    ) -> Prepared:
        """Check and decode a bag; see `Service.prepare`."""
        if not len(next(iter(instance.values()))):
            raise Refused(422, "A bag without instances has no prediction.")
        if not self.takes_images:
            bag = instance["features"]
        else:
            bag = np.stack([self._instance(data, is_over) for data in instance["images"]])
        with told():
            self.predictor.require(bag.shape[1:])
        if not np.isfinite(bag).all():
            raise Refused(422, "A bag holds values that are NaN or infinite.")
        statistics = bag_statistics(bag) if self.keeps_statistics else None
        return Prepared(bag, (len(bag),), statistics)

    def _instance(self, data: bytes, is_over: Callable[[], bool]) -> NDArray[np.float32]:
        if is_over():
            raise Refused(504, "Nobody waits for this bag any more.")
        preprocess: Any = self.predictor.preprocess
        with told():
            checked_size(data, self.limits.pixels)
            return np.asarray(preprocess(data).numpy())

    def _attention(self, prepared: Prepared, found: BagPrediction) -> dict[str, Any]:
        single = found.instance_probabilities
        return {
            "weights": None if found.attention is None else found.attention.tolist(),
            "instance_probabilities": None if single is None else single.tolist(),
        }

    def _item(self, values: NDArray[np.float32], is_over: Callable[[], bool]) -> Any:
        return Watched(values, is_over) if len(values) > self.predictor.usual else values

    def _compute(self, batch: list[Any]) -> list[BagPrediction]:
        return list(self.predictor(batch))

    def _warm(self) -> None:
        if (shape := self.predictor.instance_shape) is not None:
            for size in (1, 2, 16):
                list(self.predictor([np.zeros((size, *shape), np.float32)]))
