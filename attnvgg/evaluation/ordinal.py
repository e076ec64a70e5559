"""How well grades are told: quadratic weighted kappa."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from attnvgg.errors import InputError
from attnvgg.evaluation.bootstrap import RESAMPLES, Bootstrapped, Values, group_bootstrap


def quadratic_kappa(labels: ArrayLike, called: ArrayLike, classes: int) -> float | None:
    """Return Cohen's kappa with weights (i - j)^2 (Cohen, Psychol. Bull. 1968).

    Args:
        labels: grades (n,), integers from 0 to K - 1.
        called: those that were said, (n,).
        classes: K.

    Returns:
        1 for agreement, 0 for chance; None where all cases have, and are called, one same grade.

    Raises:
        InputError: see `kappa_interval`.
    """
    return kappa_interval(labels, called, classes, resamples=0).value


def kappa_interval(
    labels: ArrayLike,
    called: ArrayLike,
    classes: int,
    groups: ArrayLike | None = None,
    level: float = 0.95,
    resamples: int = RESAMPLES,
) -> Bootstrapped:
    """Return the kappa with an interval from resampling whole groups.

    Args:
        labels: grades (n,), integers from 0 to K - 1.
        called: those that were said, (n,).
        classes: K.
        groups: patient of each case, (n,); a missing one is a group of its own.
        level: intended coverage, in (0, 1).
        resamples: of the bootstrap, 0 for no interval.

    Raises:
        InputError: no cases, columns of different lengths, or grades outside 0 to K - 1.
    """
    truth, said = np.asarray(labels), np.asarray(called)
    if truth.ndim != 1 or truth.shape != said.shape or not truth.size:
        raise InputError(f"Grades {truth.shape} and calls {said.shape} do not belong together.")
    if not np.isin(np.stack([truth, said]), np.arange(classes)).all():
        raise InputError(f"Grades must be integers from 0 to {classes - 1}.")
    cells = np.eye(classes**2)[truth * classes + said]  # of the confusion matrix, (n, K K)

    def figure(sums: Values) -> Values:
        return _kappas(sums.reshape(-1, classes, classes))

    return group_bootstrap(cells, truth > 0, figure, groups, level, resamples)


def _kappas(matrices: Values) -> Values:
    """Return 1 - observed / expected disagreement of confusion matrices (R, K, K)."""
    grades = np.arange(matrices.shape[1])
    weights = (grades[:, None] - grades) ** 2
    observed = (matrices * weights).sum(axis=(1, 2))
    count = matrices.sum(axis=(1, 2))
    margins = matrices.sum(axis=2)[:, :, None] * matrices.sum(axis=1)[:, None, :]
    with np.errstate(invalid="ignore", divide="ignore"):
        expected = (margins * weights).sum(axis=(1, 2)) / count
        kappas: Values = np.where(expected > 0, 1 - observed / expected, np.nan)
    return kappas
