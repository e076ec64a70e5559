"""The whole audit, of pictures into which faults were planted."""

import json

import numpy as np
import pandas as pd
import pytest

from attnvgg.data.audit.report import audit_manifest
from attnvgg.data.audit.summary import CLEAN, summary
from tests.data.audit.conftest import changed


@pytest.fixture(scope="module")
def planted(cases, photos, tmp_path_factory):
    """The cases with changed copies of 20 training pictures in validation and test."""
    folder = tmp_path_factory.mktemp("planted")
    rows = []
    for number, row in enumerate(np.flatnonzero(cases["split"] == "train")[:20]):
        path = folder / f"copy-{number:02d}.jpg"
        path.write_bytes(changed(photos[row], number))
        case = cases.iloc[row].to_dict()
        split = ("val", "test")[number % 2]
        rows.append(case | {"image": str(path), "split": split, "group": f"copy {number}"})
    return pd.concat([cases, pd.DataFrame(rows)], ignore_index=True)


def texts(report, kind):
    return [finding["text"] for finding in report["findings"] if finding["kind"] == kind]


def test_a_clean_sample_has_no_finding(cases):
    report = audit_manifest(cases, workers=0)
    assert (report["findings"], report["leak"]) == ([], False)
    assert report["duplicates"]["sets"] == []
    counts = pd.crosstab(cases["split"], cases["label"])
    assert report["classes"]["test"] == {str(k): int(n) for k, n in counts.loc["test"].items()}
    assert CLEAN in summary(report)


def test_all_planted_copies_are_found_and_nothing_else(planted):
    report = audit_manifest(planted, workers=0)
    assert report["leak"]
    sets = report["duplicates"]["sets"]
    assert len(sets) == 20
    for found in sets:
        assert found["across_splits"]
        originals, copies = [one["image"] for one in found["images"]]
        number = int(copies.rsplit("-", 1)[1].removesuffix(".jpg"))
        assert originals == planted[planted["split"] == "train"]["image"].iloc[number]
    assert texts(report, "leak") == [
        "20 pictures with copies on two sides of the split (20 changed)."
    ]
    assert json.loads(json.dumps(report, allow_nan=False)) == report


def test_without_a_split_copies_are_a_warning(planted):
    report = audit_manifest(planted.drop(columns="split"), workers=0)
    assert not report["leak"]
    assert len(report["duplicates"]["sets"]) == 20
    assert "20 pictures with copies within a split (20 changed)." in texts(report, "warning")
    assert list(report["classes"]) == ["all"]


def test_a_torn_group_is_a_leak(cases):
    torn = cases.copy()
    patient = torn["group"].value_counts().index[0]
    torn.loc[torn[torn["group"] == patient].index[0], "split"] = "val"
    torn.loc[torn[torn["group"] == patient].index[1], "split"] = "test"
    report = audit_manifest(torn, workers=0)
    (found,) = report["groups"]["across_splits"]
    assert found["group"] == patient
    assert {"val", "test"} <= set(found["splits"])
    assert texts(report, "leak") == ["1 group (patient or lesion) on two sides of the split."]
    assert patient in summary(report)


def test_a_copy_with_another_label_and_unreadable_files(cases, tmp_path):
    case = cases[cases["split"] == "train"].iloc[0].to_dict()
    with open(case["image"], "rb") as stream:
        (tmp_path / "again.jpg").write_bytes(stream.read())
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    again = case | {"image": str(tmp_path / "again.jpg"), "label": 1 - case["label"]}
    broken = case | {"image": str(tmp_path / "broken.jpg")}
    table = pd.concat([cases, pd.DataFrame([again, broken])], ignore_index=True)
    report = audit_manifest(table, workers=0)
    assert not report["leak"]
    assert texts(report, "warning") == [
        "1 picture with copies within a split (1 the same file).",
        "1 set of copies with different labels.",
        "1 file unreadable, passed over.",
    ]
    assert report["unreadable"][0]["image"] == str(tmp_path / "broken.jpg")
    said = summary(report)
    assert "broken.jpg: is not an image" in said
    assert "different labels" in said


def test_a_class_that_a_split_lacks(cases):
    table = cases[(cases["split"] != "val") | (cases["label"] == 0)]
    assert "no picture of class 1 in val." in texts(audit_manifest(table, workers=0), "warning")


def test_nothing_readable(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"")
    table = pd.DataFrame({"image": [str(tmp_path / "a.jpg")], "label": [0]})
    report = audit_manifest(table, workers=0)
    assert texts(report, "warning") == ["1 file unreadable, passed over."]
    assert "no groups known" in summary(report)
