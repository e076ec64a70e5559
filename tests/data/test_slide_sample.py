import dataclasses
import errno
import json
import subprocess
import sys

import cv2
import numpy as np
import openslide
import pandas as pd
import pytest

from attnvgg.cli.sample import main as sample
from attnvgg.data import slide_sample as module
from attnvgg.data.slide_sample import mean_colour_floor, region_ceiling, slide_sample, tile_shares
from attnvgg.data.slide_writer import write_slide
from attnvgg.data.synthetic import slide_cases
from attnvgg.data.synthetic.slide_cases import FREQUENCY, draw_case, draw_slide_cases
from attnvgg.data.synthetic.slides import GROWTH, LABORATORIES, SIZE, draw_slide
from attnvgg.data.synthetic.tissue import real_tissue, sheet, weave
from attnvgg.data.synthetic.tumour import grow
from attnvgg.errors import InputError

COUNT, SEED = 12, 3
SMALL, MIDDLE = (384, 320), (1024, 768)
NORTH, SOUTH = LABORATORIES.values()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return slide_sample(tmp_path_factory.mktemp("slides") / "sample", COUNT, SEED, 1, SMALL)


@pytest.fixture(scope="module")
def pair():
    """The same slide without growth and with that of grade 3, and where that is."""
    (without, nowhere), (with_growth, region) = (
        draw_slide(5, isup, NORTH, MIDDLE) for isup in (0, 3)
    )
    assert not nowhere.any()
    return without, with_growth, region


def contents(root):
    return {
        str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()
    }


def contrast(picture):
    """How much neighbours differ at the level on which tiles are cut, (H / 4, W / 4)."""
    small = cv2.resize(picture, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
    grey = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY).astype(np.float32)
    return np.abs(grey - cv2.GaussianBlur(grey, (0, 0), 2))


def test_layout_is_that_of_panda(made):
    table = pd.read_csv(made / "train.csv")
    columns = ["image_id", "data_provider", "isup_grade", "gleason_score", "patient_id"]
    assert list(table) == columns
    assert len(table) == COUNT
    assert table["image_id"].is_unique
    assert set(table["isup_grade"]) == set(range(6))
    assert set(table["data_provider"]) == set(LABORATORIES)
    assert {path.name for path in (made / "train_images").iterdir()} == {
        f"{name}.tiff" for name in table["image_id"]
    }
    for row in table.itertuples():
        with openslide.OpenSlide(made / "train_images" / f"{row.image_id}.tiff") as slide:
            assert slide.level_downsamples == pytest.approx((1, 4, 16))
            assert sorted(slide.dimensions) == sorted(SMALL)
            mpp = float(slide.properties["openslide.mpp-x"])
            assert mpp == pytest.approx(LABORATORIES[row.data_provider].mpp, rel=1e-4)
            mask = cv2.imread(str(made / "regions" / f"{row.image_id}.png"), cv2.IMREAD_UNCHANGED)
            assert mask.shape == tuple(side // 8 for side in reversed(slide.dimensions))
        assert set(np.unique(mask)) <= {0, 255}
        assert mask.any() == (row.isup_grade > 0)


def test_it_says_that_it_is_synthetic(made):
    summary = json.loads((made / "sample.json").read_text())
    assert summary["synthetic"] is True
    assert summary["region_downsample"] == 8
    assert "SYNTHETIC" in (made / "SAMPLE.txt").read_text()
    table = pd.read_csv(made / "train.csv")
    assert table["image_id"].str.startswith("SYNTHETIC").all()
    assert table["data_provider"].str.startswith("synthetic").all()


def test_a_slide_does_not_depend_on_the_others(made, tmp_path):
    """Hence not on the number of workers either."""
    (tmp_path / "train_images").mkdir()
    (tmp_path / "regions").mkdir()
    for case in reversed(draw_slide_cases(COUNT, SEED)[-2:]):
        draw_case(case, tmp_path, SEED, SMALL)
    ours = contents(made)
    assert len(contents(tmp_path)) == 4
    assert all(ours[name] == data for name, data in contents(tmp_path).items())


def test_another_seed_gives_other_slides(made, tmp_path):
    other = slide_sample(tmp_path / "other", 2, SEED + 1, 1, SMALL)
    for path in (other / "train_images").iterdir():
        assert path.read_bytes() != (made / "train_images" / path.name).read_bytes()


def test_a_complete_sample_is_left_untouched(made):
    before = {path: path.stat().st_mtime_ns for path in made.rglob("*")}
    assert slide_sample(made, COUNT, SEED, 1, SMALL) == made
    assert {path: path.stat().st_mtime_ns for path in made.rglob("*")} == before
    with pytest.raises(InputError, match="another sample"):
        slide_sample(made, COUNT, SEED + 1, 1, SMALL)


def test_what_is_lost_or_something_else_is_refused(tmp_path):
    root = slide_sample(tmp_path / "sample", 1, SEED, 1, SMALL)
    lost = root / "regions" / "SYNTHETIC_0000.png"
    lost.unlink()
    with pytest.raises(InputError, match="lost files") as caught:
        slide_sample(root, 1, SEED, 1, SMALL)
    assert caught.value.offenders == [str(lost)]
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(InputError, match="not a sample of slides"):
        slide_sample(tmp_path, 1, SEED, 1, SMALL)


def test_of_two_at_once_one_draws_and_the_other_waits(two_at_once):
    assert len(two_at_once(module, lambda root: slide_sample(root, 2, SEED, 1, SMALL))) == 1


@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "disk full"), KeyboardInterrupt()])
def test_a_failure_leaves_nothing_behind(tmp_path, monkeypatch, failure):
    def failing(*arguments):
        raise failure

    monkeypatch.setattr(slide_cases, "draw_slide", failing)
    with pytest.raises(type(failure)):
        slide_sample(tmp_path / "sample", 2, SEED, 1, SMALL)
    assert [path.name for path in tmp_path.iterdir()] == [".sample.lock"]


