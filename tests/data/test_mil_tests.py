"""The synthetic bags: what is in them, that the truth can be found, and that the cue misleads."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from attnvgg.data.mil_tests import (
    BACKGROUND,
    FIRST,
    NARROW,
    POISON,
    SECOND,
    TESTS,
    WIDE,
    add_instances,
    draw_bags,
    draw_poison,
)
from attnvgg.errors import InputError

BOTH = [(test, side) for test in TESTS for side in ("train", "test")]
SCALES = {"single_concept": WIDE, "multi_concept": NARROW, "false_frequency": NARROW}


def counts_of(bags):
    """Instances of each kind in each bag, (B, 4), by a plain loop."""
    bounds = bags.offsets.tolist()
    return np.array(
        [
            np.bincount(bags.kinds[start:stop].numpy(), minlength=4)
            for start, stop in pairwise(bounds)
        ]
    )


@pytest.mark.parametrize(("test", "side"), BOTH)
def test_bags_are_ragged_and_half_of_them_positive(test, side):
    bags = draw_bags(test, side, 101, seed=3, features=5)
    assert bags.values.shape == (bags.offsets[-1], 5)
    assert bags.values.dtype == torch.float32
    assert len(bags.kinds) == len(bags.values)
    assert len(bags.offsets) == 102
    assert bags.offsets[0] == 0
    assert (bags.offsets.diff() >= 1).all()
    assert len(bags.offsets.diff().unique()) > 5
    assert bags.labels.sum() == 50
    assert 0 < bags.labels[:50].sum() < 50  # in no order


@pytest.mark.parametrize(("test", "side"), BOTH)
def test_same_seed_same_bags(test, side):
    once, again = draw_bags(test, side, 20, seed=4), draw_bags(test, side, 20, seed=4)
    assert all(torch.equal(a, b) for a, b in zip(once, again, strict=True))
    other = draw_bags(test, side, 20, seed=5)
    mirrored = draw_bags(test, "test" if side == "train" else "train", 20, seed=4)
    rows = {tuple(row) for row in once.values.tolist()}
    for bags in (other, mirrored):
        assert not rows & {tuple(row) for row in bags.values.tolist()}


@pytest.mark.parametrize(("test", "side"), BOTH)
def test_labels_follow_the_assumption_of_the_test(test, side):
    bags = draw_bags(test, side, 300, seed=1)
    first, second = counts_of(bags)[:, [FIRST, SECOND]].T
    truth = first + second > 0 if test == "single_concept" else (first > 0) & (second > 0)
    assert (truth == (bags.labels.numpy() == 1)).all()


@pytest.mark.parametrize("test", ["single_concept", "multi_concept"])
def test_poison_marks_the_negatives_in_training_and_the_positives_in_the_test(test):
    for side, poisoned_label in (("train", 0), ("test", 1)):
        bags = draw_bags(test, side, 300, seed=1)
        poison = counts_of(bags)[:, POISON]
        assert (poison == (bags.labels.numpy() == poisoned_label)).all()


def test_frequency_changes_in_negative_bags_only():
    for side, low, high in (("train", 1, 1), ("test", 35, 44)):
        bags = draw_bags("false_frequency", side, 300, seed=1)
        positive = bags.labels.numpy() == 1
        counts = counts_of(bags)
        concepts = counts[:, [FIRST, SECOND]]
        assert (concepts[positive] == 1).all()
        assert (concepts[~positive].min(axis=1) == 0).all()
        amount = concepts[~positive].max(axis=1)
        assert (amount.min(), amount.max()) == (low, high)
        assert 0.3 < (concepts[~positive, 0] > 0).mean() < 0.7  # either concept
        assert (counts[:, POISON] == 0).all()


@pytest.mark.parametrize(("test", "side"), BOTH)
def test_sizes_and_distributions(test, side):
    bags = draw_bags(test, side, 1000, seed=2)
    counts = counts_of(bags)
    assert (counts[:, BACKGROUND].min(), counts[:, BACKGROUND].max()) == (1, 9)
    for kind, (mean, deviation) in enumerate(SCALES[test]):
        values = bags.values[bags.kinds == kind]
        if len(values) == 0:
            assert (test, kind) == ("false_frequency", POISON)
            continue
        error = deviation / np.sqrt(values.numel())
        assert float(values.mean()) == pytest.approx(mean, abs=5 * error)
        assert float(values.std()) == pytest.approx(deviation, rel=0.05)


def test_instance_labels_are_those_of_the_concepts():
    bags = draw_bags("single_concept", "train", 50, seed=0)
    expected = [1 if kind in (FIRST, SECOND) else 0 for kind in bags.kinds.tolist()]
    assert bags.instance_labels.tolist() == expected


def test_order_within_a_bag_says_nothing():
    bags = draw_bags("single_concept", "train", 2000, seed=0)
    last = bags.kinds[bags.offsets[1:] - 1][bags.labels == 0]
    share = counts_of(bags)[(bags.labels == 0).numpy()]
    expected = (share[:, POISON] / share.sum(axis=1)).mean()
    assert float((last == POISON).float().mean()) == pytest.approx(expected, abs=0.05)


def highest_in_bag(scores, bags):
    parts = torch.tensor_split(scores, bags.offsets[1:-1])
    return np.array([float(part.max()) for part in parts])


@pytest.mark.parametrize("side", ["train", "test"])
def test_an_instance_classifier_can_solve_the_standard_test(side):
    """The likelihood ratio of an instance, and the highest of a bag: it never heeds the cue."""
    bags = draw_bags("single_concept", side, 1000, seed=6)
    background, first, second, poison = (
        torch.distributions.Normal(float(mean), float(deviation)).log_prob(bags.values).sum(1)
        for mean, deviation in WIDE
    )
    ratio = torch.logaddexp(first, second) - torch.logaddexp(background, poison)
    assert roc_auc_score(bags.labels, highest_in_bag(ratio, bags)) > 0.99


def test_who_follows_the_poison_is_exactly_wrong_in_the_test():
    for side, expected in (("train", 1.0), ("test", 0.0)):
        bags = draw_bags("single_concept", side, 200, seed=7)
        no_poison = highest_in_bag((bags.values.mean(1) < -8).float(), bags) == 0
        assert roc_auc_score(bags.labels, no_poison) == expected


def test_who_counts_is_exactly_wrong_in_the_test():
    for side, expected in (("train", 1.0), ("test", 0.0)):
        bags = draw_bags("false_frequency", side, 200, seed=7)
        amount = counts_of(bags)[:, [FIRST, SECOND]].sum(axis=1)
        assert roc_auc_score(bags.labels, amount) == expected


def test_adding_an_instance_to_each_bag():
    values, offsets = torch.arange(8.0).view(4, 2), torch.tensor([0, 1, 4])
    rows, bounds = add_instances(values, offsets, torch.tensor([[-1.0, -1.0], [-2.0, -2.0]]))
    assert rows[:, 0].tolist() == [0, -1, 2, 4, 6, -2]
    assert bounds.tolist() == [0, 2, 6]


def test_poison_is_like_that_of_the_bags():
    poison = draw_poison(300, seed=0, features=4)
    assert poison.shape == (300, 4)
    assert float(poison.mean()) == pytest.approx(-10, abs=0.02)
    assert float(poison.std()) == pytest.approx(0.1, rel=0.1)
    assert torch.equal(poison, draw_poison(300, seed=0, features=4))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("no_such", "train", 10, 0), "no test 'no_such'"),
        (("single_concept", "val", 10, 0), "side 'val'"),
        (("single_concept", "train", 1, 0), "at least 2 bags"),
        (("single_concept", "train", 10, -1), "seed of at least 0"),
        (("single_concept", "train", 10, 0, 0), "1 feature"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(InputError, match=message):
        draw_bags(*arguments)
