"""From a configuration and a table of images to the parts of a training run."""

from __future__ import annotations

import logging

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator

from attnvgg.data.images import ImageDataset
from attnvgg.data.transforms import augmentation
from attnvgg.errors import InputError
from attnvgg.models import (
    VGGGAP,
    AttnVGG,
    Pretrained,
    VGGDense,
    WeightsUnavailable,
)
from attnvgg.training.build import assemble, loader_workers, make_preprocess, open_cache
from attnvgg.training.config import TrainConfig
from attnvgg.training.run import RunFolder
from attnvgg.training.run_config import updated
from attnvgg.training.steps import Trainer

logger = logging.getLogger(__name__)


def make_datasets(config: TrainConfig, manifest: pd.DataFrame) -> dict[str, ImageDataset]:
    """Return the sets of the splits; they share the cache of decoded images."""
    data = config.data
    preprocess = make_preprocess(data)
    cache = open_cache(data)
    cases = manifest.drop(columns="mask", errors="ignore")  # no loss here asks for masks
    return {
        split: ImageDataset(
            cases[cases["split"] == split].reset_index(drop=True),
            preprocess,
            augment=augmentation(data.augmentation, preprocess) if split == "train" else None,
            cache=cache,
            seed=config.seed,
        )
        for split in ("train", "val", "test")
    }


def build_model(config: TrainConfig, manifest: pd.DataFrame) -> tuple[Pretrained, TrainConfig]:
    """Build the network, and settle in the configuration what depends on data and start.

    ImageNet weights that cannot be fetched stop a run on real data; the sample then starts from
    random ones, and the run says so.
    """
    torch.manual_seed(config.seed)
    classes = int(manifest["label"].max()) + 1
    logits = config.model.num_classes or (1 if classes == 2 else classes)
    if logits != classes and (logits, classes) != (1, 2):
        raise InputError(f"--model.num_classes {logits} does not fit labels of {classes} classes.")
    if config.resume is not None and RunFolder(config.resume).state.is_file():
        return _construct(config, logits, None), config  # the saved state replaces the weights
    weights, start = config.model.weights, str(config.model.weights or "random weights")
    try:
        model = _construct(config, logits, weights)
    except WeightsUnavailable:
        if config.data.source != "sample":
            raise
        logger.warning(
            "ImageNet weights cannot be fetched: the sample is trained from random ones."
        )
        weights, start = None, "random weights (those of ImageNet could not be fetched)"
        model = _construct(config, logits, None)
    rate = config.optim.lr
    if rate is None:
        rate = 1e-4 if weights else 5e-4
    settled = {"model.num_classes": logits, "model.weights": weights, "model.start": start}
    return model, updated(config, settled | {"optim.lr": rate})


def _construct(config: TrainConfig, logits: int, weights: str | None) -> Pretrained:
    model = config.model
    if model.name == "gap":
        return VGGGAP(logits, dropout=model.dropout, backbone=model.backbone, weights=weights)
    if model.name == "vgg":
        dropout = 0.5 if model.dropout is None else model.dropout
        return VGGDense(logits, dropout, backbone=model.backbone, weights=weights)
    return AttnVGG(
        logits,
        model.normalize_attn,
        model.dropout,
        attention=model.attention,
        backbone=model.backbone,
        weights=weights,
    )


def make_trainer(
    config: TrainConfig,
    accelerator: Accelerator,
    model: Pretrained,
    manifest: pd.DataFrame,
    dataset: ImageDataset,
) -> Trainer:
    """Put together what takes part in training on images.

    Raises:
        InputError: the training set does not fill one optimiser step, or model, loss and size of
            the input do not go together.
    """
    training = manifest[manifest["split"] == "train"]
    labels = training["label"].to_numpy(copy=True)
    repeats = np.where(labels > 0, config.data.positive_repeats, 1) * config.data.passes
    model = model.to(memory_format=torch.channels_last)
    side = dataset.preprocess.size
    rehearsal = {"image": torch.zeros(1, 3, side, side)}
    workers = loader_workers(config.data.workers, accelerator)
    return assemble(config, accelerator, model, training, repeats, dataset, workers, rehearsal)
