"""The command that compares a period with training: whole, planted, kept, refused."""

import json
import os
import shutil

import cv2
import numpy as np
import pandas as pd
import pytest
import torch

from attnvgg.cli.bag_cases import load_bag_cases
from attnvgg.cli.bag_runs import read_bag_manifest, read_bags_config
from attnvgg.cli.drift import main
from attnvgg.cli.drift_plot import save_histograms
from attnvgg.cli.drift_reference import FILE
from attnvgg.data.decoding import read_image
from attnvgg.data.image_statistics import bag_statistics, image_statistics
from attnvgg.data.transforms import Preprocess
from attnvgg.deploy.bag_predictor import BagPredictor
from attnvgg.deploy.predictor import Predictor
from attnvgg.deploy.serving.trail import Trail, record_of
from attnvgg.evaluation.drift import drift_of
from attnvgg.models import AttnVGG
from attnvgg.training.run import RunFolder

NAMES = {
    "width", "height", "brightness", "contrast", "saturation", "red", "green", "blue",
    "sharpness", "dark", "probability", "entropy_pool-3", "entropy_pool-4",
}  # fmt: skip


@pytest.fixture(scope="module")
def run(thin_vgg, tmp_path_factory):
    """A run on 90 noisy pictures, of which 60 are its training; read only but for its reference."""
    folder, rng, rows = tmp_path_factory.mktemp("run"), np.random.default_rng(0), []
    for number in range(90):
        level = rng.uniform(80, 160, 3)
        pixels = np.clip(rng.normal(level, rng.uniform(5, 40), (48, 48, 3)), 0, 255)
        path = folder / f"{number}.png"
        cv2.imwrite(str(path), pixels.astype(np.uint8))
        split = "train" if number < 60 else "val"
        rows.append({"image": str(path), "label": number % 2, "split": split})
    pd.DataFrame(rows).to_csv(folder / "manifest.csv", index=False)
    (folder / "config.yaml").write_text("task: images\n")
    torch.manual_seed(0)
    model = AttnVGG(1, normalize_attn=True, backbone="vgg11_bn").eval()
    model.save_pretrained(folder / "best", preprocess=Preprocess(32, 32).to_dict(), threshold=0.4)
    return folder


@pytest.fixture(scope="module")
def served(run, tmp_path_factory):
    """Return a function that writes the trail of a server which saw the run's own pictures."""
    predictor, folder = Predictor(run, "eager"), tmp_path_factory.mktemp("trails")

    def serve(name, change=lambda pixels: pixels, count=60, digest=None, day=22):
        trail = Trail(folder / f"{name}.jsonl")
        for number in range(count):
            pixels = change(read_image(run / f"{(number * 7) % 90}.png"))
            (found,) = predictor([pixels])
            statistics = image_statistics(predictor.preprocess.load(pixels))
            model = digest or predictor.digest
            record = record_of(f"r{number}", model, found, statistics, 48, 48)
            trail.append(record | {"time": f"2026-11-{day}T08:{number:02d}:00+00:00"})
        trail.close()
        return trail.path

    return serve


def drift(run, trail, out, *options):
    return main([str(run), str(trail), f"--out={out}", "--engine=eager", *options])


def test_same_pictures_do_not_drift(run, served, tmp_path, capsys):
    assert drift(run, served("same"), tmp_path / "out") == 0
    told = capsys.readouterr().out
    assert "No drift" in told
    assert "training images" in told
    content = json.loads((tmp_path / "out" / "drift.json").read_text())
    assert {one["name"] for one in content["statistics"]} == NAMES
    assert content["drifted"] == []
    assert content["predictions"] == 60
    n = {one["name"]: (one["reference"], one["period"]) for one in content["statistics"]}
    assert n["brightness"] == (60, 60)  # of training
    assert n["probability"] == (30, 60)  # of validation
    picture = cv2.imread(str(tmp_path / "out" / "drift.png"))
    assert picture.shape[1] > 1000
    assert picture.std() > 5


def test_planted_drift_is_found_and_is_exit_code_1(run, served, tmp_path, capsys):
    dark = served("dark", lambda pixels: (pixels * 0.5).astype(np.uint8))
    assert drift(run, dark, tmp_path) == 1
    captured = capsys.readouterr()
    assert "DRIFTED" in captured.out
    assert captured.err == ""
    drifted = json.loads((tmp_path / "drift.json").read_text())["drifted"]
    assert {"brightness", "red", "green", "blue"} <= set(drifted)
    assert not {"width", "height", "saturation"} & set(drifted)


def test_reference_is_what_the_run_holds_computed_once(run, served, tmp_path, monkeypatch, capsys):
    trail = served("again")
    assert drift(run, trail, tmp_path) == 0
    table = pd.read_csv(run / FILE)
    manifest, preprocess = pd.read_csv(run / "manifest.csv"), Preprocess(32, 32)
    training = table[table["split"] == "train"]
    wanted = [
        image_statistics(preprocess.load(path))["sharpness"]
        for path in manifest["image"][manifest["split"] == "train"]
    ]
    np.testing.assert_allclose(training["sharpness"], wanted)
    assert training["probability"].isna().all()
    predictor = Predictor(run, "eager")
    held_out = manifest["image"][manifest["split"] == "val"]
    wanted = [one.probabilities[0] for one in predictor(held_out)]
    np.testing.assert_allclose(table["probability"].dropna(), wanted, atol=1e-3)
    capsys.readouterr()
    monkeypatch.setattr("attnvgg.cli.drift_reference.image_statistics", None)
    assert drift(run, trail, tmp_path) == 0
    assert "computed once" not in capsys.readouterr().out


