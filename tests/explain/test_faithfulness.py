"""Deletion and insertion on a model whose evidence is known: it lies in one square."""

import numpy as np
import pytest
import torch

from attnvgg.errors import InputError
from attnvgg.explain.faithfulness import (
    area,
    blurred,
    centred_gaussian,
    follow,
    null_name,
    random_map,
    rank_pixels,
    replacing_curve,
)

SIDE, GRID, COUNT = 32, 8, 24


def planted(images):
    """A model that counts fine texture, which blurring takes away, in one square only."""
    square = images[:, 0, 8:16, 20:28]
    contrast = (square[..., 1:] - square[..., :-1]).abs().mean(dim=(1, 2))
    positive = torch.sigmoid(8 * contrast - 4).double()
    return torch.stack([1 - positive, positive], dim=1)


@pytest.fixture(scope="module")
def images():
    checks = torch.tensor(np.indices((SIDE, SIDE)).sum(axis=0) % 2, dtype=torch.float32)
    noise = torch.from_numpy(np.random.default_rng(0).normal(0, 0.1, (COUNT, 3, SIDE, SIDE)))
    return checks + noise.float()


@pytest.fixture(scope="module")
def curves(images):
    true = np.zeros((COUNT, GRID, GRID))
    true[:, 2:4, 5:7] = 1
    random = np.random.default_rng(1)
    meaningless = np.stack([random_map(random, GRID, GRID) for _ in range(COUNT)])
    maps = {"true": true, "meaningless": meaningless, "opposite": 1 - true}
    return follow(planted, images, maps, [1] * COUNT, steps=16, draws=4)


def better(curves, name):
    """How many standard errors a map is better than the null, in deletion and in insertion."""
    null = curves[null_name((GRID, GRID))]
    deletion, insertion = (
        own - other for own, other in zip(curves[name].areas, null.areas, strict=True)
    )
    error = np.sqrt(COUNT)
    return -deletion.mean() / deletion.std() * error, insertion.mean() / insertion.std() * error


def test_the_true_map_beats_random_maps(curves):
    assert min(better(curves, "true")) > 10


def test_a_random_map_does_not(curves):
    assert max(np.abs(better(curves, "meaningless"))) < 3


def test_a_map_that_points_away_is_worse(curves):
    assert max(better(curves, "opposite")) < -10


def test_curves_begin_and_end_at_the_two_pictures(images, curves):
    whole, blank = planted(images)[:, 1], planted(blurred(images))[:, 1]
    for found in curves.values():
        np.testing.assert_allclose(found.deletion[:, 0], whole)
        np.testing.assert_allclose(found.deletion[:, -1], blank)
        np.testing.assert_allclose(found.insertion[:, 0], blank)
        np.testing.assert_allclose(found.insertion[:, -1], whole)


def test_insertion_is_deletion_in_the_reverse_order_read_backwards(images):
    turns = rank_pixels(np.random.default_rng(0).random((4, 4)), SIDE, np.random.default_rng(1))
    image, blank = images[0], blurred(images[:1])[0]
    insertion = replacing_curve(planted, blank, image, turns, 1, steps=8)
    deletion = replacing_curve(planted, image, blank, SIDE**2 - 1 - turns, 1, steps=8)
    np.testing.assert_allclose(insertion, deletion[::-1])


def test_the_same_seed_gives_the_same_curves(images):
    maps = {"map": np.ones((2, 4, 4))}
    one, again, other = (
        follow(planted, images[:2], maps, [1, 1], steps=4, draws=2, seed=seed) for seed in (0, 0, 1)
    )
    name = null_name((4, 4))
    np.testing.assert_array_equal(one[name].deletion, again[name].deletion)
    assert (one[name].deletion != other[name].deletion).any()


def test_pixels_come_in_the_order_of_the_weights():
    attention = np.random.default_rng(0).random((4, 4))
    turns = rank_pixels(attention, 16, np.random.default_rng(0))
    assert sorted(turns.ravel()) == list(range(256))
    highest = np.unravel_index(attention.argmax(), attention.shape)
    first = np.argwhere(turns == 0)[0] // 4
    assert tuple(first) == highest


def test_the_order_of_a_flat_map_is_a_draw_of_the_null():
    flat = rank_pixels(np.ones((4, 4)), 16, np.random.default_rng(3))
    expected = np.random.default_rng(3)
    ties = expected.random((4, 4))
    null = rank_pixels(-ties + 1, 16, np.random.default_rng(0))
    np.testing.assert_array_equal(flat, null)


def test_area_of_a_straight_line():
    assert area(np.linspace(1, 0, 11)[None]) == pytest.approx(0.5)
    assert area(np.full((2, 6), 0.3)) == pytest.approx(0.3)


def test_blurring_keeps_the_mean_and_takes_the_texture(images):
    blank = blurred(images)
    assert blank.shape == images.shape
    assert float(blank.mean()) == pytest.approx(float(images.mean()), abs=0.01)
    assert blank.std() < 0.1 * images.std()


def test_a_gaussian_is_centred():
    gaussian = centred_gaussian(7, 7)
    assert gaussian.argmax() == 24
    np.testing.assert_allclose(gaussian, gaussian[::-1].T)


@pytest.mark.parametrize(
    ("maps", "classes", "steps"),
    [({"a": np.ones((2, 4, 4))}, [1], 4), ({"a": np.ones((1, 4, 4))}, [1, 1], 4),
     ({"a": np.ones((2, 4, 4))}, [1, 1], 0)],
)  # fmt: skip
def test_wrong_input(images, maps, classes, steps):
    with pytest.raises(InputError):
        follow(planted, images[:2], maps, classes, steps=steps)
