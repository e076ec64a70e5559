"""The cases that are judged, and all figures of them with intervals."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from attnvgg.evaluation.bootstrap import LEVEL, share_of
from attnvgg.evaluation.calibration import calibration_figure
from attnvgg.evaluation.intervals import auc_interval
from attnvgg.evaluation.ranking import Ranking
from attnvgg.evaluation.replicates import Figures, Resampling, undefined, with_intervals

Values = NDArray[np.float64]

AVERAGED = ("auc", "average_precision", "partial_auc")
RESAMPLED = ("average_precision", "partial_auc", "brier")  # of two classes; AUC has its own way
CALIBRATION = ("brier", "ece", "top_label_ece")
ONE_CLASS = "all cases are of one class"
WHY = {
    "sensitivity": "there is no positive case",
    "specificity": "there is no negative case",
    "ppv": "no case is called positive",
    "npv": "no case is called negative",
}


@dataclass(frozen=True)
class Judged:
    """Cases and what a model said of them.

    Attributes:
        table: checked predictions, n rows.
        probabilities: (n, 1) of class 1, or (n, K).
        threshold: of the decision; None for more than two classes.
    """

    table: pd.DataFrame
    probabilities: Values
    threshold: float | None

    @property
    def labels(self) -> NDArray[np.int64]:
        """Return the classes, (n,)."""
        return self.table["label"].to_numpy(np.int64)

    @property
    def scores(self) -> Values:
        """Return the probabilities of class 1 of two, (n,)."""
        return self.probabilities[:, -1]

    @property
    def has_both(self) -> bool:
        """Return whether there is more than one class."""
        return len(np.unique(self.labels)) > 1

    @property
    def groups(self) -> int:
        """Return the number of groups."""
        return int(self.table["group"].nunique() + self.table["group"].isna().sum())

    def resampling(self) -> Resampling:
        """Return the replicates of these cases."""
        return Resampling(self.table["group"], self.labels)

    def top_label(self) -> tuple[NDArray[np.int64], Values]:
        """Return whether the most probable class is right, and its probability, (n,) each."""
        right = self.probabilities.argmax(axis=1) == self.labels
        return right.astype(np.int64), self.probabilities.max(axis=1).clip(0, 1)

    def among(self, rows: NDArray[np.bool_]) -> Judged:
        """Return some of the cases."""
        return Judged(self.table[rows], self.probabilities[rows], self.threshold)


def judge_cases(cases: Judged) -> dict[str, Any]:
    """Return counts, and every figure by name with its interval (see `with_intervals`).

    Of one class only, those that are defined; the others say why they are not.
    """
    found: dict[str, Any] = {"n": len(cases.labels), "groups": cases.groups}
    if cases.threshold is None:
        return {**found, **_many(cases)}
    positives = int(cases.labels.sum())
    return {**found, "positives": positives, "figures": _two(cases)}


def figures_of(cases: Judged) -> Figures:
    """Return the function from weights to all figures that are resampled.

    Those of `judge_cases` but for calibration errors and the AUC of two classes.
    """
    if cases.threshold is None:
        return _many_figures(cases)
    ranking, threshold = Ranking(cases.labels, cases.scores), cases.threshold
    return lambda weights: ranking.figures(weights, threshold, RESAMPLED)


def calibration_of(cases: Judged) -> dict[str, Any]:
    """Return the Brier score and the calibration error, the figures that scaling changes."""
    errors = _squares(cases)
    found = with_intervals(
        lambda weights: {"brier": weights @ errors / weights.sum(axis=1)}, cases.resampling()
    )
    return {**found, **_calibration_error(cases)}


def _calibration_error(cases: Judged) -> dict[str, Any]:
    groups = cases.table["group"]
    if cases.threshold is not None:
        return {"ece": calibration_figure(cases.labels, cases.scores, groups)}
    return {"top_label_ece": calibration_figure(*cases.top_label(), groups)}


def _squares(cases: Judged) -> Values:
    """Return the squared distance of each case's probabilities from the truth, (n,)."""
    if cases.threshold is not None:
        return (cases.scores - cases.labels) ** 2
    onehot = np.eye(cases.probabilities.shape[1])[cases.labels]
    found: Values = ((cases.probabilities - onehot) ** 2).sum(axis=1)
    return found


def rates_at(cases: Judged, threshold: float) -> dict[str, Any]:
    """Return `RATES` at a threshold with intervals, of two classes."""
    ranking, resampling = Ranking(cases.labels, cases.scores), cases.resampling()
    found = with_intervals(lambda weights: ranking.rates(weights, threshold), resampling)
    found = shares(found, cases.labels, cases.scores >= threshold, resampling)
    return _explained(found, cases.has_both)


