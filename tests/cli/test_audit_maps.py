"""The audit of maps end to end: what is written, that it says what it did, and wrong input."""

import json
import shutil

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from attnvgg import load_model
from attnvgg.cli.audit_maps import main as audit
from attnvgg.cli.drawn_cases import draw_cases
from attnvgg.cli.maps_report import judge_localisation
from attnvgg.cli.maps_sample import MapSample, read_sample
from attnvgg.cli.maps_words import judgement, table
from attnvgg.cli.train import main as train
from attnvgg.data.manifest import read_manifest, write_manifest
from attnvgg.evaluation import share_interval
from attnvgg.training.run import RunFolder

HERE = ["--device=cpu", "--threads=1"]
QUICK = ["--count=4", "--steps=2", "--draws=1", *HERE]


@pytest.fixture(scope="module")
def unmasked(tmp_path_factory, csv_options, thin_vgg):
    """A run of one epoch without masks; read only."""
    out = tmp_path_factory.mktemp("unmasked")
    assert train([*csv_options, "--epochs=1", f"--out={out}", "--name=run"]) == 0
    for spare in out.rglob("*.pt"):
        spare.unlink()
    return out / "run"


@pytest.fixture(scope="module")
def masked(unmasked, tmp_path_factory):
    """A copy of it, its manifest with a mask for all images but the first of test."""
    folder = tmp_path_factory.mktemp("masked") / "run"
    shutil.copytree(unmasked, folder)
    manifest = read_manifest(folder / "manifest.csv")
    mask = np.zeros((64, 64), np.uint8)
    cv2.circle(mask, (32, 32), 17, 255, cv2.FILLED)
    cv2.imwrite(str(folder / "mask.png"), mask)
    manifest["mask"] = str(folder / "mask.png")
    manifest.loc[manifest.index[manifest["split"] == "test"][0], "mask"] = None
    write_manifest(manifest, folder / "manifest.csv")
    return folder


@pytest.fixture(scope="module")
def report(masked):
    assert audit([str(masked), "--count=100", "--steps=4", "--draws=2", *HERE]) == 0
    return json.loads((masked / "maps" / "maps.json").read_text())


def test_what_is_written(masked, report):
    with Image.open(masked / "maps" / "maps.png") as picture:
        assert min(picture.size) > 1000
    words = (masked / "maps" / "maps.txt").read_text()
    assert all(f"{number}. " in words for number in (1, 2, 3, 4))
    assert sorted(file.name for file in (masked / "maps").iterdir()) == [
        "maps.json", "maps.png", "maps.txt",
    ]  # fmt: skip


def test_all_maps_are_compared_on_the_same_images(report):
    maps = {"pool-3", "pool-4", "Grad-CAM", "centred Gaussian", "random 4x4", "random 2x2"}
    assert set(report["localisation"]["figures"]) == maps
    assert set(report["faithfulness"]["figures"]) == maps
    assert set(report["sanity"]["figures"]) == {"pool-3", "pool-4", "Grad-CAM"}
    judged = report["images"] - 1  # one has no mask
    for found in report["localisation"]["figures"].values():
        assert found["jaccard"]["count"] == found["background"]["jaccard"]["count"] == judged
    assert report["localisation"]["with_mask"] == judged


def test_the_mass_outside_is_the_rest(report):
    for found in report["localisation"]["figures"].values():
        assert found["mass"]["value"] + found["background"]["mass"]["value"] == pytest.approx(1)


def test_differences_are_those_of_the_areas(report):
    figures = report["faithfulness"]["figures"]
    for name in ("pool-3", "pool-4", "Grad-CAM", "centred Gaussian"):
        for other, ways in figures[name]["minus"].items():
            for way, found in ways.items():
                expected = figures[name][way]["value"] - figures[other][way]["value"]
                assert found["value"] == pytest.approx(expected)
                assert found["lower"] <= found["value"] <= found["upper"]


