"""Where maps lie: hand-computed cases, scikit-learn, and what chance gives."""

import numpy as np
import pytest
from sklearn.metrics import jaccard_score

from attnvgg.errors import InputError
from attnvgg.explain.localisation import enlarge, find, is_flat, localise


def test_by_hand():
    """Stretched to [0, 1], 3 of 4 cells are at least a half; 2 of them lie in the mask."""
    attention = np.array([[0.1, 0.4], [0.3, 0.28]])
    found = find(attention, np.array([[False, True], [True, False]]))
    assert found.jaccard == pytest.approx(2 / 3)
    assert found.pointing == 1
    assert found.mass == pytest.approx(0.7 / 1.08)


@pytest.mark.parametrize("seed", range(5))
def test_jaccard_is_that_of_scikit_learn(seed):
    random = np.random.default_rng(seed)
    attention, region = random.random((9, 13)), random.random((9, 13)) < 0.3
    low, high = attention.min(), attention.max()
    marked = attention >= low + 0.5 * (high - low)
    expected = jaccard_score(region.ravel(), marked.ravel())
    assert find(attention, region).jaccard == pytest.approx(expected, abs=1e-12)


def test_scale_of_the_weights_does_not_matter():
    random = np.random.default_rng(0)
    attention, region = random.random((8, 8)), random.random((8, 8)) < 0.4
    np.testing.assert_allclose(find(attention, region), find(attention * 7e-4, region))


def test_the_mask_itself_finds_itself_and_misses_the_background():
    region = np.zeros((8, 8), bool)
    region[2:5, 3:7] = True
    assert find(region.astype(float), region) == (1, 1, 1)
    assert find(region.astype(float), ~region) == (0, 0, 0)


@pytest.mark.parametrize("weight", [0.0, 1 / 64, 1.0])
def test_a_flat_map_is_worth_chance(weight):
    region = np.zeros((8, 8), bool)
    region[:2] = True
    assert find(np.full((8, 8), weight), region) == (0, 0.25, 0.25)


def test_several_highest_places_share_the_point():
    attention = np.array([[1.0, 1.0, 0.0, 1.0]])
    assert find(attention, np.array([[True, False, False, False]])).pointing == pytest.approx(1 / 3)


def test_random_maps_hold_as_much_mass_as_area():
    random = np.random.default_rng(0)
    masks = np.zeros((200, 32, 32))
    masks[:, 8:20, 10:26] = 1
    found = localise(random.random((200, 4, 4)), masks)
    mass = found.inside[:, 2] - found.area
    assert abs(mass.mean()) < 4 * mass.std() / np.sqrt(200)
    assert found.area == pytest.approx(12 * 16 / 32**2)


def test_a_cell_covers_its_own_block_of_pixels():
    """The highest pixels of a map with one hot cell lie in the block of that cell."""
    attention = np.zeros((4, 4))
    attention[1, 2] = 1
    large = enlarge(attention, 32)
    row, column = np.unravel_index(large.argmax(), large.shape)
    assert (row // 8, column // 8) == (1, 2)


def test_masks_that_cannot_be_found_are_counted_and_left_out():
    masks = np.zeros((4, 8, 8))
    masks[0, 2:4], masks[2] = 1, 1
    known = [True, True, True, False]
    found = localise(np.random.default_rng(0).random((4, 2, 2)), masks, known)
    assert found.empty == 2
    assert np.isfinite(found.inside[:, 0]).tolist() == [True, False, False, False]
    assert np.isfinite(found.area).tolist() == [True, False, False, False]


def test_flat_maps_are_counted():
    masks = np.zeros((2, 8, 8))
    masks[:, 2:4] = 1
    assert localise(np.stack([np.full((2, 2), 0.25), np.eye(2)]), masks).flat == 1
    assert is_flat(np.full((3, 3), 1 / 9))
    assert not is_flat(np.eye(3))


@pytest.mark.parametrize(
    ("attention", "region"),
    [
        (np.ones((2, 2)), np.zeros((2, 2), bool)),
        (np.ones((2, 3)), np.ones((2, 2), bool)),
        (-np.ones((2, 2)), np.ones((2, 2), bool)),
        (np.full((2, 2), np.nan), np.ones((2, 2), bool)),
    ],
)
def test_wrong_input(attention, region):
    with pytest.raises(InputError):
        find(attention, region)


def test_not_as_many_maps_as_masks():
    with pytest.raises(InputError, match="3 maps and 2 masks"):
        localise(np.ones((3, 2, 2)), np.ones((2, 8, 8)))
