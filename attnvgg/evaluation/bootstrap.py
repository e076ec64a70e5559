"""How sure a figure is whose cases come in groups: whole groups are resampled."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from attnvgg.evaluation.intervals import group_codes, wilson_interval

Values = NDArray[np.float64]

RESAMPLES, SEED, LEVEL = 2000, 0, 0.95
UNDEFINED = 0.05  # share of replicates without a figure at which its interval means nothing
METHOD = "group bootstrap"


@dataclass(frozen=True)
class Bootstrapped:
    """A figure and the percentiles of it over resampled patients; `reason` says why any is None."""

    value: float | None
    lower: float | None
    upper: float | None
    reason: str | None = None


def percentiles(value: float, drawn: Values, level: float = LEVEL) -> Bootstrapped:
    """Return a figure with the percentiles of its replicates.

    Args:
        value: the figure, NaN where undefined.
        drawn: its replicates, (R,), likewise.
        level: intended coverage.
    """
    if not np.isfinite(value):
        return Bootstrapped(None, None, None, "it is undefined for these cases")
    known = drawn[np.isfinite(drawn)]
    missing = 1 - len(known) / max(len(drawn), 1)
    if missing > UNDEFINED:
        reason = f"it is undefined in {missing:.0%} of the resampled sets"
        return Bootstrapped(value, None, None, reason)
    lower, upper = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    if upper - lower < 1e-12:  # equal but for rounding
        reason = "it is the same in all resampled sets, which does not make it certain"
        return Bootstrapped(value, None, None, reason)
    return Bootstrapped(value, float(lower), float(upper))


def strata_of(highest: NDArray[Any]) -> list[NDArray[np.intp]]:
    """Return the groups with the same highest label, those with the lowest one first.

    A group that is alone in its stratum would be in every replicate, as if it were certain: such
    strata are joined with their neighbours.

    Args:
        highest: label of each group, (G,).
    """
    found: list[NDArray[np.intp]] = []
    for label in np.unique(highest):
        members = np.flatnonzero(highest == label)
        if found and 1 in (len(members), len(found[-1])):
            members = np.concatenate([found.pop(), members])
        found.append(members)
    return found


def share_interval(
    hits: NDArray[Any],
    positive: NDArray[np.bool_],
    groups: ArrayLike,
    level: float = LEVEL,
) -> dict[str, Any]:
    """Return a share with its interval, see `share_of`.

    Args:
        hits: of at least one case, (n,); ties may count in part.
        positive: see `group_bootstrap`.
        groups: likewise.
        level: intended coverage.

    Returns:
        `value, lower, upper, level, method, reason`.
    """
    codes = group_codes(groups, len(hits))
    found = Bootstrapped(float(hits.mean()), None, None)
    if codes.max() + 1 < len(codes):
        both = np.stack([hits, np.ones(len(hits))], axis=1)
        found = group_bootstrap(both, positive, lambda s: s[:, 0] / s[:, 1], codes, level)
    return share_of({**asdict(found), "level": level, "method": METHOD}, codes)


def share_of(found: dict[str, Any], codes: NDArray[np.intp]) -> dict[str, Any]:
    """Return a share with Wilson's interval where the bootstrap's would be worse.

    Where no group repeats, Wilson's is made for it. Where resampling says nothing, as of none or
    all, Wilson's is that of as many cases as groups.

    Args:
        found: the share, with the percentiles of its replicates or None.
        codes: group of each case that it is a share of, (n,).
    """
    share, groups = found["value"], len(np.unique(codes))
    if share is None or (groups < len(codes) and found["lower"] is not None):
        return found
    lower, upper = wilson_interval(share * groups, groups, found["level"])
    method = "Wilson" if groups == len(codes) else "Wilson, of groups"
    return {**found, "lower": lower, "upper": upper, "method": method, "reason": None}


def group_bootstrap(
    values: Values,
    positive: NDArray[np.bool_],
    figure: Callable[[Values], Values],
    groups: ArrayLike | None = None,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
) -> Bootstrapped:
    """Return a figure of sums over all cases, and its percentiles over resampled groups.

    Groups with a positive case and groups without are resampled each among themselves, see
    `strata_of`.

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
    for members in reversed(strata_of(has_positive)):
        even = np.full(len(members), 1 / len(members))
        total += random.multinomial(len(members), even, resamples) @ sums[members]
    value = float(figure(sums.sum(axis=0, keepdims=True))[0])
    return percentiles(value, figure(total), level)
