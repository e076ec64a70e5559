import math
from statistics import NormalDist

import numpy as np
import pytest
from scipy.stats import binomtest
from scipy.stats import t as student

from attnvgg.errors import InputError
from attnvgg.evaluation.intervals import auc_interval, structural_components, wilson_interval
from attnvgg.evaluation.metrics import roc_auc
from benchmarks.evaluation import coverage as simulated


def kernel(diseased, healthy):
    difference = np.subtract.outer(diseased, healthy)
    return (difference > 0) + 0.5 * (difference == 0)


def naive_delong(labels, scores):
    psi = kernel(scores[labels == 1], scores[labels == 0])
    v10, v01 = psi.mean(1), psi.mean(0)
    return v10.var(ddof=1) / len(v10) + v01.var(ddof=1) / len(v01)


def naive_obuchowski(labels, scores, groups):
    """The formulas of the paper, cluster by cluster."""
    sick = labels == 1
    psi = kernel(scores[sick], scores[~sick])
    auc, (m, n) = psi.mean(), psi.shape
    s10 = s01 = s11 = 0.0
    names = np.unique(groups)
    for name in names:
        x, y = groups[sick] == name, groups[~sick] == name
        a = psi.mean(1)[x].sum() - x.sum() * auc
        b = psi.mean(0)[y].sum() - y.sum() * auc
        s10, s01, s11 = s10 + a * a, s01 + b * b, s11 + a * b
    i10, i01, i = len(np.unique(groups[sick])), len(np.unique(groups[~sick])), len(names)
    s10 *= i10 / ((i10 - 1) * m)
    s01 *= i01 / ((i01 - 1) * n)
    s11 *= i / (i - 1)
    return s10 / m + s01 / n + 2 * s11 / (m * n)


@pytest.fixture
def cases():
    """Tied scores of 80 cases, of patients who have both kinds."""
    rng = np.random.default_rng(1)
    labels, groups = rng.integers(0, 2, 80), rng.integers(0, 25, 80)
    own = rng.normal(size=25)[groups]
    return labels, np.round(labels + own + rng.normal(size=80), 1), groups


def test_hand_computed():
    # V10 = 1, 5/6, 1/3; V01 = 2/3, 1, 1/2; AUC = 13/18; variance = (39 + 21) / 324 / 3
    found = auc_interval([1, 1, 1, 0, 0, 0], [0.9, 0.6, 0.4, 0.5, 0.3, 0.6])
    assert found.auc == pytest.approx(13 / 18)
    assert found.standard_error == pytest.approx(math.sqrt(5) / 9)
    centre, reach = math.log(13 / 5), 1.959963985 * math.sqrt(5) / 9 / (13 / 18 * 5 / 18)
    assert found.lower == pytest.approx(1 / (1 + math.exp(reach - centre)))
    assert found.upper == pytest.approx(1 / (1 + math.exp(-reach - centre)))
    assert (found.method, found.reason) == ("delong", None)


def test_components_are_those_of_all_pairs(cases):
    labels, scores, _ = cases
    psi = kernel(scores[labels == 1], scores[labels == 0])
    v10, v01 = structural_components(scores[labels == 1], scores[labels == 0])
    np.testing.assert_allclose(v10, psi.mean(1))
    np.testing.assert_allclose(v01, psi.mean(0))


def test_delong_is_the_naive_one(cases):
    labels, scores, _ = cases
    found = auc_interval(labels, scores)
    assert found.auc == pytest.approx(roc_auc(labels, scores))
    assert found.standard_error**2 == pytest.approx(naive_delong(labels, scores))


def test_obuchowski_is_the_naive_one(cases):
    found = auc_interval(*cases)
    assert found.method == "obuchowski"
    assert found.standard_error**2 == pytest.approx(naive_obuchowski(*cases))


def test_groups_of_one_case_are_delong(cases):
    labels, scores, _ = cases
    names = np.arange(80).astype(str)
    assert auc_interval(labels, scores, names) == auc_interval(labels, scores)
    assert naive_obuchowski(labels, scores, names) == pytest.approx(naive_delong(labels, scores))


def test_missing_groups_are_groups_of_their_own(cases):
    labels, scores, groups = cases
    some = groups < 8
    named = np.where(some, groups, 100 + np.arange(80))
    holes = np.where(some, groups.astype(object), None)
    assert auc_interval(labels, scores, holes) == auc_interval(labels, scores, named)
    assert auc_interval(labels, scores, np.full(80, np.nan)).method == "delong"


def test_copies_of_a_case_tell_nothing_new(cases):
    labels, scores, _ = cases
    copies = [np.repeat(values, 3) for values in (labels, scores, np.arange(80))]
    once, thrice = auc_interval(labels, scores), auc_interval(*copies)
    assert thrice.standard_error == pytest.approx(once.standard_error)
    assert thrice.lower == pytest.approx(once.lower, abs=5e-3)  # Student's quantile or the normal
    assert thrice.upper == pytest.approx(once.upper, abs=5e-3)
    assert thrice.lower < once.lower
    deceived = auc_interval(*copies[:2])
    assert deceived.standard_error < 0.6 * once.standard_error


