"""Optimisers and learning-rate schedules by name."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel

from attnvgg.training.run_config import OptimConfig


def make_optimizer(parameters: Iterable[nn.Parameter], config: OptimConfig) -> Optimizer:
    """Return the optimiser, with fused kernels: one pass over the memory instead of several.

    Args:
        parameters: of the model, on their device already.
        config: with the learning rate resolved.
    """
    assert config.lr is not None  # filled in by `build_model`
    rate, decay = config.lr, config.weight_decay
    if config.name == "sgd":
        return torch.optim.SGD(
            parameters, rate, momentum=config.momentum, nesterov=config.momentum > 0,
            weight_decay=decay, fused=True,
        )  # fmt: skip
    kind = torch.optim.Adam if config.name == "adam" else torch.optim.AdamW
    return kind(parameters, rate, weight_decay=decay, fused=True)


def make_scheduler(
    optimizer: Optimizer, config: OptimConfig, epochs: int, steps_per_epoch: int
) -> LambdaLR:
    """Return the schedule, stepped once an optimiser step."""
    total = max(1, epochs * steps_per_epoch)

    def factor(step: int) -> float:
        warmup = min(1.0, (step + 1) / config.warmup_steps) if config.warmup_steps else 1.0
        if config.schedule == "step":
            return warmup * 0.1 ** (step // (config.step_epochs * steps_per_epoch))
        if config.schedule == "cosine":
            return warmup * 0.5 * (1 + math.cos(math.pi * min(step, total) / total))
        return warmup

    return LambdaLR(optimizer, factor)


def make_average(model: nn.Module, config: OptimConfig) -> AveragedModel | None:
    """Return the running average of a model's weights and statistics, None where it is not wanted.

    The decay grows with the steps, so that the random start is soon forgotten:
    min(decay, (1 + steps) / (10 + steps)).
    """
    decay = config.average
    if not decay:
        return None

    def blend(averaged: Sequence[Tensor], current: Sequence[Tensor], steps: Tensor | int) -> None:
        share = 1 - min(decay, (1 + int(steps)) / (10 + int(steps)))
        for mean, value in zip(averaged, current, strict=True):
            if mean.data_ptr() == value.data_ptr():
                continue  # see below
            if mean.is_floating_point():
                mean.lerp_(value, share)
            else:
                mean.copy_(value)  # a count of batches

    with torch.no_grad():
        average = AveragedModel(model, multi_avg_fn=blend, use_buffers=True)
    for mine, its in zip(average.module.parameters(), model.parameters(), strict=True):
        if not its.requires_grad:
            mine.data = its.data  # frozen: the same memory, and nothing to do in a step
    return average
