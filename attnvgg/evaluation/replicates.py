"""Intervals of any figures of weighted cases: the same resampled patients for all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from attnvgg.evaluation.bootstrap import (
    LEVEL,
    METHOD,
    RESAMPLES,
    SEED,
    percentiles,
    strata_of,
)
from attnvgg.evaluation.intervals import group_codes

Values = NDArray[np.float64]
Figures = Callable[[Values], dict[str, Values]]

CELLS = 2**19  # weights at once: the arrays of a step stay within the processor's cache


class Resampling:
    """Whole groups drawn with replacement, among those with the same highest label.

    Of two classes that is: with and without a positive case; see `strata_of`. The draws
    depend on groups and labels only, so two models of the same cases see the same replicates.

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
        self.strata = strata_of(highest)
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
    figures: Figures, resampling: Resampling, level: float = LEVEL
) -> dict[str, dict[str, Any]]:
    """Return each figure with its percentiles over the replicates.

    Args:
        figures: from weights (R, n) to figures (R,) by name, NaN where undefined.
        resampling: of the cases.
        level: intended coverage.

    Returns:
        By name `value, lower, upper, level, method, reason`; what is undefined is None, and
        `reason` says why.
    """
    values = figures(np.ones((1, len(resampling.codes))))
    drawn = replicates(figures, resampling)
    found = {}
    for name, value in values.items():
        figure = percentiles(float(value[0]), drawn[name], level)
        method = None if figure.lower is None else METHOD
        found[name] = {**asdict(figure), "level": level, "method": method}
    return found


def replicates(figures: Figures, resampling: Resampling) -> dict[str, Values]:
    """Return the figures of all replicates, (R, ...) by name."""
    parts = [figures(weights) for weights in resampling.weights()]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def undefined(reason: str, level: float = LEVEL) -> dict[str, Any]:
    """Return a figure that there is not."""
    empty = dict.fromkeys(("value", "lower", "upper"))
    return {**empty, "level": level, "method": None, "reason": reason}
