"""What a fingerprint survives, and what it tells apart."""

import cv2
import numpy as np
import pytest

from attnvgg.data.audit.duplicates import ALIKE, LOOK, RADIUS
from attnvgg.data.audit.fingerprints import fingerprint, keys, look, similarity
from tests.data.audit.conftest import changed, decoded, held

PAIR = np.array([[0, 1]])


@pytest.mark.parametrize("way", range(8))
def test_all_eight_ways_to_hold_a_picture_are_one(photos, way):
    prints = np.stack([fingerprint(photos[0]), fingerprint(held(photos[0], way))])
    assert similarity(prints, PAIR)[0] == pytest.approx(1, abs=1e-3)
    first, second = keys(prints)
    assert np.linalg.norm(first - second) < 0.01


def test_only_these_eight(photos):
    """Upside down by 45 degrees, or its halves exchanged, it is another picture."""
    halves = np.roll(photos[0], 32, axis=1)
    matrix = cv2.getRotationMatrix2D((32, 32), 45, 1)
    tilted = cv2.warpAffine(photos[0], matrix, (64, 64), borderMode=cv2.BORDER_REFLECT)
    for other in (halves, tilted):
        prints = np.stack([fingerprint(photos[0]), fingerprint(other)])
        assert similarity(prints, PAIR)[0] < 0.8


def test_copies_are_within_the_limits_and_others_are_not(photos):
    originals = np.stack([fingerprint(photo) for photo in photos])
    copies = [decoded(changed(photo, number)) for number, photo in enumerate(photos)]
    prints = np.concatenate([originals, [fingerprint(copy) for copy in copies]])
    pairs = np.arange(160).reshape(2, 80).T
    assert similarity(prints, pairs).min() > ALIKE
    assert np.linalg.norm(keys(originals) - keys(prints[80:]), axis=1).max() < RADIUS
    looks = [[look(picture) for picture in pictures] for pictures in (photos, copies)]
    assert (np.abs(np.subtract(*looks)) < LOOK).all()
    others = np.stack(np.triu_indices(80, 1), axis=1)
    assert similarity(originals, others).max() < ALIKE - 0.05


def test_a_shared_vignette_does_not_make_pictures_alike(photos):
    axis = np.linspace(-1, 1, 64)
    view = np.hypot(axis[:, None], axis)[..., None] < 1
    prints = np.stack([fingerprint(photo * view.astype(np.uint8)) for photo in photos])
    others = np.stack(np.triu_indices(80, 1), axis=1)
    assert similarity(prints, others).max() < ALIKE - 0.05


def test_similarity_is_the_correlation_in_the_best_orientation(photos):
    """Against the plain way: turn and mirror the picture, transform again, correlate."""
    first, second = photos[3], photos[4]
    plain = [float((fingerprint(first) * fingerprint(held(second, way))).sum()) for way in range(8)]
    prints = np.stack([fingerprint(first), fingerprint(second)])
    assert similarity(prints, PAIR)[0] == pytest.approx(max(plain), abs=2e-3)


def test_keys_are_never_farther_apart_than_the_fingerprints():
    rng = np.random.default_rng(0)
    prints = rng.normal(size=(100, 16, 16)).astype(np.float32)
    pairs = np.stack([np.arange(0, 100, 2), np.arange(1, 100, 2)], axis=1)
    apart = np.linalg.norm(keys(prints)[pairs[:, 0]] - keys(prints)[pairs[:, 1]], axis=1)
    norms = (prints**2).sum(axis=(1, 2))[pairs].sum(axis=1)
    assert (apart**2 <= norms - 2 * similarity(prints, pairs) + 1e-3).all()


def test_a_look_is_mean_and_contrast_of_each_colour(photos):
    blocks = photos[0][:60, :60].reshape(12, 5, 12, 5, 3).mean(axis=(1, 3))
    expected = [*blocks.mean(axis=(0, 1)), *blocks.std(axis=(0, 1))]
    np.testing.assert_allclose(look(photos[0][:60, :60]), expected, atol=0.3)
    assert look(photos[0] // 2)[:3] == pytest.approx(look(photos[0])[:3] / 2, abs=1)


def test_a_picture_without_contrast_has_none():
    assert fingerprint(np.full((64, 64, 3), 128, np.uint8)) is None
