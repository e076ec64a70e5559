"""From a configuration and a table of images to the parts of a training run."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator
from torch import nn
from torch.utils.data import Dataset

from attnvgg.data.augmentation import augmentation
from attnvgg.data.images import ImageDataset
from attnvgg.errors import InputError
from attnvgg.models import (
    VGGGAP,
    AttentionPrior,
    AttnVGG,
    Pretrained,
    VGGDense,
    WeightsUnavailable,
)
from attnvgg.models.backbone import VGGStages
from attnvgg.training.build import assemble, loader_workers, make_preprocess, open_cache
from attnvgg.training.config import TrainConfig
from attnvgg.training.run_config import updated
from attnvgg.training.steps import Trainer

logger = logging.getLogger(__name__)


def make_datasets(config: TrainConfig, manifest: pd.DataFrame) -> dict[str, ImageDataset]:
    """Return the sets of the splits; they share the cache of decoded images.

    Only training has masks, and only for a loss that asks for them.
    """
    data = config.data
    preprocess = make_preprocess(data)
    cache = open_cache(data)
    plain = manifest.drop(columns="mask", errors="ignore")
    with_masks = plain if config.loss.prior == "none" else manifest
    cases = {"train": with_masks, "val": plain, "test": plain}
    return {
        split: ImageDataset(
            table[table["split"] == split].reset_index(drop=True),
            preprocess,
            augment=augmentation(data.augmentation, preprocess) if split == "train" else None,
            cache=cache,
            seed=config.seed,
        )
        for split, table in cases.items()
    }


def build_model(
    config: TrainConfig, manifest: pd.DataFrame, *, resumed: bool = False
) -> tuple[Pretrained, TrainConfig]:
    """Build the network, and settle in the configuration what depends on data and start.

    Of a run that is resumed the saved state replaces the weights. ImageNet weights that cannot be
    fetched stop a run on real data; the sample then starts from random ones, and the run says so.
    """
    torch.manual_seed(config.seed)
    classes = int(manifest["label"].max()) + 1
    logits = config.model.num_classes or (1 if classes == 2 else classes)
    if logits != classes and (logits, classes) != (1, 2):
        raise InputError(f"--model.num_classes {logits} does not fit labels of {classes} classes.")
    if resumed:
        return _construct(config, logits, None), config
    weights = config.model.weights
    start = weights or config.model.start or "random weights"
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
    model = _network(config, logits, weights)
    if config.model.freeze:
        cast(VGGStages, model.stages).freeze(config.model.freeze)
    return model


def _network(config: TrainConfig, logits: int, weights: str | None) -> Pretrained:
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
    dataset: Dataset[Any],
) -> Trainer:
    """Put together what takes part in training on images, or on what frozen stages made of them.

    Raises:
        InputError: the training set does not fill one optimiser step, or model, loss and size of
            the input do not go together.
    """
    training = manifest[manifest["split"] == "train"]
    labels = training["label"].to_numpy(copy=True)
    repeats = np.where(labels > 0, config.data.positive_repeats, 1) * config.data.passes
    model = model.to(memory_format=torch.channels_last)
    assert config.data.image_size is not None  # filled in by `resolve`
    rehearsal = {"image": torch.zeros(1, 3, config.data.image_size, config.data.image_size)}
    # Maps of frozen stages are in the memory already: a process of its own would only copy them.
    workers = 0 if config.frozen.views else loader_workers(config.data.workers, accelerator)
    trainer = assemble(config, accelerator, model, training, repeats, dataset, workers, rehearsal)
    forward = torch.compile(trainer.model) if config.compile else trainer.model
    return replace(trainer, model=cast(nn.Module, forward), prior=_make_prior(config, dataset))


def _make_prior(config: TrainConfig, dataset: Any) -> AttentionPrior | None:
    """Return the prior on attention, after telling how many images have a mask for it.

    Raises:
        InputError: none has.
    """
    loss = config.loss
    if loss.prior == "none":
        return None
    rows = [row for row, path in enumerate(dataset.masks or ()) if path is not None]
    empty = sum(not dataset.load_mask(row).any() for row in rows)
    if len(rows) == empty:
        raise InputError(
            f"--loss.prior {loss.prior} needs masks that mark something: of {len(dataset)} "
            f"training images {len(rows)} have a mask, and {empty} of these are empty."
        )
    logger.info(
        "Attention prior (%s): %d of %d training images have a mask, %d of these an empty one, "
        "which is skipped.",
        loss.prior,
        len(rows),
        len(dataset),
        empty,
    )
    return AttentionPrior(
        loss.prior_weights,
        rescale=config.model.normalize_attn,
        background=loss.prior == "background",
    )
