import math
import os

import numpy as np
import pandas as pd
import pytest

from attnvgg.data.sources import SOURCES, find_kaggle, load_source
from attnvgg.errors import InputError

NESTED = "512x512-dataset-melanoma/512x512-dataset-melanoma"


def refusal(name, root, **options):
    with pytest.raises(InputError) as caught:
        load_source(name, root, **options)
    assert "\n" not in caught.value.message
    return caught.value


def stems(manifest):
    return manifest["image"].map(lambda path: path.rsplit("/", 1)[1].split(".")[0]).tolist()


@pytest.mark.parametrize("name", SOURCES)
def test_what_is_absent_or_empty_is_said_in_one_sentence(tmp_path, name):
    absent = refusal(name, tmp_path / "absent")
    assert str(tmp_path / "absent") in absent.message
    assert "expected" in absent.message
    empty = refusal(name, tmp_path)
    assert str(tmp_path) in empty.message
    assert "expected" in empty.message


def test_an_unknown_source_names_the_known(tmp_path):
    assert "isic2016" in refusal("isic2015", tmp_path).message


# Kaggle


@pytest.fixture
def marking(tmp_path):
    table = pd.DataFrame(
        {
            "image_id": ["ISIC_1", "ISIC_2", "ISIC_3", "ISIC_4"],
            "target": ["0", "1", "0", "0"],
            "patient_id": ["IP_1", "IP_1", "", "-1"],
            "sex": ["male", "male", "unknown", "female"],
            "age_approx": ["45.0", "45.0", "", "30.0"],
            "anatom_site_general_challenge": ["torso", "", "head/neck", "torso"],
            "source": "ISIC20",
            "stratify_group": "1",
        }
    )

    def write(**columns):
        table.assign(**columns).to_csv(tmp_path / "marking.csv", index=False)

    write()
    return write


@pytest.mark.parametrize("folder", [NESTED, "512x512-dataset-melanoma"])
def test_kaggle_layout(tmp_path, marking, draw, folder):
    draw(*(f"{folder}/ISIC_{i}.jpg" for i in (1, 2, 3, 4)), "masks/ISIC_3.png")
    manifest = load_source("kaggle", tmp_path)
    assert list(manifest) == ["image", "label", "group", "mask", "sex", "age", "site", "source"]
    assert manifest["image"][0] == str(tmp_path / folder / "ISIC_1.jpg")
    assert manifest["label"].tolist() == [0, 1, 0, 0]
    assert manifest["group"].nunique() == 3
    assert manifest["group"][0] == manifest["group"][1] == "IP_1"
    assert manifest["mask"].isna().tolist() == [True, True, False, True]
    assert manifest["mask"][2] == str(tmp_path / "masks/ISIC_3.png")
    assert manifest["site"].isna().tolist() == [False, True, False, False]
    np.testing.assert_array_equal(manifest["age"], [45, 45, math.nan, 30])
    assert manifest.attrs["classes"] == ("benign", "malignant")


def test_kaggle_with_two_columns_only(tmp_path, draw):
    draw(f"{NESTED}/x.jpg", f"{NESTED}/y.jpg")
    (tmp_path / "marking.csv").write_text("image_id,target\nx,0\ny,1\n")
    assert list(load_source("kaggle", tmp_path)) == ["image", "label"]


def test_kaggle_errors_name_lines_and_files(tmp_path, marking, draw):
    assert "no images" in refusal("kaggle", tmp_path).message
    draw(*(f"{NESTED}/ISIC_{i}.jpg" for i in (1, 2, 3)))
    assert refusal("kaggle", tmp_path).offenders == [str(tmp_path / NESTED / "ISIC_4.jpg")]
    marking(image_id=["ISIC_1", "ISIC_2", "ISIC_1", "ISIC_3"])
    duplicate = refusal("kaggle", tmp_path)
    assert "marking.csv" in duplicate.message
    assert duplicate.offenders[0].endswith("ISIC_1.jpg (lines 2, 4)")
    marking(image_id=["ISIC_1", "", "ISIC_2", "ISIC_3"])
    assert refusal("kaggle", tmp_path).offenders == ["line 3: ''"]
    draw(f"{NESTED}/ISIC_4.jpg")
    marking(target=["0", "1", "benign", "0"])
    assert refusal("kaggle", tmp_path).offenders == ["line 4: 'benign'"]
    (tmp_path / "marking.csv").write_text("image_name,target\nISIC_1,0\n")
    assert "lacks the columns image_id" in refusal("kaggle", tmp_path).message


def test_the_sample_is_never_mistaken_for_the_kaggle_data(tmp_path):
    assert find_kaggle(tmp_path / "absent") is None
    for name, mark in (("sample", "sample.json"), ("another", "SAMPLE.txt"), (".half", "x")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "marking.csv").touch()
        (tmp_path / name / mark).touch()
    assert find_kaggle(tmp_path) is None
    deep = tmp_path / "datasets" / "melanoma"
    deep.mkdir(parents=True)
    (deep / "marking.csv").touch()
    assert find_kaggle(tmp_path) == deep
    (tmp_path / "marking.csv").touch()
    assert find_kaggle(str(tmp_path)) == tmp_path


# CSV


