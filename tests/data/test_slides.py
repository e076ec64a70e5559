"""Slides: what they say of themselves, pixels where they are, sentences where they are broken."""

import logging
import sys
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest

from attnvgg.data import slides
from attnvgg.data.resolution import stated_mpp
from attnvgg.data.slide_listing import slide_files
from attnvgg.data.slide_writer import write_pyramid, write_slide
from attnvgg.data.slides import Slide
from attnvgg.errors import InputError


@pytest.fixture(scope="module")
def exact(tmp_path_factory, tissue_picture):
    """The picture of tissue without loss, downsamples 1, 4, 16; not black anywhere."""
    picture = np.maximum(tissue_picture, 1)
    path = tmp_path_factory.mktemp("exact") / "exact.tiff"
    write_pyramid(path, picture, 0.5, levels=3, factor=4)
    return path, picture


def box_means(picture, size):
    """Exact means over the areas of the pixels of a smaller square picture, by integration."""
    for axis in (0, 1):
        table = np.cumsum(picture, axis=axis, dtype=float)
        table = np.concatenate([np.zeros_like(table.take([0], axis)), table], axis)
        edges = np.linspace(0, picture.shape[axis], size + 1)
        low = np.minimum(edges.astype(int), picture.shape[axis] - 1)
        part = (edges - low).reshape([-1, 1, 1] if axis == 0 else [1, -1, 1])
        table = table.take(low, axis) * (1 - part) + table.take(low + 1, axis) * part
        picture = np.diff(table, axis=axis) * size / picture.shape[axis]
    return picture


def test_what_a_generic_slide_says(tissue_slide):
    with Slide(tissue_slide) as slide:
        assert (slide.width, slide.height) == (1536, 1024)
        assert slide.require_mpp() == pytest.approx(0.5)
        assert slide.downsamples == (1, 4, 16)
        assert slide.magnification is None
        assert slide.path == tissue_slide


def test_what_an_aperio_slide_says(aperio_slide):
    with Slide(aperio_slide) as slide:
        assert slide.mpp == pytest.approx(0.25)
        assert slide.magnification == 40


@pytest.mark.parametrize(
    ("x", "y", "mpp", "words"),
    [
        ("0.5", "0.51", 0.505, ""),
        ("0.25", None, 0.25, ""),
        (None, None, None, "does not say"),
        ("0", "-1", None, "does not say"),
        ("nan", "abc", None, "does not say"),
        ("0.5", "0.53", None, "not square, 0.5 x 0.53"),
        ("352.78", "352.78", None, "352.8 microns wide"),  # 72 dots an inch, of an image editor
    ],
)
def test_microns_are_believed_only_if_they_can_be(x, y, mpp, words):
    stated = {"openslide.mpp-x": x, "openslide.mpp-y": y}
    found, doubt = stated_mpp({key: text for key, text in stated.items() if text is not None})
    assert found == (mpp and pytest.approx(mpp))
    assert (words in doubt) if words else doubt == ""


def test_unknown_microns_are_asked_for_and_can_be_stated(tmp_path):
    path = tmp_path / "silent.tiff"
    write_slide(path, np.full((300, 300, 3), 200, np.uint8), mpp=None)
    with Slide(path) as slide:
        assert slide.mpp is None
        with pytest.raises(InputError) as caught:
            slide.require_mpp()
    message = "does not say how many microns a pixel is: give --slide_mpp."
    assert str(caught.value) == f"{path} {message}"
    with Slide(path, mpp=0.3) as slide:
        assert slide.require_mpp() == 0.3


@pytest.mark.parametrize(("stated", "warned"), [(0.51, False), (0.6, True)])
def test_the_user_wins_over_the_file(tissue_slide, caplog, stated, warned):
    with caplog.at_level(logging.WARNING), Slide(tissue_slide, mpp=stated) as slide:
        assert slide.mpp == stated
    assert ("0.5 microns" in caplog.text) == warned


@pytest.mark.parametrize("mpp", [0, -0.5, float("nan"), float("inf")])
def test_microns_that_make_no_sense(tissue_slide, mpp):
    with pytest.raises(InputError, match="more than 0 microns"):
        Slide(tissue_slide, mpp=mpp)


