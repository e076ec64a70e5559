"""The group bootstrap: whole groups, within their stratum; Wilson's interval where none repeats."""

import numpy as np
import pytest

from attnvgg.evaluation.bootstrap import group_bootstrap, share_interval
from attnvgg.evaluation.intervals import wilson_interval


def patients(count, per, effect, seed):
    """Hits of cases that agree within a patient, and whose they are."""
    rng = np.random.default_rng(seed)
    rate = np.where(rng.random(count) < 0.7, 0.7 + effect, 0.7 - effect * 7 / 3)
    hits = rng.random((count, per)) < rate[:, None]
    return hits.ravel(), np.repeat(np.arange(count), per)


def test_cases_on_their_own_have_wilsons_interval():
    hits = np.arange(10) < 8
    found = share_interval(hits, hits, [f"p{i}" for i in range(9)] + [None])
    assert (found["lower"], found["upper"]) == wilson_interval(8, 10)
    assert (found["value"], found["level"], found["method"]) == (0.8, 0.95, "Wilson")


@pytest.mark.parametrize("all_right", [False, True])
def test_all_or_none_is_no_certainty(all_right):
    """Ten slides of five patients count as five cases."""
    hits = np.full(10, all_right)
    found = share_interval(hits, hits, np.repeat(np.arange(5), 2))
    assert (found["lower"], found["upper"]) == wilson_interval(5.0 * all_right, 5)
    assert found["method"] == "Wilson on groups"


def test_groups_that_repeat_are_resampled_whole():
    hits, groups = patients(60, 5, 0.25, seed=0)
    found = share_interval(hits, np.zeros(len(hits), bool), groups)
    assert found["method"] == "group bootstrap"
    assert found["lower"] < found["value"] == hits.mean() < found["upper"]
    lower, upper = wilson_interval(hits.sum(), len(hits))
    assert found["upper"] - found["lower"] > 1.3 * (upper - lower)


def test_it_covers():
    """Of 150 sets of patients about 95 % of the intervals hold the truth of .7."""
    held = 0
    for seed in range(150):
        hits, groups = patients(50, 4, 0.25, seed)
        found = share_interval(hits, np.zeros(len(hits), bool), groups)
        held += found["lower"] <= 0.7 <= found["upper"]
    assert 0.89 <= held / 150 <= 0.99


def test_strata_keep_their_size():
    """A figure that only counts groups of each stratum never moves."""
    positive = np.arange(12) < 3
    values = np.stack([positive, ~positive], axis=1).astype(float)
    found = group_bootstrap(values, positive, lambda sums: sums[:, 0] / sums[:, 1])
    assert (found.lower, found.value, found.upper) == pytest.approx((1 / 3,) * 3)


def test_one_positive_case_makes_a_group_positive():
    """Then all groups are in one stratum, and their number of positives is left to chance."""
    groups = np.repeat(np.arange(6), 2)
    positive = np.tile([True, False], 6)
    values = np.stack([groups < 3, np.ones(12)], axis=1).astype(float)
    found = group_bootstrap(values, positive, lambda sums: sums[:, 0] / sums[:, 1], groups)
    assert found.lower < 0.5 < found.upper


def test_an_undefined_figure_has_no_interval():
    found = group_bootstrap(np.zeros((4, 1)), np.zeros(4, bool), lambda sums: sums[:, 0] / np.nan)
    assert (found.value, found.lower, found.upper) == (None, None, None)
