"""Maps of slides: exact to the pixel, and the same in every file that is written of them."""

import json

import cv2
import numpy as np
import pytest

from attnvgg.errors import InputError
from attnvgg.explain import BagCase
from attnvgg.explain.overlays import jet, scale_map
from attnvgg.explain.slide_maps import (
    SlideCase,
    colours,
    found_shares,
    heat_map,
    polygons,
    write_map,
    write_polygons,
)

NAN = np.nan


def slide_case(coords, weights, side=64, size=(512, 384), **more):
    """A slide with those tiles."""
    width, height = size
    slide = {key: more.pop(key) for key in ("mpp", "mask") if key in more}
    bag = {"name": "s.tiff", "probability": 0.9, "predicted": "malignant"} | more
    overview = np.full((height // 8, width // 8, 3), 240, np.uint8)
    case = BagCase(weights=np.asarray(weights), coords=np.asarray(coords), **bag)
    return SlideCase(case, side, width, height, overview, **slide)


@pytest.fixture
def grid():
    """A slide of 512 x 384 px with 24 tiles of 64 px and the attention of a softmax."""
    coords = [(x, y) for y in range(64, 320, 64) for x in range(64, 448, 64)]
    logits = np.random.default_rng(0).normal(size=len(coords)) * 2
    weights = np.exp(logits) / np.exp(logits).sum()
    return slide_case(coords, weights, mpp=0.5)


def test_tiles_of_a_grid_by_hand():
    """A slide of 5 x 3 px, tiles of 2: the rest of the slide is bare."""
    found = heat_map([(0, 0), (2, 0), (2, 1)], 2, [0.2, 0.3, 0.5], 5, 3, 1)
    expected = [
        [0.2, 0.2, 0.3, 0.3, NAN],
        [0.2, 0.2, 0.4, 0.4, NAN],  # two tiles share it: (0.3 + 0.5) / 2
        [NAN, NAN, 0.5, 0.5, NAN],
    ]
    np.testing.assert_array_equal(found, np.array(expected, np.float32))
    assert found.dtype == np.float32


def test_overlapping_tiles_are_averaged_by_hand():
    """Tiles of 4 px every 2 px on a strip: 1, then 1 and 2, then all of 2 and 3, ..."""
    found = heat_map([(0, 0), (2, 0), (4, 0)], 4, [1, 2, 6], 9, 4, 1)
    row = [1, 1, 1.5, 1.5, 4, 4, 6, 6, NAN]
    np.testing.assert_array_equal(found, np.array([row] * 4, np.float32))


def test_a_coarse_map_asks_for_the_centres_of_its_pixels():
    """At downsample 4 the centres are at 2, 6, 10: [2, 6) has the first, [7, 11) the third."""
    found = heat_map([(2, 0), (7, 0)], 4, [1, 2], 10, 4, 4)
    np.testing.assert_array_equal(found, np.array([[1, NAN, 2]], np.float32))


def test_tiles_that_reach_over_the_border_are_cut():
    found = heat_map([(-2, -1), (3, 2)], 3, [1, 2], 4, 4, 1)
    expected = np.full((4, 4), NAN, np.float32)
    expected[:2, :1], expected[2:, 3:] = 1, 2
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("downsample", [1, 2, 3.5, 7])
def test_a_map_is_what_a_loop_over_pixels_says(downsample):
    """Independently: every pixel asks every tile whether its centre is inside."""
    rng = np.random.default_rng(1)
    coords, weights = rng.integers(-5, 60, (40, 2)), rng.random(40)
    found = heat_map(coords, 7, weights, 61, 47, downsample)
    assert found.shape == (int(np.ceil(47 / downsample)), int(np.ceil(61 / downsample)))
    for row, column in np.ndindex(found.shape):
        x, y = (column + 0.5) * downsample, (row + 0.5) * downsample
        hit = [
            w
            for (u, v), w in zip(coords, weights, strict=True)
            if 0 <= x - u < 7 and 0 <= y - v < 7
        ]
        expected = np.float32(np.mean(hit)) if hit else NAN
        assert found[row, column] == pytest.approx(expected, rel=1e-6, nan_ok=True)


def test_order_of_the_tiles_does_not_matter():
    rng = np.random.default_rng(2)
    coords, weights = rng.integers(0, 50, (30, 2)) * 2, np.round(rng.random(30), 3)
    order = rng.permutation(30)
    one = heat_map(coords, 16, weights, 128, 128, 2)
    other = heat_map(coords[order], 16, weights[order], 128, 128, 2)
    np.testing.assert_allclose(one, other, rtol=1e-6)


def test_a_map_that_cannot_be():
    with pytest.raises(InputError, match="cannot show tiles of 64 px"):
        heat_map([(0, 0)], 64, [1], 512, 512, 65)
    with pytest.raises(InputError, match="100000 x 100000 px is too large"):
        heat_map([(0, 0)], 64, [1], 100_000, 100_000, 1)
    with pytest.raises(InputError, match="x, y and a weight each"):
        heat_map([(0, 0)], 64, [0.5, 0.5], 512, 512, 1)


def test_colours_are_those_of_other_maps(grid):
    """Attention times the number of tiles, on the scale of every picture of this package."""
    places = scale_map(np.asarray(grid.bag.weights)[None]).values
    expected = jet()[np.rint(255 * places).astype(int), 0]
    np.testing.assert_array_equal(colours(grid.shown[None], "softmax")[..., :3], expected)
    bare = colours(np.array([[NAN, 1.0]]), "softmax")
    assert bare[0, :, 3].tolist() == [0, 255]
    np.testing.assert_array_equal(bare[0, 1, :3], jet()[128, 0])  # no preference: the middle


def test_a_probability_is_its_own_place():
    case = slide_case([(0, 0), (64, 0)], [0.0, 1.0], score_name="probability of the instance")
    np.testing.assert_array_equal(colours(case.shown[None], "sigmoid")[0, 0, :3], jet()[0, 0])
    np.testing.assert_array_equal(colours(case.shown[None], "sigmoid")[0, 1, :3], jet()[255, 0])
    assert case.shown.tolist() == [0, 1]


@pytest.mark.parametrize("downsample", [1, 4, 8])
def test_the_tiff_is_the_map_at_its_place(grid, tmp_path, downsample):
    """OpenSlide and tifffile see the same pixels, sizes and microns as the map."""
    openslide, tifffile = pytest.importorskip("openslide"), pytest.importorskip("tifffile")
    path = tmp_path / "map.tiff"
    write_map(path, grid, downsample)
    expected = colours(grid.map(downsample), "softmax")
    bare = expected[..., 3] == 0
    with openslide.OpenSlide(path) as slide:
        assert slide.dimensions == (512 // downsample, 384 // downsample)
        for axis in "xy":
            mpp = float(slide.properties[f"openslide.mpp-{axis}"])
            assert mpp == pytest.approx(0.5 * downsample, rel=1e-6)
        seen = np.asarray(slide.read_region((0, 0), 0, slide.dimensions))[..., :3]
        assert slide.level_count == {1: 2, 4: 1, 8: 1}[downsample]
    np.testing.assert_array_equal(tifffile.imread(path), seen)
    np.testing.assert_array_equal(seen[~bare], expected[~bare][:, :3])
    assert (seen[bare] == 255).all()
    for (x, y), weight in zip(grid.coords, grid.shown, strict=True):
        middle = seen[(y + 32) // downsample, (x + 32) // downsample]
        np.testing.assert_array_equal(middle, colours(np.array([[weight]]), "softmax")[0, 0, :3])
    with tifffile.TiffFile(path) as file:
        said = json.loads(file.pages[0].description)
    assert (said["downsample"], said["width"], said["height"]) == (downsample, 512, 384)
    assert (said["slide"], said["mpp"]) == ("s.tiff", 0.5)


def test_without_microns_the_tiff_claims_none(tmp_path):
    openslide = pytest.importorskip("openslide")
    write_map(tmp_path / "map.tiff", slide_case([(0, 0), (64, 0)], [0.5, 0.5]), 4)
    with openslide.OpenSlide(tmp_path / "map.tiff") as slide:
        assert "openslide.mpp-x" not in slide.properties


def test_polygons_are_what_qupath_reads(grid, tmp_path):
    """Closed squares in level-0 pixels, of the type tile, with measurements that are numbers."""
    write_polygons(tmp_path / "map.geojson", grid, 3)
    content = json.loads((tmp_path / "map.geojson").read_text())
    assert content["type"] == "FeatureCollection"
    assert len(content["features"]) == len(grid.bag)
    for feature, (x, y), weight in zip(
        content["features"], grid.coords, grid.bag.weights, strict=True
    ):
        assert feature["type"] == "Feature"
        assert feature["geometry"]["type"] == "Polygon"
        (ring,) = feature["geometry"]["coordinates"]
        assert ring[0] == ring[-1]
        area = cv2.contourArea(np.array(ring[:-1], np.float32), oriented=True)
        assert area == 64 * 64  # positive: counter-clockwise, as RFC 7946 has it
        assert min(ring) == [x, y]
        properties = feature["properties"]
        assert properties["objectType"] == "tile"
        assert properties["measurements"]["attention"] == weight
        assert properties["measurements"]["attention x tiles"] == pytest.approx(weight * 24)
        assert all(type(c) is int and 0 <= c < 256 for c in properties["color"])
        rank = properties["measurements"]["rank"]
        assert rank == 1 + (grid.bag.weights > weight).sum()
        assert properties["classification"]["name"] == ("Top 3" if rank <= 3 else "Other")


def test_polygons_stay_on_the_slide():
    """QuPath warns of what lies beyond; PANDA's padding makes tiles that do."""
    case = slide_case([(-10, -20), (480, 350)], [0.5, 0.5])
    rings = [feature["geometry"]["coordinates"][0] for feature in polygons(case, 1)]
    assert rings[0] == [[0, 0], [54, 0], [54, 44], [0, 44], [0, 0]]
    assert rings[1] == [[480, 350], [512, 350], [512, 384], [480, 384], [480, 350]]


def test_equal_weights_are_ranked_by_place(grid):
    case = slide_case(grid.coords[:4], [0.3, 0.2, 0.3, 0.2])
    ranks = [f["properties"]["measurements"]["rank"] for f in polygons(case, 2)]
    assert ranks == [1, 3, 2, 4]
    assert case.order.tolist() == [0, 2, 1, 3]


def test_branches_are_averaged():
    case = slide_case([(0, 0), (64, 0)], [[0.2, 0.6], [0.8, 0.4]])
    np.testing.assert_allclose(case.shown, [0.8, 1.2])


def test_a_planted_region_is_where_the_map_says(grid):
    """The pixels above no preference are exactly the squares of the tiles that have more."""
    weights = np.full(24, 0.5 / 21)
    weights[[3, 4, 9]] = 0.5 / 3
    case = slide_case(grid.coords, weights)
    planted = np.zeros((384, 512), bool)
    for x, y in grid.coords[[3, 4, 9]]:
        planted[y : y + 64, x : x + 64] = True
    np.testing.assert_array_equal(np.nan_to_num(case.map(1)) > 1, planted)
    np.testing.assert_array_equal(np.nan_to_num(case.map(16)) > 1, planted[8::16, 8::16])
    marked = slide_case(grid.coords, weights, mask=planted[::8, ::8])
    assert found_shares(marked).tolist() == [float(n in (3, 4, 9)) for n in range(24)]
    assert found_shares(case) is None


def test_shares_of_tiles_that_are_region_by_hand():
    """The left half of the slide is region; a tile reaches over its edge, one over the border."""
    mask = np.zeros((48, 64), bool)
    mask[:, :32] = True
    case = slide_case([(0, 0), (240, 0), (256, 0), (-32, 0)], [0.25] * 4, mask=mask)
    assert found_shares(case).tolist() == [1, 0.25, 0, 0.5]


def test_a_mask_may_be_coarser_than_the_tiles():
    """Two pixels for 512: the tiles of the left one are region, though few hold its centre."""
    case = slide_case([(0, 0), (64, 64), (256, 0), (224, 0)], [0.25] * 4, mask=np.array([[1, 0]]))
    assert found_shares(case).tolist() == [1, 1, 0, 0.5]


def test_tiles_of_another_slide_are_refused():
    with pytest.raises(InputError, match=r"2 of the 3 tiles lie beyond s.tiff, which is 512 x 384"):
        slide_case([(0, 0), (512, 0), (0, 384)], [0.5, 0.25, 0.25])
    bag = BagCase("s", 0.5, "no", weights=[1.0])
    with pytest.raises(InputError, match="a weight and a place"):
        SlideCase(bag, 64, 512, 384, np.zeros((4, 4, 3), np.uint8))


def test_a_hundred_thousand_tiles_take_a_moment():
    side = 320
    coords = np.stack(np.meshgrid(np.arange(side), np.arange(side)), -1).reshape(-1, 2) * 256
    weights = np.random.default_rng(3).random(side * side)
    found = heat_map(coords, 256, weights, side * 256, side * 256, 32)
    expected = np.kron(weights.reshape(side, side), np.ones((8, 8))).astype(np.float32)
    np.testing.assert_array_equal(found, expected)
