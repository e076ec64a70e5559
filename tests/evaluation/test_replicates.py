"""Resampled patients: whole, within their stratum, the same for every figure and model."""

import numpy as np
import pytest
from scipy.stats import binomtest

from attnvgg.evaluation.ranking import Ranking
from attnvgg.evaluation.replicates import (
    Resampling,
    percentiles,
    replicates,
    share_of,
    with_intervals,
)


def patients(count=40, per=5, seed=0):
    """Labels, probabilities and patients whose cases resemble each other."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(count), per)
    labels = (np.arange(count) % 2)[groups]
    own = rng.normal(size=count)[groups]
    values = 1.2 * labels - 0.6 + 0.9 * own + 0.4 * rng.normal(size=count * per)
    return labels, 1 / (1 + np.exp(-values)), groups


def width(figure):
    return figure["upper"] - figure["lower"]


def test_groups_are_drawn_whole_and_strata_keep_their_size():
    groups = np.array(["a", "a", "b", "c", "c", "d", None, None], dtype=object)
    labels = np.array([0, 1, 0, 0, 0, 1, 1, 0])
    drawn = np.concatenate(list(Resampling(groups, labels, 200).weights()))
    assert drawn.shape == (200, 8)
    assert (drawn[:, 0] == drawn[:, 1]).all()
    assert (drawn[:, 3] == drawn[:, 4]).all()
    with_positive = drawn[:, 0] + drawn[:, 5] + drawn[:, 6]
    assert (with_positive == 3).all()
    assert (drawn[:, 2] + drawn[:, 3] + drawn[:, 7] == 3).all()
    assert drawn.std() > 0.5


def test_chunks_hold_all_replicates(monkeypatch):
    monkeypatch.setattr("attnvgg.evaluation.replicates.CELLS", 64)
    sizes = [len(w) for w in Resampling(np.arange(10), np.arange(10) % 2, 20).weights()]
    assert sizes == [6, 6, 6, 2]


def test_draws_do_not_depend_on_the_scores():
    labels, _, groups = patients()
    first, second = (np.concatenate(list(Resampling(groups, labels).weights())) for _ in "ab")
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("name", ["auc", "average_precision", "partial_auc", "brier"])
def test_ignoring_the_groups_narrows_the_interval(name):
    labels, scores, groups = patients()
    ranking = Ranking(labels, scores)
    right = with_intervals(ranking.figures, Resampling(groups, labels))[name]
    wrong = with_intervals(ranking.figures, Resampling(np.arange(200), labels))[name]
    assert right["value"] == wrong["value"]
    assert width(right) > 1.5 * width(wrong)


def test_weights_are_copies():
    """The figures of a replicate are those of the set with the cases repeated."""
    labels, scores, groups = patients(10, 2)
    resampling = Resampling(groups, labels, 3)
    weights = np.concatenate(list(resampling.weights()))
    drawn = replicates(Ranking(labels, scores).figures, resampling)
    for row in range(3):
        rows = np.repeat(np.arange(20), weights[row].astype(int))
        again = Ranking(labels[rows], scores[rows]).figures(np.ones((1, len(rows))))
        for name, values in drawn.items():
            assert values[row] == pytest.approx(again[name][0], abs=1e-12)


def test_it_covers():
    """Of 150 sets of 60 patients about 95 % of the intervals of the Brier score hold the truth."""
    many = patients(4000, 3, seed=99)
    truth = np.mean((many[1] - many[0]) ** 2)
    held = 0
    for seed in range(150):
        labels, scores, groups = patients(60, 3, seed)
        ranking, resampling = Ranking(labels, scores), Resampling(groups, labels, 300)
        found = with_intervals(ranking.figures, resampling)["brier"]
        held += found["lower"] <= truth <= found["upper"]
    assert 0.88 <= held / 150 <= 0.99


def test_noise_that_makes_a_calibration_error_larger_is_taken_off():
    """Perfectly calibrated: plain percentiles lie above the figure, these around it."""
    rng = np.random.default_rng(0)
    scores = rng.random(300)
    labels = (rng.random(300) < scores).astype(int)
    ranking, resampling = Ranking(labels, scores), Resampling(np.arange(300), labels)
    drawn = replicates(ranking.figures, resampling)["ece"]
    found = with_intervals(ranking.figures, resampling)["ece"]
    assert np.quantile(drawn, 0.3) > found["value"]
    assert 0 <= found["lower"] < found["value"] < found["upper"]
    assert "bias" in found["method"]


def test_undefined_figures_say_why():
    assert percentiles(np.nan, np.ones(10))["value"] is None
    half = np.where(np.arange(10) < 5, np.nan, 0.5)
    found = percentiles(0.5, half)
    assert (found["value"], found["lower"]) == (0.5, None)
    assert "50%" in found["reason"]


def test_shares_of_single_cases_are_wilsons():
    hits = np.arange(40) < 33
    resampling = Resampling(np.arange(40), hits)
    found = share_of(percentiles(33 / 40, np.full(9, 33 / 40)), np.full(40, True), resampling)
    expected = binomtest(33, 40).proportion_ci(method="wilson")
    assert (found["lower"], found["upper"]) == pytest.approx((expected.low, expected.high))


def test_a_share_of_one_counts_groups():
    """All hit, in 10 patients with 4 images each: no more sure than 10 of 10."""
    groups = np.repeat(np.arange(10), 4)
    resampling = Resampling(groups, np.ones(40, int))
    found = share_of(percentiles(1.0, np.ones(9)), np.full(40, True), resampling)
    expected = binomtest(10, 10).proportion_ci(method="wilson")
    assert (found["lower"], found["upper"]) == pytest.approx((expected.low, 1))
