import math
import os

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from attnvgg.data.manifest import check_manifest, read_manifest, write_manifest
from attnvgg.data.tables import PLACEHOLDERS, read_table
from attnvgg.errors import InputError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Six files; whether they hold pictures is not the manifest's business."""
    folder = tmp_path_factory.mktemp("images")
    for name in "abcdef":
        (folder / f"{name}.png").write_bytes(b"")
    return folder


@pytest.fixture
def table(folder):
    return pd.DataFrame(
        {"image": [str(folder / f"{name}.png") for name in "abcd"], "label": [0, 1, 0, 1]}
    )


def refusal(table):
    with pytest.raises(InputError) as caught:
        check_manifest(table, "cases.csv")
    assert "cases.csv" in caught.value.message
    assert "\n" not in caught.value.message
    return caught.value


def write(folder, text):
    path = folder / "cases.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_columns_come_typed_and_in_order(table):
    table["source"] = "here"
    table["weight"] = ["1", "0.5", "2", "0"]
    table["age"] = ["45.0", "", "unknown", "7"]
    table["hospital"] = "left out"
    table["group"] = ["007", "1e5", "7", "007"]
    checked = check_manifest(table[::-1], "cases.csv")
    assert list(checked) == ["image", "label", "group", "weight", "age", "source"]
    assert checked["label"].dtype == np.int64
    assert checked["weight"].tolist() == [0, 2, 0.5, 1]
    assert checked["group"].tolist() == ["007", "7", "1e5", "007"]
    np.testing.assert_array_equal(checked["age"], [7, math.nan, math.nan, 45])
    assert isinstance(checked.index, pd.RangeIndex)


def test_checking_changes_nothing_the_second_time_nor_its_argument(table):
    table["group"] = ["p", "", "q", "unknown"]
    table["mask"] = [table["image"][0], math.nan, math.nan, table["image"][3]]
    table.attrs["classes"] = ("no", "yes")
    before = table.copy()
    once = check_manifest(table, "cases.csv")
    pd.testing.assert_frame_equal(table, before)
    pd.testing.assert_frame_equal(check_manifest(once, "cases.csv"), once)
    assert once.attrs["classes"] == ("no", "yes")


def test_columns_that_say_nothing_are_left_out(table):
    table["sex"] = ["", "unknown", "NaN", math.nan]
    table["group"] = "-1"
    table["split"] = ""
    assert list(check_manifest(table, "cases.csv")) == ["image", "label"]


@pytest.mark.parametrize("placeholder", [*sorted(PLACEHOLDERS), "Unknown", " N/A ", None, math.nan])
def test_placeholder_patients_are_groups_of_their_own(table, placeholder):
    table["group"] = [placeholder, "p1", placeholder, "p1"]
    group = check_manifest(table, "cases.csv")["group"]
    assert group[1] == group[3] == "p1"
    assert group.nunique() == 3
    assert group[0] == "image:a.png"


def test_relative_images_become_absolute(folder, monkeypatch):
    monkeypatch.chdir(folder)
    table = pd.DataFrame({"image": ["a.png", "./b.png"], "label": [0, 1]})
    checked = check_manifest(table, "cases.csv")
    assert checked["image"].tolist() == [str(folder / "a.png"), str(folder / "b.png")]


@pytest.mark.parametrize(
    "labels", [[0, 1, 2, 1], ["0", "1", " 1", "1.0"], [False, True, True, False]]
)
def test_integers_in_any_guise_are_labels(table, labels):
    table["label"] = labels
    numbers = [int(float(label)) for label in labels]
    assert check_manifest(table, "cases.csv")["label"].tolist() == numbers


@pytest.mark.parametrize("bad", ["benign", "0.5", "", "nan", "inf", "1,0", None])
def test_labels_that_are_not_integers_are_listed_by_line(table, bad):
    table["label"] = ["0", bad, "1", bad]
    error = refusal(table)
    assert [line.split(":")[0] for line in error.offenders] == ["line 3", "line 5"]
    assert "folders" in error.message


@pytest.mark.parametrize("labels", [[0, 2, 0, 2], [1, 1, 1, 1], [-1, 0, 1, 0], [1, 2, 1, 2]])
def test_labels_with_gaps_are_refused(table, labels):
    table["label"] = labels
    error = refusal(table)
    assert "without gaps" in error.message
    assert error.message.endswith(f"found: {', '.join(map(str, sorted(set(labels))))}.")


def test_lines_survive_rows_left_out_before(table):
    table["label"] = [0, 1, 0, "x"]
    assert refusal(table[table.index != 1]).offenders == ["line 5: 'x'"]


def test_missing_columns_name_the_found(table):
    error = refusal(table.rename(columns={"label": "diagnosis"}))
    assert "lacks the columns label" in error.message
    assert "image, diagnosis" in error.message


def test_duplicate_images_are_listed_whatever_their_spelling(table, folder):
    table.loc[2, "image"] = f"{folder}/./a.png"
    assert refusal(table).offenders == [f"{folder / 'a.png'} (lines 2, 4)"]


def test_missing_images_and_masks_are_listed(table, folder):
    table.loc[2, "image"] = str(folder / "gone.png")
    assert refusal(table).offenders == [str(folder / "gone.png")]
    table.loc[2, "image"] = str(folder)  # a folder is not an image
    assert refusal(table).offenders == [str(folder)]
    table.loc[2, "image"] = str(folder / "c.png")
    table["mask"] = ["", str(folder / "gone.png"), math.nan, str(folder / "a.png")]
    error = refusal(table)
    assert "masks" in error.message
    assert error.offenders == [str(folder / "gone.png")]


