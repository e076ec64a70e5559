"""Figures of weighted cases: those of scikit-learn, whatever the ties and the weights."""

import numpy as np
import pytest
from sklearn import metrics as reference

from attnvgg.errors import InputError
from attnvgg.evaluation.metrics import confusion
from attnvgg.evaluation.ranking import LOWEST_TPR, RATES, Ranking


def draw(count, decimals, seed):
    """Labels, probabilities (tied where there are few decimals) and whole weights."""
    rng = np.random.default_rng(seed)
    labels = np.append(rng.integers(0, 2, count - 2), [0, 1])
    scores = np.round(0.6 * rng.beta(2, 3, count) + 0.3 * labels, decimals)
    weights = rng.integers(0, 4, count).astype(float)
    weights[-2:] = 1
    return labels, scores, weights


def isic_partial_auc(labels, scores, weights=None):
    """The ISIC 2024 challenge: the mirrored curve up to a false positive rate of .2, unscaled."""
    reach = 1 - LOWEST_TPR
    scaled = reference.roc_auc_score(1 - labels, 1 - scores, max_fpr=reach, sample_weight=weights)
    low = reach**2 / 2
    return low + (reach - low) * (scaled - 0.5) / 0.5


def trapezoid_partial_auc(labels, scores):
    """The curve of scikit-learn above the line, on a grid that has all of its corners."""
    fpr, tpr, _ = reference.roc_curve(labels, scores, drop_intermediate=False)
    crossing = np.interp(LOWEST_TPR, tpr, fpr)
    above = tpr > LOWEST_TPR
    x, y = np.append(crossing, fpr[above]), np.append(LOWEST_TPR, tpr[above])
    return np.trapezoid(y - LOWEST_TPR, x)


def expected_figures(labels, scores, weights):
    return {
        "auc": reference.roc_auc_score(labels, scores, sample_weight=weights),
        "average_precision": reference.average_precision_score(
            labels, scores, sample_weight=weights
        ),
        "partial_auc": isic_partial_auc(labels, scores, weights),
        "brier": reference.brier_score_loss(labels, scores, sample_weight=weights),
    }


@pytest.mark.parametrize("decimals", [1, 2, 12])
@pytest.mark.parametrize("count", [5, 31, 400])
@pytest.mark.parametrize("seed", range(4))
def test_figures_are_those_of_scikit_learn(count, decimals, seed):
    labels, scores, weights = draw(count, decimals, seed)
    both = np.stack([np.ones(count), weights])
    found = Ranking(labels, scores).figures(both)
    for row in (0, 1):
        for name, value in expected_figures(labels, scores, both[row]).items():
            assert found[name][row] == pytest.approx(value, abs=1e-12), name


@pytest.mark.parametrize("seed", range(4))
def test_partial_auc_is_the_area_above_the_line(seed):
    labels, scores, _ = draw(60, 12, seed)
    found = Ranking(labels, scores).figures(np.ones((1, 60)))["partial_auc"][0]
    assert found == pytest.approx(trapezoid_partial_auc(labels, scores), abs=1e-12)


def test_partial_auc_of_a_perfect_and_of_a_useless_ranking():
    labels = np.array([1, 1, 0, 0])
    ones = np.ones((1, 4))
    assert Ranking(labels, [0.9, 0.8, 0.2, 0.1]).figures(ones)["partial_auc"][0] == pytest.approx(
        0.2
    )
    assert Ranking(labels, [0.5] * 4).figures(ones)["partial_auc"][0] == pytest.approx(0.02)


@pytest.mark.parametrize("threshold", [0, 0.25, 0.3, 0.301, 1])
def test_rates_are_those_of_the_weighted_cases(threshold):
    labels, scores, weights = draw(80, 2, 5)
    repeated = np.repeat(np.arange(80), weights.astype(int))
    expected = confusion(labels[repeated], scores[repeated], threshold)
    found = Ranking(labels, scores).rates(weights[None], threshold)
    for name in RATES:
        value = getattr(expected, name)
        assert (
            found[name][0] == pytest.approx(value)
            if value is not None
            else np.isnan(found[name][0])
        )


def test_calibration_error_is_that_of_equal_bins():
    labels, scores, _ = draw(150, 12, 6)
    order = np.argsort(scores)
    parts = np.array_split(order, 15)
    expected = np.mean([abs(scores[part].mean() - labels[part].mean()) for part in parts])
    found = Ranking(labels, scores).calibration_error()
    assert found == pytest.approx(expected, abs=1e-12)


def test_calibration_error_does_not_depend_on_the_order_of_ties():
    labels, scores, _ = draw(97, 1, 7)
    turned = np.random.default_rng(0).permutation(97)
    found = [
        Ranking(labels[rows], scores[rows]).calibration_error() for rows in (np.arange(97), turned)
    ]
    assert found[0] == pytest.approx(found[1], abs=1e-12)


def test_calibration_error_of_one_probability():
    ranking = Ranking(np.arange(10) == 4, np.full(10, 0.3))
    assert ranking.calibration_error() == pytest.approx([0.2])
    drawn = np.stack([np.arange(10) < 4, np.arange(10) % 2 == 0])
    assert ranking.calibration_error(drawn) == pytest.approx([0.1, 0.2])


def test_only_the_figures_that_are_wanted_are_computed():
    labels, scores, weights = draw(30, 3, 8)
    ranking = Ranking(labels, scores)
    found = ranking.figures(weights[None], names=("brier",))
    assert list(found) == ["brier"]
    np.testing.assert_array_equal(found["brier"], ranking.figures(weights[None])["brier"])


def test_one_class_leaves_ranking_undefined():
    found = Ranking([0, 0, 0], [0.1, 0.2, 0.3]).figures(np.ones((1, 3)))
    assert all(np.isnan(found[name][0]) for name in ("auc", "average_precision", "partial_auc"))
    assert found["brier"][0] == pytest.approx(0.14 / 3)


@pytest.mark.parametrize("scores", [[0.1, 1.5], [-0.1, 0.5], [[0.1, 0.9], [0.9, 0.1]]])
def test_what_is_no_probability_is_refused(scores):
    with pytest.raises(InputError, match="probability"):
        Ranking([0, 1], scores)
