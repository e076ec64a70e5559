"""A trained model of bags in use: bags of any size in, probabilities and attention out."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from attnvgg.data.transforms import Preprocess
from attnvgg.deploy.bag_images import images_of_run
from attnvgg.deploy.bag_packing import PackedBags, packed
from attnvgg.deploy.encoder_engines import EncoderImages, EngineEncoder, encoder_source
from attnvgg.deploy.engines import AUTO, Engine, choose, open_chosen, open_engine
from attnvgg.errors import InputError
from attnvgg.evaluation.probabilities import called_class, class_names, to_probabilities
from attnvgg.models import BagClassifier
from attnvgg.models.bags import PIECE
from attnvgg.models.feature_encoders import IdentityEncoder, MLPEncoder, StandardizedEncoder
from attnvgg.models.weights import digest
from attnvgg.training.checkpoint import load_model

logger = logging.getLogger(__name__)

IMAGES = 64  # instances a batch; of features and digits `PIECE`
DIGIT = 28  # pixels a side
IN_PYTORCH = (IdentityEncoder, MLPEncoder, StandardizedEncoder)
Array = NDArray[np.float32]


class BagPrediction(NamedTuple):
    """What a model says of one bag.

    Attributes:
        logits: (K,).
        probabilities: (1,) of class 1 for K=1, else (K,), in [0, 1].
        called: number of the class: of two by the threshold, else the likeliest.
        attention: (N, M), a column a branch of the pool; None where the pool has no weights.
        instance_probabilities: as `probabilities`, of each instance on its own, (N, K); None where
            the pool works on embeddings.
    """

    logits: Array
    probabilities: NDArray[np.float64]
    called: int
    attention: Array | None
    instance_probabilities: NDArray[np.float64] | None


class BagPredictor:
    """A trained model of bags; the encoder of images is computed by the engine of choice.

    Features, and whatever else is no image, go through PyTorch, as pool and head always do.

    Args:
        path_or_hub: a run folder, a saved model, or `owner/name` on the hub.
        engine: one of `attnvgg.deploy.engines.ENGINES`, or auto: what suits this machine. 8 bits
            are calibrated on images of the run's training bags, if they are here.
        threads: on the CPU; None: the choice of the library. Those of PyTorch count for the whole
            process.
        cache: folder of built engines; None: that of the user.
        device: cpu or cuda; auto takes a GPU where there is one.

    Attributes:
        model: of bags, in eval mode, its encoder computed by the engine.
        engine: of the encoder; None where PyTorch computes everything.
        reason: why it was chosen.
        config: of the model: `classes`, `threshold`, `metrics` and more.
        preprocess: from an image, or features, to an instance; None if it was saved without.
        threshold: of class 1, locked on validation, or None.
        instance_shape: of an instance; None where several will do.
        digest: of the weights.

    Raises:
        InputError: nothing loadable is there, it is no model of bags, or the engine cannot be had.
    """

    def __init__(
        self,
        path_or_hub: str | os.PathLike[str],
        engine: str = AUTO,
        *,
        threads: int | None = None,
        cache: str | os.PathLike[str] | None = None,
        device: str = AUTO,
    ) -> None:
        self.origin, folder = str(path_or_hub), Path(path_or_hub)
        model: Any = load_model(folder if folder.is_dir() else str(path_or_hub))
        if not isinstance(model, BagClassifier):
            raise InputError(f"{path_or_hub} is a model of images, not of bags: use Predictor.")
        self.model, self.config = model.requires_grad_(False), model.config
        self.preprocess = getattr(model, "preprocess", None)
        self.threshold: float | None = self.config.get("threshold")
        self.digest = digest(model.state_dict())
        self.instance_shape = _instance_shape(model, self.preprocess)
        self._taken = self.instance_shape  # the last shape that was found to be taken
        self.device = _device(device, engine)
        if threads is not None:
            torch.set_num_threads(threads)
        self.engine: Engine | None = None
        images = _images(folder, self.preprocess)
        self._choose(engine, images, threads, None if cache is None else Path(cache))
        self.model.to(self.device)

    def _choose(
        self, engine: str, images: EncoderImages | None, threads: int | None, cache: Path | None
    ) -> None:
        """Let an engine compute the encoder, if it is one of images."""
        shape = self.instance_shape
        if isinstance(self.model.encoder, IN_PYTORCH) or shape is None:
            if engine not in (AUTO, "eager"):
                raise InputError(
                    f"The engine {engine} computes encoders of images of one size, and this model "
                    "has none: take eager or auto."
                )
            self.reason = "there is no encoder of images of one size"
            return
        kind, self.reason = engine, "asked for"
        if engine == AUTO:
            kind, self.reason = choose(self.device, images is not None)
        source = encoder_source(self.model.encoder, shape, images)
        options: dict[str, Any] = {"threads": threads, "cache": cache, "device": self.device}
        if engine == AUTO:
            self.engine, other = open_chosen(kind, source, **options)
            self.reason = other or self.reason
        else:
            self.engine = open_engine(kind, source, **options)
        self.model.encoder = EngineEncoder(self.engine)

    @property
    def words(self) -> str:
        """Return which engine computes and why, for people."""
        if self.engine is None:
            return f"PyTorch eager ({self.device.upper()}, 32 bits): {self.reason}"
        return f"{self.engine.words}: {self.reason}; pool and head by PyTorch"

    @property
    def classes(self) -> list[str]:
        """Return the names of the classes."""
        return class_names(self.config, max(2, self.model.head.num_classes))

    @property
    def usual(self) -> int:
        """Return how many instances are computed together."""
        shape = self.instance_shape
        return IMAGES if self.engine is not None and shape and shape[-1] > DIGIT else PIECE

    def __call__(
        self, bags: Iterable[Any], instances: int | None = None
    ) -> Iterator[BagPrediction]:
        """Yield a prediction a bag, in order; small bags are computed together.

        Args:
            bags: preprocessed instances (N, ...) each: arrays, memory maps, HDF5 data sets,
                tensors or lists. What is larger than a batch is read part by part.
            instances: computed together, of all bags of a batch; None: what is fast.

        Raises:
            InputError: a bag that cannot be used, by its number.
        """
        size = self.usual if instances is None else instances
        if size < 1:
            raise InputError(f"A batch has at least one instance, not {size}.")
        for batch in packed(bags, size, self.require):
            yield from self._compute(batch, size)

    def require(self, shape: tuple[int, ...]) -> None:
        """Raise InputError for instances of a shape that the model does not take."""
        if shape == self._taken:
            return
        if self.instance_shape is not None:
            raise InputError(
                f"instances have the shape {shape}, but this model takes {self.instance_shape}."
            )
        try:
            with torch.inference_mode():
                self.model.encoder(torch.zeros(1, *shape, device=self.device))
        except (InputError, RuntimeError) as error:
            raise InputError(str(error).splitlines()[0]) from error
        self._taken = shape

    def _compute(self, batch: PackedBags, size: int) -> Iterator[BagPrediction]:
        """Yield what the model says of bags that are computed together."""
        self.model.chunk_size = size
        with torch.inference_mode():
            logits, attention, single = self._forward(*batch)
        probabilities = to_probabilities(logits)
        stops = batch.offsets.tolist()
        for row, (start, stop) in enumerate(pairwise(stops)):
            yield BagPrediction(
                logits[row],
                probabilities[row],
                called_class(probabilities[row], self.threshold),
                None if attention is None else attention[start:stop],
                None if single is None else single[start:stop],
            )

    def _forward(
        self, rows: Any, offsets: Tensor
    ) -> tuple[Array, Array | None, NDArray[np.float64] | None]:
        """Return logits (B, K), attention (sum N, M) and probabilities of instances (sum N, K)."""
        if self.model.pool.level == "embedding":
            found = self.model(rows, offsets)
            return _array(found.logits), _optional(found.attention), None
        of_instances = self.model.instance_logits(rows)  # (sum N, K): each is encoded once only
        pooled, attention = self.model.pool(of_instances, offsets=offsets)
        single = to_probabilities(_array(of_instances))
        return _array(pooled), _optional(attention), single


def _array(values: Tensor) -> Array:
    return values.float().cpu().numpy()


def _optional(values: Tensor | None) -> Array | None:
    return None if values is None else _array(values)


def _instance_shape(model: BagClassifier, preprocess: Any) -> tuple[int, ...] | None:
    """Return the shape of an instance, as encoder or preprocessing know it."""
    known = getattr(model.encoder, "instance_shape", None)
    if known is None and isinstance(preprocess, Preprocess):
        known = (3, preprocess.size, preprocess.size)
    return known


def _images(folder: Path, preprocess: Any) -> EncoderImages | None:
    return images_of_run(folder, preprocess) if isinstance(preprocess, Preprocess) else None


def _device(device: str, engine: str) -> str:
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("There is no GPU here: use device cpu.")
    if device != AUTO:
        return device
    return "cuda" if torch.cuda.is_available() and engine in (AUTO, "eager") else "cpu"
