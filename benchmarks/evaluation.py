"""Evaluation: how fast the intervals are, and how often they hold the truth."""

from __future__ import annotations

import math
import time
from statistics import NormalDist

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn import metrics

from attnvgg.evaluation.intervals import auc_interval
from attnvgg.evaluation.judged import Judged, judge_cases
from attnvgg.evaluation.predictions import checked_predictions
from attnvgg.evaluation.ranking import Ranking
from attnvgg.evaluation.replicates import Resampling, replicates

Values = NDArray[np.float64]

SIMULATIONS = 2000
CASES, PATIENTS, SHARED = 200, 50, 0.7
AREAS, PREVALENCES = (0.7, 0.85, 0.95), (0.2, 0.5)


def main() -> None:
    """Print times and coverages."""
    print("Evaluation")
    _time_delong(1_000_000)
    _time_bootstrap(10_000)
    print(f"  coverage of the AUC interval, {SIMULATIONS} simulations, wanted 92.5 to 97 %")
    for area in AREAS:
        for prevalence in PREVALENCES:
            _print_coverage(area, prevalence, clustered=False)
    for area in AREAS:
        for prevalence in PREVALENCES:
            _print_coverage(area, prevalence, clustered=True)


def coverage(area: float, prevalence: float, clustered: bool, simulations: int) -> float:
    """Return how often the 95 % interval holds the true AUC of two normal classes.

    Args:
        area: the true AUC.
        prevalence: share of positive cases, or of patients.
        clustered: 50 patients with 4 images whose scores are correlated .7, instead of 200 cases.
        simulations: number of sets.
    """
    random = np.random.default_rng(0)
    count = PATIENTS if clustered else CASES
    groups = np.repeat(np.arange(count), CASES // count)
    labels = (np.arange(count) < round(prevalence * count)).astype(int)[groups]
    shift = math.sqrt(2) * NormalDist().inv_cdf(area)
    shared = SHARED if clustered else 0.0
    held = 0
    for _ in range(simulations):
        own, rest = random.normal(size=count)[groups], random.normal(size=CASES)
        scores = shift * labels + math.sqrt(shared) * own + math.sqrt(1 - shared) * rest
        found = auc_interval(labels, scores, groups)
        held += found.lower is not None and found.lower <= area <= (found.upper or 1)
    return held / simulations


def _print_coverage(area: float, prevalence: float, clustered: bool) -> None:
    what = f"{PATIENTS} patients x 4" if clustered else f"{CASES} cases"
    share = coverage(area, prevalence, clustered, SIMULATIONS)
    print(f"    {what:<15} AUC {area:.2f}, prevalence {prevalence:.1f}: {share:.2%}")


def _time_delong(count: int) -> None:
    random = np.random.default_rng(0)
    labels = (random.random(count) < 0.2).astype(int)
    scores = labels + random.normal(size=count)
    start = time.perf_counter()
    auc_interval(labels, scores)
    print(f"  DeLong on {count:,} predictions: {time.perf_counter() - start:.2f} s (bar: 3 s)")
    groups = random.integers(0, count // 4, count)
    start = time.perf_counter()
    auc_interval(labels, scores, groups)
    print(f"  Obuchowski on the same in groups: {time.perf_counter() - start:.2f} s")


def _time_bootstrap(count: int) -> None:
    random = np.random.default_rng(0)
    labels = (random.random(count) < 0.2).astype(int)
    frame = pd.DataFrame({
        "image": np.arange(count).astype(str), "label": labels,
        "group": random.integers(0, count // 2, count).astype(str), "split": "test",
        "probability": 1 / (1 + np.exp(-(2 * labels - 1 + random.normal(size=count)))),
    })  # fmt: skip
    table, values = checked_predictions(frame)
    start = time.perf_counter()
    judge_cases(Judged(table, values, 0.4))
    took = time.perf_counter() - start
    print(f"  2,000 replicates of every figure on {count:,} cases: {took:.1f} s (bar: 60 s)")
    ranking, few = Ranking(labels, values[:, 0]), Resampling(table["group"], labels, 20)
    start = time.perf_counter()
    replicates(ranking.figures, few)
    ours = (time.perf_counter() - start) / 20
    start = time.perf_counter()
    for weights in few.weights():
        for row in weights:
            _by_library(labels, values[:, 0], row)
    theirs = (time.perf_counter() - start) / 20
    print(f"  a replicate: {1e3 * ours:.2f} ms, by scikit-learn {1e3 * theirs:.1f} ms "
          f"(AUC, AP, partial AUC, Brier): {theirs / ours:.0f} times as fast")  # fmt: skip


def _by_library(labels: NDArray[np.int64], scores: Values, weights: Values) -> None:
    metrics.roc_auc_score(labels, scores, sample_weight=weights)
    metrics.average_precision_score(labels, scores, sample_weight=weights)
    metrics.roc_auc_score(1 - labels, 1 - scores, sample_weight=weights, max_fpr=0.2)
    metrics.brier_score_loss(labels, scores, sample_weight=weights)


if __name__ == "__main__":
    main()
