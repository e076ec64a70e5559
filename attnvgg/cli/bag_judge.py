"""What the best bag model of a run says of validation and test, and its worth."""

from __future__ import annotations

import logging
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from accelerate import Accelerator

from attnvgg.cli.bag_cases import BagCases
from attnvgg.data.slide_sample import default_folder, mean_colour_floor, region_ceiling
from attnvgg.errors import InputError
from attnvgg.evaluation import (
    evaluate_predictions,
    judge_instances,
    majority,
    share_interval,
    summary,
)
from attnvgg.files import atomic_path, write_json
from attnvgg.training.bag_config import TrainBagsConfig
from attnvgg.training.bag_instances import InstanceLog
from attnvgg.training.build import judging_loader
from attnvgg.training.build_bags import bag_workers
from attnvgg.training.checkpoint import load_model
from attnvgg.training.engine import evaluate
from attnvgg.training.predictions import prediction_table
from attnvgg.training.run import RunFolder
from attnvgg.training.sharing import load_model_everywhere

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
    reference = None
    if config.data.source == "panda":
        reference = sample_reference(config.data.root or default_folder())
    metrics = write_verdict(run, table, instances, cases.shares_instances, reference)
    if not quiet:
        tell(run, metrics)
    return metrics


@cache
def sample_reference(root: Path) -> dict[str, float] | None:
    """Return `ceiling` and `floor`, to print beside an AUC on the sample of slides.

    Returns:
        None for other slides, and for a sample that is too small to say.
    """
    if not (root / "sample.json").is_file():
        return None
    try:
        return {"ceiling": region_ceiling(root), "floor": mean_colour_floor(root)}
    except InputError:
        return None


def keep_verdict(run: RunFolder, metrics: dict[str, Any]) -> None:
    """Let threshold and worth go with the model."""
    threshold = metrics["threshold"] and metrics["threshold"]["value"]
    load_model(run.path).save_pretrained(run.best, threshold=threshold, metrics=metrics)


def write_verdict(
    run: RunFolder,
    table: pd.DataFrame,
    instances: pd.DataFrame | None,
    shared: bool,
    reference: dict[str, float] | None = None,
) -> dict[str, Any]:
    """Judge predictions and what was said of instances, and write all three files.

    Args:
        run: where.
        table: of predictions.
        instances: what was said of them, if anything.
        shared: bags have instances in common, so that they are no independent cases.
        reference: see `sample_reference`.
    """
    metrics = evaluate_predictions(table)
    if reference is not None:
        metrics |= {"synthetic": True, "sample": reference}
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
            groups = dict(zip(table["image"], table["group"], strict=True))
            found = judge_instances(instances, split, groups=groups)
            metrics["instances"] = found if found["bags"] else None
        with atomic_path(run.instances) as temporary:
            instances.to_csv(temporary, index=False)
    write_json(run.evaluation, metrics)
    return metrics


def tell(run: RunFolder, metrics: dict[str, Any]) -> None:
    """Log the figures that a person reads."""
    logger.info("%s", summary(metrics))
    accuracy, found = metrics["accuracy"], metrics["instances"]
    logger.info(
        "Accuracy, each bag called its most probable class: %s; %s.",
        _share(accuracy["value"], accuracy["lower"], accuracy["upper"], accuracy["method"]),
        majority(metrics[metrics["judged_on"]]),
    )
    if found is not None:
        what = "attended" if found["score"] == "weight" else "probable"
        logger.info(
            "The most %s instance is a positive one in %s of %d bags that have any.",
            what,
            _share(found["top_positive"], found["lower"], found["upper"], found["method"]),
            found["bags"],
        )
    if "sample" in metrics:
        logger.info(
            "SYNTHETIC slides: their ceiling is AUC %.3f (the planted regions, seen through the "
            "tiles), their floor %.3f (mean colour of the tissue); both of cancer or none.",
            metrics["sample"]["ceiling"],
            metrics["sample"]["floor"],
        )
    if metrics["intervals"]:
        logger.info("%s", metrics["intervals"])
    logger.info("Written: %s, %s", run.predictions, run.evaluation)


def _share(value: float, lower: float, upper: float, method: str) -> str:
    return f"{value:.4f} (95% interval {lower:.4f} to {upper:.4f}, {method})"


def _accuracy(table: pd.DataFrame) -> dict[str, Any]:
    """Return the share of bags whose most probable class is the right one."""
    if "probability" in table:
        called = (table["probability"] >= 0.5).to_numpy().astype(int)
    else:
        names = [name for name in table if str(name).startswith("probability_")]
        called = table[names].to_numpy().argmax(axis=1)
    labels = table["label"].to_numpy()
    return share_interval(called == labels, labels > 0, table["group"])


def _predict(
    run: RunFolder, accelerator: Accelerator, config: TrainBagsConfig, cases: BagCases
) -> tuple[pd.DataFrame, pd.DataFrame | None]:
    """Return the tables of predictions and of instances, of validation and test."""
    model: Any = load_model_everywhere(run, accelerator).to(accelerator.device)
    model.chunk_size = config.model.chunk_size
    rows = np.flatnonzero(cases.manifest["split"].isin(["val", "test"]))
    dataset = cases.dataset(config, "val", "test")
    workers = bag_workers(config, accelerator, dataset)
    loader = judging_loader(config, accelerator, dataset, workers)
    log = InstanceLog()
    found = evaluate(model, loader, accelerator, "evaluate", log)
    instances = log.table(cases.manifest, rows)
    return prediction_table(cases.manifest, found.renumbered(rows)), instances
