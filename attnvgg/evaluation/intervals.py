"""How sure an AUC is: DeLong's interval, and Obuchowski's where cases come in groups.

DeLong, DeLong & Clarke-Pearson, Biometrics 1988, by the fast algorithm of Sun & Xu, IEEE Signal
Processing Letters 2014; Obuchowski, Biometrics 1997, for clustered data. Notation of the latter:
m diseased cases X, n non-diseased cases Y, A the AUC, and the structural components
V10(X_i) = share of the Y below X_i, V01(Y_j) = share of the X above Y_j, ties counted half.

Of groups, the quantile is Student's with one degree of freedom less than the class with fewer
groups has: with the normal one the interval of 50 patients with 4 images each, 10 of them diseased,
covers as little as 90 % (benchmarks/evaluation.py).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtrit

from attnvgg.errors import InputError
from attnvgg.evaluation.metrics import checked

Values = NDArray[np.float64]
Codes = NDArray[np.intp]


class Spread(NamedTuple):
    """How far a mean of structural components is from the truth.

    `variance` is None where a class has too few groups; `degrees` of freedom are infinite for the
    normal distribution.
    """

    method: str
    variance: float | None
    degrees: float

    def quantile(self, level: float) -> float:
        """Return how many standard errors an interval reaches to either side."""
        return float(stdtrit(self.degrees, (1 + level) / 2))


@dataclass(frozen=True)
class AucInterval:
    """An AUC and its interval; `reason` says why the interval is None where it is."""

    auc: float
    lower: float | None
    upper: float | None
    standard_error: float | None
    method: str
    reason: str | None = None


def auc_interval(
    labels: ArrayLike, scores: ArrayLike, groups: ArrayLike | None = None, level: float = 0.95
) -> AucInterval:
    """Return the AUC with an interval that is symmetric on the logit scale.

    Args:
        labels: 0 or 1, (n,).
        scores: higher means more positive, (n,).
        groups: patient of each case, (n,); a missing one is a group of its own. Where any
            repeats, the variance is Obuchowski's ("obuchowski"), else DeLong's ("delong").
        level: intended coverage, in (0, 1).

    Raises:
        InputError: no cases, only one class, or scores that are not finite numbers.
    """
    if not 0 < level < 1:
        raise InputError(f"A level of {level} cannot be asked for: it lies in (0, 1).")
    classes, values = checked(labels, scores)
    if values.ndim != 1:
        raise InputError("An AUC interval needs one score a case.")
    positive = classes == 1
    v10, v01 = structural_components(values[positive], values[~positive])
    auc = float(v10.mean())
    spread = component_spread(v10, v01, positive, groups)
    method, variance, _ = spread
    reason = _undefined(auc, variance)
    if reason or variance is None:
        return AucInterval(auc, None, None, None, method, reason)
    error = math.sqrt(variance)
    reach = spread.quantile(level) * error / (auc * (1 - auc))
    centre = math.log(auc / (1 - auc))
    return AucInterval(auc, _expit(centre - reach), _expit(centre + reach), error, method)


def component_spread(
    v10: Values, v01: Values, positive: NDArray[np.bool_], groups: ArrayLike | None
) -> Spread:
    """Return the spread of the mean of components (of an AUC, or of the difference of two).

    Args:
        v10: (m,).
        v01: (n,).
        positive: which cases are the diseased ones, (m + n,).
        groups: see `auc_interval`.
    """
    codes = None if groups is None else group_codes(groups, len(positive))
    if codes is None or codes.max() + 1 == len(codes):
        return Spread("delong", _delong_variance(v10, v01), math.inf)
    of_x, of_y = codes[positive], codes[~positive]
    fewest = min(len(np.unique(of_x)), len(np.unique(of_y)))
    return Spread("obuchowski", _clustered_variance(v10, v01, of_x, of_y), max(fewest - 1, 1))


def structural_components(diseased: Values, healthy: Values) -> tuple[Values, Values]:
    """Return V10 (m,) and V01 (n,); the mean of either is the AUC.

    The mean of the left and the right insertion point is the difference of the two midranks of
    Sun & Xu (their eq. 5 and 6), so two sorts replace the m x n comparisons.
    """
    return _share_below(diseased, healthy), 1 - _share_below(healthy, diseased)


def _share_below(values: Values, others: Values) -> Values:
    order = np.argsort(values)
    queries, others = values[order], np.sort(others)  # sorted queries keep the search in cache
    places = np.searchsorted(others, queries, "left") + np.searchsorted(others, queries, "right")
    shares = np.empty(len(values))
    shares[order] = places / (2 * len(others))
    return shares


def _delong_variance(v10: Values, v01: Values) -> float | None:
    """Return var(A) = S10 / m + S01 / n, None where a class has a single case."""
    if min(len(v10), len(v01)) < 2:
        return None
    return float(v10.var(ddof=1) / len(v10) + v01.var(ddof=1) / len(v01))


def _clustered_variance(v10: Values, v01: Values, of_x: Codes, of_y: Codes) -> float | None:
    """Return var(A) = S10 / m + S01 / n + 2 S11 / (m n), Obuchowski 1997, eq. 5 to 7.

    `of_x` and `of_y` number the groups. The components are centred and summed within groups; the
    cross term S11 joins the diseased and the non-diseased cases of one group.
    """
    count = max(of_x.max(), of_y.max()) + 1
    auc, m, n = v10.mean(), len(v10), len(v01)
    x = np.bincount(of_x, v10 - auc, count) / m  # per group: (V10(X_i.) - m_i A) / m
    y = np.bincount(of_y, v01 - auc, count) / n
    with_x, with_y = len(np.unique(of_x)), len(np.unique(of_y))
    if min(with_x, with_y) < 2:
        return None
    return float(
        with_x / (with_x - 1) * (x @ x)
        + with_y / (with_y - 1) * (y @ y)
        + 2 * count / (count - 1) * (x @ y)
    )


def _undefined(auc: float, variance: float | None) -> str | None:
    """Return why there is no interval, or None."""
    if auc in (0.0, 1.0):
        return f"the interval is undefined at an AUC of exactly {auc:.0f}"
    if variance is None:
        return "the interval needs two groups or cases of each class"
    if variance < 1e-24:  # zero but for rounding
        return "the interval is undefined: all cases of a class rank alike"
    return None


def group_codes(groups: ArrayLike, count: int) -> Codes:
    """Return group numbers 0.., a missing group being one of its own.

    Raises:
        InputError: there are not as many groups as cases.
    """
    codes, names = pd.factorize(np.asarray(groups, dtype=object))
    if len(codes) != count:
        raise InputError(f"{len(codes)} groups and {count} cases do not belong together.")
    missing = codes < 0
    codes[missing] = len(names) + np.arange(missing.sum())
    return codes


def _expit(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def wilson_interval(hits: float, count: float, level: float = 0.95) -> tuple[float, float]:
    """Return the interval of a share of independent cases (Wilson, JASA 1927).

    Args:
        hits: cases that have it, from 0 to `count`; need not be whole (ties).
        count: cases, at least 1, likewise.
        level: intended coverage, in (0, 1).
    """
    share, z = hits / count, NormalDist().inv_cdf((1 + level) / 2)
    middle = share + z**2 / (2 * count)
    half = z * math.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    scale = 1 + z**2 / count
    return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)
