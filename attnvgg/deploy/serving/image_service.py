"""A model of images at the service of requests: files in, probabilities, maps and figures out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attnvgg.data.decoding import decode_image, encoded_size
from attnvgg.data.image_statistics import image_statistics
from attnvgg.deploy.prediction_panels import SYNTHETIC
from attnvgg.deploy.predictor import Prediction, Predictor
from attnvgg.deploy.serving.limits import Refused
from attnvgg.deploy.serving.service import Prepared, Service, checked_size, told
from attnvgg.explain import Case, Kind, grid_png, map_kind
from attnvgg.models.card import CAUTION

BATCH = 8
DRAWN = 512  # pixels to which the shorter side of a drawn image may be reduced


class ImageService(Service):
    """A model of images. An instance is the content of an image file."""

    kind = "images"
    batch = BATCH
    predictor: Predictor

    def files(self, instance: bytes) -> list[bytes]:
        """Return the image itself."""
        return [instance]

    def size(self, instance: bytes) -> int:
        """Return the bytes of an image as the model takes it."""
        return 4 * 3 * self.predictor.preprocess.size**2

    def prepare(self, instance: bytes, is_over: Callable[[], bool] = lambda: False) -> Prepared:
        """Check and decode an image; see `Service.prepare`."""
        preprocess = self.predictor.preprocess
        with told():
            size = checked_size(instance, self.limits.pixels)
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
        return Case(
            image=decode_image(data, "image", side, preprocess.convert),
            attn1=found.attn1,
            attn2=found.attn2,
            probability=float(found.probabilities[-1 if len(self.classes) == 2 else found.called]),
            predicted=self.classes[found.called],
            scored=self.classes[1 if len(self.classes) == 2 else found.called],
            name=name,
            region=preprocess.region(height, width, side),
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
        return map_kind(self.predictor.config)

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
