"""Two models on the same cases."""

import numpy as np
import pandas as pd
import pytest

from attnvgg.errors import InputError
from attnvgg.evaluation.intervals import auc_interval
from attnvgg.evaluation.metrics import roc_auc
from attnvgg.evaluation.paired import aligned, auc_difference


def draw(seed, patients=50, per=4, shared=0.8):
    """Labels, scores of two models that share noise, and patients."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(patients), per)
    labels = (np.arange(patients) % 2)[groups]
    own, noise = rng.normal(size=patients)[groups], rng.normal(size=(3, len(groups)))
    common = 1.2 * labels + shared * (0.7 * own + 0.7 * noise[0])
    return labels, common + 0.5 * noise[1], common + 0.5 * noise[2], groups


def naive_delong(labels, first, second):
    """DeLong's covariance matrix from all pairs, and the variance of the difference from it."""
    sick, psi = labels == 1, []
    for scores in (first, second):
        difference = np.subtract.outer(scores[sick], scores[~sick])
        psi.append((difference > 0) + 0.5 * (difference == 0))
    v10, v01 = [p.mean(1) for p in psi], [p.mean(0) for p in psi]
    covariance = np.cov(v10) / sick.sum() + np.cov(v01) / (~sick).sum()
    return covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]


def test_it_is_delongs_covariance_matrix():
    labels, first, second, _ = draw(0)
    first, second = np.round(first, 1), np.round(second, 1)  # with ties
    found = auc_difference(labels, first, second)
    assert found["value"] == pytest.approx(roc_auc(labels, first) - roc_auc(labels, second))
    error = (found["upper"] - found["lower"]) / 2 / 1.959963985
    assert error**2 == pytest.approx(naive_delong(labels, first, second))
    assert found["method"] == "delong"


def test_copies_of_a_case_tell_nothing_new():
    labels, first, second, _ = draw(1)
    once = auc_difference(labels, first, second)
    copies = [np.repeat(values, 3) for values in (labels, first, second, np.arange(200))]
    thrice = auc_difference(*copies)
    assert thrice["method"] == "obuchowski"
    assert thrice["upper"] == pytest.approx(once["upper"], abs=1e-3)
    assert auc_difference(*copies[:3])["p_value"] < thrice["p_value"]


def test_pairing_tells_more_than_two_intervals():
    labels, first, second, groups = draw(2)
    found = auc_difference(labels, first, second, groups)
    errors = [auc_interval(labels, s, groups).standard_error for s in (first, second)]
    assert found["upper"] - found["lower"] < 0.8 * 2 * 1.96 * np.hypot(*errors)


def test_swapping_the_models_changes_the_sign():
    labels, first, second, groups = draw(3)
    found = auc_difference(labels, first, second, groups)
    back = auc_difference(labels, second, first, groups)
    assert back["value"] == pytest.approx(-found["value"])
    assert back["lower"] == pytest.approx(-found["upper"])
    assert back["p_value"] == pytest.approx(found["p_value"])


def test_it_covers_where_models_are_equally_good():
    """Patients with several images: about 95 % of the intervals hold 0."""
    held = [
        found["lower"] <= 0 <= found["upper"]
        for found in (auc_difference(*draw(seed)) for seed in range(100, 500))
    ]
    assert 0.92 <= np.mean(held) <= 0.98


def test_the_same_ranking_has_no_interval_and_says_why():
    labels, first, _, groups = draw(4)
    found = auc_difference(labels, first, np.exp(first), groups)
    assert (found["value"], found["lower"], found["p_value"]) == (0, None, None)
    assert "alike" in found["reason"]


def frame(names, labels, split="test"):
    return pd.DataFrame({"image": names, "label": labels, "split": split, "probability": 0.5})


def test_cases_are_matched_by_name():
    found = aligned(frame(list("abc"), [0, 1, 0]), frame(list("cab"), [0, 0, 1]), "test")
    assert found["image"].tolist() == list("abc")


def test_mismatched_cases_are_named():
    with pytest.raises(InputError, match="these 2 are of one") as caught:
        aligned(frame(list("abc"), [0, 1, 0]), frame(list("abd"), [0, 1, 0]), "test")
    assert caught.value.offenders == ["c (only of the first)", "d (only of the other)"]


def test_labels_that_differ_are_named():
    with pytest.raises(InputError, match="disagree on what 1 cases are") as caught:
        aligned(frame(list("ab"), [0, 1]), frame(list("ab"), [0, 0]), "test")
    assert caught.value.offenders == ["b: 1 and 0"]
