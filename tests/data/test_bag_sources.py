import numpy as np
import pytest

from attnvgg.data.bag_sources import load_bags
from attnvgg.data.splits import check_splits, split_manifest
from attnvgg.errors import InputError


def refusal(*arguments):
    with pytest.raises(InputError) as caught:
        load_bags(*arguments)
    assert "\n" not in caught.value.message
    assert caught.value.message.endswith((".", ":"))
    return caught.value


@pytest.fixture
def slides(tmp_path):
    """Four bags of features in a folder of their own, a table to write beside it."""
    folder = tmp_path / "features"
    folder.mkdir()
    for name in ("s1.h5", "s2.npy", "s3.pt", "s4.h5", "notes.txt", ".s5.h5"):
        (folder / name).write_bytes(b"")

    def write(text, name="labels.csv"):
        (tmp_path / name).write_text(text)
        return tmp_path / name, folder

    return write


LABELS = "slide_id,label\ns1,0\ns2,1\ns3,0\ns4,1\n"


def names(table):
    return [path.rsplit("/", 1)[1] for path in table["image"]]


def test_names_find_their_bags(slides):
    table = load_bags("csv", *slides(LABELS))
    assert list(table) == ["image", "label"]
    assert names(table) == ["s1.h5", "s2.npy", "s3.pt", "s4.h5"]
    assert table["label"].tolist() == [0, 1, 0, 1]


def test_a_link_to_no_bag_is_named(tmp_path):
    for name in ("ill/a.h5", "well/b.h5"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    (tmp_path / "ill" / "gone.h5").symlink_to(tmp_path / "nowhere.h5")
    with pytest.raises(InputError, match="do not exist") as caught:
        load_bags("folders", tmp_path)
    assert caught.value.offenders == [str(tmp_path / "ill" / "gone.h5")]


@pytest.mark.parametrize("name", ["s1", "s1.h5", "s1.svs", "s1.tiff", "../features/s1", " s1 "])
@pytest.mark.parametrize("column", ["bag", "slide_id", "Slide", "image", "path", "filename"])
def test_columns_and_names_as_people_write_them(slides, name, column):
    text = LABELS.replace("slide_id", column).replace("\ns1,", f"\n{name},")
    assert names(load_bags("csv", *slides(text)))[0] == "s1.h5"


def test_a_name_with_a_dot_in_it_keeps_what_follows(slides, tmp_path):
    (tmp_path / "features" / "TCGA-01.5A.h5").write_bytes(b"")
    table = load_bags("csv", *slides(LABELS + "TCGA-01.5A,1\n"))
    assert names(table)[-1] == "TCGA-01.5A.h5"


def test_absolute_paths_and_paths_beside_the_table(slides, tmp_path):
    text = f"bag,label\n{tmp_path}/features/s1.h5,0\nfeatures/s2,1\n"
    path, _ = slides(text)
    assert names(load_bags("csv", path)) == ["s1.h5", "s2.npy"], "others on the disk may be there"


def test_clam_table_of_cases(slides):
    rows = ["p1,s1,0,train", "p1,s2,1,train", "p2,s3,0,val", "p2,s4,1,val"]
    table = load_bags("csv", *slides("\n".join(["case_id,slide_id,label,split", *rows])))
    assert table["group"].tolist() == ["p1", "p1", "p2", "p2"]
    assert table["split"].tolist() == ["train", "train", "val", "val"]
    check_splits(table)


def test_labels_without_a_bag_are_listed(slides, tmp_path):
    caught = refusal("csv", *slides(LABELS + "s8,0\ns9,1\n"))
    assert "do not exist" in caught.message
    assert caught.offenders == [str(tmp_path / "features" / name) for name in ("s8", "s9")]


def test_bags_without_a_label_are_listed(slides, tmp_path):
    deep = tmp_path / "features" / "more" / "s6"
    deep.mkdir(parents=True)
    (deep / "1.png").write_bytes(b"")
    (deep / "2.png").write_bytes(b"")
    path, folder = slides(LABELS.replace("s4,1\n", ""))
    caught = refusal("csv", path, folder)
    assert "without a label" in caught.message
    assert caught.offenders == [str(deep), str(folder / "s4.h5")]


def test_rows_without_a_label_are_listed_by_bag(slides):
    caught = refusal("csv", *slides(LABELS.replace("s2,1", "s2, ").replace("s3,0", "s3,")))
    assert caught.offenders == ["s2", "s3"]


def test_several_formats_of_a_bag_are_one_bag(slides, tmp_path):
    (tmp_path / "features" / "s1.pt").write_bytes(b"")
    (tmp_path / "features" / "s2.h5").write_bytes(b"")
    assert names(load_bags("csv", *slides(LABELS))) == ["s1.h5", "s2.h5", "s3.pt", "s4.h5"]


def test_folders_of_images_are_bags_too(slides, tmp_path, draw):
    draw("features/f1/1.png", "features/f1/deep/2.png", "features/f2/1.png")
    table = load_bags("csv", *slides(LABELS + "f1,0\nf2,1\n"))
    assert names(table)[-2:] == ["f1", "f2"]


@pytest.mark.parametrize("text", ["bag,target2\ns1,0\n", "patient,label\np,0\n"])
def test_missing_columns_name_what_is_expected(slides, text):
    assert "expected one of" in refusal("csv", *slides(text)).message


def test_what_is_absent(tmp_path, slides):
    assert "absent" in refusal("csv", tmp_path / "absent.csv").message
    assert "absent" in refusal("folders", tmp_path / "absent").message
    assert "expected" in refusal("csv", slides(LABELS)[0], tmp_path / "absent").message
    assert "csv, folders" in refusal("kaggle", tmp_path).message
    assert "give no folder" in refusal("folders", tmp_path, tmp_path).message


# Folders


def make(root, *paths):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        np.save(root / path, np.zeros((2, 3))) if path.endswith(".npy") else (
            root / path
        ).write_bytes(b"")


def test_class_folders(tmp_path):
    make(tmp_path, "tumor/b.npy", "tumor/a/1.png", "tumor/a/2.png", "normal/c.h5", "normal/x.txt")
    table = load_bags("folders", tmp_path)
    assert names(table) == ["c.h5", "a", "b.npy"]
    assert table["label"].tolist() == [0, 1, 1]
    assert table.attrs["classes"] == ("normal", "tumor")


def test_split_class_folders(tmp_path):
    for split in ("training", "testing"):
        make(tmp_path, *(f"{split}/{grade}/{i}.npy" for grade in range(3) for i in range(9)))
    table = load_bags("folders", tmp_path)
    assert table["split"].value_counts().to_dict() == {"train": 27, "test": 27}
    assert table.attrs["classes"] == ("0", "1", "2")
    check_splits(split_manifest(table))


def test_several_formats_in_a_class_folder_are_one_bag(tmp_path):
    make(tmp_path, "0/a.npy", "0/a.h5", "1/a.pt", "1/a.npy")
    assert names(load_bags("folders", tmp_path)) == ["a.h5", "a.npy"]


def test_folders_that_are_no_bags(tmp_path):
    assert "expected" in refusal("folders", tmp_path).message
    make(tmp_path, "0/a.npy")
    assert "one class only" in refusal("folders", tmp_path).message
    make(tmp_path, "1/loose.png")
    assert refusal("folders", tmp_path).offenders == [str(tmp_path / "1/loose.png")]
    make(tmp_path, "train/0/a.npy")
    assert "mixes splits" in refusal("folders", tmp_path).message
