"""The run folder: `runs/<name>/`, everything that a run reads back or leaves behind."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

import yaml

from attnvgg.errors import InputError
from attnvgg.files import atomic_path


class EpochWriter(Protocol):
    """Takes the figures of an epoch."""

    def write(self, row: dict[str, Any], learning_rate: float) -> None:
        """Record one epoch."""


@dataclass(frozen=True)
class RunFolder:
    """Names of the files of one run, and the ways to write them."""

    path: Path
    writes: bool = True

    @property
    def config(self) -> Path:
        """The resolved configuration."""
        return self.path / "config.yaml"

    @property
    def manifest(self) -> Path:
        """The cases with their split."""
        return self.path / "manifest.csv"

    @property
    def state(self) -> Path:
        """What a continuation starts from."""
        return self.path / "last" / "state.pt"

    @property
    def best(self) -> Path:
        """The model to use."""
        return self.path / "best"

    @property
    def metrics(self) -> Path:
        """A line an epoch."""
        return self.path / "metrics.jsonl"

    @property
    def predictions(self) -> Path:
        """Validation and test rows."""
        return self.path / "predictions.csv"

    @property
    def evaluation(self) -> Path:
        """What `evaluate` found."""
        return self.path / "metrics.json"

    def check_writable(self) -> None:
        """Make sure that the folder is free and can be written, before any work is done.

        Raises:
            InputError: it has content already, or cannot be written.
        """
        if self.path.is_dir() and any(self.path.iterdir()):
            raise InputError(
                f"{self.path} exists already: choose another --name, or --resume {self.path}"
            )
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with atomic_path(self.path / "probe"):
                pass
            (self.path / "probe").unlink()
            self.path.rmdir()
        except OSError as error:
            raise InputError(
                f"the run folder {self.path} cannot be written ({error.strerror}): "
                "choose another one with --out"
            ) from error

    def create(self, needed_bytes: int) -> None:
        """Make the folder.

        Raises:
            InputError: the disk cannot hold the run.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self.path).free
        if free < needed_bytes:
            self.path.rmdir()
            raise InputError(
                f"the run needs {needed_bytes / 2**20:.0f} MiB in {self.path}, but only "
                f"{free / 2**20:.0f} MiB are free: make room or choose another --out"
            )

    def write_config(self, content: dict[str, Any]) -> None:
        """Write `config.yaml`."""
        with atomic_path(self.config) as temporary:
            temporary.write_text(yaml.safe_dump(content, sort_keys=False))

    def write_metrics(self, history: Sequence[dict[str, Any]]) -> None:
        """Write `metrics.jsonl` anew from the history, so that it never disagrees with it."""
        with atomic_path(self.metrics) as temporary:
            temporary.write_text("".join(json.dumps(row) + "\n" for row in history))

    @contextmanager
    def tensorboard_writer(self, epochs_done: int) -> Iterator[EpochWriter]:
        """Yield a writer of TensorBoard events; figures past `epochs_done` are dropped."""
        if not self.writes:
            yield _Silent()
            return
        from torch.utils.tensorboard import SummaryWriter  # slow to import

        events = SummaryWriter(str(self.path / "tensorboard"), purge_step=epochs_done + 1)
        try:
            yield _TensorBoard(events)
        finally:
            events.close()


class _TensorBoard:
    def __init__(self, events: Any) -> None:
        self.events = events

    def write(self, row: dict[str, Any], learning_rate: float) -> None:
        for part in ("train", "validation"):
            for name, value in row[part].items():
                self.events.add_scalar(f"{name}/{part}", value, row["epoch"])
        self.events.add_scalar("learning_rate", learning_rate, row["epoch"])
        self.events.flush()


class _Silent:
    def write(self, row: dict[str, Any], learning_rate: float) -> None:
        pass


def new_run_name() -> str:
    """Return a name that sorts by time."""
    return datetime.now().strftime("%Y-%m-%d_%H-%M-%S")


def open_run(path: Path) -> RunFolder:
    """Return an existing run.

    Raises:
        InputError: there is none.
    """
    if not path.is_dir():
        raise InputError(f"{path} is not a folder: give a run folder such as runs/<name>")
    run = RunFolder(path)
    if not run.config.is_file():
        raise InputError(f"{path} is not a run folder: it has no config.yaml")
    return run


def newest_run(out: Path) -> RunFolder:
    """Return the run under `out` whose best model was written last.

    Raises:
        InputError: there is none.
    """
    models = sorted(out.glob("*/best/config.json"), key=lambda path: path.stat().st_mtime)
    if not models:
        raise InputError(f"no run with a model under {out}/: train one first (scripts/train.py)")
    return open_run(models[-1].parent.parent)
