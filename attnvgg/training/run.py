"""The run folder: `runs/<name>/`, everything that a run reads back or leaves behind."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

import pandas as pd
import yaml
from filelock import FileLock, Timeout

from attnvgg.data.manifest import read_manifest
from attnvgg.errors import InputError
from attnvgg.files import atomic_path


class EpochWriter(Protocol):
    """Takes the figures of an epoch."""

    def write(self, row: dict[str, Any], learning_rate: float) -> None:
        """Record one epoch."""


class RunFolder:
    """Names of the files of one run, and the ways to write them.

    Attributes:
        path: the folder.
        writes: whether this process writes; of several, one does.
        config: `config.yaml`, the resolved configuration.
        manifest: `manifest.csv`, the cases with their split.
        metrics: `metrics.jsonl`, a line an epoch.
        state: `last/state.pt`, what a continuation starts from.
        best: `best/`, the model to use.
        predictions: `predictions.csv`, validation and test rows.
        evaluation: `metrics.json`, what `evaluate` found.
        instances: `instances.csv`, what was said of every instance of a bag.
    """

    def __init__(self, path: Path, *, writes: bool = True) -> None:
        self.path, self.writes = path, writes
        self.config = path / "config.yaml"
        self.manifest = path / "manifest.csv"
        self.metrics = path / "metrics.jsonl"
        self.state = path / "last" / "state.pt"
        self.best = path / "best"
        self.predictions = path / "predictions.csv"
        self.evaluation = path / "metrics.json"
        self.instances = path / "instances.csv"

    def check_writable(self) -> None:
        """Make sure that the folder is free and can be written, before any work is done.

        Raises:
            InputError: it has content already, or cannot be written.
        """
        if self.path.is_dir() and any(self.path.iterdir()):
            raise InputError(
                f"{self.path} exists already: choose another --name, or --resume {self.path}."
            )
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with atomic_path(self.path / "probe"):
                pass
            (self.path / "probe").unlink()
            self.path.rmdir()
        except OSError as error:
            raise InputError(
                f"The run folder {self.path} cannot be written ({error.strerror}): "
                "choose another one with --out."
            ) from error

    def create(self, needed_bytes: int) -> None:
        """Make the folder.

        Raises:
            InputError: the disk cannot hold the run.
        """
        try:
            self.path.mkdir(parents=True)
        except FileExistsError:
            raise InputError(
                f"{self.path} was made by another run just now: choose another --name."
            ) from None
        free = shutil.disk_usage(self.path).free
        if free < needed_bytes:
            self.path.rmdir()
            raise InputError(
                f"The run needs {needed_bytes / 2**20:.0f} MiB in {self.path}, but only "
                f"{free / 2**20:.0f} MiB are free: make room or choose another --out."
            )

    def clear_unbegun(self) -> None:
        """Remove what a run left that was ended before its first line was whole.

        Raises:
            InputError: there is more in the folder than that.
        """
        if self.config.is_file() or not self.path.is_dir():
            return
        if not set(self.path.iterdir()) <= {self.manifest, *self.path.glob(".*")}:
            raise InputError(
                f"{self.path} is damaged, its config.yaml is missing: move it away to train it "
                "anew."
            )
        shutil.rmtree(self.path)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from training this run at the same time.

        What a killed process left half-written is removed.

        Raises:
            InputError: another process trains it.
        """
        if not self.writes:
            yield
            return
        lock = FileLock(self.path / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise InputError(f"Another process is training {self.path} at this moment.") from None
        try:
            for folder in (self.path, self.state.parent, self.best):
                for leftover in folder.glob(".*-*"):
                    leftover.unlink()
            yield
        finally:
            lock.release()

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


def read_cases(run: RunFolder) -> pd.DataFrame:
    """Return the cases of a run with their split.

    Raises:
        InputError: its manifest is missing or damaged.
    """
    manifest = read_manifest(run.manifest)
    if "split" not in manifest:
        raise InputError(f"{run.manifest} is damaged: it has no column `split`.")
    return manifest


def new_run_name() -> str:
    """Return a name that sorts by time."""
    return datetime.now().strftime("%Y-%m-%d_%H-%M-%S")


def open_run(path: Path) -> RunFolder:
    """Return an existing run.

    Raises:
        InputError: there is none.
    """
    if not path.is_dir():
        raise InputError(f"{path} is not a folder: give a run folder such as runs/<name>.")
    run = RunFolder(path)
    if not run.config.is_file():
        raise InputError(f"{path} is not a run folder: it has no config.yaml.")
    return run


def newest_run(out: Path) -> RunFolder:
    """Return the run under `out` whose model, or that of a seed or fold of it, was written last.

    Raises:
        InputError: there is none.
    """
    folders = ("*", "*/seed-*", "*/fold-*")
    found = [path for runs in folders for path in out.glob(f"{runs}/best/config.json")]
    if not found:
        raise InputError(
            f"No run with a model is under {out}/: train one first (scripts/train.py)."
        )
    newest = max(found, key=lambda path: path.stat().st_mtime)
    return open_run(out / newest.relative_to(out).parts[0])


def read_task(run: RunFolder) -> str:
    """Return what a run classifies, `images` or `bags`.

    Raises:
        InputError: its configuration is damaged.
    """
    try:
        content = yaml.safe_load(run.config.read_text())
        task = content.get("task", "images")
    except (yaml.YAMLError, UnicodeDecodeError, AttributeError) as error:
        raise InputError(f"{run.config} is damaged: it is no configuration of a run.") from error
    if task not in ("images", "bags"):
        raise InputError(f"{run.config} is damaged: its task is {task!r}.")
    return str(task)
