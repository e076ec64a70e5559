"""The decision curve."""

import numpy as np
import pytest

from attnvgg.evaluation.decision import THRESHOLDS, decision_curve
from attnvgg.evaluation.ranking import Ranking
from attnvgg.evaluation.replicates import Resampling


@pytest.fixture
def cases():
    rng = np.random.default_rng(0)
    scores = rng.random(120)
    labels = (rng.random(120) < scores**2).astype(int)
    return labels, scores, Resampling(np.arange(120) // 2, labels, 300)


def test_net_benefit_is_its_definition(cases):
    labels, scores, resampling = cases
    found = decision_curve(Ranking(labels, scores), resampling)
    for number in (0, 19, 49, 98):
        threshold, called = THRESHOLDS[number], scores >= THRESHOLDS[number]
        odds = threshold / (1 - threshold)
        expected = (called & (labels == 1)).mean() - odds * (called & (labels == 0)).mean()
        assert found["model"][number] == pytest.approx(expected)
        everybody = labels.mean() - odds * (1 - labels.mean())
        assert found["all"][number] == pytest.approx(everybody)
        assert found["lower"][number] <= expected <= found["upper"][number]


def test_sets_of_one_class_leave_no_nan():
    """All negative cases are of one patient, who is missing in a third of the sets."""
    labels = np.array([1, 1, 1, 1, 1, 1, 1, 0, 0])
    scores = np.array([0.9, 0.8, 0.7, 0.6, 0.8, 0.9, 0.95, 0.2, 0.3])
    groups = list("abcdefggg")
    found = decision_curve(Ranking(labels, scores), Resampling(groups, labels))
    assert (found["lower"], found["upper"]) == (None, None)
    assert "one class only" in found["reason"]
    assert np.isfinite(found["model"]).all()


def test_few_sets_of_one_class_are_dropped():
    labels = np.append(np.arange(12) < 6, [True, False])
    groups = np.append(np.arange(12) // 2 * 2 % 8, [0, 2])
    scores = np.random.default_rng(0).random(14)
    resampling = Resampling(groups, labels)
    found = decision_curve(Ranking(labels, scores), resampling)
    assert found["reason"] is None
    assert np.isfinite([found["lower"], found["upper"]]).all()


def test_another_prevalence_weighs_the_cases(cases):
    """As if each negative case were there nine times as often as now."""
    labels, scores, resampling = cases
    copies = np.where(labels == 1, 1, 9)
    share = labels.sum() / copies.sum()
    found = decision_curve(Ranking(labels, scores), resampling, share)
    many = [np.repeat(values, copies) for values in (labels, scores)]
    expected = decision_curve(Ranking(*many), Resampling(np.arange(len(many[0])), many[0], 2))
    assert found["model"] == pytest.approx(expected["model"])
    assert found["all"] == pytest.approx(expected["all"])
    assert found["prevalence"] == share
