"""Tiles: a grid that covers the slide, shares of tissue to the pixel, the tiles of PANDA."""

import dataclasses
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from attnvgg.data import tiles as module
from attnvgg.data.slide_writer import write_pyramid, write_slide
from attnvgg.data.slides import Slide
from attnvgg.data.tiles import panda_tiles, plan_tiles, read_tile
from attnvgg.errors import InputError


def blank_slide(width, height, mpp=0.5, downsamples=(1.0,)):
    """What a plan asks of a slide, without a file: its tissue is given by `with_mask`."""
    return SimpleNamespace(
        path="made.tiff",
        width=width,
        height=height,
        mpp=mpp,
        downsamples=downsamples,
        require_mpp=lambda: mpp,
        level_for=lambda side, size: 0,
    )


@pytest.fixture
def with_mask(monkeypatch):
    """A function that gives a slide an overview, white where there is no tissue, and a mask."""

    def give(slide, mask, overview=None):
        if overview is None:
            overview = np.repeat(np.where(mask, 100, 255).astype(np.uint8)[..., None], 3, 2)
        slide.overview = lambda longest: overview
        monkeypatch.setattr(module, "tissue_mask", lambda rgb, mpp: mask)
        return slide

    return give


def brute_shares(mask, factor, coords, side):
    """Shares of tissue, each tile looked at by itself at level 0."""
    full = np.kron(mask, np.ones((factor, factor)))
    full = np.pad(full, ((0, side), (0, side)))
    return [full[y : y + side, x : x + side].mean() for x, y in coords]


@pytest.mark.parametrize(("mpp", "size", "overlap"), [(0.5, 64, 0), (1, 50, 20), (0.7, 37, 5)])
def test_shares_are_those_of_each_tile_by_itself(with_mask, mpp, size, overlap):
    mask = np.random.default_rng(0).random((40, 60)) < 0.3
    slide = with_mask(blank_slide(480, 320), mask)
    found = plan_tiles(slide, mpp, size, overlap, share=0)
    wanted = brute_shares(mask, 8, found.coords, found.side)
    np.testing.assert_allclose(found.tissue, wanted, atol=1e-8)
    some = plan_tiles(slide, mpp, size, overlap, share=0.3)
    enough = found.tissue >= 0.3
    assert 0 < enough.sum() < len(enough)
    np.testing.assert_array_equal(some.coords, found.coords[enough])
    np.testing.assert_array_equal(some.tissue, found.tissue[enough])


def test_a_grid_by_hand(with_mask):
    """450 x 300 pixels of 0.5 microns in tiles of 100 at 1 micron that overlap by 25."""
    slide = with_mask(blank_slide(450, 300), np.ones((30, 45), bool))
    found = plan_tiles(slide, 1.0, 100, 25, share=0)
    assert (found.side, found.step, found.size, found.mpp) == (200, 150, 100, 1.0)
    assert found.coords.tolist() == [[0, 0], [150, 0], [300, 0], [0, 150], [150, 150], [300, 150]]
    np.testing.assert_allclose(found.tissue, [1, 1, 0.75, 0.75, 0.75, 0.75 * 0.75])
    assert found.coords.dtype == np.int64
    assert len(found) == 6


@pytest.mark.parametrize("extent", [300, 301, 399, 400])
@pytest.mark.parametrize("overlap", [0, 1, 60, 99])
def test_a_grid_covers_the_slide_with_no_tile_to_spare(with_mask, extent, overlap):
    slide = with_mask(blank_slide(extent, 100), np.ones((10, 30), bool))
    found = plan_tiles(slide, 0.5, 100, overlap, share=0)
    xs = found.coords[:, 0]
    assert (np.diff(xs) == 100 - overlap).all()
    assert xs[-1] + 100 >= extent
    assert len(xs) == 1 or xs[-2] + 100 < extent