@pytest.mark.parametrize(
    "image", ["image", "path", "filename", "file", "image_id", "image_name", "Image"]
)
@pytest.mark.parametrize("label", ["label", "target", "class", "Label"])
def test_csv_columns_may_have_other_names(tmp_path, draw, image, label):
    draw("x.png", "images/y.jpg")
    path = tmp_path / "cases.csv"
    path.write_text(f"{image},{label},note\nx.png,0,left\n y,1,right\n")
    manifest = load_source("csv", path)
    assert list(manifest) == ["image", "label"]
    assert stems(manifest) == ["x", "y"]


def test_csv_with_everything(tmp_path, draw):
    draw("x.png", "y.png", "z.png", "m.png")
    path = tmp_path / "cases.csv"
    path.write_text(
        "path,target,patient_id,lesion_id,split,mask,weight,age_approx,sex\n"
        f"{tmp_path}/x.png,0,007,,train,m.png,2,30,male\n"
        "y,1,,L1,val,,1,,female\n"
        "z.png,1,7,L1,test,m,1,50,\n"
    )
    manifest = load_source("csv", path)
    assert list(manifest) == ["image", "label", "group", "split", "mask", "weight", "sex", "age"]
    assert manifest["group"].tolist() == ["007", "7", "7"]
    assert manifest["mask"].map(lambda mask: mask == str(tmp_path / "m.png")).tolist() == [1, 0, 1]


def test_csv_errors(tmp_path, draw):
    path = tmp_path / "cases.csv"
    path.write_text("photo,label\nx,0\n")
    error = refusal("csv", path)
    assert "expected one of image, path" in error.message
    assert "its columns are: photo, label" in error.message
    path.write_text("image,diagnosis\nx,0\n")
    assert "expected one of label, target, class" in refusal("csv", path).message
    draw("x.png", "y.png")
    path.write_text("image,class\nx.png,face\ny.png,no face\n")
    error = refusal("csv", path)
    assert "number the classes" in error.message
    assert error.offenders == ["line 2: 'face'", "line 3: 'no face'"]
    path.write_text("image,label\nx.png,0\ngone,1\n")
    assert refusal("csv", path).offenders == [str(tmp_path / "gone")]
    path.write_text("image,label\nx,0\nx.png,1\n")
    assert refusal("csv", path).offenders == [f"{tmp_path}/x.png (lines 2, 3)"]


# Folders


@pytest.mark.parametrize(
    ("names", "ordered"),
    [
        (["melanoma", "nevus"], ("nevus", "melanoma")),
        (["benign", "malignant"], ("benign", "malignant")),
        (["face", "nonface"], ("nonface", "face")),
        (["cat", "dog", "ant"], ("ant", "cat", "dog")),
        (["10", "9"], ("9", "10")),
        (["grade 2", "grade 10", "grade 1"], ("grade 1", "grade 2", "grade 10")),
    ],
)
def test_class_folders_are_numbered(tmp_path, draw, names, ordered):
    draw(*(f"{name}/{i}.png" for name in names for i in range(2)))
    manifest = load_source("folders", tmp_path)
    assert manifest.attrs["classes"] == ordered
    for image, label in zip(manifest["image"], manifest["label"], strict=True):
        assert image.split("/")[-2] == ordered[label]


def test_split_folders_are_respected(tmp_path, draw):
    draw("train/a/1.png", "train/b/sub/2.JPG", "valid/a/3.png", "valid/b/4.png", "Test/b/5.png")
    manifest = load_source("folders", tmp_path)
    assert dict(zip(stems(manifest), manifest["split"], strict=True)) == {
        "1": "train", "2": "train", "3": "val", "4": "val", "5": "test",
    }  # fmt: skip
    assert manifest.attrs["classes"] == ("a", "b")
    draw("extra/6.png")
    assert refusal("folders", tmp_path).offenders == [str(tmp_path / "extra")]


def test_files_that_are_no_images_are_counted_and_hidden_ones_passed_over(tmp_path, draw, caplog):
    draw("a/1.png", "b/2.png", "b/._2.png", "__MACOSX/3.png", ".trash/4.png", "b/.thumbs/5.png")
    (tmp_path / "a" / "notes.txt").write_text("no image")
    with caplog.at_level("INFO", "attnvgg"):
        manifest = load_source("folders", tmp_path)
    assert stems(manifest) == ["1", "2"]
    assert "Ignored 1 files" in caplog.text


def test_folder_errors(tmp_path, draw):
    draw("1.png")
    assert "no images" in refusal("folders", tmp_path).message
    draw("a/1.png")
    assert "one class only, a" in refusal("folders", tmp_path).message
    assert "is not a folder" in refusal("folders", tmp_path / "1.png").message


@pytest.mark.parametrize("place", [b"melanoma/caf\xe9.png", b"caf\xe9/melanoma/a.png"])
def test_names_that_are_not_utf_8_are_refused_and_shown(tmp_path, draw, place):
    draw("nevus/b.png", os.fsdecode(place))
    root = tmp_path if place.startswith(b"m") else tmp_path / os.fsdecode(b"caf\xe9")
    with pytest.raises(InputError, match="not UTF-8") as caught:
        load_source("folders", root)
    (odd,) = caught.value.offenders
    assert "caf\\udce9" in odd
    assert str(caught.value).isascii()
