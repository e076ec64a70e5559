"""Odds ratios, shifts and corrections against scipy and by hand."""

import numpy as np
import pytest
from scipy.stats import contingency, ks_2samp

from attnvgg.data.audit.statistics import holm, odds_ratio, shift


def table_of(a, b, c, d):
    """Return sign and class of a + b positives (a with the sign) and c + d others."""
    sign = np.repeat([True, False, True, False], [a, b, c, d])
    return sign, np.repeat([True, True, False, False], [a, b, c, d])


def test_with_a_picture_a_group_it_is_woolfs():
    sign, positive = table_of(30, 70, 40, 260)
    groups = np.arange(400)
    found = odds_ratio(sign, positive, groups)
    reference = contingency.odds_ratio([[30, 70], [40, 260]], kind="sample")
    interval = reference.confidence_interval(0.95)
    assert found.estimate == pytest.approx(reference.statistic)
    # 400 / 399: the correction for the number of groups
    factor = np.sqrt(400 / 399)
    centre = np.log(found.estimate)
    assert np.log(found.low) - centre == pytest.approx(factor * (np.log(interval.low) - centre))
    assert np.log(found.high) - centre == pytest.approx(factor * (np.log(interval.high) - centre))


def test_one_patient_is_one_witness():
    """All of a sign may be in one patient's 40 pictures, with an empty cell or without."""
    sign, positive = table_of(40, 50, 0, 450)
    groups = np.maximum(np.arange(540) - 39, 0)
    found = odds_ratio(sign, positive, groups)
    assert (found.p_value, found.counted) == (None, "groups")
    assert found.estimate == pytest.approx(1.5 * 450.5 / (50.5 * 0.5))
    assert found.low < 1.1 < 600 < found.high
    sign[-4:] = True  # of four other patients
    found = odds_ratio(sign, positive, groups)
    assert found.estimate == pytest.approx(1 * 446 / (50 * 4))
    assert found.p_value > 0.3


def test_groups_are_counted_on_either_side_and_as_pictures_if_they_have_one():
    """Group 0 has both classes; that a picture of it shows the sign counts with its class only."""
    sign = np.array([1, 0, 0, 1, 1, 0, 0, 0], bool)
    positive = np.array([1, 1, 0, 1, 0, 0, 0, 1], bool)
    groups = np.array([0, 0, 0, 1, 2, 3, 4, 5])
    assert odds_ratio(sign, positive, groups).estimate == pytest.approx(2 * 3 / (1 * 1))
    found = odds_ratio(*table_of(4, 60, 30, 90), np.arange(184))
    assert found.counted == "pictures"
    reference = contingency.odds_ratio([[4, 60], [30, 90]], kind="sample")
    assert found.low == pytest.approx(reference.confidence_interval(0.95).low)
    assert found.p_value == pytest.approx(0.0039, abs=1e-4)


def test_an_empty_cell_gives_a_wide_interval_not_an_infinite_one():
    found = odds_ratio(*table_of(5, 20, 0, 40), np.arange(65))
    assert found.estimate == pytest.approx(5.5 * 40.5 / (20.5 * 0.5))
    assert 1 < found.low < found.estimate < found.high < np.inf
    assert found.p_value == pytest.approx(0.0404, abs=1e-4)


@pytest.mark.parametrize("cells", [(0, 5, 0, 5), (5, 0, 5, 0), (5, 5, 0, 0), (0, 0, 5, 5)])
def test_it_is_undefined_where_one_side_is_missing(cells):
    assert odds_ratio(*table_of(*cells), np.arange(10)) is None


def test_repeated_pictures_of_a_patient_are_no_further_evidence():
    """Four copies of each row: the interval stays that of the rows, by groups; else it halves."""
    sign, positive = table_of(30, 70, 40, 260)
    once = odds_ratio(sign, positive, np.arange(400))
    fourfold = np.tile(sign, 4), np.tile(positive, 4)
    by_groups = odds_ratio(*fourfold, np.tile(np.arange(400), 4))
    ignoring = odds_ratio(*fourfold, np.arange(1600))
    assert by_groups.low == pytest.approx(once.low)
    width = [np.log(found.high / found.low) for found in (ignoring, once)]
    assert width[0] == pytest.approx(width[1] / 2, rel=0.01)


def test_the_interval_covers_where_patients_repeat():
    """60 patients x 5 pictures that all show the sign or none of which does: true ratio 1."""
    rng, covered = np.random.default_rng(0), 0
    groups = np.repeat(np.arange(60), 5)
    for _ in range(400):
        sign, positive = (np.repeat(rng.random(60) < share, 5) for share in (0.4, 0.5))
        found = odds_ratio(sign, positive, groups)
        covered += found.low <= 1 <= found.high
    assert 0.92 <= covered / 400 <= 0.98


def test_few_large_patients_are_no_evidence():
    """Nothing goes with anything, but most pictures are of a few of 60 patients."""
    rng, errors = np.random.default_rng(0), 0
    for _ in range(400):
        groups = np.repeat(np.arange(60), np.minimum(1 + rng.pareto(1, 60).astype(int), 60))
        sign, positive = ((rng.random(60) < 0.3)[groups] for _ in range(2))
        p_value = odds_ratio(sign, positive, groups).p_value
        errors += p_value is not None and p_value < 0.01
    assert errors <= 4


def test_a_shift_of_half_a_standard_deviation():
    rng = np.random.default_rng(0)
    first, second = rng.normal(0, 2, 4000), rng.normal(1, 2, 4000)
    found = shift(first, second, (first[:50], second[:50]))
    assert found.standardised == pytest.approx(0.5, abs=0.05)
    assert found.largest == ks_2samp(first, second).statistic
    assert found.p_value == ks_2samp(first[:50], second[:50]).pvalue


def test_constants_are_equal_or_worlds_apart():
    ones, twos = np.ones(20), np.full(20, 2.0)
    assert shift(ones, ones, (ones, ones))[:2] == (0, 0)
    assert shift(ones, twos, (ones, twos))[:2] == (99, 1)


def test_holm_never_lowers_a_p_value_and_keeps_their_order():
    values = np.random.default_rng(0).uniform(0, 0.2, 30)
    corrected = holm(values)
    assert (corrected >= values).all()
    assert (np.diff(np.array(corrected)[np.argsort(values)]) >= 0).all()
    assert corrected[int(values.argmin())] == pytest.approx(30 * values.min())
    assert holm([]) == []