def test_a_plan_of_a_real_slide(tissue_slide, tissue_picture):
    """Its tiles are where there is tissue, and are read as they are."""
    with Slide(tissue_slide) as slide:
        found = plan_tiles(slide, 0.5, size=128)
        tile = read_tile(slide, found, 3)
    assert (found.side, found.step, found.level, found.mpp) == (128, 128, 0, 0.5)
    inside = {(x, y) for x in range(256, 768, 128) for y in range(256, 768, 128)}
    inside |= {(x, y) for x in range(1024, 1280, 128) for y in range(384, 768, 128)}
    coords = {tuple(place) for place in found.coords.tolist()}
    assert coords <= inside
    assert len(coords) >= 12
    assert (found.tissue >= 0.25).all()
    x, y = found.coords[3]
    wanted = tissue_picture[y : y + 128, x : x + 128].astype(float)
    assert np.abs(tile - wanted).mean() < 5  # the slide is JPEG


def test_a_tile_at_a_coarser_resolution(aperio_slide, tissue_picture):
    """At 1 micron, of pixels of 0.25: the level with a downsample of 4, as it is."""
    with Slide(aperio_slide) as slide:
        found = plan_tiles(slide, 1.0, size=64, share=0.4)
        tile = read_tile(slide, found, 0)
    assert (found.side, found.level, found.size) == (256, 1, 64)
    x, y = found.coords[0]
    part = tissue_picture[y : y + 256, x : x + 256]
    wanted = cv2.resize(part, (64, 64), interpolation=cv2.INTER_AREA).astype(float)
    assert np.abs(tile - wanted).mean() < 8  # another four pixels on it would be over 25


@pytest.mark.parametrize(
    ("wanted", "side", "mpp"),
    [
        (0.5, 64, 0.5), (0.477, 64, 0.5), (0.524, 64, 0.5), (0.53, 68, 0.53125), (0.75, 96, 0.75),
        (1.92, 256, 2.0), (2.09, 256, 2.0), (1.9, 243, 1.8984375),
    ],
)  # fmt: skip
def test_the_size_of_a_tile_in_pixels_of_the_slide(with_mask, wanted, side, mpp):
    """A level that misses by 5 % serves as it is, here one of 0.5 and one of 2 microns."""
    slide = blank_slide(640, 640, 0.5, downsamples=(1.0, 4.0))
    found = plan_tiles(with_mask(slide, np.ones((64, 64), bool)), wanted, 64)
    assert (found.side, found.mpp) == (side, mpp)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"mpp": 0.25}, "has 0.5 microns per pixel, and nothing finer"),
        ({"mpp": 8.0}, "smaller than a tile of 256 pixels at 8 microns, 4096 of its own"),
        ({"mpp": 0}, "more than 0 microns"),
        ({"mpp": float("nan")}, "more than 0 microns"),
        ({"mpp": float("inf")}, "more than 0 microns"),
        ({"mpp": 0.5, "size": 0}, "at least 1 pixel"),
        ({"mpp": 0.5, "size": 64, "overlap": 64}, "overlap its neighbours by fewer"),
        ({"mpp": 0.5, "size": 64, "overlap": -1}, "overlap its neighbours by fewer"),
        ({"mpp": 0.5, "share": 1.1}, "lies in"),
        ({"mpp": 0.5, "share": float("nan")}, "lies in"),
        ({"mpp": 0.5, "share": 1.0}, "no tile of which 100% is tissue"),
        ({"mpp": 0.5, "size": 8, "overlap": 7}, "overlap less"),
    ],
)
def test_a_plan_that_cannot_be(tissue_slide, monkeypatch, options, words):
    monkeypatch.setattr(module, "MOST", 1_000_000)
    with Slide(tissue_slide) as slide, pytest.raises(InputError, match=words) as caught:
        plan_tiles(slide, **options)
    assert str(caught.value).endswith(".")
    assert "\n" not in str(caught.value)


def test_a_slide_of_glass(tmp_path):
    path = tmp_path / "glass.tiff"
    noise = np.random.default_rng(0).integers(238, 250, (600, 600, 3), np.uint8)
    write_slide(path, noise, mpp=0.5)
    for cut in (lambda slide: plan_tiles(slide, 0.5), panda_tiles):
        with Slide(path) as slide, pytest.raises(InputError, match="no tissue") as caught:
            cut(slide)
        assert str(path) in str(caught.value)


