"""`attnvgg train`: from files to a judged model, or to several and how far they spread."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from attnvgg.cli.cases import describe, load_cases, locate
from attnvgg.cli.common import parse_config
from attnvgg.cli.image_member import begin, train_member
from attnvgg.cli.image_runs import is_single, settle, train_members
from attnvgg.cli.job import run_training
from attnvgg.errors import InputError
from attnvgg.training.config import CHANGEABLE, RESOLVED, TrainConfig, check, resolve
from attnvgg.training.engine import make_accelerator
from attnvgg.training.run import RunFolder, new_run_name, open_run, read_cases
from attnvgg.training.run_config import flatten, require_resolved, updated

logger = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return run_training(train, TrainConfig, argv, "train", parse_resumable)


def parse_resumable(
    config_class: type[TrainConfig], words: Sequence[str], command: str
) -> TrainConfig:
    """Parse the options; with --resume, over those of the run that is continued.

    Raises:
        InputError: an option that would make it another run.
    """
    config: TrainConfig = parse_config(config_class, words, command)
    if config.resume is None:
        return config
    run = open_run(config.resume)
    its_own = ["--config", str(run.config)]
    stored = flatten(parse_config(config_class, its_own, command))
    merged: TrainConfig = parse_config(config_class, [*its_own, *words], command)
    changed = [
        key
        for key, value in flatten(merged).items()
        if key not in CHANGEABLE and _absolute(value) != _absolute(stored[key])
    ]
    if changed:
        raise InputError(
            f"--resume {run.path} continues that run with its own options; these would change it:",
            [f"--{key}" for key in changed],
        )
    if merged.epochs != stored["epochs"] and merged.optim.schedule == "cosine":
        logger.warning("The cosine schedule depends on the number of epochs: it bends here.")
    return merged


def _absolute(value: Any) -> Any:
    return value.absolute() if isinstance(value, Path) else value


def train(config: TrainConfig) -> None:
    """Train one model or several, keep the best epoch of each, judge them on the test set."""
    check(config)
    accelerator = make_accelerator(config)
    if not accelerator.is_main_process:
        logging.getLogger("attnvgg").setLevel(logging.ERROR)
    config, run, manifest = _begin(config, accelerator)
    if config.device != "cpu" and accelerator.device.type == "cpu":
        logger.info("There is no GPU here: training on the CPU.")
    if is_single(config):
        logger.info("Cases: %s.", describe(manifest))
        train_member(config, run, accelerator, manifest)
        return
    if config.resume is None:
        config = settle(config, accelerator, manifest)
        begin(run, config, manifest, accelerator, size=2**20)
    train_members(config, run, accelerator, manifest, train_member)


def _begin(
    config: TrainConfig, accelerator: Accelerator
) -> tuple[TrainConfig, RunFolder, pd.DataFrame]:
    """Find or reopen the run and its cases."""
    writes = accelerator.is_main_process
    if config.resume is not None:
        run = RunFolder(config.resume, writes=writes)
        logger.info("Resuming %s.", run.path)
        require_resolved(config, RESOLVED, run.config)
        return config, run, read_cases(run)
    name = broadcast_object_list([config.name or new_run_name()])[0]
    run = RunFolder(config.out / name, writes=writes)
    if writes:
        run.check_writable()
    source, root = locate(config.data)
    config = resolve(updated(config, {"name": name, "data.source": source, "data.root": root}))
    with accelerator.main_process_first():
        manifest, classes = load_cases(config.data, source, root, folds=config.folds)
    return updated(config, {"data.classes": classes}), run, manifest