@pytest.mark.parametrize(
    "settings",
    [{"count": 0}, {"seed": -1}, {"workers": 0}, {"size": (388, 320)}, {"size": (64, 64)}],
)
def test_senseless_settings_are_refused(tmp_path, settings):
    with pytest.raises(InputError, match="got count"):
        slide_sample(tmp_path / "sample", **{"count": 2, **settings})
    assert not list(tmp_path.iterdir())


def test_without_a_folder_it_lies_in_the_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert slide_sample(count=1, workers=1, size=SMALL) == tmp_path / "attnvgg" / "slide-sample"


def test_scikit_image_is_asked_for_by_one_sentence(tmp_path, monkeypatch):
    real_tissue.cache_clear()
    monkeypatch.setitem(sys.modules, "skimage.data", None)
    with pytest.raises(InputError, match=r"attnvgg\[slides\]"):
        slide_sample(tmp_path / "sample", 1)


def test_drawing_needs_no_torch():
    """What a spawned process imports to draw must start at once."""
    code = (
        "import sys; import attnvgg.data.synthetic.slide_cases;"
        "assert not {'torch', 'pandas', 'sklearn', 'skimage'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_grades_are_as_frequent_as_in_panda():
    cases = draw_slide_cases(240, 0)
    counts = np.bincount([case.isup for case in cases])
    assert len(cases) == counts.sum() == 240
    np.testing.assert_allclose(counts / 240, np.array(FREQUENCY) / sum(FREQUENCY), atol=1 / 240)
    assert {case.gleason for case in cases if case.isup == 5} == {"4+5"}
    assert {case.gleason for case in cases if case.isup == 0} == {"0+0", "negative"}


def test_patients_have_one_slide_or_two_of_one_laboratory():
    cases = pd.DataFrame([dataclasses.asdict(case) for case in draw_slide_cases(240, 0)])
    patients = cases.groupby("patient")
    sizes = patients.size().value_counts(normalize=True)
    assert set(sizes.index) == {1, 2}
    assert 0.15 < sizes[2] < 0.35
    assert (patients["provider"].nunique() == 1).all()


def test_laboratory_and_patient_do_not_know_the_grade():
    """The same people with other grades: nothing else of them changes."""
    other = pd.DataFrame([dataclasses.asdict(case) for case in draw_slide_cases(240, 0)])
    for provider in LABORATORIES:
        share = (other.loc[other["provider"] == provider, "isup"] > 0).mean()
        assert share == pytest.approx((other["isup"] > 0).mean(), abs=0.06)


def test_around_the_growth_a_slide_of_another_grade_is_the_same_slide(pair):
    without, with_growth, region = pair
    near = cv2.dilate(region.astype(np.uint8), np.ones((25, 25))) > 0
    assert 0.02 < near.mean() < 0.5
    np.testing.assert_array_equal(without[~near], with_growth[~near])


@pytest.mark.parametrize("isup", [1, 5])
def test_growth_has_the_mean_colour_of_what_it_replaces(isup):
    without, _ = draw_slide(7, 0, SOUTH, MIDDLE)
    with_growth, region = draw_slide(7, isup, SOUTH, MIDDLE)
    assert (without[region] != with_growth[region]).any(1).mean() > 0.95
    means = [picture[region].mean(0) for picture in (without, with_growth)]
    np.testing.assert_allclose(*means, atol=1.5)


def test_texture_tells_growth_at_the_level_of_tiles(pair):
    without, with_growth, region = pair
    inside = cv2.resize(region.astype(np.uint8), None, fx=0.25, fy=0.25) > 0
    before, after = (contrast(picture)[inside].mean() for picture in (without, with_growth))
    assert after > 1.5 * before


def test_regions_grow_with_the_grade():
    regions = [draw_slide(11, isup, NORTH, MIDDLE)[1] for isup in range(1, 6)]
    shares = [region.mean() for region in regions]
    assert shares == sorted(shares)
    assert shares[-1] > 2 * shares[0]


def test_the_least_growth_spans_tiles():
    """A tile of 128 px at downsample 4 is 512 px wide."""
    picture, region = draw_slide(11, 1)
    assert sorted(picture.shape[:2]) == sorted(SIZE)
    height, width = region.shape
    tiles = region.reshape(height // 512, 512, width // 512, 512).mean((1, 3))
    assert (tiles > 0.05).sum() >= 2


def test_patterns_have_glands_holes_and_neither():
    """Pattern 3 has stroma between its glands, 4 none but holes, 5 only cells."""
    hollow = {}
    for pattern in (3, 4, 5):
        amounts = grow(np.random.default_rng(0), (400, 400), pattern)
        assert amounts.shape == (400, 400, 2)
        hollow[pattern] = (amounts[..., 1] < 0.12).mean()
    assert hollow[3] > 0.03
    assert hollow[4] > 0.1
    assert hollow[5] == 0
    assert {pattern for growth in GROWTH.values() for pattern in growth[:2]} == {3, 4, 5}


def test_dyes_of_the_real_picture_make_it_again():
    from skimage.data import immunohistochemistry

    amounts = real_tissue()
    assert amounts.shape == (512, 512, 2)
    assert amounts.min() == 0
    # much eosin where it is brown, much haematoxylin where it is blue
    red, _, blue = np.moveaxis(immunohistochemistry().astype(int), -1, 0)
    assert amounts[red - blue > 60][:, 1].mean() > 3 * amounts[red - blue < -10][:, 1].mean()
    assert amounts[blue - red > 40][:, 0].mean() > 2 * amounts[abs(red - blue) < 5][:, 0].mean()


def test_tissue_is_never_a_plain_repeat():
    """Mirrored, the picture comes again after 1,024 px: bent, it does not."""
    tissue = weave(np.random.default_rng(0), (1536, 1536))[..., 1]
    straight = np.pad(real_tissue()[..., 1], ((0, 1024), (0, 1024)), "symmetric")
    for picture, limit in ((straight, (0.99, 1.01)), (tissue, (-1, 0.75))):
        patch = picture[:256, :256]
        likeness = cv2.matchTemplate(picture[512:, 512:], patch, cv2.TM_CCOEFF_NORMED).max()
        assert limit[0] < likeness < limit[1]


def test_a_larger_scale_makes_smaller_tissue():
    """What is small changes faster from pixel to pixel."""
    rough, smooth = (
        np.abs(np.diff(sheet(np.random.default_rng(1), (512, 512), scale)[..., 0])).mean()
        for scale in (1.0, 0.25)  # one and the same place
    )
    assert rough > 1.2 * smooth


def plain_slides(folder, colours, labels):
    """A folder in PANDA's layout whose tissue has plain colours; the left half has a region."""
    (folder / "train_images").mkdir()
    (folder / "regions").mkdir()
    for number, colour in enumerate(colours):
        picture = np.full((512, 1024, 3), 245, np.uint8)
        picture[64:448, 64:960] = colour
        write_slide(folder / "train_images" / f"s{number}.tiff", picture, 0.5)
        mask = np.zeros((64, 128), np.uint8)
        mask[:, :64] = 255 * labels[number]
        cv2.imwrite(str(folder / "regions" / f"s{number}.png"), mask)
    names = [f"s{number}" for number in range(len(labels))]
    table = pd.DataFrame({"image_id": names, "isup_grade": labels, "patient_id": names})
    table.to_csv(folder / "train.csv", index=False)
    return folder


def test_floor_is_what_the_mean_colour_tells(tmp_path):
    """Judged by other patients: colours that differ only by chance tell nothing."""
    labels = [0, 1] * 5
    rng = np.random.default_rng(0)
    telling = [(200 - 60 * label, 90, 160 + rng.integers(20)) for label in labels]
    (tmp_path / "telling").mkdir()
    assert mean_colour_floor(plain_slides(tmp_path / "telling", telling, labels)) == 1
    (tmp_path / "silent").mkdir()
    silent = [rng.integers((150, 90, 150), (240, 180, 240)) for _ in labels]
    assert mean_colour_floor(plain_slides(tmp_path / "silent", silent, labels)) < 0.8


def test_ceiling_is_what_the_regions_tell(tmp_path):
    labels = [0, 1, 1, 0]
    root = plain_slides(tmp_path, [(190, 100, 170)] * 4, labels)
    assert sorted(tile_shares(root, "s1")) == [0, 1]
    assert not tile_shares(root, "s0").any()
    assert region_ceiling(root) == 1
    (root / "regions" / "s1.png").unlink()
    with pytest.raises(InputError, match="no region of s1"):
        region_ceiling(root)


def test_floor_and_ceiling_need_both_classes(tmp_path):
    root = plain_slides(tmp_path, [(190, 100, 170)] * 2, [1, 1])
    for figure in (mean_colour_floor, region_ceiling):
        with pytest.raises(InputError, match="needs"):
            figure(root)
    with pytest.raises(InputError, match=r"no train\.csv"):
        mean_colour_floor(tmp_path / "absent")


def test_the_command_makes_it_and_prints_floor_and_ceiling(tmp_path, monkeypatch, capsys):
    asked = []
    labels = [0, 1] * 5
    root = plain_slides(tmp_path, [(200 - 60 * label, 90, 160) for label in labels], labels)
    monkeypatch.setattr(module, "slide_sample", lambda *given: asked.append(given) or root)
    assert sample(["--kind=slides", f"--root={root}", "--count=60", "--seed=1"]) == 0
    assert asked == [(root, 60, 1, None)]
    told = capsys.readouterr().out
    assert "ceiling 1.000" in told
    assert "floor 1.000" in told
    assert sample(["--kind=slides", "--count=59"]) == 0  # too few to say anything
    assert asked[1] == (None, 59, module.SEED, None)
    assert "floor" not in capsys.readouterr().out
