"""What the seeds or folds of image models say together, and how far they spread."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from attnvgg.cli.ensemble import average_predictions, spread_line, spread_of
from attnvgg.evaluation import (
    auc_interval,
    average_precision,
    evaluate_predictions,
    read_predictions,
    share_interval,
    summary,
)
from attnvgg.files import atomic_path, write_json
from attnvgg.training.run import RunFolder, read_cases

logger = logging.getLogger(__name__)

SHOWN = {
    "auc": "AUC",
    "average_precision": "average precision",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "balanced_accuracy": "balanced accuracy",
}
KEPT = ("synthetic", "sample", "views")  # what the metrics of each model say beside figures
OUT_OF_FOLD = "out_of_fold.csv"  # no predictions.csv, which has validation rows too
VARIED = "weights, order and augmentation"
OVERLAP = (
    "The training sets of the folds overlap: the intervals of their means are widened for it "
    "(Nadeau & Bengio 2003), and still rest on few folds."
)
POOLED = (
    "Pooled, the scores of different models are ranked against each other, which need not fit: "
    "the mean of the folds is the figure of the recipe."
)


def combine_seeds(run: RunFolder, folders: Sequence[RunFolder]) -> None:
    """Write how far the seeds spread, and the average of what they say with its worth.

    Args:
        run: of several seeds.
        folders: of each, finished.
    """
    judged = [_read(folder) for folder in folders]
    content: dict[str, Any] = {
        "seeds": [folder.path.name for folder in folders],
        "varied": VARIED,
        "judged_on": judged[0]["judged_on"],
        "synthetic": judged[0].get("synthetic", False),
        "test": spread_of([_figures(metrics) for metrics in judged]),
    }
    table = average_predictions([read_predictions(folder.predictions) for folder in folders])
    metrics = evaluate_predictions(table)
    metrics |= {key: judged[0][key] for key in KEPT if key in judged[0]}
    _write(run, content, table, run.predictions)
    write_json(run.evaluation, metrics)
    _tell(content, f"{len(folders)} seeds of {VARIED}")
    logger.info("The average of %d models:\n%s", len(folders), summary(metrics))
    logger.info("Written: %s, %s, %s", run.path / "summary.json", run.predictions, run.evaluation)


def combine_folds(run: RunFolder, folders: Sequence[RunFolder], manifest: pd.DataFrame) -> None:
    """Write how far the folds spread, and what was said of each case by the fold that tested it.

    That is `out_of_fold.csv`: a row a case, with its `fold`.

    Args:
        run: of a cross-validation.
        folders: of each fold, finished.
        manifest: the cases of the run, whose rows the predictions name.
    """
    judged = [_read(folder) for folder in folders]
    tables = [_tested(folder, number) for number, folder in enumerate(folders)]
    rows = pd.Series(manifest.index, index=manifest["image"])
    table = pd.concat(tables)
    table["index"] = rows[table["image"]].to_numpy()
    table = table.sort_values("index").reset_index(drop=True)
    pooled = _pooled(table, [one["threshold"] for one in judged])
    content: dict[str, Any] = {
        "folds": [folder.path.name for folder in folders],
        "judged_on": "test",
        "synthetic": judged[0].get("synthetic", False),
        "test": spread_of([_figures(one) for one in judged], overlap=_overlap(folders)),
        "note": OVERLAP,
        "pooled": pooled,
    }
    out_of_fold = run.path / OUT_OF_FOLD
    _write(run, content, table, out_of_fold)
    _tell(content, f"{len(folders)} folds by patient")
    logger.info("%s", OVERLAP)
    if pooled is not None:
        auc = pooled["auc"]
        logger.info(
            "Pooled over all %d cases: AUC %.4f (95%% interval %s to %s, %s). %s",
            len(table),
            auc["value"],
            *("undefined" if auc[end] is None else f"{auc[end]:.4f}" for end in ("lower", "upper")),
            auc["method"],
            POOLED,
        )
    logger.info("Written: %s, %s", run.path / "summary.json", out_of_fold)


def _overlap(folders: Sequence[RunFolder]) -> float:
    """Return how many cases are tested a case trained on, the mean over the folds."""
    counts = [read_cases(folder)["split"].value_counts() for folder in folders]
    return float(np.mean([count["test"] / count["train"] for count in counts]))


def _tested(folder: RunFolder, number: int) -> pd.DataFrame:
    """Return what a fold said of its test cases, with its number."""
    table = read_predictions(folder.predictions)
    return table[table["split"] == "test"].assign(fold=number)


def _pooled(table: pd.DataFrame, rules: Sequence[dict[str, Any] | None]) -> dict[str, Any] | None:
    """Return figures over the cases of all folds, each called by the threshold of its own fold.

    Returns:
        None for more than two classes.
    """
    if any(rule is None for rule in rules):
        return None
    scores = table["probability" if "probability" in table else "probability_1"].to_numpy()
    labels, groups = table["label"].to_numpy(), table["group"]
    locked = np.array([rule["value"] for rule in rules if rule is not None])
    right = (scores >= locked[table["fold"].to_numpy()]) == (labels == 1)
    sick = labels == 1
    auc = auc_interval(labels, scores, groups)
    return {
        "note": POOLED,
        "auc": {
            "value": auc.auc,
            "lower": auc.lower,
            "upper": auc.upper,
            "method": auc.method,
            "reason": auc.reason,
        },
        "average_precision": average_precision(labels, scores),
        "sensitivity": share_interval(right[sick], labels[sick] == 1, groups[sick]),
        "specificity": share_interval(right[~sick], labels[~sick] == 1, groups[~sick]),
    }


def _read(folder: RunFolder) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(folder.evaluation.read_text())
    return found


def _figures(metrics: dict[str, Any]) -> dict[str, float | None]:
    """Return the figures of one model that are compared."""
    judged = metrics[metrics["judged_on"]]
    others = {key: judged.get(key) for key in SHOWN if key != "auc"}
    plain = {k: v["value"] if isinstance(v, dict) else v for k, v in others.items()}
    return {"auc": judged["auc"]["value"], **plain}


def _write(run: RunFolder, content: dict[str, Any], table: pd.DataFrame, path: Path) -> None:
    write_json(run.path / "summary.json", content)
    with atomic_path(path) as temporary:
        table.to_csv(temporary, index=False)


def _tell(content: dict[str, Any], what: str) -> None:
    logger.info("Over %s (mean, standard deviation, 95%% t-interval of the mean):", what)
    for key, figures in content["test"].items():
        logger.info("  %s", spread_line(SHOWN[key], figures))
