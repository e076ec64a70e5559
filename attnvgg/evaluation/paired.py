"""Two models on the same cases: how much better one is, and how sure that is."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
from numpy.typing import ArrayLike
from scipy.special import stdtr

from attnvgg.errors import InputError
from attnvgg.evaluation.bootstrap import LEVEL
from attnvgg.evaluation.intervals import component_spread, structural_components
from attnvgg.evaluation.metrics import checked
from attnvgg.evaluation.replicates import undefined


def auc_difference(
    labels: ArrayLike,
    scores: ArrayLike,
    others: ArrayLike,
    groups: ArrayLike | None = None,
    level: float = LEVEL,
) -> dict[str, Any]:
    """Return AUC(scores) - AUC(others) with its interval and two-sided p-value.

    The structural components of a difference of two AUC are the differences of theirs, so its
    variance is that of DeLong et al. 1988, eq. 5 to 7, or Obuchowski 1997 where groups repeat.

    Args:
        labels: 0 or 1, (n,).
        scores: of one model, (n,).
        others: of the other one, (n,).
        groups: see `auc_interval`.
        level: intended coverage, in (0, 1).

    Returns:
        `value, lower, upper, level, method, reason` and `p_value`.

    Raises:
        InputError: no cases, only one class, or scores that are not finite numbers.
    """
    positive = checked(labels, scores)[0] == 1
    parts = []
    for values in (scores, others):
        array = checked(labels, values)[1]
        parts.append(structural_components(array[positive], array[~positive]))
    v10, v01 = (first - second for first, second in zip(*parts, strict=True))
    spread = component_spread(v10, v01, positive, groups)
    method, variance, degrees = spread
    difference = float(v10.mean())
    if variance is None or variance < 1e-24:  # zero but for rounding
        reason = (
            "the interval needs two groups or cases of each class"
            if variance is None
            else "both models rank all cases alike"
        )
        return {**undefined(reason, level), "value": difference, "p_value": None}
    error = math.sqrt(variance)
    reach = spread.quantile(level) * error
    return {
        "value": difference,
        "lower": difference - reach,
        "upper": difference + reach,
        "level": level,
        "method": method,
        "reason": None,
        "p_value": float(2 * stdtr(degrees, -abs(difference) / error)),
    }


def aligned(table: pd.DataFrame, other: pd.DataFrame, split: str) -> pd.DataFrame:
    """Return the rows of `other` that belong to a split of `table`, in its order.

    Args:
        table: checked predictions, of which the split is judged.
        other: checked predictions of the other model.
        split: val or test.

    Raises:
        InputError: they are not of the same cases, or do not agree on a label.
    """
    mine = table[table["split"] == split].set_index("image")
    theirs = other[other["split"] == split].set_index("image")
    strangers = mine.index.symmetric_difference(theirs.index)
    if len(strangers):
        raise InputError(
            f"The two models judge different {split} cases; these {len(strangers)} are of one of "
            "them only:",
            [f"{name} (only of the {_side(name, mine)})" for name in strangers],
        )
    theirs = theirs.loc[mine.index]
    apart = mine.index[(mine["label"] != theirs["label"]).to_numpy()]
    if len(apart):
        raise InputError(
            f"The two models disagree on what {len(apart)} cases are; their labels:",
            [f"{k}: {mine.loc[k, 'label']} and {theirs.loc[k, 'label']}" for k in apart],
        )
    return theirs.reset_index()


def _side(name: str, mine: pd.DataFrame) -> str:
    return "first" if name in mine.index else "other"