def test_nameless_images_are_listed(table):
    table.loc[1, "image"] = " "
    assert refusal(table).offenders == ["line 3: ' '"]


def test_split_names_are_understood_or_refused(table):
    table["split"] = ["Train", "validation", " TEST ", "val"]
    assert check_manifest(table, "cases.csv")["split"].tolist() == ["train", "val", "test", "val"]
    table["split"] = ["train", "holdout", "test", ""]
    assert [line.split(":")[0] for line in refusal(table).offenders] == ["line 3", "line 5"]


@pytest.mark.parametrize("bad", ["heavy", "-0.5", "inf", ""])
def test_bad_weights_are_refused(table, bad):
    table["weight"] = ["1", "1", bad, "1"]
    assert refusal(table).offenders[0].startswith("line 4")


def test_a_table_without_cases_is_refused(table):
    assert "no cases" in refusal(table[:0]).message


def test_any_index_is_accepted(table):
    table.index = list("wxyz")
    assert check_manifest(table, "cases.csv")["label"].tolist() == [0, 1, 0, 1]


text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
maybe = st.one_of(
    st.just(""), text, st.sampled_from(["007", "1e5", "NaN", "a,b", 'say "x"', "1\n2"])
)


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_a_written_manifest_is_read_exactly(folder, tmp_path, data):
    count = data.draw(st.integers(2, 6))

    def column(values):
        return data.draw(st.lists(values, min_size=count, max_size=count))

    images = [str(folder / f"{name}.png") for name in "abcdef"[:count]]
    table = pd.DataFrame({"image": images, "label": [i % 2 for i in range(count)]})
    for name in ("group", "sex", "site", "source"):
        table[name] = column(maybe)
    table["mask"] = column(st.sampled_from(["", images[0]]))
    table["split"] = column(st.sampled_from(["train", "val", "test"]))
    table["weight"] = column(st.floats(0, 1e300))
    table["age"] = column(st.floats(0, 120) | st.just(math.nan))
    checked = check_manifest(table, "drawn")
    write_manifest(checked, tmp_path / "manifest.csv")
    pd.testing.assert_frame_equal(
        read_manifest(tmp_path / "manifest.csv"), checked, check_exact=True
    )


def test_writing_leaves_the_old_file_when_it_fails(folder, tmp_path, table, monkeypatch):
    path = tmp_path / "manifest.csv"
    write_manifest(table, path)
    before = path.read_bytes()

    def full_disk(self, *args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pd.DataFrame, "to_csv", full_disk)
    with pytest.raises(OSError, match="No space"):
        write_manifest(table[:2], path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_relative_paths_start_at_the_file_or_its_images(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "a.png").write_bytes(b"")
    (tmp_path / "images" / "b.png").write_bytes(b"")
    path = write(tmp_path, "image,label,mask\na.png,0,images/b.png\nb.png,1,\n")
    manifest = read_manifest(path)
    assert manifest["image"].tolist() == [
        str(tmp_path / "a.png"),
        str(tmp_path / "images" / "b.png"),
    ]
    assert manifest["mask"][0] == str(tmp_path / "images" / "b.png")
    assert pd.isna(manifest["mask"][1])


def test_text_is_read_as_written_with_the_lines_of_the_file(tmp_path):
    path = write(tmp_path, '\ufeffid , name\r\n007,1e5\r\n\r\n"a\nb",NA,\r\nlast\r\n')
    table = read_table(path)
    assert list(table) == ["id", "name"]
    assert table.to_numpy().tolist() == [["007", "1e5"], ["a\nb", "NA"], ["last", ""]]
    assert (table.index + 2).tolist() == [2, 5, 6]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\n\nimage,label\n", "begins with an empty line"),
        (b'image,label\n"a.png,0\n', "cannot be read as CSV"),
        ("image,label\né,0\n".encode("latin-1"), "cannot be read as CSV"),
        (b"\xff\xd8\xff\xe0\x00\x10JFIF", "cannot be read as CSV"),
        (b"image,label,label\na.png,0,1\n", "columns of the same name"),
        (b"image,label\na,b.png,0\n", "more values than the header"),
    ],
)
def test_files_that_are_no_tables_are_refused(tmp_path, content, message):
    with pytest.raises(InputError, match=message):
        read_table(write(tmp_path, content))


def test_absent_tables_are_refused(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        read_manifest(tmp_path / "cases.csv")
    with pytest.raises(InputError, match="is not a file"):
        read_manifest(tmp_path)


def test_names_that_are_not_utf_8_are_refused_and_shown(tmp_path):
    path = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png")
    table = pd.DataFrame({"image": [path, str(tmp_path / "b.png")], "label": [0, 1]}, dtype=object)
    for attempt in (
        lambda: check_manifest(table, "cases"),
        lambda: write_manifest(table, tmp_path / "cases.csv"),
    ):
        with pytest.raises(InputError, match="not UTF-8") as caught:
            attempt()
        assert caught.value.offenders == [f"{tmp_path}/caf\\udce9.png"]
        assert str(caught.value).isascii()
    assert not list(tmp_path.iterdir())
