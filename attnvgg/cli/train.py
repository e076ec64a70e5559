"""`attnvgg train`: from files to a judged model."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pandas as pd
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import nn

from attnvgg.cli.cases import describe, load_cases, locate
from attnvgg.cli.common import parse_config
from attnvgg.cli.evaluate import judge
from attnvgg.cli.job import run_training
from attnvgg.data.images import prepare_images
from attnvgg.data.manifest import write_manifest
from attnvgg.errors import InputError
from attnvgg.models import Pretrained
from attnvgg.training.build import judging_loader, loader_workers
from attnvgg.training.build_images import build_model, make_datasets, make_trainer
from attnvgg.training.checkpoint import load_model
from attnvgg.training.config import RESOLVED, TrainConfig, check, resolve
from attnvgg.training.engine import fit, make_accelerator
from attnvgg.training.predictions import Predictions, lock_threshold
from attnvgg.training.run import RunFolder, new_run_name, open_run, read_cases
from attnvgg.training.run_config import CHANGEABLE, as_plain, flatten, require_resolved, updated

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
    """Train, keep the best epoch, judge it on the test set."""
    check(config)
    accelerator = make_accelerator(config)
    if not accelerator.is_main_process:
        logging.getLogger("attnvgg").setLevel(logging.ERROR)
    config, run, manifest = _begin(config, accelerator)
    if config.device != "cpu" and accelerator.device.type == "cpu":
        logger.info("There is no GPU here: training on the CPU.")
    logger.info("Cases: %s.", describe(manifest))
    datasets = make_datasets(config, manifest)
    if accelerator.is_local_main_process:
        prepare_images(list(datasets.values()), loader_workers(config.data.workers, accelerator))
    accelerator.wait_for_everyone()
    model, config = build_model(config, manifest)
    trainer = make_trainer(config, accelerator, model, manifest, datasets["train"])
    if config.resume is None and accelerator.is_main_process:
        run.create(needed_bytes=8 * _size(model))
        write_manifest(manifest, run.manifest)
        run.write_config(as_plain(config))  # last: a folder that has it can be continued
    accelerator.wait_for_everyone()
    logger.info("Run folder: %s   (start: %s)", run.path, config.model.start)

    def save_best(predictions: Predictions, row: dict[str, Any]) -> None:
        threshold = lock_threshold(predictions)
        cast(Pretrained, trainer.judged).save_pretrained(
            run.best,
            preprocess=datasets["val"].preprocess.to_dict(),
            classes=config.data.classes,
            threshold=threshold,
            synthetic=config.data.source == "sample",
            start=config.model.start,
            validation=row,
        )

    workers = loader_workers(config.data.workers, accelerator)
    validation = judging_loader(config, accelerator, datasets["val"], workers)
    with run.locked():
        fit(trainer, validation, run, save_best)
        metrics = judge(run, accelerator, config)
        if metrics is not None:
            model = load_model(run.path)  # its threshold and its worth go with the model
            threshold = metrics["threshold"] and metrics["threshold"]["value"]
            model.save_pretrained(run.best, threshold=threshold, metrics=metrics)


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
        manifest, classes = load_cases(config.data, source, root)
    return updated(config, {"data.classes": classes}), run, manifest


def _size(model: nn.Module) -> int:
    return sum(value.numel() * value.element_size() for value in model.state_dict().values())
