"""What the best bag model of a run says of validation and test, and its worth."""

from __future__ import annotations

import json
import logging
from typing import Any

import numpy as np
import pandas as pd
from accelerate import Accelerator

from attnvgg.cli.bag_cases import BagCases
from attnvgg.evaluation import (
    evaluate_predictions,
    judge_instances,
    summary,
    wilson_interval,
)
from attnvgg.files import atomic_path
from attnvgg.training.bag_config import TrainBagsConfig
from attnvgg.training.bag_instances import InstanceLog
from attnvgg.training.build import judging_loader
from attnvgg.training.build_bags import bag_workers
from attnvgg.training.checkpoint import load_model
from attnvgg.training.engine import evaluate
from attnvgg.training.predictions import prediction_table
from attnvgg.training.run import RunFolder

logger = logging.getLogger(__name__)

SHARED = (
    "Bags share digits: the intervals are for more bags of these very digits; other digits would "
    "move the figures further."
)


def judge_bags(
    run: RunFolder,
    accelerator: Accelerator,
    config: TrainBagsConfig,
    cases: BagCases,
    *,
    quiet: bool = False,
) -> dict[str, Any] | None:
    """Write `predictions.csv`, `instances.csv` and `metrics.json`, and log what they say.

    Returns:
        The content of `metrics.json`; None in all processes but the main one.
    """
    table, instances = _predict(run, accelerator, config, cases)
    if not accelerator.is_main_process:
        return None
    metrics = write_verdict(run, table, instances, cases.shares_instances)
    if not quiet:
        tell(run, metrics)
    return metrics


def keep_verdict(run: RunFolder, metrics: dict[str, Any]) -> None:
    """Let threshold and worth go with the model."""
    threshold = metrics["threshold"] and metrics["threshold"]["value"]
    load_model(run.path).save_pretrained(run.best, threshold=threshold, metrics=metrics)


def write_verdict(
    run: RunFolder, table: pd.DataFrame, instances: pd.DataFrame | None, shared: bool
) -> dict[str, Any]:
    """Judge predictions and what was said of instances, and write all three files.

    Args:
        run: where.
        table: of predictions.
        instances: what was said of them, if anything.
        shared: bags have instances in common, so that they are no independent cases.
    """
    metrics = evaluate_predictions(table)
    metrics["intervals"] = SHARED if shared else None
    split = metrics["judged_on"]
    metrics["accuracy"] = _accuracy(table[table["split"] == split])
    metrics["instances"] = None
    with atomic_path(run.predictions) as temporary:
        table.to_csv(temporary, index=False)
    if instances is None:
        run.instances.unlink(missing_ok=True)
    else:
        if "label" in instances:
            found = judge_instances(instances, split)
            metrics["instances"] = found if found["bags"] else None
        with atomic_path(run.instances) as temporary:
            instances.to_csv(temporary, index=False)
    with atomic_path(run.evaluation) as temporary:
        temporary.write_text(json.dumps(metrics, indent=2, allow_nan=False) + "\n")
    return metrics


def tell(run: RunFolder, metrics: dict[str, Any]) -> None:
    """Log the figures that a person reads."""
    logger.info("%s", summary(metrics))
    accuracy, found = metrics["accuracy"], metrics["instances"]
    logger.info(
        "Accuracy, each bag called its most probable class: %s.",
        _share(accuracy["value"], accuracy["lower"], accuracy["upper"]),
    )
    if found is not None:
        what = "attended" if found["score"] == "weight" else "probable"
        logger.info(
            "The most %s instance is a positive one in %s of %d bags that have any.",
            what,
            _share(found["top_positive"], found["lower"], found["upper"]),
            found["bags"],
        )
    if metrics["intervals"]:
        logger.info("%s", metrics["intervals"])
    logger.info("Written: %s, %s", run.predictions, run.evaluation)


def _share(value: float, lower: float, upper: float) -> str:
    return f"{value:.4f} (95% interval {lower:.4f} to {upper:.4f}, Wilson)"


def _accuracy(table: pd.DataFrame) -> dict[str, Any]:
    """Return the share of bags whose most probable class is the right one."""
    if "probability" in table:
        called = (table["probability"] >= 0.5).astype(int)
    else:
        names = [name for name in table if str(name).startswith("probability_")]
        called = pd.Series(table[names].to_numpy().argmax(axis=1), index=table.index)
    right = int((called == table["label"]).sum())
    lower, upper = wilson_interval(right, len(table))
    return {"value": right / len(table), "lower": lower, "upper": upper, "level": 0.95}


def _predict(
    run: RunFolder, accelerator: Accelerator, config: TrainBagsConfig, cases: BagCases
) -> tuple[pd.DataFrame, pd.DataFrame | None]:
    """Return the tables of predictions and of instances, of validation and test."""
    model: Any = load_model(run.path).to(accelerator.device)
    model.chunk_size = config.model.chunk_size
    rows = np.flatnonzero(cases.manifest["split"].isin(["val", "test"]))
    dataset = cases.dataset(config, "val", "test")
    workers = bag_workers(config, accelerator, dataset)
    loader = judging_loader(config, accelerator, dataset, workers)
    log = InstanceLog()
    found = evaluate(model, loader, accelerator, "evaluate", log)
    instances = log.table(cases.manifest, rows)
    return prediction_table(cases.manifest, found.renumbered(rows)), instances
