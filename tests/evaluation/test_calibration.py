"""Temperature, reliability and prevalence."""

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit
from sklearn.calibration import calibration_curve
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss as reference_log_loss

from attnvgg.evaluation.calibration import (
    at_prevalence,
    calibration_figure,
    fit_sigmoid,
    fit_temperature,
    log_loss,
    predictive_values,
    read_logits,
    reliability,
)
from attnvgg.evaluation.ranking import Ranking


def binary(count=4000, temperature=2.5, seed=0):
    """Labels whose probabilities are those of the logits divided by the temperature."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 4, count)
    labels = (rng.random(count) < expit(logits / temperature)).astype(int)
    return labels, np.stack([np.zeros(count), logits], axis=1)


@pytest.mark.parametrize("temperature", [0.4, 1, 2.5])
def test_temperature_is_found(temperature):
    found = fit_temperature(*binary(temperature=temperature))
    assert found["temperature"] == pytest.approx(temperature, rel=0.1)


def test_temperature_is_a_regression_without_intercept():
    labels, logits = binary()
    slope = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-10).fit(logits[:, 1:], labels)
    found = fit_temperature(labels, logits)["temperature"]
    assert found == pytest.approx(1 / slope.coef_[0, 0], rel=1e-4)


def test_temperature_of_several_classes():
    rng = np.random.default_rng(1)
    logits = rng.normal(0, 3, (5000, 4))
    shares = np.exp(logits / 1.7)
    shares /= shares.sum(1, keepdims=True)
    labels = (shares.cumsum(1) < rng.random((5000, 1))).sum(1)
    found = fit_temperature(labels, logits)
    assert found["temperature"] == pytest.approx(1.7, rel=0.1)
    assert log_loss(labels, logits / 1.7) < log_loss(labels, logits)


@pytest.mark.parametrize(
    ("labels", "scores", "why"),
    [
        ([1, 1], [1.0, 2], "one class"),
        ([0, 1], [-1.0, 1], "separates"),
        ([0, 1], [1.0, -1], "chance"),
    ],
)
def test_without_a_least_loss_there_is_no_temperature(labels, scores, why):
    found = fit_temperature(labels, np.stack([np.zeros(2), scores], axis=1))
    assert found["temperature"] is None
    assert why in found["reason"]


def test_log_loss_is_that_of_scikit_learn():
    labels, logits = binary(200)
    assert log_loss(labels, logits) == pytest.approx(
        reference_log_loss(labels, expit(logits[:, 1])), abs=1e-12
    )


def test_logits_are_taken_where_they_belong_to_the_probabilities():
    values = np.array([[0.2], [0.9999999999]])
    own = pd.DataFrame({"logit": [logit(0.2), 23.0]})
    assert read_logits(own, values)[1, 1] == 23
    for table in (own.assign(logit=[5.0, 23]), own.assign(logit=[np.nan, 23]), pd.DataFrame()):
        found = read_logits(table, values)
        assert found[0, 1] - found[0, 0] == pytest.approx(logit(0.2))
        assert np.isfinite(found).all()


def test_probabilities_of_zero_and_one_have_a_logit():
    assert np.isfinite(read_logits(pd.DataFrame(), np.array([[0.0], [1.0]]))).all()


def test_reliability_is_that_of_scikit_learn():
    labels, logits = binary(150)
    scores = expit(logits[:, 1])
    found = reliability(labels, scores)
    share, mean = calibration_curve(labels, scores, n_bins=15, strategy="quantile")
    assert found["share"] == pytest.approx(share)
    assert found["probability"] == pytest.approx(mean)
    assert found["n"] == [10] * 15
    assert (np.subtract(found["upper"], found["share"]) > -1e-12).all()
    assert (np.subtract(found["share"], found["lower"]) > -1e-12).all()
    assert (np.subtract(found["upper"], found["lower"]) > 0.1).all()


def test_the_points_are_those_of_the_calibration_error_whatever_the_order_of_ties():
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 5, 83) / 5
    labels = (rng.random(83) < 0.4).astype(int)
    order = np.argsort(labels, kind="stable")
    found, other = reliability(labels, scores), reliability(labels[order], scores[order])
    for name, values in found.items():
        assert other[name] == pytest.approx(values, abs=1e-12)
    apart = np.abs(np.subtract(found["probability"], found["share"])).mean()
    assert Ranking(labels, scores).calibration_error()[0] == pytest.approx(apart, abs=1e-12)


def test_chance_alone_explains_the_error_of_a_calibrated_model(monkeypatch):
    """In 95 of 100 sets of cases no more than said; hardly ever of a model too sure of itself."""
    monkeypatch.setattr("attnvgg.evaluation.calibration.RESAMPLES", 200)
    below = {1.0: 0, 2.0: 0}
    for seed in range(100):
        rng = np.random.default_rng(seed)
        logits = rng.normal(-1, 1.2, 200)
        labels = (rng.random(200) < expit(logits)).astype(int)
        for slope in below:
            found = calibration_figure(labels, expit(slope * logits), np.arange(200))
            below[slope] += found["value"] <= found["chance"]
            assert (found["lower"], found["upper"]) == (None, None)
            assert found["reason"] == f"by chance up to {found['chance']:.3f}"
    assert 89 <= below[1.0] <= 99
    assert below[2.0] < 60


def test_patients_of_one_label_are_drawn_whole():
    labels = np.repeat([0, 1, 0, 1, 0, 1, 0, 1, 0, 1], 20)
    scores = np.full(200, 0.5)
    groups = np.repeat(np.arange(10), 20)
    whole = calibration_figure(labels, scores, groups)
    apart = calibration_figure(labels, scores, np.arange(200))
    assert whole["chance"] > 2 * apart["chance"]
    mixed = calibration_figure(np.tile([0, 1], 100), scores, groups)
    assert mixed["chance"] == apart["chance"]
    assert "independent" in mixed["reason"]


@pytest.mark.parametrize(("slope", "intercept"), [(1, 0), (0.4, 2.5), (3, -4)])
def test_slope_and_intercept_are_those_of_a_regression(slope, intercept):
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, 20000)
    labels = (rng.random(20000) < expit(slope * logits + intercept)).astype(int)
    reference = LogisticRegression(C=np.inf, tol=1e-10).fit(logits[:, None], labels)
    expected = [reference.coef_[0, 0], reference.intercept_[0]]
    assert fit_sigmoid(labels, logits) == pytest.approx(expected, abs=0.02)
    assert fit_sigmoid(labels, logits) == pytest.approx([slope, intercept], abs=0.15)


def test_a_sigmoid_of_separated_or_reversed_classes_is_finite():
    labels, logits = np.arange(20) < 10, np.linspace(3, -3, 20)
    slope, intercept = fit_sigmoid(labels, logits)
    assert 0 < slope < 10
    assert intercept == pytest.approx(0, abs=1e-4)
    assert fit_sigmoid(~labels, logits) == pytest.approx((0, 0), abs=1e-6)


def test_prevalence_is_corrected_by_bayes_rule():
    """Two normal classes: the probability at the other prevalence is known in closed form."""
    x = np.linspace(-3, 3, 50)
    likelihood = x * 1.5  # logarithm of the ratio of densities of N(.75, 1) and N(-.75, 1)
    learned, stated = expit(likelihood + logit(0.4)), expit(likelihood + logit(0.02))
    np.testing.assert_allclose(at_prevalence(learned, 0.4, 0.02), stated, atol=1e-14)
    np.testing.assert_allclose(at_prevalence(learned, 0.4, 0.4), learned, atol=1e-15)
    assert at_prevalence([0, 1], 0.4, 0.02).tolist() == [0, 1]


def test_predictive_values_are_those_of_a_table():
    """Of 10,000 people 200 are ill, 180 of them found; 9,800 are well, 980 of them alarmed."""
    ppv, npv = predictive_values(np.array([0.9]), np.array([0.9]), 0.02)
    assert ppv == pytest.approx(180 / 1160)
    assert npv == pytest.approx(8820 / 8840)
    assert np.isnan(predictive_values(np.array([0.0]), np.array([1.0]), 0.1)[0])
