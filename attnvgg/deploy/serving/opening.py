"""A model of whatever kind, loaded and put at service."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from attnvgg.data.transforms import Preprocess
from attnvgg.deploy.bag_predictor import BagPredictor
from attnvgg.deploy.engines import AUTO
from attnvgg.deploy.engines.store import ABOUT
from attnvgg.deploy.predictor import Predictor
from attnvgg.deploy.serving.bag_service import BagService
from attnvgg.deploy.serving.image_service import ImageService
from attnvgg.deploy.serving.limits import Limits
from attnvgg.deploy.serving.service import Service
from attnvgg.models import BagClassifier
from attnvgg.training.checkpoint import load_model


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
