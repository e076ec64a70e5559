"""Whether what arrives now still looks like what there was: statistic by statistic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.stats import ks_2samp

from attnvgg.errors import InputError

BINS = 10  # at most; quantiles of the reference
PER_BIN = 5  # cases of the smaller sample, on average
FLOOR = 0.5  # cases: what an empty bin counts for, as its logarithm has no value
LEAST = 20  # cases: fewer tell nothing of a distribution
ALPHA = 0.05  # of a false alarm in any of the statistics
LIMIT = 0.1  # PSI from which a change is worth a word, however certain it is
DRAWS = 4000
Values = NDArray[np.float64]
Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Drift:
    """How far a statistic of a period is from the reference.

    Attributes:
        name: of the statistic.
        reference: number of its values there.
        period: likewise.
        bins: into which they were sorted.
        psi: population stability index, see `population_stability`.
        expected: mean of the index without drift, see `expected_stability`.
        p: how often the index is so large without drift, in (0, 1].
        ks: largest distance of the two distribution functions (Kolmogorov and Smirnov).
        ks_p: its p-value.
        drifted: the index is at least `LIMIT`, p less than `ALPHA` over the number of statistics.
    """

    name: str
    reference: int
    period: int
    bins: int
    psi: float
    expected: float
    p: float
    ks: float
    ks_p: float
    drifted: bool = False


class Bins(NamedTuple):
    """Bins of a statistic: of few different values each is one, of many there are quantiles."""

    edges: Values
    is_discrete: bool

    def counts(self, values: Values) -> Counts:
        """Return how many values there are in each bin."""
        found = np.searchsorted(self.edges, values)  # (previous edge, edge]
        last = len(self.edges)
        if self.is_discrete:  # what no value of the reference equals is in the last bin
            known = self.edges[np.minimum(found, last - 1)] == values
            found = np.where(known, found, last)
        return np.bincount(found, minlength=last + 1)


def bins_of(reference: ArrayLike, count: int) -> Bins:
    """Return bins that hold equal parts of the reference, as far as it has different values."""
    values = np.asarray(reference, np.float64)
    different = np.unique(values)
    if len(different) <= count:
        return Bins(different, True)
    edges = np.quantile(values, np.arange(1, count) / count, method="inverted_cdf")
    edges = np.unique(edges)
    return Bins(edges[edges < different[-1]], False)  # nothing would lie above the largest


def population_stability(reference: ArrayLike, period: ArrayLike) -> NDArray[np.float64]:
    """Return the population stability index of counts (..., B).

    PSI = sum over bins of (q - p) log(q / p), with p the shares of the reference and q those of
    the period: the two Kullback-Leibler divergences together (Jeffreys). A bin that is empty in
    one of them counts for half a case there; one that is empty in both counts for nothing.
    """
    first, second = np.asarray(reference, np.float64), np.asarray(period, np.float64)
    p = np.maximum(first, FLOOR) / first.sum(-1, keepdims=True)
    q = np.maximum(second, FLOOR) / second.sum(-1, keepdims=True)
    terms = np.where((first > 0) | (second > 0), (q - p) * np.log(q / p), 0.0)
    return np.asarray(terms.sum(-1))


def expected_stability(reference: int, period: int, bins: int) -> float:
    """Return the mean of the index without drift: (1/n + 1/m) (B - 1).

    For large samples the index is (1/n + 1/m) times a chi-square of B - 1 degrees of freedom
    (Yurdakul, Statistical Properties of Population Stability Index, 2018): small periods have a
    large one by chance.
    """
    return (1 / reference + 1 / period) * (bins - 1)


def drift_of(name: str, reference: ArrayLike, period: ArrayLike, seed: int = 0) -> Drift:
    """Compare a statistic of a period with the reference; `drifted` is left to `compare`.

    p is simulated: the shares of the bins are drawn as the reference leaves them open (Dirichlet),
    cases of a period from these. It agrees with Yurdakul's chi-square where that holds, and holds
    for bins with few cases too. Cases are taken to be independent: a period with many pictures of
    few patients has a smaller p than it should.

    Args:
        name: of the statistic.
        reference: finite values.
        period: likewise.
        seed: of the simulation.

    Raises:
        InputError: there are less than `LEAST` values of either.
    """
    old, new = np.asarray(reference, np.float64), np.asarray(period, np.float64)
    if min(len(old), len(new)) < LEAST:
        raise InputError(
            f"There are {len(old)} values of {name} in the reference and {len(new)} in the period: "
            f"at least {LEAST} of both are needed."
        )
    bins = bins_of(old, int(np.clip(min(len(old), len(new)) // PER_BIN, 2, BINS)))
    first, second = bins.counts(old), bins.counts(new)
    used = int(((first > 0) | (second > 0)).sum())
    psi = float(population_stability(first, second))
    test = ks_2samp(old, new)
    return Drift(
        name, len(old), len(new), used, psi, expected_stability(len(old), len(new), used),
        _p_value(psi, first, len(new), seed), float(test.statistic), float(test.pvalue),
    )  # fmt: skip


def _p_value(psi: float, reference: Counts, period: int, seed: int) -> float:
    rng = np.random.default_rng(seed)
    # A bin that the reference never had is not impossible: it counts as one case there. Else a
    # single value that was not seen before would call it drift.
    shares = rng.dirichlet(np.where(reference > 0, reference, 1), DRAWS)
    drawn = population_stability(reference, rng.multinomial(period, shares))
    return float((1 + (drawn >= psi * (1 - 1e-12)).sum()) / (1 + DRAWS))


def compare(
    reference: pd.DataFrame, period: pd.DataFrame, names: Sequence[str], seed: int = 0
) -> tuple[list[Drift], dict[str, str]]:
    """Compare statistics of a period with the reference.

    Args:
        reference: a column a statistic; values that are missing are left out.
        period: likewise.
        names: of the columns.
        seed: of the simulations.

    Returns:
        What was compared, and by name why the others were not.

    Raises:
        InputError: nothing can be compared.
    """
    found, left_out = [], {}
    for name in names:
        try:
            old, new = (_finite(table, name) for table in (reference, period))
            found.append(drift_of(name, old, new, seed))
        except InputError as error:
            left_out[name] = error.message
    if not found:
        raise InputError("None of the statistics can be compared:", left_out.values())
    level = ALPHA / len(found)
    judged = [replace(one, drifted=one.psi >= LIMIT and one.p < level) for one in found]
    return judged, left_out


def _finite(table: pd.DataFrame, name: str) -> Values:
    if name not in table:
        return np.empty(0)
    values = pd.to_numeric(table[name], errors="coerce").to_numpy(np.float64)
    return values[np.isfinite(values)]
