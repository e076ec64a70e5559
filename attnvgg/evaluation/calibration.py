"""Do probabilities mean what they say? Temperature, reliability, another prevalence."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from attnvgg.evaluation.intervals import wilson_interval
from attnvgg.evaluation.ranking import BINS

Values = NDArray[np.float64]

CERTAIN = 1e-7  # a probability closer to 0 or 1 has a logit that says nothing
WIDEST_RATIO = 1000
WIDEST = float(np.log(WIDEST_RATIO))  # of the logarithm of a temperature
AGREE = 1e-4  # how far probabilities may lie from those of the logits beside them


def read_logits(table: pd.DataFrame, probabilities: Values) -> Values:
    """Return logits (n, K), K >= 2, whose softmax are the probabilities.

    Those of the table where it has any that belong to the probabilities, else logarithms of the
    probabilities.

    Args:
        table: with `logit` or `logit_0..`, or without.
        probabilities: (n, 1) of class 1, or (n, K).
    """
    both = as_columns(probabilities)
    width = probabilities.shape[1]
    names = ["logit"] if width == 1 else [f"logit_{k}" for k in range(width)]
    if set(names) <= set(table.columns):
        found = table[names].apply(pd.to_numeric, errors="coerce").to_numpy(np.float64)
        found = np.hstack([np.zeros((len(found), 1)), found]) if width == 1 else found
        if np.isfinite(found).all() and np.abs(softmax(found, axis=1) - both).max() <= AGREE:
            return found
    return np.log(both.clip(CERTAIN, 1 - CERTAIN))


def as_columns(probabilities: Values) -> Values:
    """Return probabilities of all classes, (n, K), from those or from (n, 1) of class 1."""
    if probabilities.shape[1] > 1:
        return probabilities
    return np.hstack([1 - probabilities, probabilities])


def fit_temperature(labels: ArrayLike, logits: Values) -> dict[str, Any]:
    """Return the temperature T > 0 with the least log loss of softmax(logits / T).

    Guo et al., ICML 2017, section 4.2: one number, which changes no ranking and no decision of
    the most probable class.

    Args:
        labels: of validation, (n,).
        logits: (n, K).

    Returns:
        `temperature`, None where there is no least one, and `reason`.
    """
    classes = np.asarray(labels)
    if (classes == classes[0]).all():
        return {"temperature": None, "reason": "validation has one class only"}
    own = logits[np.arange(len(classes)), classes]
    if (own == logits.max(axis=1)).all():  # the colder, the better
        return {"temperature": None, "reason": "the model separates the classes of validation"}
    if own.mean() <= logits.mean():  # the slope of the loss at an infinite temperature
        why = "the model is no better than chance on validation"
        return {"temperature": None, "reason": why}
    found = minimize_scalar(
        lambda power: log_loss(classes, logits / np.exp(power)),
        bounds=(-WIDEST, WIDEST),
        method="bounded",
        options={"xatol": 1e-8},
    )
    if WIDEST - abs(found.x) < 1e-3:
        reason = f"it lies outside 1/{WIDEST_RATIO} to {WIDEST_RATIO}"
        return {"temperature": None, "reason": reason}
    return {"temperature": float(np.exp(found.x)), "reason": None}


def log_loss(labels: ArrayLike, logits: Values) -> float:
    """Return the mean of -log softmax(logits) at the labels."""
    classes = np.asarray(labels)
    return float(-log_softmax(logits, axis=1)[np.arange(len(classes)), classes].mean())


def reliability(labels: ArrayLike, probabilities: ArrayLike, bins: int = BINS) -> dict[str, Any]:
    """Return the points of a reliability diagram, from bins of equal count.

    Args:
        labels: 0 or 1, (n,).
        probabilities: of class 1, (n,).
        bins: their number; fewer where there are fewer cases.

    Returns:
        Lists `probability` (mean of a bin), `share` (of positives), `lower`, `upper` (Wilson's
        95 % interval) and `n`.
    """
    values, truth = np.asarray(probabilities, np.float64), np.asarray(labels)
    parts = np.array_split(np.argsort(values, kind="stable"), min(bins, len(values)))
    limits = [wilson_interval(float(truth[part].sum()), len(part)) for part in parts]
    return {
        "probability": [float(values[part].mean()) for part in parts],
        "share": [float(truth[part].mean()) for part in parts],
        "lower": [lower for lower, _ in limits],
        "upper": [upper for _, upper in limits],
        "n": [len(part) for part in parts],
    }


def at_prevalence(probabilities: ArrayLike, learned: float, stated: float) -> Values:
    """Return probabilities of class 1 corrected from one prevalence to another.

    Saerens et al., Neural Computation 2002, eq. 2.4: right where the classes look the same in both
    places and only their shares differ.

    Args:
        probabilities: (n,).
        learned: prevalence at which they are calibrated, in (0, 1).
        stated: prevalence where they will be used, in (0, 1).
    """
    values = np.asarray(probabilities, np.float64)
    sick, well = values * stated / learned, (1 - values) * (1 - stated) / (1 - learned)
    found: Values = sick / (sick + well)
    return found


def predictive_values(
    sensitivity: Values, specificity: Values, stated: float
) -> tuple[Values, Values]:
    """Return PPV and NPV at a stated prevalence, by Bayes' rule; NaN where nobody is called so."""
    hits, alarms = sensitivity * stated, (1 - specificity) * (1 - stated)
    misses, quiet = (1 - sensitivity) * stated, specificity * (1 - stated)
    with np.errstate(invalid="ignore", divide="ignore"):
        return hits / (hits + alarms), quiet / (quiet + misses)