def test_swapping_the_classes_mirrors_the_interval(cases):
    labels, scores, groups = cases
    found, mirrored = auc_interval(*cases), auc_interval(1 - labels, scores, groups)
    assert mirrored.lower == pytest.approx(1 - found.upper)
    assert mirrored.upper == pytest.approx(1 - found.lower)


@pytest.mark.parametrize(
    ("labels", "scores", "groups", "auc", "reason"),
    [
        ([0, 0, 1, 1], [1, 2, 3, 4], None, 1, "exactly 1"),
        ([0, 0, 1, 1], [3, 4, 1, 2], None, 0, "exactly 0"),
        ([0, 0, 1], [1, 3, 2], None, 0.5, "two groups or cases"),
        ([0, 0, 1, 1], [1, 3, 2, 4], ["a", "a", "b", "c"], 0.75, "two groups or cases"),
        ([0, 0, 1, 1], [1, 1, 1, 1], None, 0.5, "rank alike"),
    ],
)
def test_undefined_intervals_say_why(labels, scores, groups, auc, reason):
    found = auc_interval(labels, scores, groups)
    assert found.auc == auc
    assert (found.lower, found.upper, found.standard_error) == (None, None, None)
    assert reason in found.reason


def test_wrong_input_is_refused():
    with pytest.raises(InputError, match="All 2 cases"):
        auc_interval([1, 1], [0.1, 0.2])
    with pytest.raises(InputError, match="level"):
        auc_interval([0, 1], [0.1, 0.2], level=95)
    with pytest.raises(InputError, match="groups"):
        auc_interval([0, 1], [0.1, 0.2], ["a"])


def coverage(truth, replicates):
    """Share of the replicates (labels, scores, groups) whose interval holds the truth."""
    found = [auc_interval(*replicate) for replicate in replicates]
    return np.mean([f.lower is not None and f.lower <= truth <= f.upper for f in found])


def test_delong_covers():
    rng = np.random.default_rng(2)
    labels = np.repeat([0, 1], 40)
    truth = NormalDist().cdf(1.2 / math.sqrt(2))
    drawn = [(labels, 1.2 * labels + rng.normal(size=80), None) for _ in range(800)]
    assert 0.93 <= coverage(truth, drawn) <= 0.97


def test_obuchowski_covers_where_delong_does_not():
    """50 patients with 4 images each, correlated .7 within a patient."""
    rng = np.random.default_rng(3)
    groups = np.repeat(np.arange(50), 4)
    labels = groups % 2
    truth = NormalDist().cdf(1.2 / math.sqrt(2))
    drawn = []
    for _ in range(400):
        own, rest = rng.normal(size=50)[groups], rng.normal(size=200)
        scores = 1.2 * labels + math.sqrt(0.7) * own + math.sqrt(0.3) * rest
        drawn.append((labels, scores, groups))
    plain = coverage(truth, [(labels, scores, None) for _, scores, _ in drawn])
    clustered = coverage(truth, drawn)
    assert 0.91 <= clustered <= 0.98
    assert 0.65 <= plain <= 0.80


@pytest.mark.parametrize("clustered", [False, True])
@pytest.mark.parametrize("prevalence", [0.2, 0.5])
@pytest.mark.parametrize("area", [0.7, 0.85, 0.95])
def test_it_covers_everywhere(area, prevalence, clustered):
    """The benchmark with 2,000 simulations is within 92.5 to 97 %; this has 250."""
    assert 0.90 <= simulated(area, prevalence, clustered, 250) <= 0.995


def test_few_patients_have_students_quantile():
    """4 diseased patients: t of 3 degrees of freedom, on the logit scale."""
    groups, labels = np.repeat(np.arange(12), 2), np.repeat(np.arange(12) % 3 == 0, 2).astype(int)
    found = auc_interval(labels, labels + np.random.default_rng(0).normal(size=24), groups)
    scale = found.standard_error / (found.auc * (1 - found.auc))
    width = math.log(found.upper / (1 - found.upper)) - math.log(found.lower / (1 - found.lower))
    assert width / 2 / scale == pytest.approx(student.ppf(0.975, 3))


@pytest.mark.parametrize("level", [0.8, 0.95, 0.99])
@pytest.mark.parametrize(
    ("hits", "count"), [(0, 1), (1, 1), (0, 30), (3, 30), (29, 30), (985, 999)]
)
def test_wilson_is_that_of_scipy(hits, count, level):
    expected = binomtest(hits, count).proportion_ci(level, method="wilson")
    assert wilson_interval(hits, count, level) == pytest.approx((expected.low, expected.high))


def test_wilson_takes_a_tie_for_half_a_hit():
    lower, middle, upper = (wilson_interval(hits, 10)[0] for hits in (4, 4.5, 5))
    assert lower < middle < upper
