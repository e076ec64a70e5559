"""The training commands as entry points of a SageMaker job, in this very process."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from attnvgg import load_model
from attnvgg.cli.train import main as train_images
from attnvgg.cli.train_bags import main as train

OPTIONS = [
    "--epochs=1", "--batch_size=8", "--threads=1", "--device=cpu", "--model.width=16",
    "--data.source=csv", "--data.root=labels.csv", "--data.bags=bags", "--data.workers=0",
    "--data.fractions=[0.5,0.25,0.25]", "--patience=null",
]  # fmt: skip


@pytest.fixture
def container(tmp_path, monkeypatch, features):
    """A folder in place of /opt/ml, with the features as training channel."""
    for name in ("model", "output"):  # mounted disks in reality: there, and not to be replaced
        (tmp_path / name).mkdir()
    variables = {
        "SM_MODEL_DIR": tmp_path / "model",
        "SM_OUTPUT_DATA_DIR": tmp_path / "output",
        "SM_OUTPUT_FAILURE": tmp_path / "failure",
        "SM_CHECKPOINT_DIR": tmp_path / "checkpoints",
        "SM_CHANNEL_TRAINING": features.parent,
        "SM_HPS": "{}",
        "SM_NUM_GPUS": "0",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, str(value))
    return tmp_path


def weights_of(folder):
    return torch.load(folder / "last" / "state.pt", weights_only=True)["states"]["model"]


def test_model_and_run_are_left_where_the_service_collects_them(container, features):
    assert train(OPTIONS) == 0
    model = load_model(container / "model")
    instances = torch.zeros(3, 6)
    kept = load_model(container / "checkpoints" / "run")
    assert torch.equal(model(instances[None]).logits, kept(instances[None]).logits)
    assert model.config["metrics"]["judged_on"] == "test"
    left = {path.name for path in (container / "output" / "run").iterdir()}
    assert {"predictions.csv", "metrics.json", "config.yaml", "best"} <= left
    assert not left & {"last", "tensorboard", ".lock"}
    written = yaml.safe_load((container / "output" / "run" / "config.yaml").read_text())
    assert written["data"]["root"] == str(features)
    assert not (container / "failure").exists()


def test_hyperparameters_come_from_the_environment_as_well(container, tmp_path, monkeypatch):
    (tmp_path / "a.yaml").write_text("epochs: 5\nmodel: {pool: mean}\n")
    values = {"epochs": 2, "config": str(tmp_path / "a.yaml"), "optim": {"lr": 0.01}}
    monkeypatch.setenv("SM_HPS", json.dumps(values))
    assert train([word for word in OPTIONS if not word.startswith("--epochs")]) == 0
    written = yaml.safe_load((container / "checkpoints" / "run" / "config.yaml").read_text())
    assert (written["epochs"], written["model"]["pool"], written["optim"]["lr"]) == (
        2,
        "mean",
        0.01,
    )


def test_an_interrupted_job_goes_on_to_the_same_end(container, tmp_path):
    """A restarted job has the same words; here the second one also asks for more epochs."""
    run = container / "checkpoints" / "run"
    assert train([*OPTIONS, "--epochs=3"]) == 0
    wanted = weights_of(run)
    shutil.rmtree(container / "checkpoints")
    assert train(OPTIONS) == 0
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 1
    shutil.rmtree(container / "model")  # the new machine has but the checkpoints
    (container / "model").mkdir()
    assert train([*OPTIONS, "--epochs=3"]) == 0
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 3
    assert all(torch.equal(weights_of(run)[key], value) for key, value in wanted.items())
    load_model(container / "model")


def test_a_job_that_was_interrupted_before_its_first_line_begins_anew(container):
    begun = container / "checkpoints" / "run"
    begun.mkdir(parents=True)
    (begun / "manifest.csv").write_text("half")
    assert train(OPTIONS) == 0


def test_checkpoints_of_another_run_are_refused(container, capfd):
    assert train(OPTIONS) == 0
    assert train([*OPTIONS, "--optim.lr=0.5"]) == 2
    assert "--optim.lr: 0.003, now 0.5" in capfd.readouterr().err
    assert "--optim.lr" in (container / "failure").read_text()


def test_a_failure_leaves_its_reason(container, capfd):
    assert train([*OPTIONS, "--data.root=nowhere.csv"]) == 2
    reason = (container / "failure").read_text()
    assert "nowhere.csv" in reason
    assert reason in capfd.readouterr().err
    assert not list((container / "model").iterdir())


def test_data_of_no_kind_are_refused(container, capfd):
    """The default are digits, which need no data: the channel would be ignored."""
    assert train(["--epochs=1", "--threads=1", "--device=cpu"]) == 2
    assert "--data.source or --config" in capfd.readouterr().err
    assert "--data.source or --config" in (container / "failure").read_text()


def test_of_several_seeds_the_model_is_the_one_best_on_validation(container):
    assert train([*OPTIONS, "--seeds=2"]) == 0
    losses = {}
    for folder in (container / "checkpoints" / "run").glob("seed-*"):
        rows = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
        losses[folder] = min(row["validation"]["loss"] for row in rows)
    best = min(losses, key=losses.get) / "best" / "model.safetensors"
    assert (container / "model" / "model.safetensors").read_bytes() == best.read_bytes()


def test_images_are_trained_as_well(container, pictures, csv_options, monkeypatch):
    monkeypatch.setenv("SM_CHANNEL_TRAINING", str(pictures.parent))
    options = [word for word in csv_options if not word.startswith("--data.root")]
    assert train_images([*options, "--data.root=cases.csv", "--epochs=1"]) == 0
    assert load_model(container / "model").config["metrics"]["judged_on"] == "test"
    assert len(pd.read_csv(container / "output" / "run" / "predictions.csv"))


def test_idle_gpus_are_told(container, monkeypatch, capfd):
    monkeypatch.setenv("SM_NUM_GPUS", "4")
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    assert train([*OPTIONS, "--data.root=nowhere.csv"]) == 2
    assert "4 GPUs and one process uses one" in capfd.readouterr().out


def test_training_and_testing_channels_are_the_split_of_panda(container, tmp_path, monkeypatch):
    """Beside them lies the job's own source, which is none of its data."""
    rng, split = np.random.default_rng(0), {"training": range(12), "testing": range(12, 18)}
    for channel, numbers in split.items():
        folder = tmp_path / "channels" / channel
        for number in numbers:
            (folder / f"slide-{number:02d}").mkdir(parents=True)
            for tile in range(1 + number % 3):
                pixels = rng.integers(0, 200, (32, 32, 3), np.uint8)
                cv2.imwrite(str(folder / f"slide-{number:02d}" / f"{tile}.png"), pixels)
        rows = {"image_id": [f"slide-{n:02d}" for n in numbers], "data_provider": "karolinska"}
        grades = [n % 2 * 3 for n in numbers]
        pd.DataFrame(rows | {"isup_grade": grades}).to_csv(folder / "train.csv", index=False)
        monkeypatch.setenv(f"SM_CHANNEL_{channel.upper()}", str(folder))
    (tmp_path / "channels" / "code" / "scripts").mkdir(parents=True)
    options = ["--data.source=panda", "--data.image_size=32", "--data.cache_gib=0"]
    options += ["--model.encoder=torchvision", "--model.backbone=shufflenet_v2_x0_5"]
    options += ["--batch_size=4", "--epochs=1", "--data.workers=0", "--threads=1", "--device=cpu"]
    assert train(options) == 0
    table = pd.read_csv(container / "output" / "run" / "predictions.csv")
    tested = table.loc[table["split"] == "test", "image"].map(lambda path: Path(path).name)
    assert sorted(tested) == [f"slide-{number:02d}" for number in split["testing"]]
    load_model(container / "model")