def test_a_region_of_level_0_is_the_picture_itself(exact):
    path, picture = exact
    with Slide(path) as slide:
        for x, y in ((0, 0), (301, 277), (1536 - 64, 1024 - 64)):
            np.testing.assert_array_equal(slide.region(x, y, 64, 64), picture[y:, x:][:64, :64])


def test_a_region_of_a_coarser_level_is_that_level(exact):
    path, picture = exact
    level = cv2.resize(picture, None, fx=1 / 4, fy=1 / 4, interpolation=cv2.INTER_AREA)
    with Slide(path) as slide:
        found = slide.region(256, 128, 512, 128)
    np.testing.assert_array_equal(found, level[32:160, 64:192])


@pytest.mark.parametrize("size", [256, 128, 100, 83, 60])
def test_what_has_too_many_pixels_is_averaged_by_area(tmp_path, tissue_picture, size):
    """Exact but for rounding for whole numbers, else off by less than half a grey level."""
    path = tmp_path / "one.tiff"
    write_pyramid(path, tissue_picture, 0.5, levels=1)
    with Slide(path) as slide:
        found = slide.region(256, 256, 256, size).astype(float)
    wanted = box_means(tissue_picture[256:512, 256:512], size)
    if 256 % size == 0:
        assert np.abs(found - wanted).max() <= 0.5
    assert np.abs(found - wanted).mean() < 0.5
    assert abs((found - wanted).mean()) < 0.15


def test_the_level_read_is_the_coarsest_that_need_not_be_enlarged(tissue_slide):
    with Slide(tissue_slide) as slide:
        assert [slide.level_for(side, 64) for side in (32, 64, 253, 254, 1015, 1016)] == [
            0, 0, 0, 1, 1, 2,
        ]  # fmt: skip


def test_beyond_the_slide_it_is_white(exact):
    path, picture = exact
    with Slide(path) as slide:
        found = slide.region(1536 - 20, -10, 64, 64)
        np.testing.assert_array_equal(found[10:, :20], picture[:54, -20:])
        assert (found[:10] == 255).all()
        assert (found[:, 20:] == 255).all()
        assert (slide.region(5000, 5000, 256, 64) == 255).all()


def sparse_tiff(path, tile, present, grid):
    """A TIFF of one level, (grid * 256) square, where most tiles were left out by the scanner."""
    tifffile = pytest.importorskip("tifffile")
    imagecodecs = pytest.importorskip("imagecodecs")
    packed = imagecodecs.zlib_encode(tile.tobytes())
    tiles = (packed if number in present else b"" for number in range(grid * grid))
    with tifffile.TiffWriter(path) as writer:
        writer.write(
            tiles, shape=(grid * 256, grid * 256, 3), dtype=np.uint8, tile=(256, 256),
            compression="zlib", photometric="rgb", metadata=None,
        )  # fmt: skip


def test_what_the_scanner_left_out_is_white_and_black_stays_black(tmp_path):
    black = np.zeros((256, 256, 3), np.uint8)
    sparse_tiff(tmp_path / "sparse.tiff", black, present={4}, grid=3)
    with Slide(tmp_path / "sparse.tiff") as slide:
        picture = slide.region(0, 0, 768, 768)
        overview = slide.overview(48)
    wanted = np.full((768, 768, 3), 255, np.uint8)
    wanted[256:512, 256:512] = 0
    np.testing.assert_array_equal(picture, wanted)
    np.testing.assert_array_equal(overview, wanted[::16, ::16])


def test_the_overview_spans_the_whole_slide(exact):
    path, picture = exact
    with Slide(path) as slide:
        np.testing.assert_array_equal(slide.overview(2048), picture)  # never enlarged
        for longest in (1000, 384, 1):
            found = slide.overview(longest)
            assert max(found.shape) == max(longest, 3)
            assert found.shape[0] == max(1, round(longest / 1.5))
            wanted = cv2.resize(picture, found.shape[1::-1], interpolation=cv2.INTER_AREA)
            assert np.abs(found.astype(float) - wanted).mean() < 2


def test_the_overview_is_the_same_in_strips(exact, monkeypatch):
    with Slide(exact[0]) as slide:
        whole = {longest: slide.overview(longest).astype(int) for longest in (768, 500)}
        monkeypatch.setattr(slides, "STRIP", 40_000)
        np.testing.assert_array_equal(slide.overview(768), whole[768])
        assert np.abs(slide.overview(500) - whole[500]).mean() < 2


