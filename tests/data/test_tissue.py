"""The mask of tissue: what is stained, nothing else, whatever the light and the noise."""

import logging

import numpy as np
import pytest
from skimage.color import rgb2hsv
from skimage.filters import median, threshold_otsu

from attnvgg.data.tissue import tissue_mask

GLASS, STAIN = (245, 245, 245), (190, 120, 170)


def painted(shape=(200, 300), glass=GLASS, noise=0.0, seed=0):
    """Glass with one piece of tissue, rows 40 to 160, columns 50 to 250, and that piece."""
    truth = np.zeros(shape, bool)
    truth[40:160, 50:250] = True
    picture = np.where(truth[..., None], STAIN, glass)
    picture = picture + np.random.default_rng(seed).normal(0, noise, picture.shape)
    return picture.clip(0, 255).astype(np.uint8), truth


@pytest.mark.parametrize("glass", [GLASS, (242, 238, 246), (240, 235, 215), (255, 255, 255)])
@pytest.mark.parametrize("noise", [0, 4])
def test_what_is_stained_is_tissue(glass, noise):
    """Also on glass that is tinted; smoothing may round the four corners."""
    picture, truth = painted(glass=glass, noise=noise)
    found = tissue_mask(picture, mpp=8)
    assert (found != truth).sum() <= 12
    assert (found.dtype, found.shape) == (bool, truth.shape)


@pytest.mark.parametrize(
    "glass", [GLASS, (240, 235, 215), (128, 128, 128), (20, 20, 20), (0, 0, 0)]
)
@pytest.mark.parametrize("noise", [0, 1, 4])
def test_a_blank_slide_has_none(glass, noise):
    """Otsu's threshold would find half of the noise."""
    rng = np.random.default_rng(1)
    picture = (glass + rng.normal(0, noise, (256, 256, 3))).clip(0, 255).astype(np.uint8)
    assert not tissue_mask(picture, mpp=8).any()


def test_pen_and_black_borders_are_no_tissue():
    picture, truth = painted()
    picture[:, :20] = np.random.default_rng(0).integers(0, 25, (200, 20, 3))
    assert (tissue_mask(picture, mpp=8) != truth).sum() <= 12


def test_the_threshold_is_that_of_otsu(tissue_picture):
    """As scikit-image computes it, from the saturation of real tissue on glass."""
    picture = tissue_picture[640:896, 128:384]
    smooth = np.stack([median(channel, np.ones((5, 5))) for channel in picture.T]).T
    saturation = np.round(rgb2hsv(smooth / 245.0)[..., 1] * 255)
    wanted = saturation > threshold_otsu(saturation)
    assert (tissue_mask(picture, None) == wanted).mean() > 0.99


def test_a_slide_full_of_tissue_stays_full():
    """Otsu's threshold would drop the paler of two stains."""
    picture = np.full((200, 200, 3), (200, 130, 180), np.uint8)
    picture[:100] = (100, 40, 120)
    assert tissue_mask(picture, mpp=8).all()


def test_faint_tissue_on_much_glass_is_found():
    picture, truth = painted()
    picture[truth] = (240, 222, 234)
    assert (tissue_mask(picture, mpp=8) != truth).sum() <= 12


@pytest.mark.parametrize("mpp", [2, 4])
def test_holes_and_specks_go_by_area(mpp):
    """A square of 13 pixels is 676 or 2,704 square microns."""
    picture, truth = painted()
    picture[60:73, 80:93] = GLASS
    picture[5:18, 270:283] = STAIN
    area = (13 * mpp) ** 2
    kept = tissue_mask(picture, mpp, hole=0.9 * area, speck=0.9 * area)
    assert not kept[60:73, 80:93][2:-2, 2:-2].any()
    assert kept[5:18, 270:283][2:-2, 2:-2].all()
    cleared = tissue_mask(picture, mpp, hole=1.1 * area, speck=1.1 * area)
    assert (cleared != truth).sum() <= 12
    default = tissue_mask(picture, mpp)
    np.testing.assert_array_equal(default, cleared if mpp == 2 else kept)


def test_without_microns_holes_and_specks_stay_and_it_is_said(caplog):
    picture, _ = painted()
    picture[60:65, 80:85] = GLASS
    picture[5:10, 270:275] = STAIN
    with caplog.at_level(logging.INFO):
        found = tissue_mask(picture, None)
    assert not found[62, 82]
    assert found[7, 272]
    assert "microns" in caplog.text


def test_the_picture_is_not_touched():
    picture, _ = painted()
    before = picture.copy()
    tissue_mask(picture, 8)
    np.testing.assert_array_equal(picture, before)
