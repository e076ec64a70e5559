"""Training of one image model in one run folder."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, cast

import pandas as pd
from accelerate import Accelerator
from torch import nn
from torch.utils.data import Dataset

from attnvgg.cli.evaluate import judge
from attnvgg.cli.image_frozen import compute_frozen, plan_frozen
from attnvgg.data.images import prepare_images
from attnvgg.data.manifest import write_manifest
from attnvgg.models import Pretrained
from attnvgg.training.build import judging_loader, loader_workers
from attnvgg.training.build_images import build_model, make_datasets, make_trainer
from attnvgg.training.checkpoint import load_model
from attnvgg.training.config import TrainConfig
from attnvgg.training.engine import fit
from attnvgg.training.predictions import Predictions, lock_threshold
from attnvgg.training.run import RunFolder
from attnvgg.training.run_config import as_plain

logger = logging.getLogger(__name__)


def train_member(
    config: TrainConfig,
    run: RunFolder,
    accelerator: Accelerator,
    manifest: pd.DataFrame,
    *,
    checked: bool = False,
) -> dict[str, Any] | None:
    """Train one model, keep its best epoch, judge it; go on where an earlier call ended.

    Args:
        config: resolved.
        run: its folder, new or begun.
        accelerator: see `engine.make_accelerator`.
        manifest: the cases with their split.
        checked: all files of them have been read before.

    Returns:
        The content of `metrics.json`; None in all processes but the main one.
    """
    datasets = make_datasets(config, manifest)
    workers = loader_workers(config.data.workers, accelerator)
    if not checked and accelerator.is_local_main_process:
        prepare_images(list(datasets.values()), workers)
    accelerator.wait_for_everyone()
    model, config = build_model(config, manifest, resumed=run.state.is_file())
    plan = plan_frozen(config, run, accelerator, model, datasets)
    sets: Mapping[str, Dataset[Any]] = datasets if plan is None else plan.datasets
    trainer = make_trainer(config, accelerator, model, manifest, sets["train"])
    if plan is not None:
        compute_frozen(config, plan, accelerator, workers)
    begin(run, config, manifest, accelerator, size=8 * _size(model))
    logger.info("Run folder: %s   (start: %s)", run.path, config.model.start)

    def save_best(predictions: Predictions, row: dict[str, Any]) -> None:
        cast(Pretrained, trainer.judged).save_pretrained(
            run.best,
            preprocess=datasets["val"].preprocess.to_dict(),
            classes=config.data.classes,
            threshold=lock_threshold(predictions),
            synthetic=config.data.source == "sample",
            start=config.model.start,
            validation=row,
        )

    validation = judging_loader(config, accelerator, sets["val"], 0 if plan else workers)
    with run.locked():
        fit(trainer, validation, run, save_best)
        metrics = judge(run, accelerator, config)
        if metrics is not None:
            judged = load_model(run.path)  # its threshold and its worth go with the model
            threshold = metrics["threshold"] and metrics["threshold"]["value"]
            judged.save_pretrained(run.best, threshold=threshold, metrics=metrics)
    return metrics


def begin(
    run: RunFolder, config: TrainConfig, manifest: pd.DataFrame, accelerator: Accelerator, size: int
) -> None:
    """Make the folder of a run with its options and its cases, unless it is there."""
    if accelerator.is_main_process and not run.config.is_file():
        run.create(needed_bytes=size)
        write_manifest(manifest, run.manifest)
        run.write_config(as_plain(config))  # last: a folder that has it can be continued
    accelerator.wait_for_everyone()


def _size(model: nn.Module) -> int:
    return sum(value.numel() * value.element_size() for value in model.state_dict().values())
