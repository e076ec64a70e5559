"""From a configuration and bags to the parts of a training run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from attnvgg.data.bag_dataset import BagDataset
from attnvgg.errors import InputError
from attnvgg.models import ENCODERS, POOLS, BagClassifier, elastic_net, kernel_decay
from attnvgg.models.feature_encoders import StandardizedEncoder
from attnvgg.training.bag_config import BagModelConfig, TrainBagsConfig
from attnvgg.training.build import assemble, loader_workers
from attnvgg.training.steps import Trainer

PART = 8192  # instances that are looked at together: a mapped bag may be larger than the memory
LEVELS = ("mean", "max", "log_sum_exp")  # pools that exist for features and for logits


def build_bag_model(
    config: TrainBagsConfig, instance_shape: tuple[int, ...], *, resumed: bool = False
) -> BagClassifier:
    """Build the model.

    Args:
        config: settled, with one pool.
        instance_shape: of one instance.
        resumed: a saved state replaces the weights, so none are fetched.

    Raises:
        InputError: parts that do not fit each other or the bags.
    """
    torch.manual_seed(config.seed)
    assert config.model.encoder is not None  # as is num_classes, by `settle`
    encoder = ENCODERS[config.model.encoder](
        **encoder_arguments(config.model, instance_shape, resumed)
    )
    wanted = encoder.instance_shape
    if wanted is not None and wanted != instance_shape:
        raise InputError(
            f"--model.encoder {config.model.encoder} takes instances of shape {wanted}, but the "
            f"bags have {instance_shape}."
        )
    head: dict[str, Any] = {"name": config.model.head, "num_classes": config.model.num_classes}
    if config.model.head == "mlp":
        head["dropout"] = config.model.dropout
    else:
        head["init"] = config.model.init
    model = BagClassifier(encoder, pool_spec(config.model), head)
    model.frozen = config.model.freeze
    return model


def standardize(encoder: StandardizedEncoder, training: BagDataset) -> None:
    """Give the encoder mean and deviation of all training instances, in one pass over the bags.

    Means and sums of squares are merged a part at a time (Chan, Golub & LeVeque, 1979).
    """
    count, mean, squares = 0, torch.zeros(encoder.in_features).double(), torch.zeros(1).double()
    for row in range(len(training)):
        for part in training.instances(row)["instances"].split(PART):
            values = part.double()  # (n, D)
            size, shift = len(values), values.mean(0) - mean
            total = count + size
            squares = squares + values.var(0, correction=0) * size
            squares = squares + shift.square() * (count * size / total)
            count, mean = total, mean + shift * (size / total)
    encoder.fit(mean.float(), (squares / count).sqrt().float())


def encoder_arguments(
    model: BagModelConfig, instance_shape: tuple[int, ...], resumed: bool
) -> dict[str, Any]:
    """Return what the constructor of the encoder is called with."""
    if model.encoder in ("mlp", "identity", "standardized"):
        return {"in_features": int(np.prod(instance_shape))}
    if model.encoder == "panda":
        return {"size": instance_shape[-1]}
    if model.encoder not in ("attnvgg", "torchvision", "timm"):
        return {}
    arguments: dict[str, Any] = {"weights": None if resumed else model.weights}
    if model.backbone is not None:
        arguments["backbone" if model.encoder == "attnvgg" else "model"] = model.backbone
    elif model.encoder == "timm":
        raise InputError("--model.encoder timm needs --model.backbone, the name of a timm model.")
    return arguments


def pool_spec(model: BagModelConfig) -> dict[str, Any]:
    """Return the specification of the pool."""
    spec: dict[str, Any] = {"name": model.pool}
    if model.pool in ("attention", "gated_attention", "multi_branch"):
        spec |= {"width": model.width, "bias": model.bias, "init": model.init}
    if model.pool == "multi_branch":
        spec["branches"] = model.branches
    if model.pool in ("leaky_attention", "softmax_mean"):
        spec["width"] = model.width
    if model.pool in LEVELS:
        spec["level"] = model.level
    assert model.pool in POOLS  # as `check` has made sure
    return spec


def make_bag_trainer(
    config: TrainBagsConfig,
    accelerator: Accelerator,
    model: BagClassifier,
    training: pd.DataFrame,
    dataset: BagDataset,
) -> Trainer:
    """Put together what takes part in training on bags.

    Args:
        config: resolved.
        accelerator: see `engine.make_accelerator`.
        model: of `build_bag_model`.
        training: the training rows of the manifest.
        dataset: their bags.

    Raises:
        InputError: the training set does not fill one optimiser step.
    """
    if model.frozen:
        model.encoder.requires_grad_(False)
    rehearsal = {
        "instances": torch.zeros(1, *dataset.instance_shape),
        "offsets": torch.tensor([0, 1]),
    }
    repeats = np.ones(len(training), dtype=np.int64)
    workers = bag_workers(config, accelerator, dataset)
    model = model.to(memory_format=torch.channels_last)  # convolutions are faster so
    assert config.model.chunk_size != "auto"  # filled in by `settle`
    model.chunk_size = config.model.chunk_size  # before the running average copies the model
    return assemble(
        config, accelerator, model, training, repeats, dataset, workers, rehearsal,
        _penalty(config),
    )  # fmt: skip


def bag_workers(config: TrainBagsConfig, accelerator: Accelerator, dataset: BagDataset) -> int:
    """Return the loader processes: none for bags that are in memory, or mapped into it, already."""
    if config.data.workers is None and (dataset.in_memory or dataset.is_mapped):
        return 0
    return loader_workers(config.data.workers, accelerator)


def _penalty(config: TrainBagsConfig) -> Callable[[nn.Module], Tensor] | None:
    """Return what is added to the loss, None for nothing."""
    loss = config.loss
    if not loss.elastic_net and not loss.attention_decay:
        return None

    def penalty(module: nn.Module) -> Tensor:
        total = torch.zeros(())
        if loss.elastic_net:
            total = total + elastic_net(module, loss.elastic_net, loss.elastic_mix)
        if loss.attention_decay:
            total = total + kernel_decay(module.pool, loss.attention_decay)  # type: ignore[arg-type]
        return total

    return penalty
