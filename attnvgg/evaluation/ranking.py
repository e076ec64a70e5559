"""Figures of two classes for many weightings of the same cases: one sort serves all of them.

A resampled set is the old set with whole numbers as weights, and its curves are cumulative sums
of the weights in the order of the scores. A weighting of ones gives the figures themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import numpy as np
from numpy.typing import ArrayLike, NDArray

from attnvgg.errors import InputError
from attnvgg.evaluation.metrics import checked

Values = NDArray[np.float64]

LOWEST_TPR = 0.8
BINS = 15
FIGURES = ("auc", "average_precision", "partial_auc", "brier")
RATES = ("sensitivity", "specificity", "balanced_accuracy", "accuracy", "ppv", "npv")


class Ranking:
    """Cases of two classes in the order of their scores, highest first.

    Args:
        labels: 0 or 1, (n,).
        probabilities: of class 1, (n,).

    Raises:
        InputError: no cases, or labels and probabilities that cannot be judged.
    """

    def __init__(self, labels: ArrayLike, probabilities: ArrayLike) -> None:
        classes, values = checked(labels, probabilities, both=False)
        if values.ndim != 1 or values.min() < 0 or values.max() > 1:
            raise InputError("A ranking needs one probability in [0, 1] a case.")
        self.order = np.argsort(-values, kind="stable")
        self.scores = values[self.order]
        self.positive = (classes == 1)[self.order]
        self.ends = np.append(np.flatnonzero(np.diff(self.scores)), len(values) - 1)  # of ties

    def figures(
        self,
        weights: Values,
        threshold: float | None = None,
        names: Collection[str] = FIGURES,
    ) -> dict[str, Values]:
        """Return figures, for each of R weightings.

        Args:
            weights: whole numbers, of the cases in their first order, (R, n).
            threshold: of the decision; without one, `RATES` are left out.
            names: those of `FIGURES` that are wanted.

        Returns:
            They and `RATES`, (R,) each; NaN where undefined.
        """
        ordered = weights[:, self.order]
        hits, alarms = self._curves(ordered)
        totals, errors = hits[:, -1] + alarms[:, -1], (self.scores - self.positive) ** 2
        ways: dict[str, Callable[[], Values]] = {
            "auc": lambda: area(hits, alarms),
            "average_precision": lambda: average_precision_of(hits, alarms),
            "partial_auc": lambda: partial_area(hits, alarms),
            "brier": lambda: ordered @ errors / totals,
        }
        with np.errstate(invalid="ignore", divide="ignore"):
            found = {name: way() for name, way in ways.items() if name in names}
        return found if threshold is None else found | self._rates(hits, alarms, threshold)

    def rates(self, weights: Values, threshold: float) -> dict[str, Values]:
        """Return `RATES` of the decision score >= threshold, (R,) each; NaN where undefined."""
        return self._rates(*self.curves(weights), threshold)

    def counts(self, weights: Values, thresholds: ArrayLike) -> tuple[Values, Values]:
        """Return true and false positives of the decision score >= threshold.

        Args:
            weights: see `figures`.
            thresholds: (T,).

        Returns:
            (R, T) and (R, T).
        """
        hits, alarms = self.curves(weights)
        places = self._places(thresholds)
        return hits[:, places], alarms[:, places]

    def calibration_error(self, positive: NDArray[np.bool_] | None = None) -> Values:
        """Return the expected calibration error over bins of equal count, (R,).

        The mean over the bins of |mean probability - share of positives|.

        Args:
            positive: labels to judge by instead of those of the cases, in the order of the scores,
                (R, n).
        """
        labels = self.positive[None] if positive is None else positive
        excess = np.diff(self.in_bins(self.scores - labels, BINS))
        found: Values = np.abs(excess).sum(axis=1) / len(self.order)
        return found

    def in_bins(self, values: Values, bins: int) -> Values:
        """Return the cumulative sums of values at the edges of bins of equal count, (R, bins + 1).

        A tie is spread evenly over the bins that it lies in, so nothing depends on the order of
        equal scores.

        Args:
            values: in the order of the scores, (R, n).
            bins: their number.
        """
        called, sums = np.append(0, self.ends + 1), self._cumulative(values)
        edges = np.linspace(0, len(self.order), bins + 1)
        after = np.searchsorted(called, edges[1:])
        share = (edges[1:] - called[after - 1]) / (called[after] - called[after - 1])
        found = np.zeros((len(values), bins + 1))
        found[:, 1:] = sums[:, after - 1] * (1 - share) + sums[:, after] * share
        return found

    def curves(self, weights: Values) -> tuple[Values, Values]:
        """Return true and false positives when more and more is called positive, (R, E + 1).

        The first column is 0; the others are thresholds at the E different scores, highest first.
        """
        return self._curves(weights[:, self.order])

    def _curves(self, ordered: Values) -> tuple[Values, Values]:
        hits = self._cumulative(ordered * self.positive)
        return hits, self._cumulative(ordered) - hits

    def _places(self, thresholds: ArrayLike) -> NDArray[np.intp]:
        """Return the columns of the curves that belong to thresholds."""
        called = np.searchsorted(-self.scores, -np.asarray(thresholds, np.float64), "right")
        found: NDArray[np.intp] = np.searchsorted(self.ends, called)
        return found

    def _rates(self, hits: Values, alarms: Values, threshold: float) -> dict[str, Values]:
        (place,) = self._places([threshold])
        positives, negatives = hits[:, -1], alarms[:, -1]
        found, alarmed = hits[:, place], alarms[:, place]
        quiet = negatives - alarmed
        with np.errstate(invalid="ignore", divide="ignore"):
            sensitivity, specificity = found / positives, quiet / negatives
            return {
                "sensitivity": sensitivity,
                "specificity": specificity,
                "balanced_accuracy": (sensitivity + specificity) / 2,
                "accuracy": (found + quiet) / (positives + negatives),
                "ppv": found / (found + alarmed),
                "npv": quiet / (quiet + positives - found),
            }

    def _cumulative(self, ordered: Values) -> Values:
        sums = np.zeros((len(ordered), len(self.ends) + 1))
        whole = np.cumsum(ordered, axis=1)
        sums[:, 1:] = whole if len(self.ends) == whole.shape[1] else whole[:, self.ends]
        return sums


def area(hits: Values, alarms: Values) -> Values:
    """Return the area under ROC curves, (R,); `hits` and `alarms` are (R, E + 1)."""
    doubled = np.einsum("re,re->r", np.diff(alarms), hits[:, 1:] + hits[:, :-1])
    found: Values = doubled / 2 / (hits[:, -1] * alarms[:, -1])
    return found


def partial_area(hits: Values, alarms: Values, lowest: float = LOWEST_TPR) -> Values:
    """Return the area between ROC curves and the line TPR = `lowest`, from 0 to 1 - `lowest`.

    The measure of the ISIC 2024 challenge. Only the one step that crosses the line is no
    trapezium: it begins where the curve meets the line.
    """
    positives = hits[:, -1:]
    above = np.maximum(hits / positives - lowest, 0)
    steps = np.diff(alarms)
    doubled = np.einsum("re,re->r", steps, above[:, 1:] + above[:, :-1])
    rows = np.arange(len(hits))
    crossing = (above[:, 1:] > 0).argmax(axis=1)
    height = above[rows, crossing + 1]
    rise = (hits[rows, crossing + 1] - hits[rows, crossing]) / positives[:, 0]
    starts_below = above[rows, crossing] == 0
    share = np.where(starts_below & (rise > 0), height / np.where(rise > 0, rise, 1), 1)
    doubled -= steps[rows, crossing] * height * (1 - share)
    found: Values = doubled / 2 / alarms[:, -1]
    return found


def average_precision_of(hits: Values, alarms: Values) -> Values:
    """Return the sum of precision times gain in recall (no interpolation), (R,)."""
    precision = hits[:, 1:] / np.maximum(hits[:, 1:] + alarms[:, 1:], 1)
    gained = np.einsum("re,re->r", np.diff(hits), precision)
    found: Values = np.where(alarms[:, -1] > 0, gained / hits[:, -1], np.nan)
    return found
