import numpy as np
import pytest
from sklearn import metrics as reference

from attnvgg.errors import InputError
from attnvgg.evaluation.metrics import (
    Confusion,
    average_precision,
    balanced_accuracy,
    choose_threshold,
    confusion,
    recalls,
    roc_auc,
)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def tied(rng):
    """Labels and scores with many ties."""
    labels = rng.integers(0, 2, 60)
    return labels, (labels + rng.integers(0, 4, 60)) / 5


def test_auc_is_the_share_of_pairs_in_order(tied):
    labels, scores = tied
    above = scores[labels == 1][:, None] - scores[labels == 0]
    expected = np.mean((above > 0) + 0.5 * (above == 0))
    assert roc_auc(labels, scores) == pytest.approx(expected)
    assert isinstance(roc_auc(labels, scores), float)


def test_average_precision_of_a_hand_computed_ranking():
    # positives at ranks 1 and 3: precision 1 and 2/3
    assert average_precision([1, 0, 1, 0], [0.9, 0.8, 0.7, 0.1]) == pytest.approx((1 + 2 / 3) / 2)


def test_two_columns_are_judged_on_the_second(tied):
    labels, scores = tied
    both = np.stack([1 - scores, scores], 1)
    assert roc_auc(labels, both) == roc_auc(labels, scores)
    assert average_precision(labels, both) == average_precision(labels, scores)
    assert choose_threshold(labels, both) == choose_threshold(labels, scores)


def test_many_classes_are_averaged_one_against_the_rest(rng):
    labels = np.arange(60) % 4
    scores = rng.dirichlet(np.ones(4), 60)
    assert roc_auc(labels, scores) == pytest.approx(
        reference.roc_auc_score(labels, scores, multi_class="ovr", average="macro")
    )
    assert average_precision(labels, scores) == pytest.approx(
        reference.average_precision_score(labels, scores, average="macro")
    )
    assert balanced_accuracy(labels, scores) == pytest.approx(
        reference.balanced_accuracy_score(labels, scores.argmax(1))
    )


def test_a_class_without_a_case_is_left_out_of_the_mean(rng):
    labels = np.arange(30) % 2
    scores = rng.dirichlet(np.ones(3), 30)
    expected = np.mean([roc_auc(labels == k, scores[:, k]) for k in (0, 1)])
    assert roc_auc(labels, scores) == pytest.approx(expected)
    assert recalls(labels, scores)[2] is None
    assert 0 <= balanced_accuracy(labels, scores) <= 1


@pytest.mark.parametrize("sensitivity", [0.05, 0.5, 0.7, 0.9, 0.95, 1.0])
@pytest.mark.parametrize("seed", range(5))
def test_threshold_is_the_highest_that_is_sensitive_enough(sensitivity, seed):
    rng = np.random.default_rng(seed)
    labels = np.append(rng.integers(0, 2, rng.integers(5, 80)), [0, 1])
    scores = rng.integers(0, 12, len(labels)) / 11
    candidates = [t for t in scores if np.mean(scores[labels == 1] >= t) >= sensitivity]
    assert choose_threshold(labels, scores, sensitivity) == max(candidates)


@pytest.mark.parametrize("count", [25, 50, 100])
@pytest.mark.parametrize("sensitivity", [0.28, 0.56, 0.6, 0.92])  # 0.28 * 25 > 7 in floats
def test_threshold_needs_no_positive_more_than_asked_for(count, sensitivity):
    labels = np.append(np.ones(count, int), 0)
    scores = np.append(np.arange(count) / count, 0)
    called = np.sum(scores[:-1] >= choose_threshold(labels, scores, sensitivity))
    assert called == round(sensitivity * count)


def test_rates_at_a_threshold():
    found = confusion([1, 1, 1, 0, 0, 0, 0], [0.9, 0.5, 0.2, 0.5, 0.1, 0.1, 0.1], 0.5)
    assert found == Confusion(2, 1, 3, 1)
    assert (found.sensitivity, found.specificity) == (2 / 3, 3 / 4)
    assert (found.ppv, found.npv) == (2 / 3, 3 / 4)
    assert found.accuracy == 5 / 7
    assert found.balanced_accuracy == (2 / 3 + 3 / 4) / 2


def test_rates_without_a_denominator_are_none():
    found = confusion([0, 0], [0.1, 0.2], 0.5)
    assert found.specificity == 1
    assert (found.sensitivity, found.ppv, found.balanced_accuracy) == (None, None, None)


@pytest.mark.parametrize("figure", [roc_auc, average_precision, choose_threshold])
@pytest.mark.parametrize(
    ("labels", "scores", "said"),
    [
        ([], [], "no cases"),
        ([1, 1], [0.1, 0.2], "All 2 cases have label 1"),
        ([0, 0], [0.1, 0.2], "All 2 cases have label 0"),
        ([0, 1], [0.1, np.nan], "finite"),
        ([0, 1], [0.1, np.inf], "finite"),
        ([0, 2], [0.1, 0.2], r"0\.\.1"),
        ([0, 1, 1], [0.1, 0.2], "belong together"),
    ],
)
def test_what_cannot_be_judged_is_refused(figure, labels, scores, said):
    with pytest.raises(InputError, match=said):
        figure(labels, scores)


@pytest.mark.parametrize("sensitivity", [0, 1.1, -1])
def test_an_impossible_sensitivity_is_refused(sensitivity):
    with pytest.raises(InputError, match="sensitivity"):
        choose_threshold([0, 1], [0.1, 0.2], sensitivity)


def test_many_classes_have_no_threshold():
    with pytest.raises(InputError, match="3 classes"):
        choose_threshold([0, 1, 2], np.eye(3))
