"""Stains: an identity, glass that stays white, amounts that are multiplied, and nothing else."""

import random

import cv2
import numpy as np
import pytest
from skimage.color import hed_from_rgb, rgb_from_hed
from skimage.data import immunohistochemistry

from attnvgg.data.augmentation import augmentation
from attnvgg.data.stain import SPREAD, STAINS, StainJitter, restained
from attnvgg.data.transforms import Preprocess


@pytest.fixture(scope="module")
def tissue():
    return np.ascontiguousarray(immunohistochemistry()[100:164, 100:164])


def test_the_stains_are_those_of_scikit_image():
    np.testing.assert_array_equal(STAINS, rgb_from_hed)


def test_factors_of_one_change_nothing():
    every = np.stack(np.meshgrid(*[np.arange(0, 256, 15)] * 3), -1).reshape(-1, 18, 3)
    every = every.astype(np.uint8)
    np.testing.assert_array_equal(restained(every, [1, 1, 1]), every)


def test_glass_stays_white():
    assert (restained(np.full((2, 2, 3), 255, np.uint8), [1.2, 0.8, 1.1]) == 255).all()


def test_amounts_are_multiplied(tissue):
    """With scikit-image's matrices, in double precision."""
    factors = np.array([1.15, 0.9, 1.05])
    shares = (tissue.astype(np.float64) + 1) / 256
    amounts = np.log(shares) @ hed_from_rgb
    wanted = np.exp(amounts * factors @ rgb_from_hed) * 256 - 1
    found = restained(tissue, factors.tolist())
    assert np.abs(found - wanted.clip(0, 255)).max() <= 1
    assert np.abs(found.astype(int) - tissue).mean() > 3


def test_more_of_a_stain_is_darker_in_its_colours(tissue):
    means = tissue.mean(axis=(0, 1))
    assert (restained(tissue, [1.5, 1, 1]).mean(axis=(0, 1)) < means).all()


def test_further_channels_are_left_alone_and_the_picture_itself_too(tissue):
    rgba, before = cv2.cvtColor(tissue, cv2.COLOR_RGB2RGBA), tissue.copy()
    rgba[..., 3] = np.arange(64)
    jitter = StainJitter()
    jitter.set_random_seed(0)
    found = jitter(image=rgba)["image"]
    np.testing.assert_array_equal(found[..., 3], rgba[..., 3])
    assert (found[..., :3] != before).any()
    np.testing.assert_array_equal(rgba[..., :3], before)


def test_factors_are_drawn_each_on_its_own_within_the_spread():
    jitter = StainJitter()
    jitter.set_random_seed(0)
    drawn = np.array([jitter.get_params()["factors"] for _ in range(300)])
    assert (np.abs(drawn - 1) <= SPREAD).all()
    assert (np.abs(drawn.max(axis=0) - 1) > 0.95 * SPREAD).all()
    assert np.abs(np.corrcoef(drawn.T) - np.eye(3)).max() < 0.2


def test_stain_augmentation_turns_mirrors_and_stains(tissue):
    """Of the eight ways to lay a tile all occur, and no two pictures are alike."""
    augment = augmentation("stain", Preprocess(48, 64))
    # one stream for all transforms, as `ImageDataset` has it: else both flips would coincide
    augment.set_random_state(np.random.default_rng(0), random.Random(0))
    found = [augment(image=tissue)["image"] for _ in range(60)]
    assert {picture.shape for picture in found} == {(48, 48, 3)}
    assert len({picture.tobytes() for picture in found}) == 60
    centre = tissue[8:56, 8:56].astype(int)
    ways = [np.rot90(side, k) for side in (centre, centre[:, ::-1]) for k in range(4)]
    nearest = [np.argmin([np.abs(way - picture).mean() for way in ways]) for picture in found]
    assert set(nearest) == set(range(8))
