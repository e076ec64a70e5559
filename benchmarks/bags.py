"""Bags: ours against one bag a step, ragged against padded, and a bag that is streamed.

The first two compare the time of training until a figure of validation is reached: the best one
of the published way. Data and start weights are the same for both. Our time is that of a run
folder's own training, with the saved state, the saved model and the figures of every epoch.
"""

from __future__ import annotations

import math
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from attnvgg.cli.bag_cases import BagCases, load_bag_cases
from attnvgg.cli.bag_fit import fit_plain
from attnvgg.cli.common import parse_config
from attnvgg.models import BagClassifier
from attnvgg.training.bag_config import TrainBagsConfig, resolve, settle
from attnvgg.training.build_bags import build_bag_model
from attnvgg.training.engine import make_accelerator
from attnvgg.training.run import RunFolder
from attnvgg.training.run_config import updated
from benchmarks import bags_memory, bags_stream, keras_bags
from benchmarks.baseline_bags import (
    ILSE,
    KERAS,
    Bag,
    Published,
    Reached,
    Recipe,
    attention_state,
    train_published,
)

SEEDS = (0, 1, 2)
CONFIGS = Path(__file__).resolve().parent.parent / "configs"


@dataclass(frozen=True)
class Race:
    """One of the two comparisons.

    Attributes:
        title: what is printed above it.
        recipe: of the published way.
        config: our file of options.
        counts: bags of training, validation and test.
        epochs: after which ours gives up.
        bar: how many times as fast ours is to be.
    """

    title: str
    recipe: Recipe
    config: str
    counts: tuple[int, int, int]
    epochs: int
    bar: float


RACES = (
    Race("recipe K, 1,000 bags", KERAS, "bags_keras.yaml", (1000, 300, 1000), 60, 20.0),
    Race("recipe I, 200 bags", ILSE, "bags_ilse.yaml", (200, 300, 1000), 30, 3.0),
)


class Enough(Exception):
    """The figure is reached; carries the epoch."""


class WatchedRun(RunFolder):
    """A run folder that ends the run with `Enough`, once an epoch is as good as it should be.

    By then the model of that epoch and its figures are written.
    """

    def __init__(self, path: Path, is_enough: Callable[[dict[str, float]], bool]) -> None:
        super().__init__(path)
        self.is_enough = is_enough
        self.began = math.nan

    def locked(self) -> AbstractContextManager[None]:
        """Lock as ever: all is put together by now, and training begins."""
        self.began = time.perf_counter()
        return super().locked()

    def write_metrics(self, history: Any) -> None:
        """Write as ever; then look at the newest epoch."""
        super().write_metrics(history)
        if self.is_enough(history[-1]["validation"]):
            raise Enough


def prepare(race: Race, seed: int) -> tuple[TrainBagsConfig, BagCases]:
    """Return our configuration and its bags: each seed has bags and weights of its own."""
    words = ["--config", str(CONFIGS / race.config)]
    config = resolve(parse_config(TrainBagsConfig, words, "train_bags"))
    changes = {
        "seed": seed, "data.split_seed": seed, "data.counts": race.counts, "device": "cpu",
        "epochs": race.epochs, "patience": None,
    }  # fmt: skip
    config = updated(config, changes)
    cases = load_bag_cases(config)
    shape = cases.dataset(config, "train").instance_shape
    return settle(config, cases.classes, shape), cases


def published_bags(config: TrainBagsConfig, cases: BagCases, split: str) -> list[Bag]:
    """Return the same bags one by one."""
    dataset = cases.dataset(config, split)
    samples = [dataset[number] for number in range(len(dataset))]
    return [(sample["instances"], torch.tensor([sample["label"]])) for sample in samples]


def adopt(theirs: Published, ours: BagClassifier) -> None:
    """Give the published network our start weights."""
    values = ours.encoder.state_dict().values()
    theirs.encoder.load_state_dict(dict(zip(theirs.encoder.state_dict(), values, strict=True)))
    theirs.attention.load_state_dict(attention_state(ours.pool))
    theirs.classifier.load_state_dict(ours.head.classifier.state_dict())