def shares(
    found: dict[str, Any],
    labels: NDArray[np.int64],
    called: NDArray[np.bool_],
    resampling: Resampling,
) -> dict[str, Any]:
    """Return figures, those that are shares of cases with the interval that suits them."""
    among = {
        "sensitivity": labels == 1,
        "specificity": labels == 0,
        "accuracy": np.full(len(labels), True),
        "ppv": called,
        "npv": ~called,
    }
    codes = resampling.codes
    return {k: share_of(f, codes[among[k]]) if k in among else f for k, f in found.items()}


def auc_of(cases: Judged, labels: NDArray[Any], scores: Values) -> dict[str, Any]:
    """Return the AUC with DeLong's or Obuchowski's interval."""
    if (labels == labels[0]).all():
        return undefined(ONE_CLASS)
    found = asdict(auc_interval(labels, scores, cases.table["group"], LEVEL))
    return {"value": found.pop("auc"), "level": LEVEL, **found}


def _two(cases: Judged) -> dict[str, Any]:
    resampling = cases.resampling()
    found = with_intervals(figures_of(cases), resampling)
    found = shares(found, cases.labels, cases.scores >= (cases.threshold or 0), resampling)
    auc = {"auc": auc_of(cases, cases.labels, cases.scores)}
    return _explained({**auc, **found, **_calibration_error(cases)}, cases.has_both)


def _explained(found: dict[str, Any], has_both: bool) -> dict[str, Any]:
    """Return figures, those that are undefined with the reason."""
    needs_both = {*AVERAGED, *map("weighted_{}".format, AVERAGED), "balanced_accuracy"}
    return {
        name: undefined(WHY.get(name, ONE_CLASS))
        if figure["value"] is None or (name in needs_both and not has_both)
        else figure
        for name, figure in found.items()
    }


def _many(cases: Judged) -> dict[str, Any]:
    """Return figures over all classes, and of each class against the rest."""
    resampling, classes = cases.resampling(), cases.probabilities.shape[1]
    found = with_intervals(_many_figures(cases), resampling)
    each: dict[str, Any] = {str(k): {} for k in range(classes)}
    whole = {}
    for name, figure in found.items():
        figure = share_of(figure, resampling.codes) if name == "accuracy" else figure
        short, _, k = name.rpartition(" ")
        if not k.isdigit():
            whole[name] = figure
            continue
        mine = cases.labels == int(k)
        own = resampling.codes[mine]
        each[k][short] = share_of(figure, own) if short == "sensitivity" else figure
    for number, figures in enumerate(each.values()):
        members = (cases.labels == number).astype(int)
        values = cases.probabilities[:, number].clip(0, 1)
        figures["n"] = int(members.sum())
        figures["auc"] = auc_of(cases, members, values)
        figures["ece"] = calibration_figure(members, values, cases.table["group"])
    whole |= _calibration_error(cases)
    return {"figures": _explained(whole, cases.has_both), "per_class": each}


def _many_figures(cases: Judged) -> Figures:
    """Return the function to macro and weighted means, and `NAME K` of each class K.

    The mean goes over the classes that occur among the cases; the weights are their shares.
    """
    labels, values = cases.labels, cases.probabilities
    rankings = [Ranking(labels == k, values[:, k].clip(0, 1)) for k in range(values.shape[1])]
    present = [k for k in range(len(rankings)) if (labels == k).any()]
    called = values.argmax(axis=1)
    errors = _squares(cases)

    def figures(weights: Values) -> dict[str, Values]:
        each = [ranking.figures(weights) for ranking in rankings]
        totals = weights.sum(axis=1)
        counts = np.stack([weights @ (labels == k) for k in present], axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            recalls = np.stack([weights @ ((labels == k) & (called == k)) for k in present], axis=1)
            recalls = recalls / counts
        found = {}
        for name in AVERAGED:
            parts = np.stack([each[k][name] for k in present], axis=1)
            found[name] = parts.mean(axis=1)
            found[f"weighted_{name}"] = (parts * counts).sum(axis=1) / totals
        found["balanced_accuracy"] = recalls.mean(axis=1)
        found["accuracy"] = weights @ (called == labels) / totals
        found["brier"] = weights @ errors / totals
        for k, figures_k in enumerate(each):
            found |= {f"{name} {k}": value for name, value in figures_k.items()}
        return found | {f"sensitivity {k}": recalls[:, i] for i, k in enumerate(present)}

    return figures
