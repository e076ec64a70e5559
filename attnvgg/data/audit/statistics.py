"""Whether two columns of a data set go together by more than chance, and by how much.

Several pictures of a patient are not several witnesses: tests take whole groups for independent,
not their pictures. And with 60,000 pictures everything differs significantly from everything else,
so nothing is called a finding unless its size matters, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import ks_2samp, norm

Z = float(norm.ppf(0.975))
FEWEST = 5  # groups behind a number before it is trusted


class OddsRatio(NamedTuple):
    """Odds of a sign among positives over its odds among the others."""

    estimate: float
    low: float
    """Of the interval of 95 %."""
    high: float
    p_value: float | None
    """Of no association (two-sided); None if too few groups show the sign, or lack it."""
    counted: str
    """pictures, or groups."""


def odds_ratio(
    sign: NDArray[np.bool_], positive: NDArray[np.bool_], groups: NDArray[np.int64]
) -> OddsRatio | None:
    """Return the odds ratio with an interval that takes groups for units; None if undefined.

    The variance of the log odds ratio is the sum over groups of the squared sum of influences

        +(sign_i - p1) / (n1 p1 (1 - p1)) for positives, -(sign_i - p0) / (n0 p0 (1 - p0)) else

    (linearisation, with G / (G - 1)); with one picture a group this is Woolf's (1955) sum of the
    reciprocals of the four counts. Where fewer than `FEWEST` groups are behind one of these, a
    single patient may make the ratio: then groups are counted; see `_of_groups`. Since one large
    group may carry the rest, too, the p-value is at least that of the score test that is robust to
    groups (Boos 1992): of 60 patients with 1 to 60 pictures, Wald's errs in 4 % at a level of 1 %.

    Args:
        sign: whether a picture shows it, (N,).
        positive: whether it is of the class asked about, (N,).
        groups: number of its group, from 0, (N,).
    """
    if not (sign.any() and positive.any()) or sign.all() or positive.all():
        return None
    cells = [groups[(sign == s) & (positive == p)] for p in (True, False) for s in (True, False)]
    if min(len(np.unique(cell)) for cell in cells) < FEWEST:
        return _of_groups(sign, positive, groups)
    rates = {side: sign[positive == side].mean() for side in (True, False)}
    rate = np.where(positive, rates[True], rates[False])
    size = np.where(positive, positive.sum(), -(~positive).sum())
    influence = np.bincount(groups, (sign - rate) / (size * rate * (1 - rate)))
    units = len(np.unique(groups))
    variance = max(float((influence**2).sum()) * units / (units - 1), 1e-12)
    found = _wald(np.array([len(cell) for cell in cells]), variance, "pictures")
    score = np.bincount(groups, (sign - sign.mean()) * (positive - positive.mean()))
    p_value = float(2 * norm.sf(abs(score.sum()) / np.sqrt((score**2).sum())))
    return found._replace(p_value=max(p_value, found.p_value or 0.0))


def _of_groups(
    sign: NDArray[np.bool_], positive: NDArray[np.bool_], groups: NDArray[np.int64]
) -> OddsRatio:
    """Return the odds ratio of groups, with Woolf's interval.

    A group counts once among the positives if it has any, once among the others if it has any, and
    shows the sign there if one of those pictures does. Half a group is added to each cell if one is
    empty (Haldane and Anscombe).
    """
    counts = []
    for side in (True, False):
        shown = len(np.unique(groups[sign & (positive == side)]))
        counts += [shown, len(np.unique(groups[positive == side])) - shown]
    cells = np.array(counts) + (0.5 if min(counts) == 0 else 0.0)
    counted = "groups" if len(np.unique(groups)) < len(groups) else "pictures"
    found = _wald(cells, float((1 / cells).sum()), counted)
    fewest = min(len(np.unique(groups[sign == side])) for side in (True, False))
    return found if fewest >= FEWEST else found._replace(p_value=None)


def _wald(cells: NDArray[Any], variance: float, counted: str) -> OddsRatio:
    """Return the odds ratio of four cells, given the variance of its logarithm."""
    log, error = float(np.log(cells[0] * cells[3] / (cells[1] * cells[2]))), np.sqrt(variance)
    estimate, low, high = np.exp([log, log - Z * error, log + Z * error]).tolist()
    return OddsRatio(estimate, low, high, float(2 * norm.sf(abs(log) / error)), counted)


class Shift(NamedTuple):
    """How far two samples of a number are apart."""

    standardised: float
    """Difference of the means in units of the pooled standard deviation."""
    largest: float
    """Kolmogorov-Smirnov: the largest difference of the two distribution functions."""
    p_value: float
    """Of the same, among groups: one value each, their median."""


def shift(first: NDArray[Any], second: NDArray[Any], units: Sequence[NDArray[Any]]) -> Shift:
    """Return how far `second` lies from `first`.

    Args:
        first: values of the pictures of one split.
        second: of another one.
        units: the values of both again, a value a group.
    """
    spread = np.sqrt((first.var() + second.var()) / 2)
    apart = second.mean() - first.mean()
    if spread < 1e-9:
        standardised = 0.0 if abs(apart) < 1e-9 else float(np.sign(apart) * 99)
    else:
        standardised = float(np.clip(apart / spread, -99, 99))
    largest = float(ks_2samp(first, second).statistic)
    return Shift(standardised, largest, float(ks_2samp(*units).pvalue))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number (Holm 1979), in the order given.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    values = np.asarray(p_values, dtype=float)
    order = np.argsort(values)
    stepped = values[order] * np.arange(len(values), 0, -1)
    corrected = np.empty(len(values))
    corrected[order] = np.minimum(np.maximum.accumulate(stepped), 1.0)
    return [float(value) for value in corrected]
