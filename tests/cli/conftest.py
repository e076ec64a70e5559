"""Bags for the tests of the commands: digits read once, files of features, trained runs."""

import cv2
import h5py
import numpy as np
import pandas as pd
import pytest
import torch

from attnvgg.cli import bag_cases
from attnvgg.cli.train_bags import main
from attnvgg.data.digits import load_digits

WIDTH = 6  # of the features


@pytest.fixture(scope="session")
def digits():
    """The built-in digits, which take seconds to read: from here on commands get these."""
    found = load_digits()

    def remembered(source="digits", root=None):
        return found if source == "digits" else load_digits(source, root)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bag_cases, "load_digits", remembered)
        yield found


@pytest.fixture(scope="session")
def bag_options():
    """Options that make a run on bags small."""
    return ["--epochs=2", "--batch_size=8", "--threads=1", "--device=cpu", "--model.width=16"]


@pytest.fixture(scope="session")
def digit_options(digits, bag_options):
    """The options of a small run on bags of digits."""
    return [*bag_options, "--data.counts=[40,20,30]"]


@pytest.fixture(scope="session")
def run_of(tmp_path_factory):
    """Return a function that trains and returns the folder of the run; read only."""

    def run(*options):
        out = tmp_path_factory.mktemp("bag-runs")
        assert main([*options, f"--out={out}", "--name=a"]) == 0
        return out / "a"

    return run


@pytest.fixture(scope="session")
def trained_bags(run_of, digit_options):
    """One model, on bags of digits."""
    return run_of(*digit_options)


@pytest.fixture(scope="session")
def seeded_bags(run_of, digit_options):
    """Two models of the same bags, and their average."""
    return run_of(*digit_options, "--seeds=2")


@pytest.fixture(scope="session")
def pooled_bags(run_of, digit_options):
    """Two pools with two rates each."""
    return run_of(*digit_options, "--pools=[mean,attention]", "--rates=[0.001,0.01]")


@pytest.fixture(scope="session")
def staged_bags(run_of, digit_options):
    """An encoder that learned single digits, and two pools of its features."""
    options = ["--stage_one.share=0.2", "--stage_one.epochs=1", "--stage_one.batch_size=32"]
    options += ["--pools=[gated_attention,max]", "--optim.lr=0.01"]
    return run_of(*digit_options, *options, "--data.grey_mean=0.1307", "--data.grey_std=0.3081")


def write_features(path, values, labels):
    """Write a bag as CLAM and others do, by its suffix; HDF5 knows its instances."""
    if path.suffix == ".npy":
        np.save(path, values)
    elif path.suffix == ".pt":
        torch.save(torch.from_numpy(values), path)
    else:
        with h5py.File(path, "w") as file:
            file["features"], file["instance_labels"] = values[None], labels


def draw_bag(rng, label):
    """Return features (N, WIDTH), one or two of them shifted in a bag of label 1, and which."""
    labels = np.zeros(rng.integers(2, 8), np.int64)
    labels[: label * rng.integers(1, 3)] = 1
    labels = rng.permutation(labels)
    values = rng.normal(size=(len(labels), WIDTH)) + 4 * labels[:, None]
    return values.astype(np.float32), labels


@pytest.fixture(scope="session")
def make_features():
    """Return a function that writes 36 bags of features and the table of their labels."""

    def make(folder, suffixes=(".npy", ".h5", ".pt"), classes=2):
        rng, rows = np.random.default_rng(0), []
        (folder / "bags").mkdir(parents=True)
        for number in range(36):
            label = number % classes
            values, labels = draw_bag(rng, min(label, 1))
            path = folder / "bags" / f"s{number:02d}{suffixes[number % len(suffixes)]}"
            write_features(path, values * (-1) ** (label // 2), labels)
            rows.append({"slide_id": path.stem, "label": label, "patient": f"p{number // 2:02d}"})
        pd.DataFrame(rows).to_csv(folder / "labels.csv", index=False)
        return folder / "labels.csv"

    return make


@pytest.fixture(scope="session")
def features(make_features, tmp_path_factory):
    """A table of 36 bags in files of all three formats; read only."""
    return make_features(tmp_path_factory.mktemp("features"))


@pytest.fixture(scope="session")
def from_table():
    """Return the options that read a table of bags; all in its folder need a label."""

    def options(table):
        bags = ["--data.source=csv", f"--data.root={table}", f"--data.bags={table.parent / 'bags'}"]
        return [*bags, "--data.fractions=[0.5,0.25,0.25]", "--data.workers=0"]

    return options


@pytest.fixture(scope="session")
def feature_options(bag_options, from_table, features):
    """The options of a small run on bags of features."""
    return [*bag_options, *from_table(features), "--model.encoder=identity"]


@pytest.fixture(scope="session")
def photo_bags(tmp_path_factory):
    """24 bags of one to three small pictures, in a folder a class."""
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for number in range(24):
        label = number % 2
        bag = folder / ("healthy", "sick")[label] / f"patient-{number:02d}"
        bag.mkdir(parents=True)
        for picture in range(1 + number % 3):
            pixels = rng.integers(0, 60, (40, 36, 3), np.uint8)
            pixels += np.uint8(150 * (label and picture == 0))
            cv2.imwrite(str(bag / f"{picture}.png"), pixels)
    return folder


@pytest.fixture(scope="session")
def photo_options(bag_options, photo_bags):
    """The options of a small run on bags of pictures."""
    return [
        *bag_options, "--data.source=folders", f"--data.root={photo_bags}",
        "--data.fractions=[0.5,0.25,0.25]", "--data.image_size=32", "--data.workers=0",
        "--data.cache_gib=0", "--model.encoder=torchvision",
        "--model.backbone=shufflenet_v2_x0_5",
    ]  # fmt: skip
