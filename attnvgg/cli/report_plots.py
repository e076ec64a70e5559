"""The pictures of a report: what the figures look like, case for case."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from attnvgg.evaluation.assessment import Assessment
from attnvgg.evaluation.judged import Judged
from attnvgg.evaluation.ranking import LOWEST_TPR, Ranking
from attnvgg.explain.page import ALARM, DPI, INK, QUIET
from attnvgg.files import atomic_path

MODEL, OTHER = "#22577a", "#c77f1a"
CLASSES = ("#22577a", "#c77f1a", "#4f8a4c", "#8a4f7d", "#7a6a53", "#5f6f7f", "#b3372f", "#3f9aa8")
SIZE = (4.2, 4.0)


def save_plots(folder: Path, assessment: Assessment) -> dict[str, Path]:
    """Write the pictures that apply, and return them by name in the order of a report."""
    draws: dict[str, Callable[[Axes, Assessment], None]] = {
        "roc": _roc,
        "precision_recall": _precision_recall,
        "reliability": _reliability,
        "decision_curve": _decision_curve,
        "confusion": _confusion,
    }
    if not assessment.cases.has_both:
        draws = {name: draws[name] for name in ("reliability", "confusion")}
    if assessment.content["decision_curve"] is None:
        draws.pop("decision_curve", None)
    written = {}
    for name, draw in draws.items():
        figure = Figure(figsize=SIZE, facecolor="white", layout="constrained")
        axes = figure.add_subplot()
        _style(axes)
        draw(axes, assessment)
        written[name] = folder / f"{name}.png"
        with atomic_path(written[name]) as temporary:
            figure.savefig(temporary, dpi=DPI, format="png")
    return written


def _style(axes: Axes) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set(color=QUIET, linewidth=0.8)
    axes.tick_params(length=3, width=0.6, color=QUIET, labelsize=8, labelcolor=INK)
    axes.xaxis.label.set(size=9, color=INK)
    axes.yaxis.label.set(size=9, color=INK)


def _square(axes: Axes, x: str, y: str, room: float = 0.01) -> None:
    limits = (-room, 1 + room)
    axes.set(xlim=limits, ylim=limits, xlabel=x, ylabel=y, aspect="equal")


def _legend(axes: Axes, place: Any) -> None:
    axes.legend(loc=place, fontsize=7.5, frameon=False, labelcolor=INK, handlelength=1.6)


def _curves(judged: Judged) -> list[tuple[str, str, Ranking]]:
    """Return name, colour and ranking: of class 1, or of each class that occurs."""
    if judged.threshold is not None:
        return [("this model", MODEL, Ranking(judged.labels, judged.scores))]
    return [
        (f"class {k}", CLASSES[k % len(CLASSES)], Ranking(judged.labels == k, values))
        for k, values in enumerate(judged.probabilities.T.clip(0, 1))
        if (judged.labels == k).any()
    ]


def _all_curves(assessment: Assessment) -> list[tuple[str, str, Ranking]]:
    found = _curves(assessment.cases)
    if assessment.other is not None and assessment.cases.threshold is not None:
        ((_, _, ranking),) = _curves(assessment.other)
        found.append(("other model", OTHER, ranking))
    return found


def _counts(ranking: Ranking) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    hits, alarms = ranking.curves(np.ones((1, len(ranking.order))))
    return hits[0], alarms[0]


def _roc(axes: Axes, assessment: Assessment) -> None:
    _square(axes, "1 - specificity", "sensitivity")
    axes.plot([0, 1], [0, 1], color=QUIET, linewidth=0.8, linestyle=(0, (2, 2)))
    for name, colour, ranking in _all_curves(assessment):
        hits, alarms = _counts(ranking)
        tpr, fpr = hits / hits[-1], alarms / alarms[-1]
        label = f"{name}, AUC {_area(ranking):.3f}"
        axes.plot(fpr, tpr, color=colour, linewidth=1.6, label=label, solid_joinstyle="round")
        if name == "this model":
            base = np.full(len(fpr), LOWEST_TPR)
            label = f"partial AUC, sensitivity > {LOWEST_TPR:.0%}"
            inside = tpr >= LOWEST_TPR
            axes.fill_between(
                fpr, base, tpr, where=inside, interpolate=True, color=colour, alpha=0.15,
                linewidth=0, label=label,
            )  # fmt: skip
    rates, threshold = assessment.content["figures"], assessment.cases.threshold
    if threshold is not None and rates["specificity"]["value"] is not None:
        point = 1 - rates["specificity"]["value"], rates["sensitivity"]["value"]
        label = f"locked threshold {threshold:.3g}"
        axes.plot(*point, "o", color=INK, markersize=5.5, label=label, zorder=5)
    _legend(axes, "lower right")


def _area(ranking: Ranking) -> float:
    return float(ranking.figures(np.ones((1, len(ranking.order))))["auc"][0])


def _precision_recall(axes: Axes, assessment: Assessment) -> None:
    _square(axes, "sensitivity (recall)", "PPV (precision)")
    for name, colour, ranking in _all_curves(assessment):
        hits, alarms = _counts(ranking)
        precision = hits[1:] / (hits[1:] + alarms[1:])
        score = ranking.figures(np.ones((1, len(ranking.order))))["average_precision"][0]
        axes.step(
            np.append(0, hits[1:] / hits[-1]), np.append(precision[0], precision), where="pre",
            color=colour, linewidth=1.6, label=f"{name}, average precision {score:.3f}",
        )  # fmt: skip
    if assessment.cases.threshold is not None:
        share = assessment.cases.labels.mean()
        axes.axhline(
            share, color=QUIET, linewidth=0.8, linestyle=(0, (2, 2)),
            label=f"chance: {share:.1%} are positive",
        )  # fmt: skip
    _legend(axes, "best")


def _reliability(axes: Axes, assessment: Assessment) -> None:
    two = assessment.cases.threshold is not None
    what = "share of positives" if two else "share called rightly"
    _square(axes, "mean probability of a bin" + ("" if two else " (most probable class)"), what)
    axes.plot([0, 1], [0, 1], color=QUIET, linewidth=0.8, linestyle=(0, (2, 2)))
    found = assessment.content["calibration"]
    name = "ece" if two else "top_label_ece"
    for part, colour, words in (("after", OTHER, "after scaling"), ("before", MODEL, "as it is")):
        if found[part] is None:
            continue
        points = found[part]["reliability"]
        reach = [
            np.subtract(points["share"], points["lower"]).clip(0),
            np.subtract(points["upper"], points["share"]).clip(0),
        ]
        axes.errorbar(
            points["probability"], points["share"], yerr=reach, fmt="o-", color=colour,
            markersize=4, linewidth=1.1, elinewidth=0.7, alpha=1 if part == "before" else 0.75,
            label=f"{words}, ECE {found[part][name]['value']:.3f}",
        )  # fmt: skip
    _legend(axes, "upper left")


def _decision_curve(axes: Axes, assessment: Assessment) -> None:
    found: dict[str, Any] = assessment.content["decision_curve"]
    x, share = np.array(found["thresholds"]), found["prevalence"]
    axes.set(
        xlabel="threshold probability at which one would act",
        ylabel=f"net benefit a case, at a prevalence of {share:.3g}",
    )
    axes.axhline(0, color=QUIET, linewidth=1, label="act on nobody")
    axes.plot(x, found["all"], color=QUIET, linewidth=1, linestyle=(0, (4, 2)), label="act on all")
    band: dict[str, Any] = {"color": MODEL, "alpha": 0.15, "linewidth": 0, "label": "95 % band"}
    if found["lower"] is not None:
        axes.fill_between(x, found["lower"], found["upper"], **band)
    words = "this model" if found["reason"] is None else "this model (no band: too few patients)"
    axes.plot(x, found["model"], color=MODEL, linewidth=1.6, label=words)
    axes.set(xlim=(0, 1), ylim=(-0.25 * share, 1.08 * share))
    _legend(axes, "upper right")


def _confusion(axes: Axes, assessment: Assessment) -> None:
    cases = assessment.cases
    count = max(cases.probabilities.shape[1], 2)
    if cases.threshold is None:
        called, names = cases.probabilities.argmax(axis=1), [str(k) for k in range(count)]
    else:
        called, names = (cases.scores >= cases.threshold).astype(int), ["negative", "positive"]
    matrix = np.zeros((count, count), dtype=int)
    np.add.at(matrix, (cases.labels, called), 1)
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1.15)
    for (row, column), n in np.ndenumerate(matrix):
        share = shares[row, column]
        words = f"{n}\n{share:.0%}" if count <= 6 else str(n)
        colour = "white" if share > 0.6 else (ALARM if row != column and share > 0.2 else INK)
        axes.text(column, row, words, ha="center", va="center", fontsize=9, color=colour)
    axes.set(xlabel="called", ylabel="truth", xticks=range(count), yticks=range(count))
    axes.set_xticklabels(names)
    axes.set_yticklabels(names, rotation=90 if count == 2 else 0, va="center")
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.tick_params(length=0)
