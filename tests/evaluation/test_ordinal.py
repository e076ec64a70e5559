"""Quadratic kappa: scikit-learn's, hand-made figures, and an interval of whole patients."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from attnvgg.errors import InputError
from attnvgg.evaluation.ordinal import kappa_interval, quadratic_kappa

grades = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=2, max_size=40)


def noisy(count, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 6, count)
    return labels, (labels + rng.integers(-2, 3, count)).clip(0, 5)


@settings(max_examples=100, deadline=None)
@given(grades)
def test_it_is_scikit_learns(pairs):
    labels, called = np.array(pairs).T
    found = quadratic_kappa(labels, called, 6)
    if len({*labels, *called}) == 1:
        assert found is None
    else:
        theirs = cohen_kappa_score(labels, called, labels=range(6), weights="quadratic")
        assert found == pytest.approx(theirs)


def test_by_hand():
    """Observed disagreement (0 + 0 + 4) / 3, expected over the 9 pairs (0 + 1 + 0 + ...) / 9."""
    labels, called = [0, 1, 2], [0, 1, 0]
    expected = sum((a - b) ** 2 for a in labels for b in called) / 3
    assert quadratic_kappa(labels, called, 3) == pytest.approx(1 - 4 / expected)


def test_perfect_chance_and_nothing_to_agree_on():
    assert quadratic_kappa([0, 1, 2], [0, 1, 2], 3) == 1
    assert quadratic_kappa([0, 2, 0, 2], [0, 0, 2, 2], 3) == pytest.approx(0)
    assert quadratic_kappa([1, 1], [1, 1], 3) is None
    assert kappa_interval([1, 1], [1, 1], 3).lower is None


def test_the_interval_holds_the_value_and_shrinks_with_the_cases():
    widths = []
    for count in (50, 800):
        found = kappa_interval(*noisy(count), 6)
        assert found.lower < found.value < found.upper
        widths.append(found.upper - found.lower)
    assert 2.5 < widths[0] / widths[1] < 6.5  # about the root of 16


def test_perfect_agreement_is_no_certainty():
    grades = np.arange(8) % 3
    found = kappa_interval(grades, grades, 3)
    assert (found.value, found.lower, found.upper) == (1.0, None, None)


def test_slides_of_one_patient_are_no_news():
    """Every case three times over, as one patient: the very same interval."""
    labels, called = noisy(60)
    alone = kappa_interval(labels, called, 6, [f"p{i}" for i in range(60)])
    thrice = kappa_interval(
        np.repeat(labels, 3), np.repeat(called, 3), 6, [f"p{i}" for i in range(60) for _ in "abc"]
    )
    independent = kappa_interval(np.repeat(labels, 3), np.repeat(called, 3), 6)
    assert (thrice.lower, thrice.upper) == pytest.approx((alone.lower, alone.upper))
    assert independent.upper - independent.lower < 0.75 * (thrice.upper - thrice.lower)


def test_the_same_every_time():
    assert kappa_interval(*noisy(40), 6) == kappa_interval(*noisy(40), 6)


@pytest.mark.parametrize(
    ("labels", "called"), [([], []), ([0, 1], [0]), ([0, 3], [0, 1]), ([0, 1], [0, -1])]
)
def test_what_cannot_be_judged(labels, called):
    with pytest.raises(InputError):
        quadratic_kappa(labels, called, 3)
