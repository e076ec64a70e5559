"""The loop: one epoch of training, one evaluation of a whole set, and `fit` around them."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import GradientAccumulationPlugin, gather_object
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader
from tqdm import tqdm

from attnvgg.data.loaders import TrainingBatches
from attnvgg.errors import InputError
from attnvgg.training.checkpoint import Progress, load_state, save_state
from attnvgg.training.config import TrainConfig
from attnvgg.training.predictions import Predictions, joined, score
from attnvgg.training.run import RunFolder
from attnvgg.training.signals import Interrupted, StopRequest

logger = logging.getLogger(__name__)


class NonFiniteLoss(FloatingPointError):
    """The loss of a batch is not a number; the message names the batch and its images."""


@dataclass(frozen=True)
class Trainer:
    """All that takes part in training; `model` is what the accelerator prepared."""

    config: TrainConfig
    accelerator: Accelerator
    model: nn.Module
    criterion: nn.Module
    optimizer: Optimizer
    scheduler: LRScheduler
    loader: DataLoader[Any]
    batches: TrainingBatches
    case_names: Sequence[str]
    average: AveragedModel | None = None

    @property
    def judged(self) -> nn.Module:
        """Return the model that is validated and saved: the running average, if there is one."""
        module: nn.Module = self.accelerator.unwrap_model(self.model)
        return module if self.average is None else self.average.module

    @property
    def states(self) -> dict[str, Any]:
        """Return what a continuation restores."""
        parts = {
            "model": self.accelerator.unwrap_model(self.model),
            "optimizer": self.optimizer,
            "scheduler": self.scheduler,
        }
        return parts if self.average is None else parts | {"average": self.average}


def make_accelerator(config: TrainConfig) -> Accelerator:
    """Return what knows the device, the precision and the other processes.

    Raises:
        InputError: this machine does not have what the configuration asks for.
    """
    cuda = torch.cuda.is_available()
    if config.device == "cuda" and not cuda:
        raise InputError("--device cuda, but PyTorch sees no GPU here: use --device cpu")
    on_cpu = config.device == "cpu" or not cuda
    if config.precision == "fp16" and on_cpu:
        raise InputError("--precision fp16 needs a GPU: use bf16 or no")
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    AcceleratorState._reset_state(reset_partial_state=True)  # one process may train twice
    return Accelerator(
        cpu=on_cpu,
        mixed_precision=config.precision,
        step_scheduler_with_optimizer=False,
        gradient_accumulation_plugin=GradientAccumulationPlugin(
            num_steps=config.accumulate, sync_with_dataloader=False
        ),
    )


def train_one_epoch(
    trainer: Trainer, progress: Progress, after_step: Callable[[], None]
) -> Predictions:
    """Train on the batches of the epoch that `progress` has not seen yet.

    Args:
        trainer: model, loader and what moves them.
        progress: advanced batch by batch.
        after_step: called after each optimiser step; may save, may raise `Interrupted`.

    Returns:
        What the model said of each case when it was trained on it, all processes together.

    Raises:
        NonFiniteLoss: naming the batch and its images; nothing of it reaches the weights.
    """
    accelerator, model = trainer.accelerator, trainer.model
    model.train()
    trainer.batches.set_epoch(progress.epoch, start=progress.batch)
    trainer.loader.dataset.set_epoch(progress.epoch)  # type: ignore[attr-defined]
    bar = tqdm(
        trainer.loader,
        desc=f"epoch {progress.epoch + 1} train",
        initial=progress.batch,
        total=trainer.batches.batches,
        disable=not accelerator.is_local_main_process,
        leave=False,
    )
    for batch in bar:
        torch.manual_seed(_step_seed(trainer, progress))
        with accelerator.accumulate(model):
            loss, logits = _step(trainer, batch, progress)
        progress.batch += 1
        progress.seen.append((batch["index"], batch["label"], logits))
        bar.set_postfix(loss=f"{loss:.4f}")
        if accelerator.sync_gradients:
            after_step()
    return joined(gather_object(progress.seen))


def evaluate(
    model: nn.Module, loader: DataLoader[Any], accelerator: Accelerator, name: str = "evaluate"
) -> Predictions:
    """Return the logits of every case, each counted once, in the order of the cases.

    The model is in eval mode and full precision for it, so that the figures are those of the
    weights as saved, and it is left in the mode it was found in.
    """
    module = accelerator.unwrap_model(model)
    was_training = module.training
    module.eval()
    seen = []
    bar = tqdm(loader, desc=name, disable=not accelerator.is_local_main_process, leave=False)
    try:
        with torch.inference_mode():
            for batch in bar:
                output = module(_images(batch, accelerator))
                seen.append((batch["index"], batch["label"], output.logits.float().cpu()))
    finally:
        module.train(was_training)
    return joined(gather_object(seen))


def fit(trainer: Trainer, validation: DataLoader[Any], run: RunFolder, on_best: OnBest) -> Progress:
    """Train until the last epoch or until patience ends, keeping the last and the best state.

    A run that has a saved state goes on from it.

    Args:
        trainer: what takes part.
        validation: loader of the validation set.
        run: folder that everything is written to, by the main process alone.
        on_best: called by the main process with the validation predictions and figures
            whenever they are the best so far; saves the model.

    Raises:
        Interrupted: told to stop; the state is saved.
    """
    config, accelerator = trainer.config, trainer.accelerator
    progress = load_state(run.state, trainer.states) if run.state.is_file() else Progress()
    if not accelerator.is_main_process:
        progress.seen = []  # the main process has what all of them had seen
    with StopRequest() as stop, run.tensorboard_writer(progress.epoch) as writer:
        saver = _Saver(trainer, run, progress, stop)
        while progress.epoch < config.epochs and not _patience_ended(config, progress):
            started = time.monotonic()
            trained = train_one_epoch(trainer, progress, saver.after_step)
            saver.save()  # validation may take long, and a kill then must not cost the epoch
            validated = evaluate(trainer.judged, validation, accelerator, "validation")
            row = {
                "epoch": progress.epoch + 1,
                "train": score(trained, trainer.criterion),
                "validation": score(validated, trainer.criterion),
            }
            _finish_epoch(progress, row)
            is_best = _is_best(progress, config.monitor)
            if accelerator.is_main_process:
                if is_best:
                    on_best(validated, row)
                run.write_metrics(progress.history)
                writer.write(row, float(trainer.scheduler.get_last_lr()[0]))
                logger.info("%s  (%.0f s)", _line(row, config.epochs), time.monotonic() - started)
            saver.save()
            saver.leave_if_told()
    return progress


OnBest = Callable[[Predictions, dict[str, Any]], None]


class _Saver:
    """Saves within an epoch, every so many minutes and when told to stop; all processes alike."""

    def __init__(
        self, trainer: Trainer, run: RunFolder, progress: Progress, stop: StopRequest
    ) -> None:
        self.trainer, self.run, self.progress, self.stop = trainer, run, progress, stop
        self.saved_at = time.monotonic()

    def after_step(self) -> None:
        """Save when it is time, save and leave when any process was told to stop."""
        due = time.monotonic() - self.saved_at > 60 * self.trainer.config.save_minutes
        wish = self._agreed(2 if self.stop else int(due))
        if wish:
            self.save()
        if wish == 2:
            raise Interrupted(
                f"stopped in epoch {self.progress.epoch + 1} after batch {self.progress.batch}; "
                f"continue with --resume {self.run.path}"
            )

    def leave_if_told(self) -> None:
        """Leave between two epochs."""
        if self._agreed(2 if self.stop else 0):
            raise Interrupted(
                f"stopped after epoch {self.progress.epoch}; continue with --resume {self.run.path}"
            )

    def save(self) -> None:
        """Write the state; what every process has seen goes into it."""
        seen = gather_object(self.progress.seen)
        if self.trainer.accelerator.is_main_process:
            whole = replace(self.progress, seen=seen)
            save_state(self.run.state, whole, self.trainer.states)
        self.trainer.accelerator.wait_for_everyone()
        self.saved_at = time.monotonic()

    def _agreed(self, wish: int) -> int:
        accelerator = self.trainer.accelerator
        return int(accelerator.gather(torch.tensor([wish], device=accelerator.device)).max())


def _step(trainer: Trainer, batch: dict[str, Any], progress: Progress) -> tuple[float, Tensor]:
    """Add up the gradients of one batch and step when they are complete.

    Returns:
        The loss, averaged over the processes, and this process' logits (B, K).
    """
    accelerator = trainer.accelerator
    labels = batch["label"].to(accelerator.device, non_blocking=True)
    with accelerator.autocast():
        logits = trainer.model(_images(batch, accelerator)).logits
    weight = batch["weight"].to(accelerator.device) if "weight" in batch else None
    loss = trainer.criterion(logits.float(), labels, weight=weight)
    value = float(accelerator.reduce(loss.detach(), "mean"))
    if not np.isfinite(value):
        raise NonFiniteLoss(_blame(trainer, batch, progress, value))
    accelerator.backward(loss)
    if accelerator.sync_gradients and trainer.config.optim.clip is not None:
        accelerator.clip_grad_norm_(trainer.model.parameters(), trainer.config.optim.clip)
    trainer.optimizer.step()
    if accelerator.sync_gradients:
        trainer.scheduler.step()
        if trainer.average is not None:
            trainer.average.update_parameters(accelerator.unwrap_model(trainer.model))
    trainer.optimizer.zero_grad()
    return value, logits.detach().float().cpu()


def _images(batch: dict[str, Any], accelerator: Accelerator) -> Tensor:
    images = batch["image"].to(accelerator.device, non_blocking=True)
    return images.contiguous(memory_format=torch.channels_last)  # (B, 3, H, W)


def _step_seed(trainer: Trainer, progress: Progress) -> int:
    """Return the seed of dropout in this step: no generator state has to survive a restart."""
    process = trainer.accelerator.process_index
    entropy = [trainer.config.seed, progress.epoch, progress.batch, process]
    return int(np.random.SeedSequence(entropy).generate_state(1)[0])


def _finish_epoch(progress: Progress, row: dict[str, Any]) -> None:
    progress.epoch, progress.batch, progress.seen = row["epoch"], 0, []
    progress.history.append(row)


def _is_best(progress: Progress, monitor: str) -> bool:
    """Compare the newest epoch with the best so far, and remember it if it is better."""
    figures = progress.history[-1]["validation"]
    value = -figures["loss"] if monitor == "loss" else figures[monitor]
    if value <= progress.best_score:
        return False
    progress.best_score, progress.best_epoch = value, progress.epoch
    return True


def _patience_ended(config: TrainConfig, progress: Progress) -> bool:
    waited = progress.epoch - progress.best_epoch
    return config.patience is not None and progress.epoch > 0 and waited >= config.patience


def _blame(trainer: Trainer, batch: dict[str, Any], progress: Progress, value: float) -> str:
    names = "\n".join(f"  {trainer.case_names[i]}" for i in batch["index"].tolist())
    return (
        f"the loss became {value} in epoch {progress.epoch + 1}, batch {progress.batch + 1}; "
        f"the weights of the last epoch are kept; lower --optim.lr, or look at its images:\n{names}"
    )


def _line(row: dict[str, Any], epochs: int) -> str:
    figures = row["validation"]
    return (
        f"epoch {row['epoch']}/{epochs}  train loss {row['train']['loss']:.4f} AUC "
        f"{row['train']['auc']:.4f}  validation loss {figures['loss']:.4f} AUC "
        f"{figures['auc']:.4f} AP {figures['average_precision']:.4f}"
    )