def test_each_map_has_the_null_of_its_own_grid(report):
    figures = report["faithfulness"]["figures"]
    for name, null in (("pool-3", "random 4x4"), ("pool-4", "random 2x2")):
        assert next(iter(figures[name]["minus"])) == null
    assert report["grids"] == {"pool-3": [4, 4], "pool-4": [2, 2], "Grad-CAM": [2, 2]}


def test_whole_pictures_have_the_probability_of_the_evaluation(masked, report):
    """The curves begin at the probability of the class that is called at the locked threshold."""
    table = pd.read_csv(masked / "predictions.csv")
    probability = table.loc[table["split"] == "test", "probability"]
    threshold = json.loads((masked / "metrics.json").read_text())["threshold"]["value"]
    called = np.where(probability >= threshold, probability, 1 - probability)
    assert report["faithfulness"]["probability_whole"]["value"] == pytest.approx(called.mean())
    assert report["called"]["positive"] == (probability >= threshold).sum()


def test_what_a_map_does_not_pass_through_cannot_change_it(report):
    figures = report["sanity"]["figures"]
    found = {name: {one["block"]: one["value"] for one in figures[name]} for name in figures}
    assert found["pool-3"]["classifier"] == found["pool-3"]["attn2"] == pytest.approx(1)
    assert found["pool-4"]["classifier"] == pytest.approx(1)
    assert found["pool-3"]["stages.0"] < 0.9


def test_pasting_is_judged_where_there_is_a_mask(report):
    figures = report["pasting"]["figures"]
    assert set(figures) == {"ruler", "patch", "ink", "skin patch"}
    for one in figures.values():
        assert one["change"]["count"] + one["no_room"] == report["images"] - 1
        assert abs(one["change"]["value"]) <= one["size_of_change"]["value"]
    assert report["pasting"]["class"] == "positive"


def test_patients_are_resampled_whole(masked):
    """An image shown four times is no more evidence than once, if it is of one patient."""
    sample = read_some(masked)
    values = np.arange(len(sample), dtype=float)
    alone = sample.mean(values)
    columns = ("pixels", "images", "masks", "has_mask", "labels", "groups", "called")
    repeated = {name: np.repeat(getattr(sample, name), 4, axis=0) for name in columns}
    repeated["groups"] = np.repeat(np.arange(len(sample)), 4)
    whole = MapSample(**repeated, classes=sample.classes).mean(np.repeat(values, 4))
    repeated["groups"] = None
    naive = MapSample(**repeated, classes=sample.classes).mean(np.repeat(values, 4))
    width = {k: v["upper"] - v["lower"] for k, v in {"whole": whole, "naive": naive}.items()}
    assert whole["value"] == naive["value"] == pytest.approx(alone["value"])
    assert width["naive"] < 0.7 * width["whole"]


def test_one_patient_has_no_interval_and_no_image_no_mean(masked):
    sample = read_some(masked)
    values = np.full(len(sample), np.nan)
    empty = {"value": None, "lower": None, "upper": None, "count": 0}
    assert sample.mean(values).items() >= empty.items()
    assert sample.share(values).items() >= empty.items()
    values[0] = 0.25
    found = sample.mean(values)
    assert found.items() >= {"value": 0.25, "lower": None, "upper": None, "count": 1}.items()
    assert found["reason"]


def test_a_share_of_all_is_not_certain(masked):
    sample = read_some(masked)
    found = sample.share(np.ones(len(sample)))
    assert found["value"] == found["upper"] == 1
    assert 0.3 < found["lower"] < 0.9
    values = np.arange(len(sample)) % 2
    expected = share_interval(values, sample.labels > 0, sample.codes)
    assert sample.share(values) == {**expected, "count": len(sample)}


