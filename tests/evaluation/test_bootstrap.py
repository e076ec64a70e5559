"""The group bootstrap: whole groups, within their stratum; Wilson's interval where none repeats."""

import numpy as np
import pytest

from attnvgg.evaluation.bootstrap import (
    group_bootstrap,
    percentiles,
    share_interval,
    strata_of,
)
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
    assert found["method"] == "Wilson, of groups"


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
    """A figure that only counts groups of each stratum never moves, and that is no certainty."""
    positive = np.arange(12) < 3
    values = np.stack([positive, ~positive], axis=1).astype(float)
    found = group_bootstrap(values, positive, lambda sums: sums[:, 0] / sums[:, 1])
    assert (found.lower, found.value, found.upper) == (None, pytest.approx(1 / 3), None)
    assert "same in all" in found.reason


def test_a_stratum_of_one_group_is_joined_with_its_neighbour():
    parts = strata_of(np.array([0, 2, 0, 1, 2, 0]))
    assert [part.tolist() for part in parts] == [[0, 2, 5, 3], [1, 4]]
    assert [part.tolist() for part in strata_of(np.array([1, 0, 1]))] == [[1, 0, 2]]
    assert [part.tolist() for part in strata_of(np.array([True, True]))] == [[0, 1]]


def test_one_positive_patient_is_drawn_like_the_others():
    """Else she would be in every replicate, and a mean over her images would be certain."""
    positive = np.arange(9) == 0
    values = np.stack([np.where(positive, 10.0, 0), np.ones(9)], axis=1)
    found = group_bootstrap(values, positive, lambda sums: sums[:, 0] / sums[:, 1])
    assert found.lower == 0 < found.value < found.upper


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


def test_too_few_replicates_say_why_there_is_no_interval():
    assert percentiles(np.nan, np.ones(10)).value is None
    found = percentiles(0.5, np.where(np.arange(10) < 5, np.nan, 0.5))
    assert (found.value, found.lower) == (0.5, None)
    assert "50%" in found.reason


@pytest.mark.parametrize(("hits", "groups"), [([1, 1, 0], [0] * 3), ([1, 0, 1, 0], [0, 0, 1, 1])])
def test_a_share_that_resampling_cannot_move_counts_groups(hits, groups):
    """Two of three images of one patient; half of the images of each of two."""
    found = share_interval(np.array(hits), np.array(hits) == 0, groups)
    expected = wilson_interval(np.mean(hits) * len(set(groups)), len(set(groups)))
    assert (found["lower"], found["upper"]) == expected
    assert found["method"] == "Wilson, of groups"
