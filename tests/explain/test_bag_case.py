import numpy as np
import pytest

from attnvgg.errors import InputError
from attnvgg.explain import BagCase


def softmax(count, branches=None, seed=0):
    shape = (count,) if branches is None else (count, branches)
    weights = np.exp(np.random.default_rng(seed).normal(size=shape))
    return weights / weights.sum(axis=0)


def digits(count, size=(28, 28), seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, *size), dtype=np.uint8)


def bag(count=5, **more):
    settings = {
        "name": "test-0001",
        "probability": 0.9,
        "predicted": "positive",
        "label": "positive",
        "weights": softmax(count),
        "instances": digits(count),
        **more,
    }
    return BagCase(**settings)


@pytest.mark.parametrize("count", [1, 3, 10, 11, 12, 500])
@pytest.mark.parametrize("longest", [2, 5, 10])
def test_every_instance_is_either_drawn_or_counted(count, longest):
    case = bag(count)
    first, rest, last = case.select(longest)
    assert sorted(first + rest + last) == list(range(count))
    assert len(first) + len(last) == min(count, longest)
    order = case.values[first + rest + last]
    assert (np.diff(order) <= 0).all()
    assert bool(rest) == bool(last) == (count > longest)


def test_equal_weights_stay_in_the_order_of_the_bag():
    case = bag(4, weights=[0.25] * 4)
    assert case.select(10).first == [0, 1, 2, 3]


def test_without_weights_the_first_of_the_bag_are_drawn():
    case = bag(12, weights=None)
    assert case.values is None
    assert case.branches == 0
    assert case.select(10) == (list(range(10)), [10, 11], [])


def test_branches_are_averaged():
    weights = softmax(6, 4)
    case = bag(6, weights=weights)
    assert case.branches == 4
    np.testing.assert_allclose(case.values, weights.mean(axis=1))
    assert case.values.sum() == pytest.approx(1)
    assert bag(6, weights=softmax(6, 1)).branches == 1


@pytest.mark.parametrize("count", [1, 7, 1000])
def test_a_uniform_weight_is_in_the_middle_of_the_scale(count):
    case = bag(count, weights=np.full(count, 1 / count))
    np.testing.assert_allclose(case.scale.values, 0.5, atol=1e-6)
    assert not case.scale.clipped.any()


def test_one_factor_is_one_place_whatever_the_number_of_instances():
    """Twice the uniform weight, in bags of 4 and of 40."""
    small = bag(4, weights=[0.5, 0.5 / 3, 0.5 / 3, 0.5 / 3])
    large = bag(40, weights=[0.05, *[0.95 / 39] * 39])
    assert small.scale.values[0] == pytest.approx(0.5 + 1 / 8)
    assert large.scale.values[0] == pytest.approx(0.5 + 1 / 8)


def test_other_scores_are_shown_as_they_are():
    scores = [0.0, 0.3, 1.0]
    case = bag(3, weights=scores, score_name="probability of the instance")
    assert case.kind == "sigmoid"
    np.testing.assert_allclose(case.scale.values, scores)
    assert not case.scale.clipped.any()


def test_grey_and_coloured_pictures_become_rgb():
    grey = bag(2)
    assert grey.picture(1).shape == (28, 28, 3)
    assert (grey.picture(1) == grey.instances[1][..., None]).all()
    tiles = digits(2, (9, 12, 3))
    np.testing.assert_array_equal(bag(2, instances=list(tiles)).picture(1), tiles[1])


@pytest.mark.parametrize(
    "picture", [np.zeros((4, 4)), np.zeros((4, 4, 4), np.uint8), np.zeros((0, 4), np.uint8)]
)
def test_what_is_not_a_picture_is_refused(picture):
    case = bag(1, instances=[picture])
    with pytest.raises(InputError, match=r"test-0001 needs pictures.*instance 0"):
        case.picture(0)


def test_wrong_is_another_label_than_the_called_one():
    assert bag(label="negative").wrong
    assert not bag(label="positive").wrong
    assert not bag(label=None).wrong


WRONG = {
    "length": ({"weights": softmax(4)}, "5 instances, but 4 weights"),
    "sum": ({"weights": np.full(5, 0.2) * 1.002}, "does not sum to 1"),
    "one branch": ({"weights": softmax(5, 3) * [1, 1, 0.9]}, r"does not sum to 1 \(but 0.9\)"),
    "negative": ({"weights": [1.5, -0.5, 0, 0, 0]}, "is negative"),
    "not finite": ({"weights": [np.nan, 0.5, 0.5, 0, 0]}, "not finite"),
    "shape": ({"weights": np.full((5, 1, 1), 0.2)}, "of the shape"),
    "a number": ({"weights": 0.2, "instances": None}, "of the shape"),
    "scores": ({"weights": [0, 1, 2, 0, 0], "score_name": "p"}, r"outside of \[0, 1\]"),
    "scores of classes": ({"weights": softmax(5, 2), "score_name": "p"}, "of the shape"),
    "empty": ({"weights": [], "instances": []}, "no instances"),
    "nothing": ({"weights": None, "instances": None}, "nothing to draw"),
    "probability": ({"probability": 1.5}, r"probability 1.5"),
    "labels": ({"instance_labels": [0, 1]}, "instance labels of the shape"),
    "label": ({"instance_labels": [0, 1, 2, 0, 0]}, "other than 0, 1 and NaN"),
    "names": ({"instance_names": ["a"]}, "instance names of the shape"),
    "coords": ({"coords": np.zeros((5, 3))}, r"not \(5, 2\)"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_input_is_refused_and_names_the_bag(wrong):
    settings, complaint = WRONG[wrong]
    with pytest.raises(InputError, match=f"^The bag test-0001 .*{complaint}") as caught:
        bag(**settings)
    assert str(caught.value).endswith(".")


def test_rounding_of_half_precision_is_accepted():
    bag(5, weights=softmax(5).astype(np.float16))
    bag(5, weights=softmax(5) * 1.0009)
