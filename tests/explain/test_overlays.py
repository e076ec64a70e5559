import cv2
import numpy as np
import pytest
import torch
from torch.nn import functional

from attnvgg.data.transforms import Region
from attnvgg.errors import InputError
from attnvgg.explain.overlays import jet, overlay, scale_map, upsample


def softmax_map(shape=(4, 6), seed=0):
    weights = np.exp(np.random.default_rng(seed).normal(size=shape))
    return weights / weights.sum()


def delta(cells, row, column):
    values = np.zeros((cells, cells), np.float32)
    values[row, column] = 1
    return values


@pytest.mark.parametrize("shape", [(1, 1), (4, 4), (3, 7), (28, 28)])
def test_no_preference_is_the_middle_of_the_scale(shape):
    found = scale_map(np.full(shape, 1 / np.prod(shape)))
    np.testing.assert_allclose(found.values, 0.5, atol=1e-6)
    assert not found.clipped.any()


def test_equal_factors_are_equal_steps():
    times = np.zeros((4, 4))
    times[0] = [1 / 16, 1 / 4, 1, 4]
    times[1, 0] = 16 - times.sum()
    found = scale_map(times / 16)
    np.testing.assert_allclose(found.values[0], [0, 0.25, 0.5, 0.75], atol=1e-6)
    assert not found.clipped[0].any()


def test_beyond_the_scale_is_clipped_and_marked():
    weights = np.full((8, 8), 0.0)
    weights[0, :5] = np.array([20, 16.5, 15.5, 1, 1 / 20]) / 64
    weights[1, 0] = 1 - weights.sum()
    found = scale_map(weights)
    assert found.clipped[0, :5].tolist() == [True, True, False, False, True]
    assert found.values[0, 0] == 1
    assert found.values[0, 4] == 0
    assert found.clipped[2:].all()  # zeros
    assert np.isfinite(found.values).all()


def test_softmax_scale_is_monotone_and_within_bounds():
    weights = softmax_map((9, 9))
    values = scale_map(weights).values
    order = np.argsort(weights, axis=None)
    assert (np.diff(values.ravel()[order]) >= 0).all()
    assert values.min() >= 0
    assert values.max() <= 1


def test_sigmoid_is_shown_as_it_is():
    weights = np.array([[0, 0.25], [0.7, 1]])
    found = scale_map(weights, "sigmoid")
    np.testing.assert_array_equal(found.values, weights.astype(np.float32))
    assert not found.clipped.any()


def test_fixed_scales_do_not_stretch_and_per_image_does():
    nearly_flat = np.full((4, 4), 0.5) + np.eye(4) / 1000
    assert np.ptp(scale_map(nearly_flat, "sigmoid").values) < 0.01
    assert np.ptp(scale_map(nearly_flat / nearly_flat.sum()).values) < 0.01
    assert np.ptp(scale_map(nearly_flat, "per-image").values) == 1
    assert (scale_map(np.full((3, 3), 0.2), "per-image").values == 0.5).all()


def test_jet_is_that_of_opencv():
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    expected = cv2.cvtColor(cv2.applyColorMap(levels, cv2.COLORMAP_JET), cv2.COLOR_BGR2RGB)
    np.testing.assert_array_equal(jet().reshape(16, 16, 3), expected)
    assert jet()[0, 0, 2] > jet()[0, 0, 0]  # low is blue
    assert jet()[-1, 0, 0] > jet()[-1, 0, 2]  # high is red


def test_blend_is_exact():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)
    weights = rng.uniform(size=(12, 16))
    found = overlay(image, weights, kind="sigmoid", interpolation="nearest")
    colours = jet()[np.rint(255 * weights.astype(np.float32)).astype(int), 0]
    np.testing.assert_array_equal(found, np.rint(0.6 * image + 0.4 * colours))
    assert found.dtype == np.uint8


@pytest.mark.parametrize(("shape", "size"), [((7, 7), (56, 56)), ((4, 6), (50, 31))])
def test_bilinear_is_that_of_torch(shape, size):
    values = np.random.default_rng(0).random(shape, dtype=np.float32)
    expected = functional.interpolate(
        torch.from_numpy(values)[None, None], size, mode="bilinear", align_corners=False
    )
    found, seen = upsample(values, *size)
    np.testing.assert_allclose(found, expected[0, 0], atol=1e-5)
    assert seen.all()


GEOMETRIES = pytest.mark.parametrize(
    ("size", "region", "cells"),
    [
        ((64, 64), Region(0, 0, 64), 4),
        ((48, 80), Region(0, 16, 48), 6),
        ((80, 48), Region(16, 0, 48), 6),
        ((90, 70), Region(21, 9, 56), 7),
        ((61, 47), Region(3.5, 2.25, 40.5), 5),
    ],
)


