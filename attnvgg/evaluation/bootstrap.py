"""How sure a figure is whose cases come in groups: whole groups are resampled."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from attnvgg.evaluation.intervals import group_codes, wilson_interval

Values = NDArray[np.float64]

RESAMPLES, SEED = 2000, 0


@dataclass(frozen=True)
class Bootstrapped:
    """A figure and the percentiles of it over resampled patients; None where it is undefined."""

    value: float | None
    lower: float | None
    upper: float | None


def share_interval(
    hits: NDArray[Any],
    positive: NDArray[np.bool_],
    groups: ArrayLike,
    level: float = 0.95,
) -> dict[str, Any]:
    """Return a share and its interval: Wilson's, or a group bootstrap where groups repeat.

    Of none or all, resampling would make a certainty: that is Wilson's, of as many cases as groups.

    Args:
        hits: of at least one case, (n,); ties may count in part.
        positive: see `group_bootstrap`.
        groups: likewise.
        level: intended coverage.

    Returns:
        `value, lower, upper, level, method`.
    """
    count, share = len(hits), float(hits.mean())
    several = int(group_codes(groups, count).max()) + 1
    if several == count or share in (0.0, 1.0):
        lower, upper = wilson_interval(share * several, several, level)
        method = "Wilson" if several == count else "Wilson on groups"
        found = Bootstrapped(share, lower, upper)
    else:
        both = np.stack([hits, np.ones(count)], axis=1)
        found = group_bootstrap(both, positive, lambda s: s[:, 0] / s[:, 1], groups, level)
        method = "group bootstrap"
    return {**asdict(found), "level": level, "method": method}


def group_bootstrap(
    values: Values,
    positive: NDArray[np.bool_],
    figure: Callable[[Values], Values],
    groups: ArrayLike | None = None,
    level: float = 0.95,
    resamples: int = RESAMPLES,
) -> Bootstrapped:
    """Return a figure of sums over all cases, and its percentiles over resampled groups.

    Groups with a positive case and groups without are resampled each among themselves.

    Args:
        values: what is summed, (n, V).
        positive: (n,).
        figure: from sums (R, V) to figures (R,), NaN where undefined.
        groups: of each case, (n,); a missing one, or none at all: each case is its own.
        level: intended coverage.
        resamples: R.

    Raises:
        InputError: there are not as many groups as cases.
    """
    codes = np.arange(len(values)) if groups is None else group_codes(groups, len(values))
    sums = np.zeros((codes.max() + 1, values.shape[1]))
    np.add.at(sums, codes, values)
    has_positive = np.zeros(len(sums), dtype=bool)
    np.logical_or.at(has_positive, codes, positive)
    random, total = np.random.default_rng(SEED), np.zeros((resamples, values.shape[1]))
    for stratum in (sums[has_positive], sums[~has_positive]):
        if len(stratum):
            even = np.full(len(stratum), 1 / len(stratum))
            total += random.multinomial(len(stratum), even, resamples) @ stratum
    value = float(figure(sums.sum(axis=0, keepdims=True))[0])
    found = figure(total)
    found = found[np.isfinite(found)]
    if not np.isfinite(value) or not len(found):
        return Bootstrapped(value if np.isfinite(value) else None, None, None)
    lower, upper = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
    return Bootstrapped(value, float(lower), float(upper))
