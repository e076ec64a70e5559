"""The loop: one epoch of training, one evaluation of a whole set, and `fit` around them."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import (
    GradientAccumulationPlugin,
    InitProcessGroupKwargs,
    broadcast,
    gather_object,
)
from torch import nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from attnvgg.errors import InputError
from attnvgg.training.allocator import keep_freed_memory
from attnvgg.training.checkpoint import Progress, load_state
from attnvgg.training.predictions import Predictions, joined, score
from attnvgg.training.run import RunFolder
from attnvgg.training.run_config import RunConfig
from attnvgg.training.saver import Saver
from attnvgg.training.signals import StopRequest
from attnvgg.training.steps import NonFiniteLoss, Trainer, model_inputs, train_step

logger = logging.getLogger(__name__)

PATIENCE = timedelta(days=1)  # of a process, while another cuts thousands of slides
OnBest = Callable[[Predictions, dict[str, Any]], None]
Watch = Callable[[nn.Module, dict[str, Any], Any], None]


def make_accelerator(config: RunConfig) -> Accelerator:
    """Return what knows the device, the precision and the other processes.

    Raises:
        InputError: this machine does not have what the configuration asks for.
    """
    cuda = torch.cuda.is_available()
    if config.device == "cuda" and not cuda:
        raise InputError("With --device cuda a GPU is needed, and PyTorch sees none: use cpu.")
    on_cpu = config.device == "cpu" or not cuda
    if config.precision == "fp16" and on_cpu:
        raise InputError("--precision fp16 needs a GPU: use bf16 or no.")
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    if on_cpu:
        keep_freed_memory()
    AcceleratorState._reset_state(reset_partial_state=True)  # one process may train twice
    return Accelerator(
        cpu=on_cpu,
        mixed_precision=config.precision,
        step_scheduler_with_optimizer=False,
        kwargs_handlers=[InitProcessGroupKwargs(timeout=PATIENCE)],
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
        NonFiniteLoss: naming the batch and its cases; nothing of it reaches the weights.
    """
    trainer.module.train()
    trainer.batches.set_epoch(progress.epoch, start=progress.batch)
    trainer.loader.dataset.set_epoch(progress.epoch)  # type: ignore[attr-defined]
    bar = tqdm(
        trainer.loader,
        desc=f"epoch {progress.epoch + 1} train",
        initial=progress.batch,
        total=trainer.batches.batches,
        disable=_hidden(trainer.accelerator),
        leave=False,
    )
    for batch in bar:
        with trainer.accelerator.accumulate(trainer.model):
            loss, logits = train_step(trainer, batch, progress)
        progress.batch += 1
        progress.seen.append((batch["index"], batch["label"], logits))
        bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
        if trainer.accelerator.sync_gradients:
            after_step()
    return joined(gather_object(progress.seen))


def evaluate(
    module: nn.Module,
    loader: DataLoader[Any],
    accelerator: Accelerator,
    name: str = "evaluate",
    watch: Watch | None = None,
) -> Predictions:
    """Return the logits of every case, each counted once, in the order of the cases.

    The model is in eval mode and full precision for it, so that the figures are those of the
    weights as saved, and it is left in the mode it was found in. `watch` is called with the model,
    each batch and what the model returned for it.
    """
    was_training = module.training
    module.eval()
    seen = []
    bar = tqdm(loader, desc=name, disable=_hidden(accelerator), leave=False)
    try:
        with torch.inference_mode():
            for batch in bar:
                output = module(*model_inputs(batch, accelerator.device))
                seen.append((batch["index"], batch["label"], output.logits.float().cpu()))
                if watch is not None:
                    watch(module, batch, output)
    finally:
        module.train(was_training)
    return joined(gather_object(seen))


def _hidden(accelerator: Accelerator) -> bool | None:
    """Tell tqdm where bars are not drawn: in all processes but one, and (None) in log files."""
    return None if accelerator.is_local_main_process else True


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
        NonFiniteLoss: the run has diverged.
    """
    config, accelerator = trainer.config, trainer.accelerator
    progress = load_state(run.state, trainer.states) if run.state.is_file() else Progress()
    if not accelerator.is_main_process:
        progress.seen = []  # the main process has what all of them had seen
    with StopRequest() as stop, run.tensorboard_writer(progress.epoch) as writer:
        saver = Saver(trainer, run, progress, stop)
        while progress.epoch < config.epochs and not _patience_ended(config, progress):
            started, rate = time.monotonic(), float(trainer.scheduler.get_last_lr()[0])
            trained = train_one_epoch(trainer, progress, saver.after_step)
            saver.after_training()
            validated = _validate(trainer, validation, progress)
            row = _finish_epoch(trainer, progress, trained, validated)
            is_best = _is_best(progress, config.monitor)
            if accelerator.is_main_process:
                if is_best:
                    on_best(validated, row)
                run.write_metrics(progress.history)
                writer.write(row, rate)
                logger.info("%s  (%.0f s)", _line(row, config.epochs), time.monotonic() - started)
            saver.after_epoch()
    return progress


def _validate(trainer: Trainer, loader: DataLoader[Any], progress: Progress) -> Predictions:
    """Judge the very model that the main process saves.

    The weights are the same in all processes, but each has its own batch-norm statistics.
    """
    if trainer.accelerator.num_processes > 1:
        for buffer in trainer.judged.buffers():
            buffer.copy_(broadcast(buffer))
    found = evaluate(trainer.judged, loader, trainer.accelerator, "validation")
    if not np.isfinite(found.logits).all():
        raise NonFiniteLoss(
            f"The logits of the validation set are not numbers after epoch {progress.epoch + 1}: "
            "the run has diverged. Start a new one with a lower --optim.lr."
        )
    return found


def _finish_epoch(
    trainer: Trainer, progress: Progress, trained: Predictions, validated: Predictions
) -> dict[str, Any]:
    """Advance to the next epoch and return the figures of this one."""
    row = {
        "epoch": progress.epoch + 1,
        "train": score(trained, trainer.criterion),
        "validation": score(validated, trainer.criterion),
    }
    progress.epoch, progress.batch, progress.seen = progress.epoch + 1, 0, []
    progress.history.append(row)
    return row


def _is_best(progress: Progress, monitor: str) -> bool:
    """Compare the newest epoch with the best so far, and remember it if it is better."""
    figures = progress.history[-1]["validation"]
    value = -figures["loss"] if monitor == "loss" else figures[monitor]
    if value <= progress.best_score:
        return False
    progress.best_score, progress.best_epoch = value, progress.epoch
    return True


def _patience_ended(config: RunConfig, progress: Progress) -> bool:
    waited = progress.epoch - progress.best_epoch
    return config.patience is not None and progress.epoch > 0 and waited >= config.patience


def _line(row: dict[str, Any], epochs: int) -> str:
    figures = row["validation"]
    return (
        f"epoch {row['epoch']}/{epochs}  train loss {row['train']['loss']:.4f} AUC "
        f"{row['train']['auc']:.4f}  validation loss {figures['loss']:.4f} AUC "
        f"{figures['auc']:.4f} AP {figures['average_precision']:.4f}"
    )
