"""A model of images as engines are built from it, compared by, and described in an export."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

from attnvgg.data.transforms import Preprocess
from attnvgg.deploy.agreement import Agreement, compare
from attnvgg.deploy.calibration import ImageSet
from attnvgg.deploy.engines import Engine, Source, open_engine
from attnvgg.errors import InputError
from attnvgg.evaluation.probabilities import class_names
from attnvgg.models import Pretrained, VGGDense

logger = logging.getLogger(__name__)


def described_model(about: dict[str, Any], origin: object) -> tuple[dict[str, Any], Preprocess]:
    """Return the model's configuration and preprocessing of an `engine.json`.

    Raises:
        InputError: it does not describe a model of images.
    """
    try:
        config = dict(about["model"])
        preprocess = Preprocess.from_dict(config["preprocess"])
        class_names(config, max(2, int(config["arguments"]["num_classes"])))
        threshold = config.get("threshold")
        if threshold is not None and not 0 <= float(threshold) <= 1:
            raise ValueError(f"its threshold is {threshold}")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        reason = str(error).partition("\n")[0].rstrip(".") or type(error).__name__
        raise InputError(
            f"What {origin} says of its model is damaged ({reason}): export the run again."
        ) from error
    return config | {"threshold": None if threshold is None else float(threshold)}, preprocess


def source_of(
    model: Pretrained,
    preprocess: Preprocess,
    training: ImageSet | None,
    validation: ImageSet | None,
    weights: str | None = None,
) -> Source:
    """Return what engines of a model of images are built from.

    Args:
        model: in eval mode.
        preprocess: its own.
        training: to calibrate 8 bits with.
        validation: what a built engine is compared with PyTorch on, else the training images; it
            is refused beyond `agreement.TOLERANCE`.
        weights: their digest, if it is known.
    """
    identity = f"{model.config['class']} {sorted(model.config['arguments'].items())}"

    judged_on = validation or training

    def verify(engine: Engine) -> dict[str, Any]:
        assert judged_on is not None
        found = agreement_of(engine, source, preprocess, judged_on)
        logger.info("Compared with PyTorch: %s", found.words)
        found.require(engine.name)
        return found.to_dict()

    source = Source(
        network=model,
        identity=identity,
        side=preprocess.size,
        any_size=not isinstance(model, VGGDense),
        calibration=None if training is None else lambda: list(training.batches(preprocess)),
        calibration_name="" if training is None else training.name(preprocess),
        verify=None if judged_on is None else verify,
        weights=weights,
    )
    return source


def agreement_of(
    engine: Engine, source: Source, preprocess: Preprocess, images: ImageSet
) -> Agreement:
    """Return how far an engine is from PyTorch on images."""
    reference = open_engine("eager", source)
    labels = None if images.labels is None else np.array(images.labels)
    return compare(engine, reference, images.batches(preprocess), labels)
