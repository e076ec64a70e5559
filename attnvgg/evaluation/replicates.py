"""Intervals of any figures of weighted cases: the same resampled patients for all of them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from attnvgg.evaluation.bootstrap import RESAMPLES, SEED
from attnvgg.evaluation.intervals import group_codes, wilson_interval

Values = NDArray[np.float64]
Figures = Callable[[Values], dict[str, Values]]

LEVEL = 0.95
CELLS = 2**19  # weights at once: the arrays of a step stay within the processor's cache
UNDEFINED = 0.05  # share of replicates without a figure at which its interval means nothing
BIASED = ("ece", "top_label_ece")  # resampling adds noise, and noise adds to the figure


class Resampling:
    """Whole groups drawn with replacement, among those with the same highest label.

    Of two classes that is: with and without a positive case. The draws depend on groups and
    labels only, so two models of the same cases see the same replicates.

    Args:
        groups: patient of each case, (n,); a missing one is a group of its own.
        labels: whole numbers, (n,).
        resamples: number of replicates.

    Attributes:
        repeats: whether a group has several cases.
    """

    def __init__(self, groups: ArrayLike, labels: ArrayLike, resamples: int = RESAMPLES) -> None:
        classes = np.asarray(labels)
        self.codes = group_codes(groups, len(classes))
        self.count, self.resamples = int(self.codes.max()) + 1, resamples
        highest = np.zeros(self.count, dtype=classes.dtype)
        np.maximum.at(highest, self.codes, classes)
        self.strata = [np.flatnonzero(highest == label) for label in np.unique(highest)]
        self.repeats = self.count < len(classes)

    def weights(self) -> Iterator[Values]:
        """Yield how often each case was drawn, (r, n) at a time, R rows in all."""
        random = np.random.default_rng(SEED)
        step = max(1, CELLS // len(self.codes))
        for start in range(0, self.resamples, step):
            rows = min(step, self.resamples - start)
            drawn = np.empty((rows, self.count))
            for members in self.strata:
                size = len(members)
                picks = random.integers(size, size=(rows, size)) + size * np.arange(rows)[:, None]
                counts = np.bincount(picks.ravel(), minlength=rows * size)
                drawn[:, members] = counts.reshape(rows, size)
            yield drawn[:, self.codes]


def with_intervals(
    figures: Figures,
    resampling: Resampling,
    level: float = LEVEL,
    biased: Collection[str] = BIASED,
) -> dict[str, dict[str, Any]]:
    """Return each figure with its percentiles over the replicates.

    Args:
        figures: from weights (R, n) to figures (R,) by name, NaN where undefined.
        resampling: of the cases.
        level: intended coverage.
        biased: names of figures that noise makes larger.

    Returns:
        By name `value, lower, upper, level, method, reason`; what is undefined is None, and
        `reason` says why.
    """
    values = figures(np.ones((1, len(resampling.codes))))
    drawn = replicates(figures, resampling)
    return {
        name: percentiles(float(value[0]), drawn[name], level, shifted=name.split()[0] in biased)
        for name, value in values.items()
    }


def replicates(figures: Figures, resampling: Resampling) -> dict[str, Values]:
    """Return the figures of all replicates, (R, ...) by name."""
    parts = [figures(weights) for weights in resampling.weights()]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def percentiles(
    value: float, drawn: Values, level: float = LEVEL, *, shifted: bool = False
) -> dict[str, Any]:
    """Return a figure with the percentiles of its replicates.

    Args:
        value: the figure, NaN where undefined.
        drawn: its replicates, (R,), likewise.
        level: intended coverage.
        shifted: subtract the bias of the replicates, for figures that noise makes larger.
    """
    if not np.isfinite(value):
        return undefined("it is undefined for these cases", level)
    known = drawn[np.isfinite(drawn)]
    missing = 1 - len(known) / len(drawn)
    if missing > UNDEFINED:
        reason = f"it is undefined in {missing:.0%} of the resampled sets"
        return {**undefined(reason, level), "value": value}
    lower, upper = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    method = "group bootstrap"
    if shifted:
        bias = known.mean() - value
        lower, upper, method = max(lower - bias, 0), upper - bias, f"{method}, less its bias"
    return {
        "value": value,
        "lower": float(lower),
        "upper": float(upper),
        "level": level,
        "method": method,
        "reason": None,
    }


def undefined(reason: str, level: float = LEVEL) -> dict[str, Any]:
    """Return a figure that there is not."""
    empty = dict.fromkeys(("value", "lower", "upper"))
    return {**empty, "level": level, "method": None, "reason": reason}


def share_of(
    found: dict[str, Any], among: NDArray[np.bool_], resampling: Resampling
) -> dict[str, Any]:
    """Return a share with Wilson's interval where the bootstrap's would be worse.

    Where no group repeats, Wilson's is made for it. A share of exactly 0 or 1 never changes when
    it is resampled; then the groups, not the cases, are counted.

    Args:
        found: the share, see `percentiles`.
        among: the cases that it is a share of, (n,).
        resampling: of all cases.
    """
    share, groups = found["value"], len(np.unique(resampling.codes[among]))
    if share is None or (groups < among.sum() and 0 < share < 1):
        return found
    lower, upper = wilson_interval(share * groups, groups, found["level"])
    method = "Wilson" if groups == among.sum() else "Wilson, of groups"
    return {**found, "lower": lower, "upper": upper, "method": method, "reason": None}