def run_theirs(race: Race, config: TrainBagsConfig, cases: BagCases) -> tuple[Reached, Reached]:
    """Return the best and the last epoch of the published way."""
    training, validation = (published_bags(config, cases, split) for split in ("train", "val"))
    model = race.recipe.network()
    adopt(model, build_bag_model(config, tuple(training[0][0].shape[1:])))
    return train_published(race.recipe, model, training, validation, config.seed)


def run_ours(race: Race, config: TrainBagsConfig, cases: BagCases, target: float) -> Reached | None:
    """Return the first epoch that is as good as `target`, None if there is none."""
    found: list[float] = []

    def is_enough(figures: dict[str, float]) -> bool:
        found.append(figures[race.recipe.monitor])
        return found[-1] <= target if race.recipe.monitor == "loss" else found[-1] >= target

    with tempfile.TemporaryDirectory() as folder:
        run = WatchedRun(Path(folder) / "run", is_enough)
        try:
            fit_plain(config, run, make_accelerator(config), cases)
        except Enough:
            return Reached(len(found), found[-1], time.perf_counter() - run.began)
    return None


def run_keras(config: TrainBagsConfig, cases: BagCases) -> tuple[Reached, Reached]:
    """Return the best and the last epoch of recipe K in Keras, from our start weights."""
    bags = {}
    for split in ("train", "val"):
        instances, labels = zip(*published_bags(config, cases, split), strict=True)
        bags[split] = torch.stack(instances).squeeze(2).numpy()
        bags[f"{split}_label"] = torch.cat(labels).numpy()
    network = KERAS.network()
    adopt(network, build_bag_model(config, (1, 28, 28)))
    layers = {
        "hidden": network.encoder[1], "features": network.encoder[3], "V": network.attention.V,
        "U": network.attention.U, "w": network.attention.w, "head": network.classifier,
    }  # fmt: skip
    start = {name: layer.weight.detach().numpy() for name, layer in layers.items()}
    found = bags_memory.afresh(keras_bags.train_keras, bags, start, config.seed)
    epochs = [Reached(number, *values) for number, values in enumerate(found, 1)]
    return min(epochs, key=lambda epoch: epoch.figure), epochs[-1]


def compete(race: Race, name: str, train: Callable[..., tuple[Reached, Reached]]) -> None:
    """Print the times of both for each seed, and the median of their ratios.

    Args:
        race: what is compared.
        name: of the published way.
        train: does it; called with the configuration and the bags.
    """
    monitor = race.recipe.monitor
    print(f"bags: {race.title}, until the best validation {monitor} of one bag a step, {name}")
    ratios = []
    for seed in SEEDS:
        config, cases = prepare(race, seed)
        best, last = train(config, cases)
        ours = run_ours(race, config, cases, best.figure)
        theirs = (
            f"  seed {seed}  published {best.seconds:6.2f} s, {monitor} {best.figure:.4f} in epoch "
            f"{best.epoch} of {last.epoch} ({last.seconds:.1f} s)"
        )
        if ours is None:
            ratios.append(0.0)
            print(f"{theirs}   ours never, in {race.epochs} epochs")
            continue
        ratios.append(best.seconds / ours.seconds)
        print(
            f"{theirs}   ours {ours.seconds:5.2f} s, {ours.figure:.4f} in epoch {ours.epoch}"
            f"   {ratios[-1]:.1f}x"
        )
    middle = statistics.median(ratios)
    bags_memory.tell("speed", f"{middle:.1f}x, median", f"{race.bar:.0f}x", middle >= race.bar)


def warm_up() -> None:
    """Do both once in small: what is imported and set up at the first use is in neither time."""
    for race in RACES:
        config, cases = prepare(race, 9)
        small = updated(config, {"epochs": 1, "batch_size": 5})
        run_ours(race, small, cases, -1.0 if race.recipe.monitor == "loss" else 2.0)


def main() -> None:
    """Print all of it."""
    print(f"bags: CPU, {torch.get_num_threads()} threads")
    warm_up()
    if keras_bags.is_installed():
        compete(RACES[0], f"in Keras ({os.environ['KERAS_BACKEND']})", run_keras)
    else:
        print("bags: Keras itself is not measured: pip install tensorflow-cpu")
    for race in RACES:
        compete(race, "in plain PyTorch", partial(run_theirs, race))
    bags_memory.main()
    bags_stream.main()


if __name__ == "__main__":
    main()
