"""A training command that is also the entry point of a SageMaker job.

Outside of SageMaker's container nothing is different. Within it the run lies where it outlives an
interruption, takes its data from the channels, goes on when it was begun before, and at the end
leaves the model and the files of the run where the service collects them.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from attnvgg.cli.common import parse_config, run_command
from attnvgg.deploy.container import RUN, Container, copy_files, read_container, tell_failure
from attnvgg.errors import InputError
from attnvgg.training.run import RunFolder
from attnvgg.training.run_config import CHANGEABLE, flatten, updated
from attnvgg.training.signals import Interrupted

logger = logging.getLogger(__name__)

Parse = Callable[[type[Any], Sequence[str], str], Any]

OPEN = (None, "auto")  # values that a run fills in itself
OURS = {"out", "name", "resume"}  # what the container decides
LEFT = ("last", "candidates", "tensorboard")  # what nobody wants back of a finished run


def run_training(
    function: Callable[[Any], None],
    config_class: type[Any],
    argv: Sequence[str] | None,
    command: str,
    parse: Parse,
) -> int:
    """Run a training command, in SageMaker's container as its contract asks.

    Args:
        function: trains.
        config_class: its options.
        argv: words of the command line; those of the process if absent.
        command: its name.
        parse: turns words into options.

    Returns:
        The exit code, see `run_command`.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if "SM_MODEL_DIR" not in os.environ:
        return run_command(function, config_class, words, command, parse)

    def begin(config_class: type[Any], words: Sequence[str], command: str) -> Any:
        container = read_container(os.environ)
        assert container is not None
        with _failures_told(container):
            return _options(container, config_class, words, command)

    def work(config: Any) -> None:
        container = read_container(os.environ)
        assert container is not None
        with _failures_told(container):
            _warn_of_idle_gpus(container)
            function(config)
            if _is_main():
                _hand_over(container, config)

    return run_command(work, config_class, words, command, begin)


def _options(
    container: Container, config_class: type[Any], words: Sequence[str], command: str
) -> Any:
    """Return the options of the job: of a new run, or of the one that was begun before.

    Raises:
        InputError: the run in the folder of checkpoints is another one.
    """
    config = parse_config(config_class, container.words(words), command)
    changes = {"out": container.checkpoints, "name": RUN, "resume": None}
    for key in ("root", "bags"):
        path: Path | None = getattr(config.data, key, None)
        if key == "root" and path is None:
            changes["data.root"] = container.data
        elif path is not None:
            changes[f"data.{key}"] = container.place(path)
    config = updated(config, changes)
    run = RunFolder(container.run)
    if run.config.is_file():
        return _continued(config, run, config_class, command)
    if run.path.is_dir() and _is_main():  # interrupted before its first line was whole
        shutil.rmtree(run.path)
    return config


def _continued(config: Any, run: RunFolder, config_class: type[Any], command: str) -> Any:
    """Return the options of a run that was begun, with what may change in it as it is said now."""
    stored = parse_config(config_class, ["--config", str(run.config)], command)
    said, before = flatten(config), flatten(stored)
    changed = [
        f"--{key}: {before[key]}, now {value}"
        for key, value in said.items()
        if key not in CHANGEABLE | OURS and value not in OPEN and value != before[key]
    ]
    if changed:
        raise InputError(
            f"{run.path} was begun with other options; give this job a new folder of checkpoints:",
            changed,
        )
    changes = {key: said[key] for key in CHANGEABLE & said.keys() if said[key] is not None}
    return updated(stored, {**changes, "resume": run.path})


def _hand_over(container: Container, config: Any) -> None:
    """Copy the model, and the files of the run, to where the service collects them."""
    best = _best(container.run, config.monitor)
    copy_files(best, container.model)
    logger.info("Model: %s, from %s", container.model, best)
    if container.output is not None:
        copy_files(container.run, container.output / RUN, skip=LEFT)


def _best(run: Path, monitor: str) -> Path:
    """Return the folder of the model; of several, of the one best on validation."""
    if (run / "best").is_dir():
        return run / "best"

    def score(folder: Path) -> float:
        saved = json.loads((folder / "config.json").read_text())
        value = float(saved["validation"]["validation"][monitor])
        return -value if monitor == "loss" else value

    return max(sorted([*run.glob("seed-*/best"), *run.glob("fold-*/best")]), key=score)


def _warn_of_idle_gpus(container: Container) -> None:
    if container.gpus > 1 and "LOCAL_RANK" not in os.environ:
        logger.warning(
            "This machine has %d GPUs and one process uses one: launch the job with Torchrun.",
            container.gpus,
        )


@contextmanager
def _failures_told(container: Container) -> Iterator[None]:
    """Leave the reason of a failure for the service; an interruption is none."""
    try:
        yield
    except Interrupted:
        raise
    except Exception as error:
        tell_failure(container, str(error) or type(error).__name__)
        raise


def _is_main() -> bool:
    """Tell whether this process writes: the first of all machines'."""
    return os.environ.get("RANK", "0") == "0"
