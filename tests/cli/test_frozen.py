"""Training with frozen stages, from images and from what was computed of them once."""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from attnvgg import load_model
from attnvgg.cli import image_frozen
from attnvgg.cli.common import parse_config
from attnvgg.cli.evaluate import main as evaluate
from attnvgg.cli.train import main
from attnvgg.errors import InputError
from attnvgg.training.config import TrainConfig, check
from tests.cli.test_distributed import ROOT, TORCHRUN
from tests.cli.test_train import assert_same_run, weights_of

pytestmark = pytest.mark.usefixtures("thin_vgg")
CONFIGS = Path(__file__).parent.parent.parent / "configs"


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("frozen")


@pytest.fixture(scope="module")
def train(thin_vgg, csv_options, home):
    """Return a function that trains and returns the folder of the run."""

    def run(name, *options, code=0):
        words = [*csv_options, "--epochs=2", f"--frozen.cache={home / 'cache'}", *options]
        assert main([*words, f"--out={home}", f"--name={name}"]) == code
        return home / name

    return run


@pytest.fixture(scope="module")
def from_maps(train):
    """A run from the maps of pool-3 and pool-4, with as many views as epochs."""
    return train("maps", "--model.freeze=4", "--frozen.views=2")


def files_of(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*.maps")}


def rows_of(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_with_a_view_an_epoch_it_is_training_on_the_images(train, from_maps):
    """What is computed once is what each step would compute, but for half precision."""
    on_images = train("images", "--model.freeze=4")
    for mine, its in zip(rows_of(from_maps), rows_of(on_images), strict=True):
        assert mine["train"]["loss"] == pytest.approx(its["train"]["loss"], rel=5e-3)
        assert mine["validation"]["loss"] == pytest.approx(its["validation"]["loss"], rel=5e-3)
    mine, its = (pd.read_csv(run / "predictions.csv") for run in (from_maps, on_images))
    np.testing.assert_allclose(mine["probability"], its["probability"], atol=0.02)


def test_fewer_views_are_other_training(train, from_maps):
    fewer = train("fewer", "--model.freeze=4", "--frozen.views=1")
    assert rows_of(fewer)[0] == rows_of(from_maps)[0]
    assert rows_of(fewer)[1] != rows_of(from_maps)[1]


def test_the_model_is_whole_and_judged_on_images(from_maps, capsys):
    table = pd.read_csv(from_maps / "predictions.csv")
    model = load_model(from_maps)
    images = torch.stack([model.preprocess(path) for path in table["image"]])
    with torch.inference_mode():
        found = model(images).logits[:, 0].numpy()
    np.testing.assert_allclose(table["logit"], found, atol=1e-5)
    before = (from_maps / "predictions.csv").read_bytes()
    assert evaluate([str(from_maps), "--threads=1", "--device=cpu"]) == 0
    assert (from_maps / "predictions.csv").read_bytes() == before


def test_validation_on_maps_tells_what_the_whole_model_is_worth(from_maps):
    best = max(rows_of(from_maps), key=lambda row: row["validation"]["auc"])
    judged = json.loads((from_maps / "metrics.json").read_text())["val"]["auc"]["value"]
    assert best["validation"]["auc"] == pytest.approx(judged, abs=0.02)


def test_frozen_stages_are_as_they_started_and_the_others_are_not(from_maps, train):
    more = train("more", "--model.freeze=5", "--frozen.views=2", "--optim.average=0.5")
    first, second = weights_of(from_maps), weights_of(more)
    for name in first:
        frozen = name.startswith("stages") and int(name.split(".")[1]) < 4
        if frozen:
            assert torch.equal(first[name], second[name]), name
    assert not torch.equal(first["stages.4.0.weight"], second["stages.4.0.weight"])
    state = torch.load(more / "last" / "state.pt", weights_only=True)["states"]
    assert len(state["optimizer"]["param_groups"][0]["params"]) == 10  # two attentions, one layer
    assert torch.equal(state["average"]["module.stages.0.0.weight"], second["stages.0.0.weight"])
    drift = state["average"]["module.classifier.weight"] - second["classifier.weight"]
    assert drift.abs().sum() > 0


def test_it_goes_on_from_the_same_maps(train, from_maps, home):
    options = ["--model.freeze=4", "--frozen.views=2"]
    begun = train("begun", *options, "--epochs=1")
    before = files_of(home / "cache")
    assert main([f"--resume={begun}", "--epochs=2"]) == 0
    assert files_of(home / "cache") == before
    assert_same_run(begun, from_maps)


def test_stopped_while_the_maps_are_computed_the_same_command_goes_on(train, monkeypatch):
    def stop(*arguments):
        raise KeyboardInterrupt

    options = ["--model.freeze=5", "--frozen.views=1"]
    with monkeypatch.context() as patch:
        patch.setattr(image_frozen, "compute_maps", stop)
        run = train("stopped", *options, code=130)
    assert not run.exists()
    assert len(rows_of(train("stopped", *options))) == 2


def test_a_run_goes_on_without_the_maps_it_began_with(train, from_maps, home):
    """They can be computed again: the frozen stages are in the saved state."""
    run = train("moved", "--model.freeze=4", "--frozen.views=2", "--epochs=1")
    others = home / "others"
    assert main([f"--resume={run}", "--epochs=2", f"--frozen.cache={others}"]) == 0
    assert len(files_of(others)) == 2
    assert_same_run(run, from_maps)


@pytest.mark.parametrize("control", [["--model.name=gap"], ["--model.attention=false"]])
def test_controls_are_trained_from_maps(train, control):
    run = train(control[0][-6:], *control, "--model.freeze=4", "--frozen.views=2")
    assert all(np.isfinite(row["validation"]["loss"]) for row in rows_of(run))


def test_two_processes_share_frozen_stages(pictures, csv_options, tmp_path):
    command = [*TORCHRUN, str(ROOT / "scripts" / "train.py"), *csv_options, "--epochs=1"]
    command += ["--model.freeze=4", "--frozen.views=1", f"--frozen.cache={tmp_path / 'maps'}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, f"--out={tmp_path}", "--name=two"],
        env=environment, capture_output=True, text=True, timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("computed once") == 1
    assert len(rows_of(tmp_path / "two")) == 1


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--model.freeze=6"], "VGG has 5 stages"),
        (["--model.freeze=-1"], "must be at least 0"),
        (["--frozen.views=2"], "needs --model.freeze"),
        (["--frozen.views=2", "--model.freeze=5", "--model.name=vgg"], "not with --model.name vgg"),
        (["--frozen.views=2", "--model.freeze=5", "--loss.prior=mask"], "not with --loss.prior"),
        (["--frozen.views=2", "--model.freeze=5", "--data.augmentation=none"], "all are alike"),
    ],
)
def test_what_cannot_be_is_refused(options, told):
    with pytest.raises(InputError, match=told) as found:
        check(parse_config(TrainConfig, options, "train"))
    assert len(found.value.offenders) == 1


def test_too_little_room_is_one_sentence(csv_options, tmp_path, capsys):
    options = ["--model.freeze=4", "--frozen.views=9", "--frozen.cache_gib=0.0001"]
    assert main([*csv_options, *options, f"--out={tmp_path}", "--name=a"]) == 2
    error = capsys.readouterr().err
    assert "31 images in 9 views" in error
    assert "GB, more than --frozen.cache_gib 0.0001" in error
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(("recipe", "stages"), [("frozen", 5), ("frozen_pool4", 4)])
def test_recipes_freeze_and_keep(recipe, stages):
    path = CONFIGS / f"{recipe}.yaml"
    config = parse_config(TrainConfig, ["--config", str(path)], "train")
    check(config)
    assert (config.model.freeze, config.frozen.views) == (stages, 4)
    assert yaml.safe_load(path.read_text())["frozen"] == {"views": 4}
