"""From a table of predictions to figures that can be quoted: the content of `metrics.json`.

The threshold is chosen on validation and locked; test is only judged by it.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from attnvgg.errors import InputError
from attnvgg.evaluation.bootstrap import Bootstrapped
from attnvgg.evaluation.intervals import auc_interval
from attnvgg.evaluation.metrics import (
    Labels,
    average_precision,
    balanced_accuracy,
    choose_threshold,
    confusion,
    recalls,
    roc_auc,
)
from attnvgg.evaluation.ordinal import kappa_interval
from attnvgg.evaluation.predictions import Probabilities, checked_predictions

SENSITIVITY = 0.90
LEVEL = 0.95
SHARED = (
    "Patients or groups that are both in validation and in test: {}. What was chosen on "
    "validation, such as the threshold, was chosen on patients that it is judged on."
)
OPTIMISTIC = "There is no test set: the model was selected on the cases that it is judged on."


def evaluate_predictions(frame: pd.DataFrame, threshold: float | None = None) -> dict[str, Any]:
    """Return the figures of validation and test.

    Args:
        frame: as `checked_predictions` wants it; rows of training are not judged.
        threshold: locked before, in [0, 1]; else chosen on validation (two classes).

    Returns:
        A dict for JSON: `classes`, `judged_on`, `optimistic` (there is no test set), `note` (why
        figures flatter, if they do), `threshold` and, for each split present, its figures. What is
        undefined is None.

    Raises:
        InputError: the table is not one of predictions, or has no cases to choose or judge on.
    """
    table, probabilities = checked_predictions(frame)
    classes = max(probabilities.shape[1], 2)
    sets = {
        split: (table[rows], probabilities[rows])
        for split in ("val", "test")
        if (rows := (table["split"] == split).to_numpy()).any()
    }
    if not sets:
        raise InputError("There are neither validation nor test rows to judge.")
    rule = _threshold(sets, classes, threshold)
    report: dict[str, Any] = {
        "classes": classes,
        "judged_on": "test" if "test" in sets else "val",
        "optimistic": "test" not in sets,
        "note": None if "test" in sets else OPTIMISTIC,
        "threshold": rule,
    }
    if shared := _shared(sets):
        report["note"] = SHARED.format(shared)
    for split, (cases, values) in sets.items():
        report[split] = (
            _two_classes(cases, values[:, -1], rule["value"])
            if rule is not None
            else _many_classes(cases, values)
        )
    return report


def _shared(sets: dict[str, tuple[pd.DataFrame, Probabilities]]) -> int:
    """Return how many groups are in validation and in test."""
    first, *others = (set(cases["group"].dropna()) for cases, _ in sets.values())
    return len(first.intersection(*others)) if others else 0


def _threshold(
    sets: dict[str, tuple[pd.DataFrame, Probabilities]], classes: int, locked: float | None
) -> dict[str, Any] | None:
    """Return the decision rule of two classes; more are decided by the highest probability."""
    if classes > 2:
        if locked is not None:
            raise InputError(f"{classes} classes have no single threshold.")
        return None
    if locked is not None:
        if not 0 <= locked <= 1:
            raise InputError(f"A threshold of {locked} is no probability.")
        return {"value": float(locked), "rule": "given", "chosen_on": None}
    if "val" not in sets:
        raise InputError(
            "There are no validation rows to choose the threshold on: give a threshold."
        )
    cases, values = sets["val"]
    if len(found := cases["label"].unique()) < 2:
        which = f"All {len(cases)} validation rows have label {found[0]}"
        raise InputError(f"{which}: they tell no threshold, give one.")
    value = choose_threshold(cases["label"], values[:, -1], SENSITIVITY)
    rule = f"highest with a sensitivity of at least {SENSITIVITY:.2f}"
    return {"value": value, "rule": rule, "chosen_on": "validation"}


def _two_classes(cases: pd.DataFrame, scores: Probabilities, threshold: float) -> dict[str, Any]:
    labels = cases["label"].to_numpy()
    counts = confusion(labels, scores, threshold)
    both = 0 < labels.sum() < len(labels)
    return {
        "n": len(labels),
        "positives": int(labels.sum()),
        "groups": _count_groups(cases),
        "auc": _auc(cases, labels, scores),
        "average_precision": average_precision(labels, scores) if both else None,
        "sensitivity": counts.sensitivity,
        "specificity": counts.specificity,
        "balanced_accuracy": counts.balanced_accuracy,
        "accuracy": counts.accuracy,
        "majority": _majority(labels),
        "ppv": counts.ppv,
        "npv": counts.npv,
        "confusion": counts._asdict(),
    }


def _many_classes(cases: pd.DataFrame, probabilities: Probabilities) -> dict[str, Any]:
    """Return macro figures over the classes that occur, and those of each against the rest."""
    labels = cases["label"].to_numpy()
    several = len(np.unique(labels)) > 1
    right = probabilities.argmax(axis=1) == labels
    each = {}
    for k, recall in enumerate(recalls(labels, probabilities)):
        mine, scores = (labels == k).astype(int), probabilities[:, k]
        each[str(k)] = {
            "n": int(mine.sum()),
            "auc": _auc(cases, mine, scores),
            "average_precision": average_precision(mine, scores) if 0 < mine.mean() < 1 else None,
            "sensitivity": recall,
        }
    return {
        "n": len(labels),
        "groups": _count_groups(cases),
        "auc": {
            "value": roc_auc(labels, probabilities) if several else None,
            "lower": None,
            "upper": None,
            "level": LEVEL,
            "method": "macro one-vs-rest",
            "reason": "intervals are given per class",
        },
        "average_precision": average_precision(labels, probabilities) if several else None,
        "balanced_accuracy": balanced_accuracy(labels, probabilities),
        "accuracy": float(right.mean()),
        "majority": _majority(labels),
        "quadratic_kappa": _kappa(cases, probabilities),
        "per_class": each,
    }


def _majority(labels: Labels) -> dict[str, Any]:
    """Return the most frequent class, and the accuracy of calling every case so."""
    counts = np.bincount(labels)
    return {"class": int(counts.argmax()), "accuracy": float(counts.max() / len(labels))}


def _kappa(cases: pd.DataFrame, probabilities: Probabilities) -> dict[str, Any]:
    """Return the agreement of grades; it means nothing where the labels have no order."""
    found = Bootstrapped(None, None, None, "all cases are of one class")
    if cases["label"].nunique() > 1:
        called = probabilities.argmax(axis=1)
        classes, groups = probabilities.shape[1], cases["group"]
        found = kappa_interval(cases["label"], called, classes, groups, LEVEL)
    return {**asdict(found), "level": LEVEL, "method": "group bootstrap"}


def _auc(cases: pd.DataFrame, labels: Labels, scores: Probabilities) -> dict[str, Any]:
    if (labels == labels[0]).all():
        empty = dict.fromkeys(("value", "lower", "upper", "standard_error"))
        reason = "the AUC is undefined: only one of the two classes occurs"
        return {**empty, "level": LEVEL, "method": None, "reason": reason}
    found = auc_interval(labels, scores, cases["group"], LEVEL)
    return {
        "value": found.auc,
        "lower": found.lower,
        "upper": found.upper,
        "standard_error": found.standard_error,
        "level": LEVEL,
        "method": found.method,
        "reason": found.reason,
    }


def _count_groups(cases: pd.DataFrame) -> int:
    return int(cases["group"].nunique() + cases["group"].isna().sum())
