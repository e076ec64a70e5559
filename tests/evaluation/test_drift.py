"""Drift is found where it was planted, and not where there is none, however small the period."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import chi2, ks_2samp

from attnvgg.errors import InputError
from attnvgg.evaluation import drift as module
from attnvgg.evaluation.drift import (
    ALPHA,
    LIMIT,
    bins_of,
    compare,
    drift_of,
    expected_stability,
    population_stability,
)


def test_the_index_by_hand():
    # (0.25 - 0.5) log(0.25 / 0.5) + (0.75 - 0.5) log(0.75 / 0.5)
    wanted = 0.25 * np.log(2) + 0.25 * np.log(1.5)
    assert population_stability([50, 50], [25, 75]) == pytest.approx(wanted)
    assert population_stability([5, 3, 2], [50, 30, 20]) == pytest.approx(0)
    assert population_stability([5, 0, 5], [1, 0, 3]) == population_stability([5, 5], [1, 3])


def test_the_index_is_symmetric_and_an_empty_bin_counts_half_a_case():
    a, b = np.array([10, 20, 30]), np.array([7, 7, 6])
    assert population_stability(a, b) == pytest.approx(population_stability(b, a))
    found = population_stability([10, 10], [20, 0])
    assert found == pytest.approx(0.5 * np.log(2) + (0.025 - 0.5) * np.log(0.025 / 0.5))


def test_bins_hold_equal_parts():
    values = np.random.default_rng(0).normal(size=1000)
    assert bins_of(values, 10).counts(values).tolist() == [100] * 10


def test_bins_of_ties_and_of_few_values():
    mostly_zero = np.append(np.zeros(800), np.arange(1, 201))
    bins = bins_of(mostly_zero, 10)
    assert (bins.counts(mostly_zero) > 0).all()
    few = np.repeat([1.0, 2.0, 3.0], [5, 3, 2])
    assert bins_of(few, 10).counts(few).tolist() == [5, 3, 2, 0]
    assert bins_of(few, 10).counts(np.array([0.5, 1, 2.5, 9])).tolist() == [1, 0, 0, 3]


@pytest.mark.parametrize(("n", "m"), [(200, 20), (150, 40), (400, 400)])
def test_without_drift_p_is_uniform_enough(n, m, monkeypatch):
    """Each level is kept: the share of p below it is not above it but for chance."""
    monkeypatch.setattr(module, "DRAWS", 1000)
    rng = np.random.default_rng(n + m)
    ps = np.array([drift_of("x", rng.gamma(2, size=n), rng.gamma(2, size=m)).p for _ in range(200)])
    for level in (0.05, 0.2, 0.5):
        spread = np.sqrt(level * (1 - level) / len(ps))
        assert (ps < level).mean() < level + 3 * spread
    assert (ps < 0.5).mean() > 0.35  # nor is it always 1


def test_index_and_p_agree_with_yurdakul():
    """PSI is about (1/n + 1/m) chi-square of B - 1 degrees of freedom where samples are large."""
    rng, found = np.random.default_rng(0), []
    for _ in range(60):
        found.append(drift_of("x", rng.normal(size=1500), rng.normal(size=1000)))
    scale = 1 / 1500 + 1 / 1000
    assert found[0].expected == pytest.approx(9 * scale)
    mean = np.mean([one.psi for one in found])
    assert mean == pytest.approx(expected_stability(1500, 1000, 10), rel=0.2)
    theirs = [chi2.sf(one.psi / scale, 9) for one in found]
    assert np.abs(np.subtract([one.p for one in found], theirs)).max() < 0.06


def test_a_value_that_was_not_seen_before_is_no_drift_by_itself():
    """Nearly all pictures are of one width; of twenty new ones, one is of another."""
    old = np.full(400, 600.0)
    one, five = np.full(20, 600.0), np.full(20, 600.0)
    one[0], five[:5] = 601, 601
    found = [drift_of("width", old, new) for new in (one, five)]
    assert found[0].p > 0.01
    assert found[1].p < 0.001


def test_kolmogorov_and_smirnov_stand_beside():
    rng = np.random.default_rng(0)
    old, new = rng.normal(size=90), rng.normal(0.3, size=50)
    found, wanted = drift_of("x", old, new), ks_2samp(old, new)
    assert (found.ks, found.ks_p) == (wanted.statistic, wanted.pvalue)


def table(rng, rows, shift=0.0):
    columns = {f"s{number}": rng.normal(size=rows) for number in range(10)}
    columns["s3"] = columns["s3"] + shift
    return pd.DataFrame(columns)


def test_no_drift_is_called_none_and_a_planted_one_is_found(monkeypatch):
    """Of ten statistics none is called in at least 95 % of periods, of any size."""
    monkeypatch.setattr(module, "DRAWS", 1000)
    rng = np.random.default_rng(0)
    names = [f"s{number}" for number in range(10)]
    false_alarms, periods = 0, 0
    for rows in (25, 60, 300):
        for _ in range(20):
            found, _ = compare(table(rng, 500), table(rng, rows), names)
            false_alarms += any(one.drifted for one in found)
            periods += 1
    assert false_alarms / periods <= ALPHA
    for rows in (60, 300):
        for _ in range(5):
            found, _ = compare(table(rng, 500), table(rng, rows, shift=1.5), names)
            assert [one.name for one in found if one.drifted] == ["s3"]


def test_a_certain_but_small_change_is_no_drift():
    rng = np.random.default_rng(0)
    old, new = rng.normal([[0.0], [0.1]], size=(2, 40_000))
    (found,), _ = compare(pd.DataFrame({"x": old}), pd.DataFrame({"x": new}), ["x"])
    assert found.p < 0.001
    assert found.psi < LIMIT
    assert not found.drifted


def test_values_that_were_always_the_same():
    same, other = pd.DataFrame({"x": np.full(50, 512.0)}), pd.DataFrame({"x": np.full(30, 600.0)})
    (found,), _ = compare(same, same[:30], ["x"])
    assert (found.psi, found.p, found.drifted) == (0, 1, False)
    (found,), _ = compare(same, other, ["x"])
    assert found.drifted


def test_what_cannot_be_compared_is_left_out_with_its_reason():
    rng = np.random.default_rng(0)
    old, new = table(rng, 100), table(rng, 100)
    new["s1"] = np.nan
    new.loc[:89, "s2"] = None
    old["s4"] = old["s4"].where(old.index > 1, np.inf)
    found, left_out = compare(old, new.drop(columns="s0"), ["s0", "s1", "s2", "s4", "s5"])
    assert [one.name for one in found] == ["s4", "s5"]
    assert found[0].reference == 98
    assert sorted(left_out) == ["s0", "s1", "s2"]
    assert "10 in the period" in left_out["s2"]
    with pytest.raises(InputError, match="None of the statistics"):
        compare(old, new[:5], ["s5"])
    with pytest.raises(InputError, match="at least 20 of both"):
        drift_of("x", np.arange(100), np.arange(19))


def test_the_same_comparison_is_the_same_twice():
    rng = np.random.default_rng(0)
    old, new = rng.normal(size=100), rng.normal(size=50)
    assert drift_of("x", old, new) == drift_of("x", old, new)
