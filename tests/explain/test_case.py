import cv2
import numpy as np
import pytest

from attnvgg.data.transforms import Region
from attnvgg.errors import InputError
from tests.explain.test_figures import case
from tests.explain.test_overlays import softmax_map


def averaged(image, factor):
    """Means of whole blocks, in plain NumPy."""
    height, width = (length // factor for length in image.shape[:2])
    whole = image[: height * factor, : width * factor].astype(float)
    return whole.reshape(height, factor, width, factor, -1).mean(axis=(1, 3))


@pytest.mark.parametrize("size", [(61, 95), (95, 61), (62, 94), (60, 90)])
def test_maps_keep_their_place_on_a_reduced_image(size):
    """The sides are no multiples of 3, and leave other rests; cells are 9 pixels."""
    full = case(size, attn1=softmax_map((6, 6)), region=Region(3, 6, 54))
    small = full.reduced(30)
    assert small.image.shape[:2] == (size[0] // 3, size[1] // 3)
    pairs = zip(*(row.panels("softmax", "nearest") for row in (full, small)), strict=True)
    for before, after in pairs:
        np.testing.assert_allclose(after, averaged(before, 3), atol=1.5)  # rounded twice


@pytest.mark.parametrize("size", [(61, 95), (95, 61)])
def test_without_a_region_the_map_spans_the_reduced_image_too(size):
    full = case(size)
    small = full.reduced(30)
    assert small.region is None
    for before, after in zip(full.panels("softmax"), small.panels("softmax"), strict=True):
        expected = cv2.resize(before, (size[1] // 3, size[0] // 3), interpolation=cv2.INTER_AREA)
        assert np.abs(after - expected.astype(float)).mean() < 1


def test_the_mask_is_reduced_with_its_image():
    lesion = np.zeros((61, 95), bool)
    lesion[9:30, 12:60] = True
    small = case((61, 95), mask=lesion, region=Region(0, 17, 61)).reduced(30)
    expected = np.zeros((20, 31))
    expected[3:10, 4:20] = 1
    np.testing.assert_array_equal(small.mask, expected)


def test_a_small_image_is_left_as_it_is():
    row = case((40, 59))
    assert row.reduced(30) is row


def test_a_mask_of_another_size_is_refused():
    with pytest.raises(InputError, match="mask of x"):
        case(mask=np.zeros((16, 16)), name="x")
