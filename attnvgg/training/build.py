"""From a configuration and a table of cases to the parts of a training run."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset

from attnvgg.data.cache import ImageCache
from attnvgg.data.images import ImageDataset
from attnvgg.data.loaders import (
    TrainingBatches,
    default_workers,
    evaluation_loader,
    training_loader,
)
from attnvgg.data.transforms import Preprocess, augmentation
from attnvgg.errors import InputError
from attnvgg.models import (
    VGGGAP,
    AttnVGG,
    FocalLoss,
    Pretrained,
    VGGDense,
    WeightsUnavailable,
    balanced_alpha,
)
from attnvgg.training.config import TrainConfig
from attnvgg.training.optim import make_average, make_optimizer, make_scheduler
from attnvgg.training.run import RunFolder
from attnvgg.training.run_config import LossConfig, PictureConfig, RunConfig, updated
from attnvgg.training.steps import Trainer, model_inputs

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


def make_preprocess(data: PictureConfig) -> Preprocess:
    """Return the deterministic way from file to tensor."""
    assert data.image_size is not None  # filled in by `resolve`, as is the next
    assert data.resize is not None
    return Preprocess(data.image_size, data.resize, data.crop, data.mean, data.std, data.convert)


def open_cache(data: PictureConfig) -> ImageCache | None:
    """Return the cache of decoded images, None where it is turned off."""
    if data.cache_gib <= 0:
        return None
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return ImageCache(data.cache or home / "attnvgg" / "images", int(data.cache_gib * 2**30))


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


def assemble(
    config: RunConfig,
    accelerator: Accelerator,
    model: Pretrained,
    training: pd.DataFrame,
    repeats: NDArray[np.int64],
    dataset: Dataset[Any],
    workers: int,
    rehearsal: Mapping[str, torch.Tensor],
    penalty: Callable[[nn.Module], torch.Tensor] | None = None,
) -> Trainer:
    """Put together what takes part in training on cases of any kind.

    Args:
        config: resolved.
        accelerator: see `engine.make_accelerator`.
        model: on the CPU.
        training: the training rows of the manifest, those of `dataset`.
        repeats: how often each of them occurs in an epoch.
        dataset: their samples.
        workers: loader processes.
        rehearsal: a batch of one empty case.
        penalty: see `Trainer`.

    Raises:
        InputError: the training set does not fill one optimiser step, or model, loss and input do
            not go together.
    """
    batches = _batches(config, accelerator, repeats)
    labels = training["label"].to_numpy(copy=True)
    model = model.to(accelerator.device)
    criterion = _rehearse(model, config.loss, labels, rehearsal, accelerator.device)
    optimizer = make_optimizer(model.parameters(), config.optim)
    steps = max(1, batches.batches // config.accumulate)
    return Trainer(
        config=config,
        accelerator=accelerator,
        module=model,
        model=_parallel(model, accelerator),
        criterion=criterion,
        optimizer=accelerator.prepare_optimizer(optimizer),
        scheduler=make_scheduler(optimizer, config.optim, config.epochs, steps),
        loader=training_loader(dataset, batches, workers, pin=accelerator.device.type == "cuda"),
        batches=batches,
        case_names=training["image"].tolist(),
        average=make_average(model, config.optim),
        penalty=penalty,
    )


def _parallel(model: Pretrained, accelerator: Accelerator) -> nn.Module:
    """Return what averages the gradients over the processes; alone, the model itself.

    Not the accelerator's own wrapper, which would leave the model in mixed precision for good.
    """
    if accelerator.num_processes == 1:
        return model
    devices = [accelerator.device] if accelerator.device.type == "cuda" else None
    return DistributedDataParallel(model, device_ids=devices)


def _rehearse(
    model: Pretrained, loss: LossConfig, labels: NDArray[np.int64],
    batch: Mapping[str, torch.Tensor], device: torch.device,
) -> FocalLoss:  # fmt: skip
    """Return the loss that fits the model, after an empty case was sent through both.

    What does not fit shows at once.
    """
    model.eval()
    with torch.inference_mode():
        logits = model(*model_inputs(batch, device)).logits
        criterion = _criterion(loss, labels, logits.shape[1]).to(device)
        criterion(logits, torch.zeros(1, dtype=torch.long, device=device))
    model.train()
    return criterion


def _criterion(loss: LossConfig, labels: NDArray[np.int64], logits: int) -> FocalLoss:
    alpha: float | tuple[float, ...] | torch.Tensor | None = (
        balanced_alpha(torch.from_numpy(labels), logits) if loss.alpha == "balanced" else loss.alpha
    )
    return FocalLoss(loss.gamma, alpha)


def _batches(
    config: RunConfig, accelerator: Accelerator, repeats: NDArray[np.int64]
) -> TrainingBatches:
    assert config.batch_size is not None  # filled in by `resolve`
    share, rest = divmod(config.batch_size, accelerator.num_processes)
    if rest or not share:
        raise InputError(
            f"--batch_size {config.batch_size} cannot be shared by "
            f"{accelerator.num_processes} processes: choose a multiple."
        )
    batches = TrainingBatches(
        repeats.tolist(),
        share,
        accumulate=config.accumulate,
        seed=config.seed,
        rank=accelerator.process_index,
        world=accelerator.num_processes,
    )
    if not batches.batches:
        raise InputError(
            f"Training has {repeats.sum()} cases an epoch, fewer than one optimiser step of "
            f"{config.batch_size * config.accumulate}: lower --batch_size."
        )
    return batches


def loader_workers(workers: int | None, accelerator: Accelerator) -> int:
    """Return the loader processes for each training process, by default as the machine allows."""
    return default_workers(accelerator.num_processes) if workers is None else workers


def judging_loader(
    config: RunConfig, accelerator: Accelerator, dataset: Dataset[Any], workers: int
) -> DataLoader[Any]:
    """Return this process' share of a validation or test set."""
    return evaluation_loader(
        dataset,
        config.eval_batch_size,
        workers,
        rank=accelerator.process_index,
        world=accelerator.num_processes,
    )
