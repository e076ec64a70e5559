import sys

import cv2
import numpy as np
import openslide
import pytest
import tifffile

from attnvgg.data import slide_writer
from attnvgg.data.slide_writer import write_pyramid, write_slide
from attnvgg.errors import InputError


@pytest.fixture(scope="module")
def picture():
    """Smooth colours, (300, 700, 3): neither side is a multiple of a tile."""
    y, x = np.mgrid[:300, :700]
    channels = [128 + 100 * np.sin(x / 40 + shift) * np.cos(y / 30) for shift in (0, 1, 2)]
    return np.stack(channels, -1).astype(np.uint8)


def level(slide, number):
    size = slide.level_dimensions[number]
    return np.asarray(slide.read_region((0, 0), number, size).convert("RGB")).astype(int)


@pytest.mark.parametrize(
    ("vendor", "name", "shown"),
    [("generic", "a.tiff", "generic-tiff"), ("aperio", "a.svs", "aperio")],
)
@pytest.mark.parametrize("mpp", [0.2525, 0.5, None])
def test_openslide_reads_vendor_scale_and_levels(tmp_path, picture, vendor, name, shown, mpp):
    write_slide(tmp_path / name, picture, mpp, levels=3, factor=2, vendor=vendor)
    with openslide.OpenSlide(tmp_path / name) as slide:
        assert slide.properties["openslide.vendor"] == shown
        assert slide.level_dimensions == ((700, 300), (350, 150), (175, 75))
        found = [slide.properties.get(f"openslide.mpp-{axis}") for axis in "xy"]
        if mpp is None:
            assert found == [None, None]
        else:
            assert [float(text) for text in found] == pytest.approx([mpp, mpp], rel=1e-4)
        for number, (width, height) in enumerate(slide.level_dimensions):
            wanted = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
            assert np.abs(level(slide, number) - wanted).mean() < 2


def test_levels_do_not_drift_where_sides_do_not_divide(tmp_path):
    """A black square ends at the same place of the slide on every level."""
    picture = np.full((1001, 1003, 3), 255, np.uint8)
    picture[:500, :500] = 0
    write_pyramid(tmp_path / "a.tiff", picture, 0.5, levels=4, factor=3)
    with openslide.OpenSlide(tmp_path / "a.tiff") as slide:
        for number, (width, height) in enumerate(slide.level_dimensions):
            dark = 1 - level(slide, number)[..., 0] / 255
            assert dark[0].sum() / width == pytest.approx(500 / 1003, abs=1e-3)
            assert dark[:, 0].sum() / height == pytest.approx(500 / 1001, abs=1e-3)


def test_pyramid_is_lossless_and_ends_with_one_tile(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (600, 1030, 3), np.uint8)
    write_pyramid(tmp_path / "map.tiff", noise, mpp=2.0, description="attention")
    with openslide.OpenSlide(tmp_path / "map.tiff") as slide:
        assert slide.level_dimensions == ((1030, 600), (515, 300), (257, 150), (128, 75))
        np.testing.assert_array_equal(level(slide, 0), noise)
        assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(2)
        assert slide.properties["tiff.ImageDescription"] == "attention"
    small = noise[:200, :256]
    write_pyramid(tmp_path / "small.tiff", small, mpp=None)
    with tifffile.TiffFile(tmp_path / "small.tiff") as file:
        assert len(file.pages) == 1
        np.testing.assert_array_equal(file.asarray(), small)


def test_no_dark_bleeds_in_at_the_border(tmp_path):
    write_slide(tmp_path / "white.tiff", np.full((259, 261, 3), 255, np.uint8), 0.5, levels=1)
    with openslide.OpenSlide(tmp_path / "white.tiff") as slide:
        assert level(slide, 0).min() == 255


def test_large_ones_are_big_tiffs(tmp_path, picture, monkeypatch):
    monkeypatch.setattr(slide_writer, "BIG", 1000)
    write_pyramid(tmp_path / "big.tiff", picture, 0.5)
    with tifffile.TiffFile(tmp_path / "big.tiff") as file:
        assert file.is_bigtiff
    with openslide.OpenSlide(tmp_path / "big.tiff") as slide:
        np.testing.assert_array_equal(level(slide, 0), picture)


def test_same_picture_same_bytes(tmp_path, picture):
    for name in ("a.tiff", "b.tiff"):
        write_slide(tmp_path / name, picture, 0.5)
    assert (tmp_path / "a.tiff").read_bytes() == (tmp_path / "b.tiff").read_bytes()


def test_a_failure_leaves_the_old_file(tmp_path, picture, monkeypatch):
    def fail(*arguments, **options):
        raise OSError("disk full")

    write_slide(tmp_path / "a.tiff", picture, 0.5)
    before = (tmp_path / "a.tiff").read_bytes()
    monkeypatch.setattr(slide_writer.cv2, "resize", fail)  # when the first level is written
    with pytest.raises(OSError, match="disk full"):
        write_slide(tmp_path / "a.tiff", picture, 0.25)
    assert [path.name for path in tmp_path.iterdir()] == ["a.tiff"]
    assert (tmp_path / "a.tiff").read_bytes() == before


@pytest.mark.parametrize(
    ("rgb", "options", "message"),
    [
        (np.zeros((4, 4, 3)), {}, "float64"),
        (np.zeros((4, 4), np.uint8), {}, r"of \(4, 4\)"),
        (np.zeros((0, 4, 3), np.uint8), {}, "bytes of shape"),
        (np.zeros((4, 4, 3), np.uint8), {"levels": 0}, "at least 1 level"),
        (np.zeros((4, 4, 3), np.uint8), {"factor": 1}, "factor of at least 2"),
        (np.zeros((4, 4, 3), np.uint8), {"mpp": 0.0}, "microns per pixel"),
        (np.zeros((4, 4, 3), np.uint8), {"mpp": float("nan")}, "microns per pixel"),
    ],
)
@pytest.mark.parametrize("write", [write_slide, write_pyramid])
def test_nonsense_is_refused_by_one_sentence(tmp_path, write, rgb, options, message):
    with pytest.raises(InputError, match=message):
        write(tmp_path / "a.tiff", rgb, **{"mpp": 0.5, **options})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("vendor", ["generic", "aperio"])
def test_nonsense_of_scale_is_refused_whatever_the_vendor(tmp_path, picture, vendor):
    with pytest.raises(InputError, match="microns per pixel"):
        write_slide(tmp_path / "a.svs", picture, 0.0, vendor=vendor)


@pytest.mark.parametrize("package", ["tifffile", "imagecodecs"])
def test_missing_packages_are_named_with_the_extra(tmp_path, picture, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=r"attnvgg\[slides\]"):
        write_slide(tmp_path / "a.tiff", picture, 0.5)
