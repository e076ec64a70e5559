"""The figure of a slide: what is on it, where, and that it says what its colours mean."""

from itertools import pairwise

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle

from attnvgg.errors import InputError
from attnvgg.explain import save_slide
from attnvgg.explain.bag_row import written
from attnvgg.explain.overlays import COLOUR_SHARE
from attnvgg.explain.page import TIMES
from attnvgg.explain.slide_maps import colours
from tests.explain.test_bag_case import softmax
from tests.explain.test_figures import said
from tests.explain.test_slide_maps import slide_case


def tiles(columns, rows, side=64):
    return [(x * side, y * side) for y in range(rows) for x in range(columns)]


def case_of(columns=8, rows=6, **more):
    """A slide full of tiles."""
    weights = more.pop("weights", softmax(columns * rows))
    pictures = np.random.default_rng(0).integers(0, 255, (columns * rows, 9, 9, 3), np.uint8)
    size = (columns * 64, rows * 64)
    return slide_case(tiles(columns, rows), weights, size=size, instances=pictures, **more)


@pytest.fixture
def figures(monkeypatch):
    """The figures that would be written."""
    seen = []
    monkeypatch.setattr(Figure, "savefig", lambda self, *_, **__: seen.append(self))
    return seen


def slides(figure):
    """The axes of the slide and of the map, in level-0 pixels."""
    return [axes for axes in figure.axes if axes.images and axes.get_xlim()[1] >= 64]


def test_the_map_lies_on_its_slide_to_the_pixel(tmp_path, figures):
    """Layers have one frame; every pixel of the map has the colour of the tile that is there."""
    case = case_of(9, 7)
    save_slide(tmp_path / "map.png", case)
    slide, attended = slides(figures[0])
    assert len(slide.images) == 1
    (_, painted) = attended.images
    for axes in (slide, attended):
        assert (axes.get_xlim(), axes.get_ylim()) == ((0, 576), (448, 0))
        np.testing.assert_array_equal(axes.images[0].get_array(), case.overview)
        assert axes.images[0].get_extent() == [0, 576, 448, 0]
    left, right, low, top = painted.get_extent()
    values = painted.get_array()
    height, width, _ = values.shape
    assert painted.get_alpha() == COLOUR_SHARE
    for (x, y), weight in zip(case.coords, case.shown, strict=True):
        row = int((y + 32 - top) / (low - top) * height)
        column = int((x + 32 - left) / (right - left) * width)
        expected = colours(np.array([[weight]]), "softmax")[0, 0]
        np.testing.assert_array_equal(values[row, column], expected)


def test_the_top_tiles_are_framed_where_they_are(tmp_path, figures):
    case = case_of()
    save_slide(tmp_path / "map.png", case, top=5)
    slide, attended = slides(figures[0])
    framed = [p.get_xy() for p in slide.patches if isinstance(p, Rectangle)]
    assert framed == [tuple(xy) for xy in case.coords[case.order[:5]].tolist()]
    assert all(p.get_width() == p.get_height() == 64 for p in slide.patches)
    assert not attended.patches
    numbers = {text.get_text(): text.get_position() for text in slide.texts}
    for rank, number in enumerate(case.order[:5], 1):
        np.testing.assert_array_equal(numbers[str(rank)], case.coords[number] + 32)


def test_a_tile_that_reaches_over_the_border_has_its_number_on_the_slide(tmp_path, figures):
    save_slide(tmp_path / "m.png", slide_case([(-40, 0), (448, 340)], [0.6, 0.4]))
    (axes, _) = slides(figures[0])
    places = {text.get_text(): text.get_position() for text in axes.texts}
    assert places == {"1": (12, 32), "2": (480, 362)}


def test_numbers_of_tiles_too_small_to_tell_apart_do_not_overlap(tmp_path, figures):
    case = case_of(90, 60, weights=np.full(5400, 1 / 5400))  # the first eight are in a row
    save_slide(tmp_path / "map.png", case)
    slide, _ = slides(figures[0])
    assert len(slide.patches) == 8
    places = sorted(text.get_position()[0] for text in slide.texts if text.get_text().isdigit())
    inch = 90 * 64 / (slide.get_position().width * figures[0].get_size_inches()[0])
    assert 1 < len(places) < 8
    assert np.diff(places).min() >= 0.07 * inch