def test_threads_may_share_a_slide(tissue_slide):
    places = [(x, y) for x in range(0, 1536, 300) for y in range(0, 1024, 200)]
    with Slide(tissue_slide) as slide:
        alone = [slide.region(x, y, 120, 60) for x, y in places]
        with ThreadPoolExecutor(4) as threads:
            shared = threads.map(lambda place: slide.region(*place, 120, 60), places)
            np.testing.assert_array_equal(list(shared), alone)


def one_sentence(error, path):
    """The message names the file, and is one sentence."""
    message = str(error.value)
    return str(path) in message and message.endswith(".") and "\n" not in message


def test_not_a_slide(tmp_path, tissue_picture):
    text, plain, strips = (tmp_path / name for name in ("a.svs", "b.png", "c.tiff"))
    text.write_text("no slide")
    cv2.imwrite(str(plain), tissue_picture)
    cv2.imwrite(str(strips), tissue_picture)
    for path in (text, plain, strips, tmp_path, tmp_path / "missing.svs"):
        with pytest.raises(InputError) as caught:
            Slide(path)
        assert one_sentence(caught, path)


@pytest.mark.parametrize("share", [0, 0.0001, 0.3, 0.8, 0.99])
def test_a_truncated_slide(tmp_path, tissue_slide, share):
    """It fails when it is opened, or at the latest where pixels are missing."""
    content = tissue_slide.read_bytes()
    path = tmp_path / "cut.tiff"
    path.write_bytes(content[: int(len(content) * share)])

    def read_all():
        with Slide(path) as slide:
            for size in (1536, 384, 96):  # each level
                slide.region(0, 0, 1536, size)

    with pytest.raises(InputError) as caught:
        read_all()
    assert one_sentence(caught, path)


def test_a_slide_that_breaks_off_while_it_is_read(tmp_path, exact):
    """Its directory is whole, and one of its tiles is not."""
    content = bytearray(exact[0].read_bytes())
    spot = len(content) // 2  # in a tile of level 0, by far the largest
    content[spot : spot + 4000] = bytes(4000)
    path = tmp_path / "spoilt.tiff"
    path.write_bytes(content)
    with Slide(path) as slide, pytest.raises(InputError, match="is broken") as caught:
        slide.region(0, 0, 1536, 1536)
    assert one_sentence(caught, path)


def test_without_openslide(monkeypatch, tissue_slide):
    monkeypatch.setitem(sys.modules, "openslide", None)
    with pytest.raises(InputError, match=r'pip install "attnvgg\[slides\]"'):
        Slide(tissue_slide)


def touch(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_slides_among_files_and_folders(tmp_path):
    touch(
        tmp_path / "b" / "two.svs", tmp_path / "b" / "deep" / "one.TIFF",
        tmp_path / "b" / "notes.txt", tmp_path / "b" / ".hidden.svs", tmp_path / "three.dcm",
    )  # fmt: skip
    found = slide_files([tmp_path / "three.dcm", tmp_path / "b", tmp_path / "b" / "two.svs"])
    assert [path.name for path in found] == ["one.TIFF", "three.dcm", "two.svs"]
    assert all(path.is_absolute() for path in found)


def test_slides_that_are_not_there(tmp_path):
    with pytest.raises(InputError, match="No slides") as caught:
        slide_files([tmp_path])
    assert caught.value.offenders == [str(tmp_path)]
    with pytest.raises(InputError, match="no such slides") as caught:
        slide_files([tmp_path / "a.svs", tmp_path, tmp_path / "b.svs"])
    assert caught.value.offenders == [str(tmp_path / "a.svs"), str(tmp_path / "b.svs")]


def test_two_slides_of_one_name(tmp_path):
    touch(tmp_path / "a" / "x.svs", tmp_path / "b" / "x.tiff", tmp_path / "b" / "y.tiff")
    with pytest.raises(InputError, match="must differ") as caught:
        slide_files([tmp_path])
    assert caught.value.offenders == [str(tmp_path / "a/x.svs"), str(tmp_path / "b/x.tiff")]
