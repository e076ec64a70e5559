"""Everything that can be said of a table of predictions: the content of the report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import softmax

from attnvgg.errors import InputError
from attnvgg.evaluation.calibration import (
    as_columns,
    fit_temperature,
    log_loss,
    read_logits,
    reliability,
)
from attnvgg.evaluation.decision import decision_curve
from attnvgg.evaluation.judged import (
    CALIBRATION,
    Judged,
    calibration_of,
    figures_of,
    judge_cases,
    rates_at,
)
from attnvgg.evaluation.metrics import choose_threshold
from attnvgg.evaluation.paired import aligned, auc_difference
from attnvgg.evaluation.predictions import checked_predictions
from attnvgg.evaluation.prevalence import judge_prevalence
from attnvgg.evaluation.ranking import Ranking
from attnvgg.evaluation.replicates import undefined, with_intervals
from attnvgg.evaluation.report import evaluate_predictions
from attnvgg.evaluation.subgroups import judge_subgroups

Values = NDArray[np.float64]

SENSITIVITIES = (0.8, 0.9, 0.95)


@dataclass(frozen=True)
class Questions:
    """What is asked of the predictions.

    Attributes:
        threshold: locked before; chosen on validation if absent.
        sensitivities: asked for on validation, each in (0, 1].
        prevalence: where the model is to be used, in (0, 1).
    """

    threshold: float | None = None
    sensitivities: Sequence[float] = SENSITIVITIES
    prevalence: float | None = None


@dataclass(frozen=True)
class Assessment:
    """What was found.

    Attributes:
        content: for JSON: all of `evaluate_predictions`, and `counts`, `figures`, `per_class`,
            `operating_points`, `subgroups`, `calibration`, `prevalence`, `decision_curve`,
            `against`; None where a part does not apply.
        cases: those that were judged.
        calibrated: their probabilities after temperature scaling, None without it.
        corrected: those of class 1 fitted on validation and corrected to the stated prevalence,
            None without one.
        other: the same cases by the other model, None without one.
    """

    content: dict[str, Any]
    cases: Judged
    calibrated: Values | None
    corrected: Values | None
    other: Judged | None


def assess(
    frame: pd.DataFrame, questions: Questions | None = None, against: pd.DataFrame | None = None
) -> Assessment:
    """Judge predictions in every way that is known here.

    Args:
        frame: as `checked_predictions` wants it.
        questions: the usual ones if absent.
        against: predictions of another model for the same cases.

    Raises:
        InputError: tables that cannot be judged, or a question that has no answer for them.
    """
    asked = questions or Questions()
    content = evaluate_predictions(frame, asked.threshold)
    split = content["judged_on"]
    table, probabilities = checked_predictions(frame)
    _check(asked, probabilities)
    rule = content["threshold"] and content["threshold"]["value"]
    sets = {name: _part(table, probabilities, name, rule) for name in ("val", split)}
    cases = sets[split]
    other = None if against is None else _other(against, table, split, asked.threshold, rule)
    judged = judge_cases(cases)
    calibration, calibrated = _calibration(sets["val"], cases, judged["figures"])
    content["counts"] = {name: judged.get(name) for name in ("n", "groups", "positives")}
    content["figures"] = judged["figures"]
    content["per_class"] = judged.get("per_class")
    content["operating_points"] = _operating_points(sets["val"], cases, asked.sensitivities)
    content["subgroups"] = judge_subgroups(cases)
    content["calibration"] = calibration
    content["prevalence"], corrected = None, None
    if asked.prevalence is not None:
        content["prevalence"], corrected = judge_prevalence(
            sets["val"], cases, judged["figures"], asked.prevalence
        )
    content["decision_curve"] = None
    if rule is not None and cases.has_both:
        ranking = Ranking(cases.labels, cases.scores if corrected is None else corrected)
        content["decision_curve"] = decision_curve(ranking, cases.resampling(), asked.prevalence)
    content["against"] = None if other is None else _differences(cases, other, judged["figures"])
    return Assessment(content, cases, calibrated, corrected, other)


def _check(asked: Questions, probabilities: Values) -> None:
    wrong = [s for s in asked.sensitivities if not 0 < s <= 1]
    if wrong:
        raise InputError("Sensitivities lie in (0, 1]; these do not:", wrong)
    classes = probabilities.shape[1]
    if classes > 2 and tuple(asked.sensitivities) != SENSITIVITIES:
        raise InputError(f"{classes} classes have no single threshold to choose sensitivities by.")
    if asked.prevalence is None:
        return
    if not 0 < asked.prevalence < 1:
        raise InputError(f"A prevalence of {asked.prevalence} is no share in (0, 1).")
    if classes > 2:
        raise InputError(f"{classes} classes have no single prevalence.")


def _part(table: pd.DataFrame, values: Values, split: str, rule: float | None) -> Judged:
    rows = (table["split"] == split).to_numpy()
    return Judged(table[rows].reset_index(drop=True), values[rows], rule)


def _operating_points(
    validation: Judged, cases: Judged, sensitivities: Sequence[float]
) -> list[dict[str, Any]] | None:
    """Return the rates at thresholds that have the sensitivities asked for on validation."""
    if cases.threshold is None or not len(validation.labels) or not validation.has_both:
        return None
    found = []
    for sensitivity in sensitivities:
        threshold = choose_threshold(validation.labels, validation.scores, sensitivity)
        rates = rates_at(cases, threshold)
        found.append({"asked": float(sensitivity), "threshold": threshold, **rates})
    return found


def _calibration(
    validation: Judged, cases: Judged, figures: dict[str, Any]
) -> tuple[dict[str, Any], Values | None]:
    """Return calibration before and after temperature scaling, and the probabilities after it.

    `figures` are those of the cases as they are.
    """
    logits = read_logits(cases.table, cases.probabilities)
    found: dict[str, Any] = {"temperature": None, "reason": "there are no validation rows"}
    if len(validation.labels):
        fitted = read_logits(validation.table, validation.probabilities)
        found = fit_temperature(validation.labels, fitted)
    found |= {"before": _calibrated(cases, logits, figures), "after": None}
    if found["temperature"] is None:
        return found, None
    after = logits / found["temperature"]
    shares = softmax(after, axis=1)
    values = shares[:, 1:] if cases.probabilities.shape[1] == 1 else shares
    scaled = Judged(cases.table, values, cases.threshold)
    found["after"] = _calibrated(scaled, after, calibration_of(scaled))
    return found, values


def _calibrated(cases: Judged, logits: Values, figures: dict[str, Any]) -> dict[str, Any]:
    found = {name: figures[name] for name in CALIBRATION if name in figures}
    found["log_loss"] = log_loss(cases.labels, logits)
    if cases.threshold is not None:
        found["reliability"] = reliability(cases.labels, cases.scores)
    else:
        chosen = cases.probabilities.argmax(axis=1) == cases.labels
        found["reliability"] = reliability(chosen, cases.probabilities.max(axis=1))
    return found


def _other(
    against: pd.DataFrame, table: pd.DataFrame, split: str, given: float | None, rule: float | None
) -> Judged:
    """Return the judged cases by the other model, each with its own threshold."""
    theirs, values = checked_predictions(against)
    if (rule is None) != (values.shape[1] > 2):
        raise InputError("The two models do not tell the same number of classes apart.")
    own = rule
    if rule is not None and given is None:
        own = evaluate_predictions(against)["threshold"]["value"]
    rows = aligned(table, theirs, split)
    places = pd.Series(np.arange(len(theirs)), index=theirs["image"])[rows["image"]]
    first = table[table["split"] == split]
    rows = rows.assign(group=first["group"].to_numpy())  # resampled as those of the first model
    return Judged(rows, values[places.to_numpy()], own)


def _differences(cases: Judged, other: Judged, own: dict[str, Any]) -> dict[str, Any]:
    """Return each figure of the first model less that of the other one, with intervals.

    `own` are the figures of the first.
    """
    if as_columns(cases.probabilities).shape != as_columns(other.probabilities).shape:
        raise InputError("The two models do not tell the same number of classes apart.")
    mine, theirs = figures_of(cases), figures_of(other)

    def figures(weights: Values) -> dict[str, Values]:
        second = theirs(weights)
        return {name: value - second[name] for name, value in mine(weights).items()}

    found = with_intervals(figures, cases.resampling())
    groups = cases.table["group"]
    for k in range(cases.probabilities.shape[1]) if cases.threshold is None else [1]:
        labels = (cases.labels == k).astype(int)
        if 0 < labels.sum() < len(labels):
            name = "auc" if cases.threshold is not None else f"auc {k}"
            column = k if cases.threshold is None else -1
            pair = cases.probabilities[:, column], other.probabilities[:, column]
            found[name] = auc_difference(labels, *pair, groups)
    theirs_alone = judge_cases(other)["figures"]
    return {
        "threshold": other.threshold,
        "figures": theirs_alone,
        "differences": found | _error_differences(own, theirs_alone),
    }


def _error_differences(own: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Return the differences of the calibration errors, which have no interval either."""
    reason = "calibration errors have no interval"
    return {
        name: {**undefined(reason), "value": own[name]["value"] - other[name]["value"]}
        for name in CALIBRATION[1:]
        if name in own
    }
