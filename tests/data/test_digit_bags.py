"""Bags of digits: labels follow from the digits, no digit is used twice where it must not."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attnvgg.data.bag_manifest import check_bags, read_bags, write_bags
from attnvgg.data.digit_bags import BagPlan, deal_digits, digit_manifest, open_digit_bags
from attnvgg.data.digits import Digits
from attnvgg.data.splits import check_splits, split_manifest
from attnvgg.errors import InputError

COUNTS = {"train": 200, "val": 60, "test": 60}


def make_digits(count=600, test=None):
    """Pictures that tell their row: the first two pixels are its digits to the base of 250."""
    images = np.zeros((count, 28, 28), np.uint8)
    images[:, 0, 0], images[:, 0, 1] = np.arange(count) // 250, np.arange(count) % 250
    is_test = None if test is None else np.arange(count) >= count - test
    return Digits(images, np.arange(count) % 10, is_test)


def members(table):
    return [np.array(text.split(), dtype=int) for text in table["instances"]]


def used(table, side):
    return set(np.concatenate(members(table[table["split"] == side])).tolist())


@settings(max_examples=40, deadline=None)
@given(
    counts=st.lists(st.integers(0, 40), min_size=1, max_size=10).filter(any),
    shares=st.lists(st.floats(0, 0.25), min_size=1, max_size=4),
    seed=st.integers(0, 5),
)
def test_a_deal_is_disjoint_and_in_proportion(counts, shares, seed):
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
    parts = deal_digits(labels, shares, seed)
    together = np.concatenate(parts)
    assert len(parts) == len(shares)
    assert len(set(together.tolist())) == len(together)
    for part, share in zip(parts, shares, strict=True):
        dealt = np.bincount(labels[part], minlength=len(counts))
        assert (abs(dealt - share * np.array(counts)) <= 1).all()


def test_the_deal_depends_on_the_seed():
    labels = np.arange(100) % 10
    first, again, other = (deal_digits(labels, (0.5, 0.5), seed)[0] for seed in (1, 1, 2))
    assert first.tolist() == again.tolist() != other.tolist()


@pytest.mark.parametrize("positives", ["natural", "planted"])
@pytest.mark.parametrize(
    ("lengths", "size"), [("fixed", (3, 3)), ("uniform", (3, 7)), ("normal", (10, 2))]
)
def test_bags_are_what_they_say(positives, lengths, size):
    digits = make_digits()
    plan = BagPlan(4, lengths, size, positives)
    table = digit_manifest(digits, plan, COUNTS, seed=3, reserve=0.25)
    assert table["split"].value_counts().to_dict() == COUNTS
    assert table["image"].is_unique
    bags = members(table)
    assert all(len(set(bag.tolist())) == len(bag) for bag in bags), "no digit twice in a bag"
    assert table["label"].tolist() == [int(4 in digits.labels[bag]) for bag in bags]
    sides = [used(table, side) for side in COUNTS]
    reserved = set(table.attrs["reserved"])
    assert len(set().union(reserved, *sides)) == len(reserved) + sum(map(len, sides))
    assert np.bincount(digits.labels[list(reserved)]).tolist() == [15] * 10
    check_splits(table)
    if positives == "planted":
        assert table.groupby("split")["label"].mean().eq(0.5).all()


def test_lengths():
    def lengths(*plan):
        table = digit_manifest(make_digits(), BagPlan(1, *plan), {"train": 2000})
        return np.array([len(bag) for bag in members(table)])

    assert set(lengths("fixed", (5, 0))) == {5}
    counts = np.bincount(lengths("uniform", (3, 7)))
    assert counts[:3].sum() == 0
    assert counts.size == 8, "the upper end is included"
    assert counts[3:].min() > 2000 / 5 * 0.8
    normal = lengths("normal", (10, 2))
    assert abs(normal.mean() - 10) < 0.2
    assert abs(normal.std() - math.sqrt(4 + 1 / 12)) < 0.15
    assert lengths("normal", (1, 4)).min() == 1


def test_natural_bags_are_positive_as_often_as_chance_says():
    table = digit_manifest(make_digits(), BagPlan(), {"train": 2000})
    share = 1 - math.comb(324, 3) / math.comb(360, 3)  # 36 of the 360 training digits are ones
    error = math.sqrt(share * (1 - share) / 2000)
    assert abs(table["label"].mean() - share) < 4 * error


def test_a_planted_bag_may_hold_several_targets_as_chance_has_it():
    plan = BagPlan(1, "fixed", (10, 10), "planted")
    digits = make_digits()
    table = digit_manifest(digits, plan, {"train": 2000})
    targets = np.array([(digits.labels[bag] == 1).sum() for bag in members(table)])
    ways = [math.comb(36, k) * math.comb(324, 10 - k) / math.comb(360, 10) for k in range(11)]
    expected = sum(k * way for k, way in enumerate(ways)) / (1 - ways[0])
    assert abs(targets[table["label"] == 1].mean() - expected) < 0.1
    assert targets[table["label"] == 0].max() == 0


def test_more_bags_begin_with_the_same_and_sides_do_not_disturb_each_other():
    digits, plan = make_digits(), BagPlan(1, "uniform", (3, 7))
    few = digit_manifest(digits, plan, {"train": 5, "test": 5})
    many = digit_manifest(digits, plan, {"train": 50, "val": 10, "test": 7})
    keyed = many.set_index("image")["instances"]
    assert few["instances"].tolist() == keyed[few["image"]].tolist()
    other = digit_manifest(digits, plan, {"train": 5, "test": 5}, seed=7)
    assert other["instances"].tolist() != few["instances"].tolist()


def test_test_bags_come_from_the_official_test_digits_only():
    digits = make_digits(test=100)
    table = digit_manifest(digits, BagPlan(), COUNTS, (0.6, 0.2, 0.2), reserve=0.4)
    assert min(used(table, "test")) >= 500
    assert max(used(table, "train") | used(table, "val") | set(table.attrs["reserved"])) < 500
    assert len(table.attrs["reserved"]) == 200
    assert len(used(table, "train")) <= 225
    assert len(used(table, "val")) <= 75


def test_the_manifest_survives_the_disk_and_keeps_its_split(tmp_path):
    table = digit_manifest(make_digits(), BagPlan(), COUNTS)
    write_bags(table, tmp_path / "bags.csv")
    again = read_bags(tmp_path / "bags.csv")
    assert again.to_dict("list") == table.to_dict("list")
    assert check_bags(table, "here").attrs["classes"] == ("no 1", "holds a 1")
    assert split_manifest(again)["split"].tolist() == table["split"].tolist()


def test_opened_bags_hold_the_digits_named():
    digits = make_digits()
    table = digit_manifest(digits, BagPlan(4, "uniform", (1, 6)), {"train": 30})
    bags = open_digit_bags(table, digits, 4)
    assert bags.instance_shape == (1, 28, 28)
    for row, wanted in enumerate(members(table)):
        sample = bags[row]
        pixels = (sample["instances"][:, 0, 0, :2] * 255).round().long()
        assert (pixels[:, 0] * 250 + pixels[:, 1]).tolist() == wanted.tolist()
        assert sample["instance_labels"].tolist() == (wanted % 10 == 4).astype(int).tolist()
        assert sample["label"] == sample["instance_labels"].max()
    assert sample["instances"].dtype == torch.float32
    assert sample["instances"].max() <= 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"target": 10},
        {"size": (0, 0)},
        {"size": (2.5, 3)},
        {"lengths": "uniform", "size": (5, 4)},
        {"lengths": "normal", "size": (10, -1)},
        {"size": (math.nan, 3)},
        {"lengths": "uniform", "size": (3, math.inf)},
    ],
)
def test_a_plan_that_makes_no_sense(wrong):
    with pytest.raises(InputError, match=r"\.$"):
        BagPlan(**wrong)


@pytest.mark.parametrize(
    ("plan", "arguments"),
    [
        (BagPlan(), {"counts": {"train": 0}}),
        (BagPlan(), {"counts": {"training": 5}}),
        (BagPlan(), {"counts": {"train": -1, "val": 5}}),
        (BagPlan(), {"reserve": 1.0}),
        (BagPlan(), {"seed": -1}),
        (BagPlan(), {"shares": (0.5, 0.5)}),
        (BagPlan(1, "fixed", (400, 400)), {}),
    ],
)
def test_what_cannot_be_filled(plan, arguments):
    with pytest.raises(InputError):
        digit_manifest(make_digits(), plan, **{"counts": COUNTS, **arguments})


@pytest.mark.parametrize(("target", "size", "bag"), [(1, 10, "val-0000"), (9, 3, "val-0001")])
def test_too_few_digits_are_told_with_the_bag(target, size, bag):
    """Of 19 digits there are two each for all sides, but one 9."""
    plan = BagPlan(target, "fixed", (size, size), "planted")
    with pytest.raises(InputError, match="too few digits") as caught:
        digit_manifest(make_digits(19), plan, {"val": 4})
    assert caught.value.offenders[0].startswith(bag)
