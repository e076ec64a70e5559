"""PANDA: slides are cut once, tiles are taken as they are, and what is missing is told at once."""

import shutil

import cv2
import numpy as np
import pandas as pd
import pytest

from attnvgg.data import tile_folders
from attnvgg.data.bags import open_bags
from attnvgg.data.panda import load_panda
from attnvgg.data.slide_writer import write_slide
from attnvgg.data.slides import Slide
from attnvgg.data.tile_folders import cut_slides, tiles_home
from attnvgg.data.tiles import panda_tiles, read_tile
from attnvgg.data.transforms import Preprocess
from attnvgg.errors import InputError

GRADES = [0, 1, 2, 3, 4, 5]
IDS = [f"slide_{number}" for number in range(6)]  # names that end in a number, as flat tiles do


def write_table(folder, ids=IDS, grades=GRADES, name="train.csv"):
    folder.mkdir(parents=True, exist_ok=True)
    rows = {
        "image_id": ids,
        "data_provider": ["karolinska", "radboud"] * (len(ids) // 2),
        "isup_grade": grades,
        "gleason_score": "0+0",
        "patient_id": [f"p{i // 2}" for i in range(len(ids))],
    }
    pd.DataFrame(rows).to_csv(folder / name, index=False)
    return folder


def write_tiles(folder, names):
    folder.mkdir(parents=True)
    for number, name in enumerate(names):
        cv2.imwrite(str(folder / name), np.full((16, 16, 3), number, np.uint8))


@pytest.fixture
def flat(tmp_path):
    """Three tiles of each slide, all in one folder."""
    names = [f"{name}_{tile}.png" for name in IDS for tile in range(3)]
    write_tiles(tmp_path / "root" / "train_tiles", names)
    return write_table(tmp_path / "root")


@pytest.fixture
def folders(tmp_path):
    """A folder of three tiles a slide."""
    for name in IDS:
        write_tiles(tmp_path / "root" / "train_tiles" / name, ["a.png", "b.png", "c.png"])
    return write_table(tmp_path / "root")


@pytest.fixture
def slides(tmp_path, tissue_slide):
    """Two slides of real tissue."""
    home = tmp_path / "root" / "train_images"
    home.mkdir(parents=True)
    for name in IDS[:2]:
        shutil.copy(tissue_slide, home / f"{name}.tiff")
    return write_table(tmp_path / "root", IDS[:2], [0, 4])


# ---------------------------------------------------------------- the table


@pytest.mark.parametrize("layout", ["flat", "folders"])
def test_tiles_cut_before(layout, request):
    root = request.getfixturevalue(layout)
    table = load_panda(root)
    assert table["label"].tolist() == [0, 1, 1, 1, 1, 1]
    assert table["group"].tolist() == ["p0", "p0", "p1", "p1", "p2", "p2"]
    assert table["source"].tolist() == ["karolinska", "radboud"] * 3
    assert table.attrs["classes"] == ("benign", "malignant")
    assert "split" not in table
    bags = open_bags(table, Preprocess(16, 16))
    assert bags.lengths.tolist() == [3] * 6
    if layout == "flat":  # the tiles of each slide, and of no other
        values = [bags.pictures.load(row)[0, 0, 0] for bag in range(6) for row in bags.rows(bag)]
        assert values == list(range(18))


def test_grades(folders):
    table = load_panda(folders, "isup")
    assert table["label"].tolist() == GRADES
    assert table.attrs["classes"] == tuple(f"ISUP {grade}" for grade in GRADES)


def test_links_follow_the_files(flat):
    load_panda(flat)
    (flat / "train_tiles" / f"{IDS[0]}_0.png").unlink()
    write = flat / "train_tiles" / f"{IDS[0]}_7.png"
    cv2.imwrite(str(write), np.zeros((16, 16, 3), np.uint8))
    found = load_panda(flat)["image"][0]
    names = sorted(path.name for path in tile_folders.Path(found).iterdir())
    assert names == [f"{IDS[0]}_{tile}.png" for tile in (1, 2, 7)]


def test_slides_without_a_grade_are_left_out(folders, caplog):
    caplog.set_level("INFO")
    write_table(folders, IDS[:4], GRADES[:4])
    assert len(load_panda(folders)) == 4
    assert "no grade" in caplog.text


def test_features_of_slides_are_bags(folders, tmp_path):
    for name in IDS:
        np.save(tmp_path / f"{name}.npy", np.ones((3, 2), np.float32))
    table, tiles = load_panda(folders, features=tmp_path), load_panda(folders)
    assert table["image"].tolist() == [str(tmp_path / f"{name}.npy") for name in IDS]
    others = [name for name in table if name != "image"]
    pd.testing.assert_frame_equal(table[others], tiles[others])
    (tmp_path / f"{IDS[1]}.npy").unlink()
    with pytest.raises(InputError, match=f"names slides that are not in {tmp_path}") as error:
        load_panda(folders, features=tmp_path)
    assert error.value.offenders == [IDS[1]]


def test_rows_without_a_slide_are_told_at_once(folders):
    for name in IDS[1:3]:
        shutil.rmtree(folders / "train_tiles" / name)
    with pytest.raises(InputError, match=r"train\.csv names slides that are not in") as caught:
        load_panda(folders)
    assert caught.value.offenders == IDS[1:3]


@pytest.mark.parametrize("grade", ["6", "-1", "", "1.0", "three"])
def test_grades_that_are_none(folders, grade):
    write_table(folders, grades=[0, 1, 2, grade, 4, 5])
    with pytest.raises(InputError, match="from 0 to 5") as caught:
        load_panda(folders)
    assert caught.value.offenders == [f"{IDS[3]}: {grade!r}"]


def test_no_table_and_no_folder(folders):
    (folders / "train.csv").rename(folders / "other.csv")
    assert len(load_panda(folders)) == 6  # the only table will do
    shutil.copy(folders / "other.csv", folders / "third.csv")
    with pytest.raises(InputError, match=r"no train\.csv"):
        load_panda(folders)
    with pytest.raises(InputError, match="does not exist"):
        load_panda(folders / "nowhere")


def test_the_table_lacks_a_column(folders):
    (folders / "train.csv").write_text("image_id,grade\nx,1\n")
    with pytest.raises(InputError, match="isup_grade"):
        load_panda(folders)


def test_grades_that_no_slide_has_are_named(folders):
    write_table(folders, grades=[0, 5] * 3)
    assert load_panda(folders)["label"].tolist() == [0, 1] * 3
    with pytest.raises(InputError, match="no slides of ISUP 1, ISUP 2, ISUP 3, ISUP 4: all six"):
        load_panda(folders, "isup")


@pytest.mark.parametrize(("grade", "absent"), [(0, "malignant"), (3, "benign")])
def test_one_class_is_none(folders, grade, absent):
    write_table(folders, grades=[grade] * 6)
    with pytest.raises(InputError, match=f"no slides of {absent}: two classes are needed"):
        load_panda(folders)


# ---------------------------------------------------------------- channels


def channels(root, training, testing):
    for channel, names in (("training", training), ("testing", testing)):
        for name in names:
            write_tiles(root / channel / name, ["a.png"])
    return root


def test_channels_are_the_split(tmp_path):
    root = channels(write_table(tmp_path / "root"), IDS[:4], IDS[4:])
    table = load_panda(root)
    assert table["split"].tolist() == ["train"] * 4 + ["test"] * 2


def test_channels_with_a_table_each(tmp_path):
    root = channels(tmp_path / "root", IDS[:4], IDS[4:])
    write_table(root / "training", IDS[:4], GRADES[:4])
    write_table(root / "testing", IDS[4:], [0, 5], "labels.csv")
    table = load_panda(root, "binary")
    assert table["split"].tolist() == ["train"] * 4 + ["test"] * 2
    assert table["label"].tolist() == [0, 1, 1, 1, 0, 1]
    (root / "testing" / "labels.csv").unlink()
    with pytest.raises(InputError, match=r"no train\.csv"):
        load_panda(root)


def test_two_channels_of_one_purpose(tmp_path):
    root = channels(write_table(tmp_path / "root"), IDS[:4], IDS[4:])
    (root / "training").rename(root / "train")
    assert load_panda(root)["split"].tolist() == ["train"] * 4 + ["test"] * 2
    (root / "training").mkdir()
    with pytest.raises(InputError, match="holds training and train: leave one of them"):
        load_panda(root)


def test_a_slide_in_both_channels(tmp_path):
    root = channels(write_table(tmp_path / "root"), IDS[:4], IDS[3:])
    with pytest.raises(InputError, match="at once") as caught:
        load_panda(root)
    assert caught.value.offenders == [IDS[3]]


# ---------------------------------------------------------------- slides


def test_slides_are_cut_into_the_tiles_of_recipe_g(slides, tmp_path):
    table = load_panda(slides, tiles=tmp_path / "tiles")
    folder = tmp_path / "tiles" / IDS[0]
    assert table["image"].tolist() == [str(tmp_path / "tiles" / name) for name in IDS[:2]]
    coords = pd.read_csv(folder / "coords.csv")
    with Slide(slides / "train_images" / f"{IDS[0]}.tiff") as slide:
        wanted = panda_tiles(slide)
        np.testing.assert_array_equal(coords[["x", "y"]], wanted.coords)
        assert set(coords["side"]) == {wanted.side}
        for number, name in enumerate(coords["file"]):
            found = cv2.cvtColor(cv2.imread(str(folder / name)), cv2.COLOR_BGR2RGB)
            np.testing.assert_array_equal(found, read_tile(slide, wanted, number))
    bags = open_bags(table, Preprocess(128, 128))
    assert bags[0]["instances"].shape == (len(coords), 3, 128, 128)


def test_slides_in_a_folder_each(slides, tmp_path):
    """As the GDC gives them, with what else it puts there; names may hold dots."""
    home = slides / "train_images"
    names = [f"TCGA-{number}.A-B.{number}" for number in range(2)]
    for name, old in zip(names, IDS, strict=False):
        (home / name / "logs").mkdir(parents=True)
        (home / f"{old}.tiff").rename(home / name / f"{name}.tiff")
        cv2.imwrite(str(home / name / "label.png"), np.zeros((8, 8, 3), np.uint8))
    write_table(slides, names, [0, 4])
    table = load_panda(slides, tiles=tmp_path / "tiles")
    assert table["image"].tolist() == [str(tmp_path / "tiles" / name) for name in names]
    assert (tmp_path / "tiles" / names[0] / "coords.csv").is_file()
    shutil.copy(home / names[0] / f"{names[0]}.tiff", home / names[0] / "again.tiff")
    with pytest.raises(InputError, match=f"{names[0]} must hold one slide") as caught:
        load_panda(slides, tiles=tmp_path / "tiles")
    assert len(caught.value.offenders) == 2


def test_tiles_may_be_plain_pictures_of_a_suffix_of_slides(folders):
    for path in sorted((folders / "train_tiles").glob("*/*.png")):
        cv2.imwrite(str(path.with_suffix(".tif")), cv2.imread(str(path)))
        path.unlink()
    assert open_bags(load_panda(folders), Preprocess(16, 16)).lengths.tolist() == [3] * 6


def test_two_slides_of_one_name(slides, tmp_path):
    home = slides / "train_images"
    first = home / f"{IDS[0]}.tiff"
    shutil.copy(first, first.with_suffix(".tif"))
    with pytest.raises(InputError, match="must differ in their names") as caught:
        load_panda(slides, tiles=tmp_path / "tiles")
    assert caught.value.offenders == [str(first.with_suffix(".tif")), str(first)]
    first.with_suffix(".tif").unlink()
    write_tiles(home / IDS[0], ["a.png"])
    with pytest.raises(InputError, match="must differ in their names") as caught:
        load_panda(slides, tiles=tmp_path / "tiles")
    assert caught.value.offenders == [str(home / IDS[0]), str(first)]
    first.rename(first.with_suffix(".mrxs"))  # whose pixels are in the folder
    table = load_panda(slides, tiles=tmp_path / "tiles")
    assert table["image"][0] == str(tmp_path / "tiles" / IDS[0])


def test_tiles_of_a_known_region_are_positive(slides, tmp_path):
    """The region covers the first tile whole, a twentieth of the second's width, and no other."""
    plain = open_bags(load_panda(slides, tiles=tmp_path / "tiles"), Preprocess(16, 16))
    assert "instance_labels" not in plain[0]
    coords = pd.read_csv(tmp_path / "tiles" / IDS[0] / "coords.csv")
    with Slide(slides / "train_images" / f"{IDS[0]}.tiff") as slide:
        mask = np.zeros((slide.height, slide.width), np.uint8)
    side = coords["side"][0]
    for (x, y), width in zip(coords[["x", "y"]].to_numpy()[:2], (side, side // 20), strict=True):
        mask[y : y + side, x : x + width] = 255
    (slides / "regions").mkdir()
    cv2.imwrite(str(slides / "regions" / f"{IDS[0]}.png"), mask)
    bags = open_bags(load_panda(slides, tiles=tmp_path / "tiles"), Preprocess(16, 16))
    assert bags[0]["instance_labels"].tolist() == [1.0] + [0.0] * (len(coords) - 1)
    assert "instance_labels" not in bags[1]
    labels = bags.__getitems__([0, 1])["instance_labels"]
    assert labels.isnan().sum() == len(bags[1]["instances"])


def test_without_a_folder_tiles_lie_in_the_cache_a_place_for_each_root(slides, tmp_path):
    home = tiles_home(slides)
    assert load_panda(slides)["image"][0] == str(home / IDS[0])
    assert len({home, tiles_home(tmp_path / "other" / "root"), tiles_home(tmp_path)}) == 3


def test_what_is_cut_is_not_cut_again(slides, tmp_path, monkeypatch):
    files = sorted((slides / "train_images").iterdir())
    first = cut_slides(files[:1], tmp_path)
    opened = []
    monkeypatch.setattr(tile_folders, "Slide", lambda path: opened.append(path) or Slide(path))
    assert cut_slides(files, tmp_path) == [*first, tmp_path / IDS[1]]
    assert opened == [files[1]]


def test_a_slide_that_has_changed_is_cut_anew(slides, tmp_path, tissue_picture):
    file = slides / "train_images" / f"{IDS[0]}.tiff"
    (folder,) = cut_slides([file], tmp_path / "tiles")
    before = pd.read_csv(folder / "coords.csv")
    write_slide(file, tissue_picture[:, ::-1], mpp=0.5)
    cut_slides([file], tmp_path / "tiles")
    after = pd.read_csv(folder / "coords.csv")
    with Slide(file) as slide:
        np.testing.assert_array_equal(after[["x", "y"]], panda_tiles(slide).coords)
    assert not after.equals(before)
    assert list((tmp_path / "tiles").iterdir()) == [folder]


def test_broken_slides_are_told_at_once_and_the_others_kept(slides, tmp_path):
    home = slides / "train_images"
    (home / f"{IDS[2]}.tiff").write_bytes(b"no slide")
    (home / f"{IDS[3]}.tiff").write_bytes((home / f"{IDS[0]}.tiff").read_bytes()[:2000])
    write_table(slides, IDS[:4], [0, 1, 2, 3])
    with pytest.raises(InputError, match="2 of 4 slides cannot be cut") as caught:
        load_panda(slides, tiles=tmp_path / "tiles")
    told = caught.value.offenders
    assert [f"{name}.tiff" in line for name, line in zip(IDS[2:4], told, strict=True)] == [True] * 2
    assert sorted(path.name for path in (tmp_path / "tiles").iterdir()) == IDS[:2]


def test_a_slide_is_cut_whole_or_not_at_all(slides, tmp_path, monkeypatch):
    def interrupted(slide, tiles, number):
        if number == 2:
            raise OSError(28, "No space left on device")
        return read_tile(slide, tiles, number)

    monkeypatch.setattr(tile_folders, "read_tile", interrupted)
    files = sorted((slides / "train_images").iterdir())
    with pytest.raises(OSError, match="No space left"):
        cut_slides(files, tmp_path / "tiles")
    assert not list((tmp_path / "tiles").iterdir())


def test_a_folder_of_somebody_else_is_left_alone(slides, tmp_path):
    mine = tmp_path / "tiles" / IDS[0] / "notes.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    with pytest.raises(InputError, match="in the way"):
        load_panda(slides, tiles=tmp_path / "tiles")
    assert mine.read_text() == "mine"
