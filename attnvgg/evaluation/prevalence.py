"""What predictions are worth where another share of the cases is positive."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from attnvgg.errors import InputError
from attnvgg.evaluation.calibration import (
    at_prevalence,
    fit_sigmoid,
    predictive_values,
    read_logits,
)
from attnvgg.evaluation.judged import Judged
from attnvgg.evaluation.ranking import Ranking
from attnvgg.evaluation.replicates import with_intervals

Values = NDArray[np.float64]


def judge_prevalence(
    validation: Judged, cases: Judged, figures: dict[str, Any], stated: float
) -> tuple[dict[str, Any], Values]:
    """Return PPV and NPV at a stated prevalence, and the probabilities corrected to it.

    These are made right at the prevalence of validation first: training may have seen another one,
    so slope and intercept are fitted.

    Args:
        validation: of two classes.
        cases: that are judged, likewise.
        figures: of the cases, see `judge_cases`.
        stated: the prevalence, in (0, 1).

    Returns:
        A dict with `stated`, `learned` (that of validation), `slope`, `intercept`, `ppv` and `npv`;
        and probabilities of class 1, (n,).

    Raises:
        InputError: there is only one class in validation or among the cases.
    """
    if not len(validation.labels) or not validation.has_both:
        raise InputError(
            "A stated prevalence needs validation cases of both classes: on them the "
            "probabilities are made right before they are corrected."
        )
    if not cases.has_both:
        raise InputError("A stated prevalence needs judged cases of both classes.")
    slope, intercept = fit_sigmoid(validation.labels, _logit(validation))
    share = float(validation.labels.mean())
    corrected = at_prevalence(expit(slope * _logit(cases) + intercept), share, stated)
    found = {"stated": stated, "learned": share, "slope": slope, "intercept": intercept}
    return found | _predictive(cases, figures, stated), corrected


def _logit(cases: Judged) -> Values:
    logits = read_logits(cases.table, cases.probabilities)
    found: Values = logits[:, 1] - logits[:, 0]
    return found


def _predictive(cases: Judged, figures: dict[str, Any], stated: float) -> dict[str, Any]:
    """Return PPV and NPV at the stated prevalence with intervals.

    Resampling says nothing of a sensitivity or specificity of 0 or 1, or of one patient; then both
    are taken at their lower limits, and both at their upper ones, which is too wide if anything.

    Args:
        cases: of two classes.
        figures: of them, see `judge_cases`.
        stated: the prevalence.
    """
    ranking, threshold = Ranking(cases.labels, cases.scores), cases.threshold or 0.0

    def resampled(weights: Values) -> dict[str, Values]:
        rates = ranking.rates(weights, threshold)
        values = predictive_values(rates["sensitivity"], rates["specificity"], stated)
        return dict(zip(("ppv", "npv"), values, strict=True))

    found = with_intervals(resampled, cases.resampling())
    both = [figures[name] for name in ("sensitivity", "specificity")]
    extreme = any(rate["value"] in (0, 1) for rate in both)
    for place, figure in enumerate(found.values()):
        if figure["value"] is None or not (extreme or figure["lower"] is None):
            continue
        for end in ("lower", "upper"):
            sensitivity, specificity = (np.array(rate[end]) for rate in both)
            figure[end] = float(predictive_values(sensitivity, specificity, stated)[place])
        figure |= {"method": "limits of sensitivity and specificity", "reason": None}
    return found
