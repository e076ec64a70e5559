"""From the options to the cases: where they are looked for, and what is refused."""

import os
from pathlib import Path
from typing import get_args

import pandas as pd
import pytest

from attnvgg.cli import cases
from attnvgg.cli.cases import load_cases, locate
from attnvgg.cli.sample import main as sample
from attnvgg.data.sources import SOURCES
from attnvgg.errors import InputError
from attnvgg.training.config import DataConfig, Source

HALF = (0.5, 0.25, 0.25)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working folder."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def test_every_source_can_be_chosen():
    assert set(get_args(Source)) == {"auto", "sample", *SOURCES}
    assert set(SOURCES) == {"kaggle", *cases.ROOTS}


def test_roots_are_absolute_and_links_stay(here):
    (here / "real").mkdir()
    os.symlink("real", here / "link")
    assert locate(DataConfig(source="folders", root=Path("link"))) == ("folders", here / "link")
    assert locate(DataConfig(source="sample")) == ("sample", here / "data" / "sample")
    assert locate(DataConfig()) == ("sample", here / "data" / "sample")
    (here / "data" / "melanoma").mkdir(parents=True)
    (here / "data" / "melanoma" / "marking.csv").touch()
    for source in ("auto", "kaggle"):
        assert locate(DataConfig(source=source)) == ("kaggle", here / "data" / "melanoma")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"source": "kaggle"}, ["attnvgg download", "scripts/download.py", "--data.root"]),
        ({"source": "csv"}, ["--data.root", "the CSV file"]),
        ({"source": "isic2016"}, ["--data.root", "Train/"]),
        ({"root": Path("x")}, ["--data.source", "folders", "kaggle"]),
    ],
)
def test_what_is_missing_is_said(here, options, words):
    with pytest.raises(InputError) as caught:
        locate(DataConfig(**options))
    assert not [word for word in words if word not in caught.value.message]
    assert caught.value.message.endswith(".")


def test_a_sample_of_other_settings_is_used_as_it_is(here):
    assert sample(["--count=40", "--seed=5", "--workers=1", "--root=own"]) == 0
    made = {path: path.stat().st_mtime_ns for path in Path("own").rglob("*")}
    config = DataConfig(source="sample", root=Path("own"), fractions=HALF)
    manifest, classes = load_cases(config, *locate(config))
    assert len(manifest) == 40
    assert classes == ("benign", "malignant")
    assert {path: path.stat().st_mtime_ns for path in Path("own").rglob("*")} == made


def test_class_names_are_as_many_as_classes(pictures):
    config = DataConfig(source="csv", root=pictures, fractions=HALF)
    assert load_cases(config, "csv", pictures)[1] == ("negative", "positive")
    named = DataConfig(source="csv", root=pictures, fractions=HALF, classes=("no", "yes"))
    assert load_cases(named, "csv", pictures)[1] == ("no", "yes")
    for names in (("one",), ("a", "b", "c"), ("same", "same")):
        wrong = DataConfig(source="csv", root=pictures, fractions=HALF, classes=names)
        with pytest.raises(InputError, match="2 different names"):
            load_cases(wrong, "csv", pictures)


def test_negatives_are_left_out_of_two_classes_only(pictures, tmp_path):
    config = DataConfig(source="csv", fractions=HALF, keep_negatives=5)
    manifest, _ = load_cases(config, "csv", pictures)
    training = manifest[manifest["split"] == "train"]
    assert (training["label"] == 0).sum() == 5
    table = pd.read_csv(pictures)
    table["image"] = [str(pictures.parent / name) for name in table["image"]]
    table.loc[table["group"] > "p12", "label"] = 2
    table.to_csv(tmp_path / "three.csv", index=False)
    with pytest.raises(InputError, match="two classes, not 3"):
        load_cases(config, "csv", tmp_path / "three.csv")
