"""Statistics of images and bags, against their definitions in NumPy."""

import cv2
import numpy as np
import pytest
from scipy.ndimage import correlate

from attnvgg.data.image_statistics import (
    BAG_STATISTICS,
    IMAGE_STATISTICS,
    bag_statistics,
    image_statistics,
)
from attnvgg.errors import InputError


def flat(red, green, blue, side=32):
    return np.full((side, side, 3), (red, green, blue), np.uint8)


@pytest.fixture
def noise():
    return np.random.default_rng(0).integers(0, 256, (48, 40, 3), np.uint8)


def test_they_are_what_their_definitions_say(noise):
    found = image_statistics(noise)
    assert tuple(found) == IMAGE_STATISTICS
    values = noise.astype(float)
    grey = np.rint(values @ [0.299, 0.587, 0.114])
    assert found["brightness"] == pytest.approx(grey.mean() / 255, abs=1e-3)
    assert found["contrast"] == pytest.approx(grey.std() / 255, abs=1e-3)
    for number, name in enumerate(("red", "green", "blue")):
        assert found[name] == pytest.approx(values[..., number].mean() / 255, abs=1e-9)
    high = values.max(axis=2)
    saturation = (high - values.min(axis=2)) / np.maximum(high, 1)
    assert found["saturation"] == pytest.approx(saturation.mean(), abs=2e-3)
    kernel = np.array([[0, 1, 0], [1, -4, 1], [0, 1, 0]])
    edges = correlate(grey, kernel, mode="mirror")
    assert found["sharpness"] == pytest.approx(edges.var(), rel=0.01)
    assert found["dark"] == pytest.approx((grey < 32).mean(), abs=2e-3)


def test_flat_images():
    grey, black, red = (image_statistics(flat(*one)) for one in ((128,) * 3, (0,) * 3, (255, 0, 0)))
    assert grey["contrast"] == grey["sharpness"] == grey["saturation"] == grey["dark"] == 0
    assert grey["brightness"] == pytest.approx(128 / 255)
    assert black["dark"] == 1
    assert (red["saturation"], red["red"], red["green"]) == (1, 1, 0)


def test_what_changes_an_image_changes_its_statistic(noise):
    sharp, soft = image_statistics(noise), image_statistics(cv2.GaussianBlur(noise, (5, 5), 0))
    assert soft["sharpness"] < 0.1 * sharp["sharpness"]
    assert soft["brightness"] == pytest.approx(sharp["brightness"], abs=0.01)
    dimmed = image_statistics(noise // 2)
    assert dimmed["brightness"] == pytest.approx(sharp["brightness"] / 2, abs=0.01)


@pytest.mark.parametrize(
    "pixels", [np.zeros((4, 4)), np.zeros((4, 4, 4), np.uint8), np.zeros((0, 4, 3), np.uint8)]
)
def test_what_is_no_image_is_refused(pixels):
    with pytest.raises(InputError, match=r"must be uint8 \(H, W, 3\)"):
        image_statistics(pixels)


@pytest.mark.parametrize("shape", [(5, 7), (3, 1, 4, 4), (1, 6)])
def test_bags_of_any_instances(shape):
    bag = np.random.default_rng(0).normal(3, 2, shape).astype(np.float32)
    found = bag_statistics(bag)
    assert tuple(found) == BAG_STATISTICS
    assert found["instances"] == len(bag)
    assert found["level"] == pytest.approx(bag.mean(), rel=1e-5)
    assert found["spread"] == pytest.approx(bag.std(), rel=1e-5)
    assert found["difference"] == pytest.approx(bag.std(axis=0).mean(), rel=1e-5, abs=1e-9)
    order = bag_statistics(bag[::-1])
    assert order == pytest.approx(found)


def test_an_empty_bag_is_refused():
    with pytest.raises(InputError, match="without instances"):
        bag_statistics(np.zeros((0, 4), np.float32))
