"""`attnvgg evaluate`: what the best model of a run says of validation and test, and its worth."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from attnvgg.cli.bag_runs import judge_again, read_bags_config
from attnvgg.cli.common import parse_config, run_command
from attnvgg.data.images import ImageDataset
from attnvgg.data.sample import sample_reference
from attnvgg.errors import InputError
from attnvgg.evaluation.report import evaluate_predictions, summary
from attnvgg.files import atomic_path
from attnvgg.training.bag_config import check as check_bags
from attnvgg.training.build import judging_loader, loader_workers, open_cache
from attnvgg.training.config import RESOLVED, TrainConfig, check
from attnvgg.training.engine import evaluate, make_accelerator
from attnvgg.training.predictions import prediction_table
from attnvgg.training.run import RunFolder, open_run, read_cases, read_task
from attnvgg.training.run_config import require_resolved, updated
from attnvgg.training.sharing import load_model_everywhere

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EvaluateConfig:
    """Write predictions.csv and metrics.json of a run's best model."""

    run: Path = field(metadata={"positional": {"type": Path, "help": "run folder"}})
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto takes the GPU where there is one."""
    batch_size: int | None = None
    """Images or bags a step; null: as in the run."""
    workers: int | None = None
    """Loader processes; null: as in the run."""
    threads: int | None = None
    """CPU threads; null: PyTorch's choice."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return run_command(evaluate_run, EvaluateConfig, argv, "evaluate")


def evaluate_run(options: EvaluateConfig) -> None:
    """Evaluate a run again, from its best model and its manifest."""
    run = open_run(options.run)
    is_bags = read_task(run) == "bags"
    config: Any = read_bags_config(run) if is_bags else read_config(run)
    changes: dict[str, Any] = {
        "device": options.device,
        "threads": options.threads,
        "precision": "no",  # evaluation is in full precision, on whatever machine
    }
    if options.batch_size is not None:
        changes["eval_batch_size"] = options.batch_size
    if options.workers is not None:
        changes["data.workers"] = options.workers
    config = updated(config, changes)
    if is_bags:
        check_bags(config)
        judge_again(run, make_accelerator(config), config)
    else:
        check(config)
        judge(run, make_accelerator(config), config)


def read_config(run: RunFolder) -> TrainConfig:
    """Return the configuration that a run was made with."""
    config: TrainConfig = parse_config(TrainConfig, ["--config", str(run.config)], "train")
    require_resolved(config, RESOLVED, run.config)
    return config


def judge(run: RunFolder, accelerator: Accelerator, config: TrainConfig) -> dict[str, Any] | None:
    """Write `predictions.csv` and `metrics.json`, and log what they say.

    The threshold is locked on validation; test is only judged by it.

    Returns:
        The content of `metrics.json`; None in all processes but the main one.
    """
    (manifest,) = broadcast_object_list([read_cases(run) if accelerator.is_main_process else None])
    table = _predict(run, accelerator, config, manifest)
    if not accelerator.is_main_process:
        return None
    metrics = evaluate_predictions(table)
    if config.data.source == "sample":
        assert config.data.root is not None  # filled in by the command that made the run
        metrics["synthetic"] = True
        metrics["sample"] = sample_reference(config.data.root, manifest)
    with atomic_path(run.predictions) as temporary:
        table.to_csv(temporary, index=False)
    with atomic_path(run.evaluation) as temporary:
        temporary.write_text(json.dumps(metrics, indent=2, allow_nan=False) + "\n")
    logger.info("%s", summary(metrics))
    if "sample" in metrics:
        logger.info(
            "SYNTHETIC sample: its ceiling is AUC %.3f (the latent score itself), its floor %.3f "
            "(colour histogram and lesion area).",
            metrics["sample"]["ceiling"],
            metrics["sample"]["floor"],
        )
    logger.info("Written: %s, %s", run.predictions, run.evaluation)
    return metrics


def _predict(
    run: RunFolder, accelerator: Accelerator, config: TrainConfig, manifest: pd.DataFrame
) -> pd.DataFrame:
    """Return the prediction table of validation and test."""
    model: Any = load_model_everywhere(run, accelerator).to(accelerator.device)
    rows = np.flatnonzero(manifest["split"].isin(["val", "test"]))
    if not len(rows):
        raise InputError(f"{run.manifest} has neither validation nor test rows.")
    dataset = ImageDataset(
        manifest.iloc[rows].drop(columns="mask", errors="ignore").reset_index(drop=True),
        model.preprocess,
        cache=open_cache(config.data),
    )
    workers = loader_workers(config.data.workers, accelerator)
    loader = judging_loader(config, accelerator, dataset, workers)
    found = evaluate(model, loader, accelerator, "evaluate")
    return prediction_table(manifest, found.renumbered(rows))