def test_the_mask_as_a_map_has_a_jaccard_of_one(masked):
    sample = read_some(masked)
    maps = {
        "mask": sample.masks.astype(float),
        "pool-4": np.random.default_rng(0).random((6, 2, 2)),
    }
    found = judge_localisation(sample, maps, draws=1, seed=0)["figures"]
    assert found["mask"]["jaccard"]["value"] == 1
    assert found["mask"]["background"]["jaccard"]["value"] == 0


def read_some(masked):
    rows, _ = draw_cases(RunFolder(masked), "test", 6, 0)
    return read_sample(load_model(masked), rows, torch.device("cpu"))


def test_the_same_seed_gives_the_same_files(masked, tmp_path):
    written = []
    for name in ("a", "b"):
        shutil.copytree(masked, tmp_path / name / "run")
        assert audit([str(tmp_path / name / "run"), *QUICK]) == 0
        written.append((tmp_path / name / "run" / "maps" / "maps.json").read_bytes())
    assert written[0] == written[1]


def test_without_masks_the_rest_is_judged(unmasked, tmp_path, capsys):
    shutil.copytree(unmasked, tmp_path / "run")
    assert audit([str(tmp_path / "run"), *QUICK]) == 0
    report = json.loads((tmp_path / "run" / "maps" / "maps.json").read_text())
    assert report["localisation"] is report["pasting"] is None
    assert report["faithfulness"]["figures"]
    assert capsys.readouterr().out.count("No image has a mask") == 2


def test_a_model_without_attention_is_judged_by_grad_cam(csv_options, tmp_path, thin_vgg):
    options = [*csv_options, "--model.attention=false", "--epochs=1", f"--out={tmp_path}"]
    assert train([*options, "--name=plain"]) == 0
    assert audit([str(tmp_path / "plain"), *QUICK]) == 0
    report = json.loads((tmp_path / "plain" / "maps" / "maps.json").read_text())
    assert list(report["sanity"]["figures"]) == ["Grad-CAM"]


def test_words_follow_the_intervals():
    def difference(lower, upper):
        return {"value": (lower + upper) / 2, "lower": lower, "upper": upper}

    low, high, both = difference(-0.2, -0.1), difference(0.1, 0.2), difference(-0.1, 0.1)
    said = judgement({"deletion": low, "insertion": high})
    assert said == "better in deletion and better in insertion"
    said = judgement({"deletion": high, "insertion": both})
    assert said == "worse in deletion and no different in insertion"
    unsure = {"value": 0.1, "lower": None, "upper": None}
    assert judgement({"deletion": unsure, "insertion": low}).startswith("undecided in deletion")


def test_columns_are_aligned():
    lines = table(["", "one", "two"], [["a", "1.000"], ["long name", "2", "3"]])
    assert lines == ["           one    two", "a          1.000", "long name  2      3"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere"], "not a folder"),
        (["{empty}"], "no config.yaml"),
        (["{run}", "--count=0"], "--count"),
        (["{run}", "--steps=0"], "--steps"),
        (["{bags}"], "a run on bags"),
    ],
)
def test_wrong_input(masked, tmp_path, capsys, words, said):
    names = {"run": masked, "empty": tmp_path / "empty", "bags": tmp_path / "bags"}
    names["empty"].mkdir()
    names["bags"].mkdir()
    (names["bags"] / "config.yaml").write_text("task: bags\n")
    assert audit([word.format(**names) for word in words]) == 2
    assert said in capsys.readouterr().err


def test_a_mask_of_another_size_is_named(masked, tmp_path, capsys):
    shutil.copytree(masked, tmp_path / "run")
    wrong = tmp_path / "wrong.png"
    cv2.imwrite(str(wrong), np.full((32, 64), 255, np.uint8))
    manifest = read_manifest(tmp_path / "run" / "manifest.csv").assign(mask=str(wrong))
    write_manifest(manifest, tmp_path / "run" / "manifest.csv")
    assert audit([str(tmp_path / "run"), *QUICK]) == 2
    assert "wrong.png" in capsys.readouterr().err