def test_the_row_has_the_tiles_of_most_weight(tmp_path, figures):
    case = case_of()
    save_slide(tmp_path / "map.png", case, top=6)
    spoken = [text.get_text() for text in figures[0].texts]
    values = np.sort(case.bag.values)[::-1]
    for rank in range(6):
        assert written(values[rank]) in spoken
        assert f"tile {rank + 1}" in spoken
    assert "tile 7" not in spoken
    assert written(values[6:].sum()) in spoken
    drawn = [image for image in figures[0].findobj(AxesImage) if image.get_array().shape[0] == 9]
    for number, image in zip(case.order[:6], drawn, strict=True):
        np.testing.assert_array_equal(image.get_array(), case.bag.picture(number))


def test_what_is_said(tmp_path, words):
    case = case_of(
        name="biopsy.svs", probability=0.873, scored="malignant", label="benign", mpp=0.5
    )
    save_slide(tmp_path / "m.png", case, threshold=0.25, title="Run: biopsy", caption="SYNTHETIC.")
    text = said(words)
    for part in (
        "Run: biopsy",
        "p(malignant) = 0.87",
        "called malignant",
        "biopsy.svs",
        "48 tiles",
    ):
        assert part in text
    for part in (f"512 {TIMES} 384 px", "0.5 µm per px", "8 of 48 tiles", "SYNTHETIC."):
        assert part in text
    for part in ("1 = no preference", "same for every slide", "sum to 1", "p ≥ 0.25; red: wrong"):
        assert part in text
    assert "50 µm" in text  # a scale bar: a quarter of 256 microns is 64
    assert "region" not in text


def test_unknown_microns_are_said_and_have_no_bar(tmp_path, words):
    save_slide(tmp_path / "m.png", case_of())
    assert "µm per px not known" in words
    assert not [word for word in words if word.endswith((" µm", " mm"))]


def test_a_region_is_outlined_where_it_is_and_its_tiles_are_counted(tmp_path, figures):
    """The two squares in the middle of the slide; the line is at the border of its pixels."""
    weights = np.full(48, 0.1 / 46)
    weights[[19, 20]] = 0.45
    mask = np.zeros((6, 8), bool)
    mask[2, 3] = True
    save_slide(tmp_path / "m.png", case_of(weights=weights, mask=mask), top=2)
    names = [t.get_text() for t in figures[0].texts if t.get_text().endswith("%")]
    assert names == ["1: 100%", "2: 0%"]
    for axes in slides(figures[0]):
        (line, _) = axes.collections
        corners = np.concatenate([path.vertices for path in line.get_paths()])
        np.testing.assert_allclose(corners.mean(axis=0), (3.5 * 64, 2.5 * 64), atol=8)
        assert np.ptp(corners, axis=0).tolist() == [64, 64]


@pytest.mark.parametrize("size", [(8, 6), (30, 5), (3, 20), (1, 1), (2, 2)])
@pytest.mark.parametrize("top", [1, 10])
def test_nothing_leaves_the_page_or_overlaps(tmp_path, figures, size, top):
    name = "a-slide-with-a-rather-long-name-0123456789.svs"
    case = case_of(*size, mpp=0.25, name=name, mask=np.ones((4, 4), bool))
    save_slide(tmp_path / "m.png", case, top=top, title="Run: slide", caption="A caption.")
    (figure,) = figures
    width, height = figure.get_size_inches() * figure.dpi
    boxes = [text.get_window_extent() for text in figure.texts]
    assert all(b.x0 >= 0 and b.y0 >= 0 and b.x1 <= width and b.y1 <= height for b in boxes)
    assert not any("…" in text.get_text()[:1] for text in figure.texts)
    for box in boxes:
        assert not any(box.overlaps(axes.get_window_extent()) for axes in slides(figure))
    for one, other in pairwise(boxes):
        assert not one.overlaps(other) or one.width * other.width == 0
    first, second = (axes.get_window_extent() for axes in slides(figure))
    assert not first.overlaps(second)
    assert first.width / first.height == pytest.approx(size[0] / size[1], rel=1e-6)


def test_probabilities_of_tiles_have_their_own_words(tmp_path, words):
    name = "probability of malignant"
    save_slide(tmp_path / "m.png", case_of(weights=np.linspace(0, 1, 48), score_name=name))
    text = said(words)
    assert f"number and bar: {name} (of a tile)" in text
    assert "highest first" in text
    assert "no preference" not in text


def test_wrong_requests_are_refused(tmp_path):
    with pytest.raises(InputError, match="1 to 10 tiles, not 11"):
        save_slide(tmp_path / "m.png", case_of(), top=11)
    assert not list(tmp_path.iterdir())
