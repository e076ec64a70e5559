import math

import numpy as np
import pandas as pd
import pytest

from attnvgg.data.bag_manifest import check_bags, read_bags, write_bags
from attnvgg.data.splits import check_splits, split_manifest
from attnvgg.errors import InputError


@pytest.fixture
def table(tmp_path):
    """Two feature files and two folders; what is in them is not the manifest's business."""
    for name in ("a.h5", "b.npy"):
        (tmp_path / name).write_bytes(b"")
    for name in ("c", "d"):
        (tmp_path / name).mkdir()
    names = ("a.h5", "b.npy", "c", "d")
    return pd.DataFrame({"image": [str(tmp_path / n) for n in names], "label": [0, 1, 0, 1]})


@pytest.fixture
def keyed():
    """Bags that are rows of an array."""
    names = ["train-0", "train-1", "val-0", "val-1"]
    rows = ["12 934 55", "7", "0 1", "2 3"]
    split = ["train", "train", "val", "val"]
    return pd.DataFrame({"image": names, "label": [0, 1, 0, 1], "split": split, "instances": rows})


def refusal(table):
    with pytest.raises(InputError) as caught:
        check_bags(table, "bags.csv")
    assert "bags.csv" in caught.value.message
    assert "\n" not in caught.value.message
    assert "image" not in caught.value.message
    return caught.value


def test_columns_come_typed_and_in_order(table):
    table["source"], table["age"], table["weight"] = "here", ["45", "", "7", "1"], "1"
    table["mask"] = "left out"
    checked = check_bags(table[::-1], "bags.csv")
    assert list(checked) == ["image", "label", "weight", "age", "source"]
    assert checked["label"].dtype == np.int64
    np.testing.assert_array_equal(checked["age"], [1, 7, math.nan, 45])


def test_keys_need_not_exist_and_stay_as_they_are(keyed):
    checked = check_bags(keyed, "bags.csv")
    assert checked.to_dict("list") == keyed.to_dict("list")


@pytest.mark.parametrize("kind", ["table", "keyed"])
def test_a_manifest_survives_the_disk(kind, request, tmp_path):
    table = check_bags(request.getfixturevalue(kind).assign(group=["p", "", "q", "p"]), "x")
    write_bags(table, tmp_path / "out" / "bags.csv")
    again = read_bags(tmp_path / "out" / "bags.csv")
    pd.testing.assert_frame_equal(again, table)
    assert again["group"].nunique() == 3
    assert again["group"][1].startswith("bag:")


def test_names_are_relative_to_the_file_and_may_lack_their_suffix(table, tmp_path):
    (tmp_path / "bags.csv").write_text("image,label\na,0\nb.svs,1\nc,0\n./d,1\n")
    assert read_bags(tmp_path / "bags.csv").to_dict("list") == table.to_dict("list")


@pytest.mark.parametrize(
    "instances",
    ["", "  ", "1 2 1", "-1 2", "1.5", "one", "1,2", "1  2", "\u0663", "9" * 20, None, math.nan, 7],
)
def test_instances_that_are_none_or_twice_or_no_numbers(keyed, instances):
    keyed["instances"] = keyed["instances"].astype(object)
    keyed.loc[2, "instances"] = instances
    assert [name.split(":")[0] for name in refusal(keyed).offenders] == ["val-0"]


def test_bags_that_do_not_exist_are_named(table, tmp_path):
    table.loc[1, "image"] = str(tmp_path / "z.npy")
    assert refusal(table).offenders == [str(tmp_path / "z.npy")]
    assert check_bags(table, "bags.csv", may_be_gone=True)["image"][1] == str(tmp_path / "z.npy")


def test_a_bag_twice(keyed):
    keyed.loc[3, "image"] = "val-0"
    assert "val-0 (lines 4, 5)" in refusal(keyed).offenders


def test_a_bag_without_a_name(keyed):
    keyed.loc[3, "image"] = " "
    assert refusal(keyed).offenders[0].startswith("line 5")


@pytest.mark.parametrize("labels", [["0", "1", "", "1"], [0, 2, 0, 2], ["a", "b", "a", "b"]])
def test_labels_that_are_not_numbers_from_0_on(table, labels):
    refusal(table.assign(label=labels))


def test_bags_are_split_as_images_are():
    """Whole groups on one side, by the same code."""
    count = 60
    table = pd.DataFrame(
        {
            "image": [f"bag-{i}" for i in range(count)],
            "label": [i % 2 for i in range(count)],
            "group": [f"p{i // 3}" for i in range(count)],
            "instances": [str(i) for i in range(count)],
        }
    )
    split = split_manifest(check_bags(table, "x"), (0.6, 0.2, 0.2))
    check_splits(split)
    assert split.groupby("group")["split"].nunique().eq(1).all()
    assert list(split) == ["image", "label", "group", "split", "instances"]
    split.loc[0, "split"] = {"train": "val"}.get(split["split"][0], "train")
    with pytest.raises(InputError, match="more than one side"):
        check_splits(split)
