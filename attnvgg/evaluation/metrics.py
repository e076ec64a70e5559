"""Figures of merit over a whole set: ranking, decisions at a threshold, the threshold itself.

Labels are integers (n,), 0..K-1. Scores are (n,), or (n, 2) of which column 1 counts, for two
classes; and (n, K) for more, where AUC and average precision are macro averages of one class
against the rest.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import average_precision_score, roc_auc_score

from attnvgg.errors import InputError

Labels = NDArray[np.int64]
Scores = NDArray[np.float64]


class Confusion(NamedTuple):
    """Counts of decisions; a rate whose denominator is zero is None."""

    true_positives: int
    false_positives: int
    true_negatives: int
    false_negatives: int

    @property
    def sensitivity(self) -> float | None:
        """Return the share of the positives that are called positive."""
        return _ratio(self.true_positives, self.true_positives + self.false_negatives)

    @property
    def specificity(self) -> float | None:
        """Return the share of the negatives that are called negative."""
        return _ratio(self.true_negatives, self.true_negatives + self.false_positives)

    @property
    def ppv(self) -> float | None:
        """Return the share of the positive calls that are right."""
        return _ratio(self.true_positives, self.true_positives + self.false_positives)

    @property
    def npv(self) -> float | None:
        """Return the share of the negative calls that are right."""
        return _ratio(self.true_negatives, self.true_negatives + self.false_negatives)

    @property
    def accuracy(self) -> float | None:
        """Return the share of all calls that are right."""
        return _ratio(self.true_positives + self.true_negatives, sum(self))

    @property
    def balanced_accuracy(self) -> float | None:
        """Return the mean of sensitivity and specificity."""
        if self.sensitivity is None or self.specificity is None:
            return None
        return (self.sensitivity + self.specificity) / 2


def roc_auc(labels: ArrayLike, scores: ArrayLike) -> float:
    """Return the area under the ROC curve: how often a positive outranks a negative.

    Raises:
        InputError: no cases, only one class, or scores that are not finite numbers.
    """
    return _one_vs_rest(roc_auc_score, *checked(labels, scores))


def average_precision(labels: ArrayLike, scores: ArrayLike) -> float:
    """Return the average precision; that of a random ranking is the share of positives.

    Raises:
        InputError: no cases, only one class, or scores that are not finite numbers.
    """
    return _one_vs_rest(average_precision_score, *checked(labels, scores))


def choose_threshold(labels: ArrayLike, scores: ArrayLike, sensitivity: float = 0.90) -> float:
    """Return the highest threshold whose sensitivity is at least the one asked for.

    A case is called positive when score >= threshold, so the answer is the score of the last
    positive that is needed, and positives tied with it are called too.

    Raises:
        InputError: only one class, scores that are not finite, or a sensitivity outside (0, 1].
    """
    if not 0 < sensitivity <= 1:
        raise InputError(f"A sensitivity of {sensitivity} cannot be asked for: it lies in (0, 1].")
    classes, values = checked(labels, scores)
    positives = np.sort(_single(values)[classes == 1])[::-1]
    needed = math.ceil(sensitivity * len(positives) - 1e-9)  # 0.28 * 25 is a hair above 7
    return float(positives[max(needed, 1) - 1])


def confusion(labels: ArrayLike, scores: ArrayLike, threshold: float) -> Confusion:
    """Return the counts of the decision score >= threshold; one class alone will do.

    Raises:
        InputError: no cases, or scores that are not finite numbers.
    """
    classes, values = checked(labels, scores, both=False)
    called, positive = _single(values) >= threshold, classes == 1
    return Confusion(
        true_positives=int(np.sum(called & positive)),
        false_positives=int(np.sum(called & ~positive)),
        true_negatives=int(np.sum(~called & ~positive)),
        false_negatives=int(np.sum(~called & positive)),
    )


def recalls(labels: ArrayLike, scores: ArrayLike) -> list[float | None]:
    """Return, for each of K classes, the share of its cases whose highest score it is.

    Args:
        labels: classes (n,).
        scores: (n, K).
    """
    classes, values = checked(labels, scores, both=False)
    right = values.argmax(axis=1) == classes
    return [
        _ratio(int(right[classes == k].sum()), int((classes == k).sum()))
        for k in range(values.shape[1])
    ]


def balanced_accuracy(labels: ArrayLike, scores: ArrayLike) -> float:
    """Return the mean recall of the classes that occur, each case called its highest score."""
    return float(np.mean([recall for recall in recalls(labels, scores) if recall is not None]))


def checked(labels: ArrayLike, scores: ArrayLike, both: bool = True) -> tuple[Labels, Scores]:
    """Return labels and scores as arrays that can be judged.

    Args:
        labels: classes (n,).
        scores: (n,) or (n, K).
        both: refuse a set with one class only.

    Raises:
        InputError: they cannot be judged.
    """
    classes, values = np.asarray(labels), np.asarray(scores, dtype=np.float64)
    if classes.ndim != 1 or values.ndim not in (1, 2) or len(classes) != len(values):
        raise InputError(
            f"Labels {classes.shape} and scores {values.shape} do not belong together."
        )
    if not len(classes):
        raise InputError("There are no cases to judge.")
    broken = ~np.isfinite(values.reshape(len(values), -1)).all(axis=1)
    if broken.any():
        raise InputError(f"{broken.sum()} scores are not finite numbers, in rows:", _rows(broken))
    count = values.shape[1] if values.ndim == 2 else 2
    alien = ~np.isin(classes, np.arange(count))
    if alien.any():
        raise InputError(f"{alien.sum()} labels are not in 0..{count - 1}, in rows:", _rows(alien))
    if both and (classes == classes[0]).all():
        raise InputError(
            f"All {len(classes)} cases have label {classes[0]}: two classes are needed."
        )
    return classes.astype(np.int64), values


def _one_vs_rest(figure: Callable[..., float], classes: Labels, values: Scores) -> float:
    if values.ndim == 1 or values.shape[1] <= 2:
        return float(figure(classes == 1, _single(values)))
    # A class without a case has no figure of its own: the mean is over those that have.
    return float(np.mean([figure(classes == k, values[:, k]) for k in np.unique(classes)]))


def _single(values: Scores) -> Scores:
    """Return the one score (n,) of two classes."""
    if values.ndim == 2 and values.shape[1] > 2:
        raise InputError(f"{values.shape[1]} classes have no single threshold.")
    return values if values.ndim == 1 else values[:, -1]


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _rows(marked: ArrayLike) -> list[int]:
    return [int(row) for row in np.flatnonzero(marked)]