def test_damaged_reference_or_that_of_another_model_is_made_again(
    run, served, tmp_path, monkeypatch
):
    monkeypatch.setattr("attnvgg.cli.drift.save_histograms", lambda *_: None)
    trail, kept = served("made"), run / FILE
    assert drift(run, trail, tmp_path) == 0
    whole = kept.read_text()
    digest = Predictor(run, "eager").digest
    for text in ("split,model\n", "", whole[: len(whole) // 3], whole.replace(digest, "other")):
        kept.write_text(text)
        assert drift(run, trail, tmp_path) == 0
        assert kept.read_text() == whole


def test_a_period_is_cut_out(run, served, tmp_path, capsys):
    trail = served("both", day=22)
    served("both", lambda pixels: pixels // 3, day=23)
    assert drift(run, trail, tmp_path, "--until=2026-11-23") == 0
    assert drift(run, trail, tmp_path, "--since=2026-11-23") == 1
    capsys.readouterr()
    assert drift(run, trail, tmp_path, "--since=2027-01-01") == 2
    assert "no predictions in this period" in capsys.readouterr().err
    assert drift(run, trail, tmp_path, "--until=2026-11-22T08:05") == 2
    assert "5 predictions of this model in this period: too few" in capsys.readouterr().err
    assert drift(run, trail, tmp_path, "--since=lately") == 2
    assert "is no moment" in capsys.readouterr().err


def test_other_models_and_torn_lines_are_told(run, served, tmp_path, capsys):
    served("mixed", count=7, digest="f00d")
    trail = served("mixed")
    with trail.open("ab") as stream:
        stream.write(b'{"time": "2026-')
    assert drift(run, trail, tmp_path) == 0
    told = capsys.readouterr().out
    assert "7 predictions of another model are left out: f00d" in told
    assert "Torn lines of the trail, passed over: 1." in told
    content = json.loads((tmp_path / "drift.json").read_text())
    assert (content["other_models"], content["torn_lines"], content["predictions"]) == (7, 1, 60)
    assert drift(run, served("foreign", count=30, digest="f00d"), tmp_path) == 2
    assert "only predictions of other models" in (error := capsys.readouterr().err)
    assert "f00d: 30" in error


def test_wrong_input_is_one_sentence(run, served, tmp_path, capsys):
    trail = served("usual")
    bare = tmp_path / "bare"
    shutil.copytree(run / "best", bare)
    gone = tmp_path / "gone"
    shutil.copytree(run, gone)
    manifest = pd.read_csv(gone / "manifest.csv")
    manifest["image"] = manifest["image"].str.replace(str(run), str(tmp_path / "nowhere"))
    manifest.to_csv(gone / "manifest.csv", index=False)
    (gone / FILE).unlink(missing_ok=True)
    for words, told in (
        ((run, tmp_path / "none"), "no audit trail to read"),
        ((run, run / "manifest.csv"), "is no audit trail"),
        ((bare, trail), "without the training images"),
        (("owner/name", trail), "not a folder"),
        ((gone, trail), "nowhere"),
    ):
        assert drift(*words, tmp_path / "out") == 2
        error = capsys.readouterr().err
        assert told in error
        assert "Traceback" not in error
    assert not os.path.exists(tmp_path / "out")


def test_bags_are_compared_too(trained_bags, tmp_path):
    shutil.copytree(trained_bags, tmp_path / "run")
    run = RunFolder(tmp_path / "run")
    config = read_bags_config(run)
    data = load_bag_cases(config, read_bag_manifest(run)).dataset(config, "val", "test")
    predictor, rng = BagPredictor(run.path, "eager"), np.random.default_rng(0)
    for shift, code in ((0.0, 0), (0.5, 1)):
        trail = Trail(tmp_path / f"{code}.jsonl")
        for row in rng.permutation(len(data))[:40]:  # no bag twice: cases are independent
            bag = data[int(row)]["instances"].numpy() + np.float32(shift)
            (found,) = predictor([bag])
            trail.append(record_of("r", predictor.digest, found, bag_statistics(bag)))
        trail.close()
        assert drift(run.path, trail.path, tmp_path / str(code)) == code
    found = json.loads((tmp_path / "1" / "drift.json").read_text())
    assert "level" in found["drifted"]
    names = {one["name"] for one in found["statistics"]}
    assert {"instances", "level", "probability", "entropy_weights"} <= names


def test_picture_of_one_constant_statistic(tmp_path):
    reference = pd.DataFrame({"split": "train", "x": np.full(30, 5.0)})
    period = pd.DataFrame({"x": np.full(20, 5.0)})
    found = drift_of("x", reference["x"], period["x"])
    save_histograms(tmp_path / "one.png", [found], reference, period, "words")
    assert cv2.imread(str(tmp_path / "one.png")) is not None
