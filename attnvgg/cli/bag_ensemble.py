"""Several seeds of one recipe: how far they spread, and what they say together."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from typing import Any

import pandas as pd

from attnvgg.cli.bag_judge import tell, write_verdict
from attnvgg.cli.ensemble import average_predictions, spread_line, spread_of
from attnvgg.evaluation import read_predictions
from attnvgg.files import write_json
from attnvgg.training.bag_instances import merged, read_instances
from attnvgg.training.run import RunFolder

logger = logging.getLogger(__name__)

SHOWN = {"accuracy": "accuracy", "auc": "AUC", "top_positive": "top instance positive"}


def combine(run: RunFolder, folders: Sequence[RunFolder], redrawn: bool, shared: bool) -> None:
    """Write `summary.json` and, where all seeds judged the same bags, their average.

    Args:
        run: of several seeds.
        folders: of each seed, finished.
        redrawn: each seed has bags of its own: nothing can be averaged.
        shared: see `write_verdict`.
    """
    spread = spread_of([_figures(folder) for folder in folders])
    varied = "weights, order, split and bags" if redrawn else "weights and order"
    content: dict[str, Any] = {
        "seeds": [folder.path.name for folder in folders],
        "varied": varied,
        "test": spread,
    }
    tables = [folder.path / "pools.csv" for folder in folders]
    if all(path.is_file() for path in tables):
        content["pools"] = _pools([pd.read_csv(path) for path in tables])
    write_json(run.path / "summary.json", content)
    for line in lines(content):
        logger.info("%s", line)
    if redrawn:
        logger.info("Each seed has its own bags: there is no average of what they say.")
        return
    table = average_predictions([read_predictions(folder.predictions) for folder in folders])
    instances = [
        read_instances(folder.instances) for folder in folders if folder.instances.is_file()
    ]
    average = merged(instances) if len(instances) == len(folders) else None
    metrics = write_verdict(run, table, average, shared)
    logger.info("The average of %d models:", len(folders))
    tell(run, metrics)


def lines(content: dict[str, Any]) -> list[str]:
    """Return what a person reads of `summary.json`."""
    found = []
    for pool, figures in content.get("pools", {}).items():
        found.append(f"{pool:<18} " + "   ".join(_line(key, figures) for key in figures))
    count = len(content["seeds"])
    found.append(
        f"Over {count} seeds of {content['varied']} (mean, standard deviation, 95% t-interval of "
        "the mean):"
    )
    found += [f"  {_line(key, content['test'])}" for key in content["test"]]
    return found


def _line(key: str, figures: dict[str, Any]) -> str:
    return spread_line(SHOWN[key], figures[key])


def _figures(folder: RunFolder) -> dict[str, float | None]:
    """Return the figures of one seed that are compared."""
    metrics = json.loads(folder.evaluation.read_text())
    instances = metrics["instances"] or {}
    return {
        "accuracy": metrics["accuracy"]["value"],
        "auc": metrics[metrics["judged_on"]]["auc"]["value"],
        "top_positive": instances.get("top_positive"),
    }


def _pools(tables: Sequence[pd.DataFrame]) -> dict[str, Any]:
    """Return the spread of each pool over the seeds."""
    found = {}
    for pool in tables[0]["pool"]:
        rows = [table[table["pool"] == pool].iloc[0] for table in tables]
        known = [key for key in SHOWN if key in tables[0]]
        figures = [{k: None if pd.isna(row[k]) else float(row[k]) for k in known} for row in rows]
        found[pool] = spread_of(figures)
    return found
