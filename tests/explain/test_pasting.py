"""Artefacts lie beside the lesion, never on it, and change nothing else."""

import numpy as np
import pytest

from attnvgg.errors import InputError
from attnvgg.explain.pasting import ARTEFACTS, paste

SIDE = 64


@pytest.fixture
def image():
    noise = np.random.default_rng(0).integers(0, 12, (SIDE, SIDE, 3))
    return (np.array([205, 160, 140]) + noise).astype(np.uint8)


def disc(radius, centre=SIDE / 2):
    rows, columns = np.indices((SIDE, SIDE)) + 0.5
    return np.hypot(rows - centre, columns - centre) < radius


@pytest.mark.parametrize("name", ARTEFACTS)
@pytest.mark.parametrize("seed", range(8))
def test_it_is_there_and_never_on_the_lesion(image, name, seed):
    before, mask = image.copy(), disc(20)
    found = paste(name, image, mask, seed)
    np.testing.assert_array_equal(image, before)
    changed = (found.image != image).any(axis=2)
    assert changed.sum() > 10
    assert not changed[mask].any()
    assert not changed[found.layer == 0].any()


@pytest.mark.parametrize("name", ARTEFACTS)
def test_a_lesion_in_a_corner_is_avoided(image, name):
    for seed in range(8):
        found = paste(name, image, disc(30, centre=14), seed)
        assert found is not None
        assert not (found.layer[disc(30, centre=14)] > 0).any()


@pytest.mark.parametrize("name", ARTEFACTS)
def test_no_room(image, name):
    assert paste(name, image, disc(44), 0) is None


@pytest.mark.parametrize("name", ARTEFACTS)
def test_the_seed_decides(image, name):
    one, again, other = (paste(name, image, disc(16), seed).image for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    assert (one != other).any()


def test_the_control_differs_in_colour_alone(image):
    for seed in range(6):
        patch, control = (paste(name, image, disc(16), seed) for name in ("patch", "skin patch"))
        np.testing.assert_array_equal(patch.layer, control.layer)
        inside = patch.layer == 1
        skin = np.median(image[~disc(16)], axis=0)
        assert np.abs(control.image[inside] - skin).max() < 3
        assert np.abs(patch.image[inside].astype(float) - skin).max() > 50


@pytest.mark.parametrize(
    ("name", "size", "mask"),
    [("tattoo", (8, 8, 3), (8, 8)), ("ink", (8, 9, 3), (8, 9)), ("ink", (8, 8, 3), (4, 4))],
)
def test_wrong_input(name, size, mask):
    with pytest.raises(InputError):
        paste(name, np.zeros(size, np.uint8), np.zeros(mask, bool))
