"""Do probabilities mean what they say? Temperature, reliability, another prevalence."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize, minimize_scalar
from scipy.special import expit, log_softmax, softmax

from attnvgg.evaluation.bootstrap import LEVEL, RESAMPLES, SEED
from attnvgg.evaluation.intervals import group_codes, wilson_interval
from attnvgg.evaluation.ranking import BINS, Ranking

Values = NDArray[np.float64]

CERTAIN = 1e-7  # a probability closer to 0 or 1 has a logit that says nothing
WIDEST_RATIO = 1000
WIDEST = float(np.log(WIDEST_RATIO))  # of the logarithm of a temperature
CELLS = 2**19  # labels drawn at once
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


def fit_sigmoid(labels: ArrayLike, logits: Values) -> tuple[float, float]:
    """Return slope and intercept that make probabilities of logits.

    Platt, Advances in Large Margin Classifiers 1999: the intercept repairs what a temperature
    cannot, a training set with another share of positives. His smoothed targets keep both finite
    where the classes are separated; the slope is at least 0, so that no ranking is turned round.

    Args:
        labels: 0 or 1 of validation, both there, (n,).
        logits: of class 1, (n,).
    """
    positive = np.asarray(labels) == 1
    hits, rest = positive.sum(), (~positive).sum()
    targets = np.where(positive, (hits + 1) / (hits + 2), 1 / (rest + 2))

    def loss(both: Values) -> tuple[float, Values]:
        scaled = both[0] * logits + both[1]
        apart = (expit(scaled) - targets) / len(logits)
        mean = float(np.mean(np.logaddexp(0, scaled) - targets * scaled))
        return mean, np.array([apart @ logits, apart.sum()])

    start = np.array([1.0, 0.0])
    tight = {"ftol": 1e-14, "gtol": 1e-9}
    found = minimize(loss, start, jac=True, bounds=[(0, None), (None, None)], options=tight).x
    return float(found[0]), float(found[1])


def calibration_figure(
    labels: ArrayLike, probabilities: ArrayLike, groups: ArrayLike, level: float = LEVEL
) -> dict[str, Any]:
    """Return the expected calibration error, and how large it is by chance.

    It has no confidence interval: noise only makes it larger, so resampled sets lie above it and
    their percentiles miss the 0 of a calibrated model. Instead labels are drawn from the
    probabilities (Broecker & Smith, Weather and Forecasting 2007): a calibrated model has up to
    that much. All cases of a group have one label where they do in truth; else each has its own.

    Args:
        labels: 0 or 1, (n,).
        probabilities: of class 1, (n,).
        groups: of each case, (n,).
        level: share of calibrated models with no larger error.

    Returns:
        As `with_intervals`, `reason` being what chance gives; and `chance`, the same number.
    """
    ranking = Ranking(labels, probabilities)
    value = float(ranking.calibration_error()[0])
    codes, count = group_codes(groups, len(ranking.order))[ranking.order], len(ranking.order)
    sick = np.bincount(codes, ranking.positive)
    alone = bool(((sick > 0) & (sick < np.bincount(codes))).any())  # groups of both labels
    codes = np.arange(count) if alone else codes
    random, found = np.random.default_rng(SEED), []
    step = max(1, CELLS // count)
    for start in range(0, RESAMPLES, step):
        drawn = random.random((min(step, RESAMPLES - start), codes.max() + 1))
        found.append(ranking.calibration_error(drawn[:, codes] < ranking.scores))
    chance = float(np.quantile(np.concatenate(found), level))
    reason = f"by chance up to {chance:.3f}" + (", cases taken as independent" if alone else "")
    limits = {"lower": None, "upper": None, "level": level, "method": None}
    return {"value": value, **limits, "reason": reason, "chance": chance}


def log_loss(labels: ArrayLike, logits: Values) -> float:
    """Return the mean of -log softmax(logits) at the labels."""
    classes = np.asarray(labels)
    return float(-log_softmax(logits, axis=1)[np.arange(len(classes)), classes].mean())


def reliability(labels: ArrayLike, probabilities: ArrayLike, bins: int = BINS) -> dict[str, Any]:
    """Return the points of a reliability diagram, from the bins of the calibration error.

    Args:
        labels: 0 or 1, (n,).
        probabilities: of class 1, (n,).
        bins: their number; fewer where there are fewer cases.

    Returns:
        Lists `probability` (mean of a bin), `share` (of positives), `lower`, `upper` (Wilson's
        95 % interval) and `n`, no whole number where a case lies in two bins.
    """
    ranking = Ranking(labels, probabilities)
    bins = min(bins, len(ranking.order))
    size = len(ranking.order) / bins
    both = np.stack([ranking.scores, ranking.positive])
    means, shares = np.diff(ranking.in_bins(both, bins))[:, ::-1].clip(0, size) / size
    limits = [wilson_interval(share * size, size) for share in shares]
    return {
        "probability": means.tolist(),
        "share": shares.tolist(),
        "lower": [lower for lower, _ in limits],
        "upper": [upper for _, upper in limits],
        "n": [size] * bins,
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
