"""Resampled patients: whole, within their stratum, the same for every figure and model."""

import numpy as np
import pytest

from attnvgg.evaluation.ranking import Ranking
from attnvgg.evaluation.replicates import Resampling, replicates, with_intervals


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


def test_a_group_that_is_alone_in_its_stratum_is_not_certain():
    """One positive patient with 3 images: without her the figures of a class are undefined."""
    labels = np.append(np.zeros(30, int), [1, 1, 1])
    groups = np.append(np.arange(30), [30, 30, 30])
    resampling = Resampling(groups, labels)
    drawn = np.concatenate(list(resampling.weights()))
    assert (drawn[:, 30] == 0).mean() == pytest.approx(1 / np.e, abs=0.05)
    scores = np.random.default_rng(0).random(33)
    found = with_intervals(lambda w: Ranking(labels, scores).figures(w, 0.5), resampling)
    for name in ("average_precision", "partial_auc", "balanced_accuracy", "sensitivity"):
        assert found[name]["value"] is not None
        assert (found[name]["lower"], found[name]["method"]) == (None, None)
        assert "of the resampled sets" in found[name]["reason"]
    assert found["brier"]["lower"] < found["brier"]["value"] < found["brier"]["upper"]


def test_a_perfect_ranking_is_not_certain():
    labels = np.arange(26) < 6
    ranking, resampling = Ranking(labels, labels * 0.5 + 0.2), Resampling(np.arange(26), labels)
    found = with_intervals(ranking.figures, resampling)
    for name in ("average_precision", "partial_auc"):
        assert (found[name]["lower"], found[name]["upper"]) == (None, None)
        assert "same in all" in found[name]["reason"]