def places(size, region, cells):
    """Where the centres of the pixels are, counted in cells from the region's corner."""
    rows, columns = (np.arange(length) + 0.5 for length in size)
    edge = region.side / cells
    return (rows - region.top) / edge, (columns - region.left) / edge


@GEOMETRIES
def test_a_delta_lands_on_its_own_pixels(size, region, cells):
    down, across = places(size, region, cells)
    for row, column in np.ndindex(cells, cells):
        found, seen = upsample(delta(cells, row, column), *size, region, "nearest")
        block = np.logical_and.outer(np.floor(down) == row, np.floor(across) == column)
        np.testing.assert_array_equal(found, block)
        assert block.any()
        assert seen[block].all()


@GEOMETRIES
def test_bilinear_runs_between_the_centres_of_the_cells(size, region, cells):
    down, across = places(size, region, cells)
    centres = np.arange(cells) + 0.5
    inside = np.logical_and.outer((down >= 0) & (down < cells), (across >= 0) & (across < cells))
    for row, column in np.ndindex(cells, cells):
        found, seen = upsample(delta(cells, row, column), *size, region)
        tents = [
            np.interp(x, centres, np.eye(cells)[k]) for x, k in ((down, row), (across, column))
        ]
        np.testing.assert_allclose(found, np.outer(*tents) * inside, atol=1e-5)
        np.testing.assert_array_equal(seen, inside)


def test_a_delta_on_a_whole_image_that_is_not_square():
    found, seen = upsample(delta(4, 1, 2), 40, 80, None, "nearest")
    expected = np.zeros((40, 80))
    expected[10:20, 40:60] = 1
    np.testing.assert_array_equal(found, expected)
    assert seen.all()


def test_every_seen_pixel_belongs_to_one_cell():
    size, region = (61, 47), Region(3.5, 2.25, 40.5)
    total = sum(upsample(delta(5, i, j), *size, region, "nearest")[0] for i, j in np.ndindex(5, 5))
    np.testing.assert_array_equal(total, upsample(delta(5, 0, 0), *size, region)[1])


def test_cells_keep_their_stride_where_the_input_is_no_multiple_of_it():
    """100 px at stride 16: 6 cells see 96 px, and the last 4 are seen by none."""
    for i in range(6):
        found, seen = upsample(delta(6, i, i), 100, 100, None, "nearest", input_size=100)
        rows, columns = np.nonzero(found)
        assert (rows.min(), rows.max()) == (columns.min(), columns.max()) == (16 * i, 16 * i + 15)
    assert seen[:96, :96].all()
    assert not seen[96:].any()
    even = upsample(delta(7, 3, 3), 112, 112, None, "nearest")
    same = upsample(delta(7, 3, 3), 112, 112, None, "nearest", input_size=112)
    np.testing.assert_array_equal(even[0], same[0])


def test_outside_of_the_region_there_is_no_colour():
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    found = overlay(image, softmax_map((5, 5)), Region(0, 10, 40))
    np.testing.assert_array_equal(found[:, :10], np.rint(0.6 * image[:, :10]))
    np.testing.assert_array_equal(found[:, 50:], np.rint(0.6 * image[:, 50:]))
    assert (found[:, 10:50] != np.rint(0.6 * image[:, 10:50])).any(-1).all()


def test_overlay_leaves_its_arguments_alone():
    image, weights = np.full((8, 8, 3), 100, np.uint8), softmax_map((2, 2))
    kept = weights.copy()
    overlay(image, weights)
    assert (image == 100).all()
    np.testing.assert_array_equal(weights, kept)


@pytest.mark.parametrize(
    ("weights", "kind", "said"),
    [
        (np.full((2, 2), 0.5), "softmax", "sums to 1"),
        (np.array([[1.5, -0.5]]), "softmax", "sums to 1"),
        (np.array([[0.5, 1.5]]), "sigmoid", r"lies in \[0, 1\]"),
        (np.array([[0.5, np.nan]]), "sigmoid", "not finite"),
        (np.full((1, 2, 2), 0.25), "softmax", "shape"),
        (np.zeros((0, 4)), "per-image", "shape"),
    ],
)
def test_what_is_not_a_map_of_its_kind_is_refused(weights, kind, said):
    with pytest.raises(InputError, match=said):
        scale_map(weights, kind)


@pytest.mark.parametrize(
    "image", [np.zeros((8, 8, 3)), np.zeros((8, 8), np.uint8), np.zeros((8, 8, 4), np.uint8)]
)
def test_what_is_not_an_image_is_refused(image):
    with pytest.raises(InputError, match="uint8"):
        overlay(image, softmax_map())
