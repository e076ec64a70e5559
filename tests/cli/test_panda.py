"""Recipe G through the commands: tiles of slides in, grades and their figures out."""

import json

import cv2
import numpy as np
import pandas as pd
import pytest
import yaml

from attnvgg.cli import bag_cases, bag_judge
from attnvgg.cli.evaluate import main as evaluate
from attnvgg.cli.train_bags import main

SIDE = 32
BY_PATIENT = ("group bootstrap", "Wilson, of groups")  # the latter where all are right


@pytest.fixture(scope="session")
def panda_root(tmp_path_factory):
    """48 slides of 24 patients: the higher the grade, the more dots a tile has."""
    root = tmp_path_factory.mktemp("panda")
    rng, rows = np.random.default_rng(0), []
    for number in range(48):
        grade = number % 6
        folder = root / "train_tiles" / f"s{number:02d}"
        folder.mkdir(parents=True)
        for tile in range(2):
            pixels = np.full((SIDE, SIDE, 3), 240, np.uint8)
            for x, y in rng.integers(2, SIDE - 2, (4 * grade, 2)).tolist():
                cv2.circle(pixels, (x, y), 2, (120, 40, 90), -1)
            cv2.imwrite(str(folder / f"{tile}.png"), pixels)
        rows.append(
            {
                "image_id": folder.name,
                "data_provider": ("karolinska", "radboud")[number % 4 // 2],
                "isup_grade": grade,
                "patient_id": f"p{number % 24:02d}",
            }
        )
    pd.DataFrame(rows).to_csv(root / "train.csv", index=False)
    return root


@pytest.fixture(scope="session")
def panda_options(panda_root):
    """The options of a small run on those slides."""
    return [
        "--data.source=panda", f"--data.root={panda_root}", f"--data.image_size={SIDE}",
        "--data.fractions=[0.5,0.25,0.25]", "--data.workers=0", "--data.cache_gib=0",
        "--data.augmentation=stain", "--threads=1", "--device=cpu", "--epochs=2", "--batch_size=4",
        "--optim.lr=1e-3", "--loss.attention_decay=0", "--model.width=16",
    ]  # fmt: skip


@pytest.fixture(scope="session")
def panda_run(run_of, panda_options):
    """A finished run that tells cancer from none."""
    return run_of(*panda_options)


@pytest.fixture(scope="session")
def isup_run(run_of, panda_options):
    """A finished run that grades."""
    return run_of(*panda_options, "--data.labels=isup")


def test_cancer_or_none(panda_run):
    config = yaml.safe_load((panda_run / "config.yaml").read_text())
    assert (config["model"]["encoder"], config["model"]["num_classes"]) == ("panda", 1)
    assert config["data"]["classes"] == ["benign", "malignant"]
    metrics = json.loads((panda_run / "metrics.json").read_text())
    table = pd.read_csv(panda_run / "predictions.csv")
    test = table[table["split"] == "test"]
    share = test["label"].mean()
    assert metrics["test"]["majority"] == {"class": 1, "accuracy": pytest.approx(share)}
    assert metrics["accuracy"]["method"] in BY_PATIENT
    assert set(table["source"]) == {"karolinska", "radboud"}
    assert "quadratic_kappa" not in metrics["test"]


def test_patients_and_laboratories_in_the_split(panda_run):
    manifest = pd.read_csv(panda_run / "manifest.csv")
    assert (manifest.groupby("group")["split"].nunique() == 1).all()
    shares = manifest.groupby("split")["source"].apply(lambda side: (side == "radboud").mean())
    assert (shares - 0.5).abs().max() < 0.2


def test_grades_have_a_kappa(isup_run):
    metrics = json.loads((isup_run / "metrics.json").read_text())["test"]
    kappa = metrics["quadratic_kappa"]
    assert kappa["lower"] <= kappa["value"] <= kappa["upper"]
    assert kappa["method"] == "group bootstrap"
    assert metrics["majority"]["accuracy"] == pytest.approx(1 / 6, abs=0.06)
    saved = json.loads((isup_run / "best" / "config.json").read_text())
    assert saved["classes"] == [f"ISUP {grade}" for grade in range(6)]


def test_the_baseline_is_told_beside_the_accuracy(panda_run, capsys):
    assert evaluate([str(panda_run)]) == 0
    (said,) = [line for line in capsys.readouterr().out.splitlines() if "Accuracy" in line]
    assert any(method in said for method in BY_PATIENT)
    assert "calling every case class 1: 0.8" in said


def test_kappa_and_baseline_are_told_of_grades(isup_run, capsys):
    assert evaluate([str(isup_run)]) == 0
    said = capsys.readouterr().out
    assert "quadratic weighted kappa " in said
    assert "accuracy 0." in said
    assert said.count("calling every case class") == 2


def test_without_a_root_it_is_the_sample(panda_root, panda_options, tmp_path, monkeypatch):
    monkeypatch.setattr(bag_cases, "slide_sample", lambda: panda_root)
    words = [word for word in panda_options if not word.startswith("--data.root")]
    assert main([*words, "--epochs=1", f"--out={tmp_path}", "--name=a"]) == 0


def test_the_sample_is_told_with_its_ceiling_and_floor(panda_run, panda_root, monkeypatch, capsys):
    monkeypatch.setattr(bag_judge, "sample_reference", lambda root: {"ceiling": 1, "floor": 0.6})
    assert evaluate([str(panda_run)]) == 0
    assert "ceiling is AUC 1.000" in capsys.readouterr().out
    metrics = json.loads((panda_run / "metrics.json").read_text())
    assert (metrics["synthetic"], metrics["sample"]["floor"]) == (True, 0.6)


def test_other_slides_and_samples_that_are_too_small_have_none(panda_root, tmp_path):
    assert bag_judge.sample_reference(panda_root) is None
    (tmp_path / "sample.json").write_text("{}")
    (tmp_path / "train.csv").write_text("image_id,isup_grade,patient_id\n")
    assert bag_judge.sample_reference(tmp_path) is None


@pytest.mark.parametrize("encoder", ["standardized", "identity"])
def test_features_are_asked_for_before_slides_are_cut(encoder, tmp_path, capsys):
    words = ["--data.source=panda", f"--data.root={tmp_path}", f"--out={tmp_path}", "--device=cpu"]
    assert main([*words, f"--model.encoder={encoder}"]) == 2
    assert "give --data.bags, the folder of the feature files" in capsys.readouterr().err


def test_a_slide_that_is_missing_leaves_no_run_behind(panda_root, panda_options, tmp_path, capsys):
    table = pd.read_csv(panda_root / "train.csv")
    table.loc[3, "image_id"] = "nowhere"
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "train_tiles").symlink_to(panda_root / "train_tiles")
    table.to_csv(tmp_path / "root" / "train.csv", index=False)
    words = [*panda_options, f"--data.root={tmp_path / 'root'}", f"--out={tmp_path / 'runs'}"]
    assert main(words) == 2
    assert capsys.readouterr().err.count("nowhere") == 1
    assert not (tmp_path / "runs").exists() or not any((tmp_path / "runs").iterdir())
