"""A model of bags at the service of requests: tiles or features in, probability and weights out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attnvgg.data.image_statistics import bag_statistics
from attnvgg.deploy.bag_predictor import BagPrediction, BagPredictor
from attnvgg.deploy.serving.limits import Refused
from attnvgg.deploy.serving.service import Prepared, Service, checked_size, told

BATCH = 16


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
        with told():
            self.predictor.require(bag.shape[1:])
        if not np.isfinite(bag).all():
            raise Refused(422, "A bag holds values that are NaN or infinite.")
        statistics = bag_statistics(bag) if self.keeps_statistics else None
        return Prepared(bag, (len(bag),), statistics)

    def _instance(self, data: bytes) -> NDArray[np.float32]:
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

    def _compute(self, batch: list[NDArray[np.float32]]) -> list[BagPrediction]:
        return list(self.predictor(batch))

    def _warm(self) -> None:
        if (shape := self.predictor.instance_shape) is not None:
            for size in (1, 2, 16):
                list(self.predictor([np.zeros((size, *shape), np.float32)]))
