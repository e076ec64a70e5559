"""Is acting on the model better than acting on all, or on none? The decision curve."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from attnvgg.evaluation.bootstrap import LEVEL, UNDEFINED
from attnvgg.evaluation.ranking import Ranking
from attnvgg.evaluation.replicates import Resampling, replicates

Values = NDArray[np.float64]

THRESHOLDS = np.arange(1, 100) / 100


def decision_curve(
    ranking: Ranking,
    resampling: Resampling,
    prevalence: float | None = None,
    level: float = LEVEL,
) -> dict[str, Any]:
    """Return the net benefit at each threshold probability, with a band.

    Vickers & Elkin, Medical Decision Making 2006: true positives a case, less the false positives
    a case, each weighed by the odds of the threshold. The band is pointwise.

    Args:
        ranking: of the cases, by probabilities that are right at the prevalence.
        resampling: of the same cases.
        prevalence: where the model is to be used; that of the cases if absent.
        level: of the band.

    Returns:
        Lists over `thresholds`: `model`, `lower`, `upper`, `all` (everybody is called positive;
        nobody is 0 throughout), and `prevalence`. Without a band `lower` and `upper` are None
        and `reason` says why.
    """
    share = float(ranking.positive.mean()) if prevalence is None else prevalence
    odds = THRESHOLDS / (1 - THRESHOLDS)

    def benefit(weights: Values) -> dict[str, Values]:
        hits, alarms = ranking.counts(weights, THRESHOLDS)
        positives = weights[:, ranking.order] @ ranking.positive
        total = weights.sum(axis=1)
        rate = positives / total if prevalence is None else np.full(len(weights), prevalence)
        with np.errstate(invalid="ignore", divide="ignore"):  # a set of one class
            sensitivity = hits / positives[:, None]
            false_rate = alarms / (total - positives)[:, None]
        gained = sensitivity * rate[:, None] - false_rate * (1 - rate)[:, None] * odds
        return {"model": gained}

    model = benefit(np.ones((1, len(ranking.order))))["model"][0]
    drawn = replicates(benefit, resampling)["model"]
    known = drawn[np.isfinite(drawn).all(axis=1)]
    missing, reason, lower, upper = 1 - len(known) / len(drawn), None, None, None
    if missing > UNDEFINED:
        reason = f"{missing:.0%} of the resampled sets have one class only"
    else:
        ends = np.quantile(known, [(1 - level) / 2, (1 + level) / 2], axis=0)
        lower, upper = ends.tolist()
    return {
        "prevalence": share,
        "level": level,
        "thresholds": THRESHOLDS.tolist(),
        "model": model.tolist(),
        "lower": lower,
        "upper": upper,
        "reason": reason,
        "all": (share - (1 - share) * odds).tolist(),
    }
