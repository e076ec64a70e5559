"""Training with masks end to end: what the prior changes, and what it must not."""

import json
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import torch

from attnvgg import load_model
from attnvgg.cli.common import parse_config
from attnvgg.cli.train import main
from attnvgg.models.priors import dice_distance
from attnvgg.training.config import TrainConfig, check
from attnvgg.training.run_config import flatten
from tests.cli.test_train import assert_same_run

CONFIGS = Path(__file__).parent.parent.parent / "configs"


@pytest.fixture(scope="module")
def masked(pictures, tmp_path_factory):
    """The pictures with masks of two thirds of them, one of which is empty."""
    folder = tmp_path_factory.mktemp("masks")
    table = pd.read_csv(pictures)
    table["image"] = [str(pictures.parent / name) for name in table["image"]]
    table["mask"] = ""
    for row in range(0, len(table), 3):
        for number in (row, row + 1):
            if number < len(table):
                mask = np.zeros((64, 64), np.uint8)
                if number:
                    cv2.circle(mask, (32, 32), 16, 255, -1)
                cv2.imwrite(str(folder / f"{number:02d}.png"), mask)
                table.loc[number, "mask"] = str(folder / f"{number:02d}.png")
    table.to_csv(folder / "cases.csv", index=False)
    return folder / "cases.csv"


@pytest.fixture(scope="module")
def train(masked, small, tmp_path_factory):
    """Return a function that trains on them and returns the folder of the run."""

    def run(*options, code=0):
        out = tmp_path_factory.mktemp("priors")
        words = [*small, "--data.image_size=64", "--data.source=csv", f"--data.root={masked}"]
        words += ["--epochs=2", *options, f"--out={out}", "--name=a"]
        assert main(words) == code
        return out / "a"

    return run


def mean_distance(run):
    """Return the mean Dice distance of the maps of pool-3 to the discs of the pictures."""
    model, cases = load_model(run), pd.read_csv(run / "manifest.csv")
    images = torch.stack([model.preprocess(path) for path in cases["image"]])
    disc = np.zeros((64, 64), np.uint8)
    cv2.circle(disc, (32, 32), 16, 1, -1)
    mask = torch.from_numpy(cv2.resize(disc, (8, 8), interpolation=cv2.INTER_AREA))
    with torch.inference_mode():
        attention = model(images).attn1
    attention = attention / attention.amax(dim=(2, 3), keepdim=True)
    return dice_distance(attention, mask.float().expand_as(attention)).mean().item()


def test_a_prior_of_no_weight_is_no_prior(train):
    """The masks change nothing else: neither the order nor the augmentation nor the judging."""
    assert_same_run(train("--loss.prior=mask", "--loss.prior_weights=[0,0]"), train())


def test_the_maps_go_where_they_are_sent(train):
    heavy = ["--loss.prior_weights=[3,3]", "--epochs=4"]
    lesion = mean_distance(train("--loss.prior=mask", *heavy))
    background = mean_distance(train("--loss.prior=background", *heavy))
    assert lesion < background - 0.1


def test_masks_are_counted(train, capsys):
    run = train("--loss.prior=mask", "--epochs=1")
    cases = pd.read_csv(run / "manifest.csv")
    training = cases[cases["split"] == "train"]
    known = training["mask"].notna().sum()
    empty = training["mask"].str.endswith("/00.png").sum()
    told = f"{known} of {len(training)} training images have a mask, {empty} of these an empty one"
    assert told in capsys.readouterr().out


def test_a_prior_without_masks(csv_options, tmp_path, capsys):
    assert main([*csv_options, "--loss.prior=mask", f"--out={tmp_path}"]) == 2
    assert "--loss.prior mask needs masks" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--model.attention=false", "no attention maps"),
        ("--model.name=gap", "no attention maps"),
        ("--loss.prior_weights=[-1,0]", "at least 0"),
        ("--loss.prior_weights=[.nan,0]", "at least 0"),
    ],
)
def test_impossible_priors(csv_options, tmp_path, capsys, option, message):
    assert main([*csv_options, "--loss.prior=mask", option, f"--out={tmp_path}"]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("recipe", ["isic2016", "isic2017"])
@pytest.mark.parametrize("arm", sorted(path.stem for path in CONFIGS.glob("arm_*.yaml")))
def test_arms_change_only_what_they_say(recipe, arm):
    """Recipe P is that of the paper, and each arm keeps the rest of it."""
    words = ["--config", str(CONFIGS / f"{recipe}.yaml")]
    plain = flatten(parse_config(TrainConfig, words, "train"))
    config = parse_config(TrainConfig, [*words, "--config", str(CONFIGS / f"{arm}.yaml")], "train")
    check(config)
    changed = {key for key, value in flatten(config).items() if value != plain[key]}
    assert (
        changed
        == {
            "arm_melcnn": {"model.attention"},
            "arm_gap": {"model.name"},
            "arm_vgg": {"model.name"},
            "arm_lesion": {"loss.prior"},
            "arm_background": {"loss.prior"},
            "arm_dermoscopic": {"loss.prior", "data.mask"},
        }[arm]
    )
    paper = {
        "data.crop": 0.8, "data.resize": 256, "data.image_size": 224, "data.augmentation": "paper",
        "data.positive_repeats": 4, "data.passes": {"isic2016": 5, "isic2017": 2}[recipe],
        "optim.name": "sgd", "optim.lr": 0.01, "optim.momentum": 0.9, "optim.weight_decay": 1e-4,
        "optim.schedule": "step", "optim.step_epochs": 10, "epochs": 50, "batch_size": 32,
        "model.normalize_attn": False, "model.num_classes": 2, "loss.gamma": 2.0,
        "loss.prior_weights": (0.001, 0.01),
    }  # fmt: skip
    found = flatten(config)
    assert {key: found[key] for key in paper} == paper


def test_a_run_remembers_its_prior(train):
    run = train("--loss.prior=background", "--epochs=1")
    assert main(["--resume", str(run), "--epochs=2"]) == 0
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 2
    assert_same_run(run, train("--loss.prior=background"))
    assert set(json.loads((run / "metrics.jsonl").read_text().splitlines()[0])["train"]) == {
        "loss", "auc", "average_precision",
    }  # fmt: skip