def test_a_slide_of_unknown_resolution(tmp_path, tissue_picture):
    """A grid needs microns per pixel, the tiles of PANDA do not."""
    path = tmp_path / "silent.tiff"
    write_slide(path, tissue_picture, mpp=None)
    with Slide(path) as slide:
        with pytest.raises(InputError, match="give --slide_mpp"):
            plan_tiles(slide, 0.5)
        assert panda_tiles(slide).mpp is None
    with Slide(path, mpp=0.5) as slide:
        assert plan_tiles(slide, 0.5).mpp == 0.5
        assert panda_tiles(slide).mpp == 2.0


def test_panda_takes_the_tiles_with_the_most_tissue(with_mask):
    mask = np.random.default_rng(3).random((64, 100)) < np.linspace(0, 1, 100)
    slide = with_mask(blank_slide(1600, 1024, downsamples=(1.0, 4.0, 16.0)), mask)
    found = panda_tiles(slide, count=5, size=32)
    assert (found.side, found.step, found.level, found.mpp) == (128, 128, 1, 2.0)
    corners = [(x, y) for y in range(0, 1024, 128) for x in range(0, 1600, 128)]
    shares = np.array(brute_shares(mask, 16, corners, 128))
    best = np.argsort(-shares, kind="stable")[:5]
    assert found.coords.tolist() == [list(corners[number]) for number in best]
    np.testing.assert_allclose(found.tissue, shares[best])


def test_panda_tiles_full_of_tissue_go_by_stain_then_by_place(with_mask):
    picture = np.full((40, 40, 3), 150, np.uint8)
    picture[10:20, 20:30] = 80
    picture[30:40, 30:40] = 100
    slide = with_mask(blank_slide(400, 400, None), np.ones((40, 40), bool), picture)
    found = panda_tiles(slide, count=4, size=100, downsample=1.0)
    assert found.coords.tolist() == [[200, 100], [300, 300], [0, 0], [100, 0]]
    assert (found.tissue == 1).all()


def test_panda_tiles_are_padded_with_white(tmp_path, tissue_picture):
    """A slide of fewer tiles than wanted gives all of them."""
    path = tmp_path / "small.tiff"
    write_pyramid(path, tissue_picture[256:656, 256:856], 0.5, levels=2, factor=4)
    with Slide(path) as slide:
        found = panda_tiles(slide, count=16, size=128)
        read = {tuple(found.coords[i]): read_tile(slide, found, i) for i in range(len(found))}
    assert sorted(read) == [(0, 0), (512, 0)]
    assert (found.level, found.mpp, found.size) == (1, 2.0, 128)
    last = read[512, 0]
    assert last.shape == (128, 128, 3)
    assert (last[100:] == 255).all()
    assert (last[:, 22:] == 255).all()
    assert (last[:100, :22] < 250).all()


@pytest.mark.parametrize(
    ("levels", "wanted", "level"),
    [((1, 4, 16), 4, 1), ((1, 16), 4.1, 1), ((1, 16), 4, 0), ((1,), 4, 0), ((1, 2, 8), 5, 2)],
)
def test_panda_reads_the_level_that_is_nearest_by_ratio(with_mask, levels, wanted, level):
    slide = blank_slide(4096, 4096, downsamples=tuple(map(float, levels)))
    found = panda_tiles(with_mask(slide, np.ones((64, 64), bool)), downsample=wanted)
    assert (found.level, found.side) == (level, 128 * levels[level])


@pytest.mark.parametrize("options", [{"count": 0}, {"size": 0}, {"downsample": 0.5}])
def test_panda_settings_that_make_no_sense(tissue_slide, options):
    with Slide(tissue_slide) as slide, pytest.raises(InputError, match="at least 1"):
        panda_tiles(slide, **options)


def test_a_plan_is_frozen(tissue_slide):
    with Slide(tissue_slide) as slide:
        found = panda_tiles(slide)
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.side = 1
