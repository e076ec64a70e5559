"""One step of training: forward, backward, and nothing that is not a number past this point."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader

from attnvgg.data.loaders import TrainingBatches
from attnvgg.models import AttentionPrior
from attnvgg.training.checkpoint import Progress
from attnvgg.training.run_config import RunConfig


class NonFiniteLoss(FloatingPointError):
    """Loss, gradient or logits are not numbers; the message names the batch and its cases."""


@dataclass(frozen=True)
class Trainer:
    """All that takes part in training.

    Attributes:
        module: the model itself.
        model: the same, or what shares it among the processes.
        case_names: of the training cases, by index.
        average: running average of the weights, if there is one.
        penalty: of the weights, added to the loss of each step and to no figure.
        prior: on the attention maps, likewise.
    """

    config: RunConfig
    accelerator: Accelerator
    module: nn.Module
    model: nn.Module
    criterion: nn.Module
    optimizer: Optimizer
    scheduler: LRScheduler
    loader: DataLoader[Any]
    batches: TrainingBatches
    case_names: Sequence[str]
    average: AveragedModel | None = None
    penalty: Callable[[nn.Module], Tensor] | None = None
    prior: AttentionPrior | None = None

    @property
    def judged(self) -> nn.Module:
        """Return the model that is validated and saved: the running average, if there is one."""
        return self.module if self.average is None else self.average.module

    @property
    def states(self) -> dict[str, Any]:
        """Return what a continuation restores."""
        parts = {
            "model": self.module,
            "optimizer": self.optimizer,
            "scheduler": self.scheduler,
            "average": self.average,
            "scaler": self.accelerator.scaler,
        }
        return {name: part for name, part in parts.items() if part is not None}


def train_step(trainer: Trainer, batch: dict[str, Any], progress: Progress) -> tuple[float, Tensor]:
    """Average the gradients of one batch into the step, and take it when it is complete.

    Args:
        trainer: what takes part.
        batch: see `model_inputs`, and `label`, `index`, and `weight` where known; for a prior also
            `mask` (B, 1, H, W) and `has_mask` (B,).
        progress: which batch this is.

    Returns:
        The loss, averaged over the processes, and this process' logits (B, K).

    Raises:
        NonFiniteLoss: loss or gradient; the weights are as before.
    """
    accelerator = trainer.accelerator
    labels = batch["label"].to(accelerator.device, non_blocking=True)
    weight = batch["weight"].to(accelerator.device) if "weight" in batch else None
    _seed_dropout(_seed(trainer, progress), accelerator.device)
    with accelerator.autocast():
        output = trainer.model(*model_inputs(batch, accelerator.device))
    logits = output.logits
    loss = trainer.criterion(logits.float(), labels, weight=weight)
    if trainer.penalty is not None:
        loss = loss + trainer.penalty(trainer.module)
    if trainer.prior is not None:
        loss = loss + _mean_prior(trainer.prior, accelerator, output, batch)
    value = float(accelerator.reduce(loss.detach(), "mean"))
    if not math.isfinite(value):
        raise NonFiniteLoss(_blame("loss", value, trainer, batch, progress))
    accelerator.backward(loss)
    if accelerator.sync_gradients:
        norm = _gradient_norm(trainer)
        if accelerator.scaler is None and not math.isfinite(norm):
            raise NonFiniteLoss(_blame("gradient", norm, trainer, batch, progress))
        trainer.optimizer.step()
        trainer.optimizer.zero_grad()
        if not accelerator.optimizer_step_was_skipped:
            trainer.scheduler.step()
            if trainer.average is not None:
                trainer.average.update_parameters(trainer.module)
    return value, logits.detach().float().cpu()


def _mean_prior(
    prior: AttentionPrior, accelerator: Accelerator, output: Any, batch: Mapping[str, Any]
) -> Tensor:
    """Return this process' part of the mean over all images with a mask, of all processes.

    The parts are averaged over the processes later, hence the factor. (Batches that are
    accumulated into a step are averaged as batches, whatever number of masks each has.)
    """
    mask, has_mask = (batch[name].to(accelerator.device) for name in ("mask", "has_mask"))
    total, count = prior(output.attn1, output.attn2, mask, has_mask)
    everywhere = accelerator.reduce(count, "sum")
    return total * accelerator.num_processes / everywhere.clamp(min=1)


def model_inputs(batch: Mapping[str, Any], device: torch.device) -> tuple[Any, ...]:
    """Return what the model is called with: an image batch or a ragged batch of bags.

    Args:
        batch: `image` (B, 3, H, W), or `maps` of its first stages, in half precision or None; or
            `instances` (sum N, ...) with `offsets` (B + 1).
        device: where it goes.
    """
    if "maps" in batch:
        return ([m if m is None else m.to(device).float() for m in batch["maps"]],)
    if "image" in batch:  # with the channels last it is faster, and the numbers are the same
        moved = batch["image"].to(device, non_blocking=True)
        return (moved.contiguous(memory_format=torch.channels_last),)
    # The model moves the instances itself, chunk by chunk where they are many.
    return batch["instances"], batch["offsets"].to(device, non_blocking=True)


def _gradient_norm(trainer: Trainer) -> float:
    """Return the norm of the whole gradient; clip it where that is asked for."""
    parameters = [p for p in trainer.module.parameters() if p.grad is not None]
    if trainer.config.optim.clip is not None:
        return float(trainer.accelerator.clip_grad_norm_(parameters, trainer.config.optim.clip))
    return float(get_total_norm([p.grad for p in parameters if p.grad is not None]))


def _seed_dropout(seed: int, device: torch.device) -> None:
    """Seed the generators that a step draws from.

    Not `torch.manual_seed`, which without a GPU notes a stack trace for later, a third of the time
    of a small step.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)


def _seed(trainer: Trainer, progress: Progress) -> int:
    """Return the seed of dropout in this step: no generator state has to survive a restart."""
    process = trainer.accelerator.process_index
    entropy = [trainer.config.seed, progress.epoch, progress.batch, process]
    return int(np.random.SeedSequence(entropy).generate_state(1)[0])


def _blame(
    what: str, value: float, trainer: Trainer, batch: dict[str, Any], progress: Progress
) -> str:
    names = "\n".join(f"  {trainer.case_names[i]}" for i in batch["index"].tolist())
    return (
        f"The {what} became {value} in epoch {progress.epoch + 1}, batch {progress.batch + 1}; "
        "the last saved state is kept. Lower --optim.lr in a new run, or look at the cases of "
        f"the batch:\n{names}"
    )
