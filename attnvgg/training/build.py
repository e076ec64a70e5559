"""What the parts of a training run on any kind of cases have in common."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
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
from attnvgg.data.loaders import (
    TrainingBatches,
    default_workers,
    evaluation_loader,
    training_loader,
)
from attnvgg.data.transforms import Preprocess
from attnvgg.errors import InputError
from attnvgg.files import cache_folder
from attnvgg.models import (
    FocalLoss,
    Pretrained,
    balanced_alpha,
)
from attnvgg.training.optim import make_average, make_optimizer, make_scheduler
from attnvgg.training.run_config import LossConfig, PictureConfig, RunConfig
from attnvgg.training.steps import Trainer, model_inputs

logger = logging.getLogger(__name__)


def make_preprocess(data: PictureConfig) -> Preprocess:
    """Return the deterministic way from file to tensor."""
    assert data.image_size is not None  # filled in by `resolve`, as is the next
    assert data.resize is not None
    return Preprocess(data.image_size, data.resize, data.crop, data.mean, data.std, data.convert)


def open_cache(data: PictureConfig) -> ImageCache | None:
    """Return the cache of decoded images, None where it is turned off."""
    if data.cache_gib <= 0:
        return None
    return ImageCache(data.cache or cache_folder() / "images", int(data.cache_gib * 2**30))


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
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = make_optimizer(trained, config.optim)
    steps = max(1, batches.batches // config.accumulate)
    scheduler = make_scheduler(optimizer, config.optim, config.epochs, steps)
    if accelerator.scaler is not None:  # for all but fp16 the wrapper does nothing, at a cost
        optimizer = accelerator.prepare_optimizer(optimizer)
    return Trainer(
        config=config,
        accelerator=accelerator,
        module=model,
        model=_parallel(model, accelerator),
        criterion=criterion,
        optimizer=optimizer,
        scheduler=scheduler,
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
