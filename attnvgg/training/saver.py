"""When the state is saved, and how several processes agree on it."""

from __future__ import annotations

import time
from dataclasses import replace

import torch
from accelerate.utils import gather_object

from attnvgg.training.checkpoint import Progress, save_state
from attnvgg.training.run import RunFolder
from attnvgg.training.signals import Interrupted, StopRequest
from attnvgg.training.steps import Trainer

STOP, SAVE = 2, 1
RECENT = 5.0  # seconds of training that a kill in validation may cost


class Saver:
    """Saves every so many minutes and when told to stop; all processes alike."""

    def __init__(
        self, trainer: Trainer, run: RunFolder, progress: Progress, stop: StopRequest
    ) -> None:
        self.trainer, self.run, self.progress, self.stop = trainer, run, progress, stop
        self.saved_at = time.monotonic()

    def after_step(self) -> None:
        """Save when it is time; save and leave when any process was told to stop."""
        due = time.monotonic() - self.saved_at > 60 * self.trainer.config.save_minutes
        wish = self._agreed(STOP if self.stop else SAVE if due else 0)
        if wish:
            self.save()
        if wish == STOP:
            done = f"epoch {self.progress.epoch + 1} after batch {self.progress.batch}"
            self._leave(f"in {done}")

    def after_training(self) -> None:
        """Save what more than a few seconds of training gave, because validation may take long."""
        if self._agreed(SAVE if time.monotonic() - self.saved_at > RECENT else 0):
            self.save()

    def after_epoch(self) -> None:
        """Save; leave when any process was told to stop."""
        self.save()
        if self._agreed(STOP if self.stop else 0):
            self._leave(f"after epoch {self.progress.epoch}")

    def save(self) -> None:
        """Write the state; what every process has seen goes into it."""
        seen = gather_object(self.progress.seen)
        if self.trainer.accelerator.is_main_process:
            save_state(self.run.state, replace(self.progress, seen=seen), self.trainer.states)
        self.trainer.accelerator.wait_for_everyone()
        self.saved_at = time.monotonic()

    def _leave(self, where: str) -> None:
        message = f"stopped {where}; continue with --resume {self.run.path}"
        raise Interrupted(message, self.stop.signum)

    def _agreed(self, wish: int) -> int:
        accelerator = self.trainer.accelerator
        if accelerator.num_processes == 1:
            return wish
        return int(accelerator.gather(torch.tensor([wish], device=accelerator.device)).max())
