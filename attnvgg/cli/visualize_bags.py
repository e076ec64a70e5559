"""Bags of a run as rows of their instances, drawn from what `evaluate` wrote."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn, cast

import numpy as np
import pandas as pd

from attnvgg.cli.bag_cases import BagCases, load_bag_cases, pictures
from attnvgg.cli.bag_runs import read_bag_manifest, read_bags_config
from attnvgg.data.decoding import read_image
from attnvgg.errors import InputError
from attnvgg.evaluation import evaluate_predictions, read_predictions
from attnvgg.explain import BagCase, save_bag_grid
from attnvgg.models import BagClassifier
from attnvgg.training.bag_config import TrainBagsConfig
from attnvgg.training.bag_instances import read_instances
from attnvgg.training.checkpoint import load_model
from attnvgg.training.run import RunFolder

logger = logging.getLogger(__name__)


def visualize_bags(run: RunFolder, split: str, count: int, seed: int, output: Path | None) -> None:
    """Draw bags of a run, and say where the picture is.

    What is drawn is what the tables of the run say, so a picture never differs from the figures:
    `predictions.csv` and `instances.csv`, of one model or of the average of several.

    Args:
        run: of bags.
        split: "test" (or "val" where there is no test set) or "val".
        count: bags, in equal parts from each class.
        seed: of the draw.
        output: picture to write; None for attention.png in the run.

    Raises:
        InputError: the run is not finished, or its model says nothing of single instances.
    """
    config = read_bags_config(run)
    if config.data.redraw and config.seeds > 1:
        raise InputError(
            f"Every seed of {run.path} has bags of its own: draw one of them, such as "
            f"{run.path}/seed-{config.seed}."
        )
    if not run.predictions.is_file():
        raise InputError(f"{run.path} is not finished: continue it with --resume {run.path}.")
    table = read_predictions(run.predictions)
    threshold = evaluate_predictions(table)["threshold"]
    rows, name = _draw(table, split, count, seed)
    if not run.instances.is_file():
        _refuse_silent(run, config, rows["image"].tolist())
    cases = load_bag_cases(config, read_bag_manifest(run))
    instances = read_instances(run.instances)
    output = output or run.path / "attention.png"
    save_bag_grid(
        output,
        list(_cases(rows, cases, instances, threshold and threshold["value"])),
        threshold=threshold and threshold["value"],
        title=f"{run.path.name}: {len(rows)} {name} bags, drawn at random from each class",
        caption="An average of several models." if config.seeds > 1 else None,
    )
    logger.info("Written: %s", output)


def _refuse_silent(run: RunFolder, config: TrainBagsConfig, bags: list[str]) -> NoReturn:
    """Say why nothing is known of the instances of a run."""
    if config.seeds > 1 and config.pools is not None:
        raise InputError(
            f"The seeds of {run.path} have chosen pools that do not say the same of an instance, "
            f"or nothing: draw one of them, such as {run.path}/seed-{config.seed}."
        )
    first = run.path if config.seeds == 1 else run.path / f"seed-{config.seed}"
    kept = cast(BagClassifier, load_model(first)).pool
    pool = kept.spec["name"]
    if kept.has_weights or kept.level == "instance":
        raise InputError(
            f"{run.instances} is missing: write it again with `attnvgg evaluate {run.path}`, or "
            "draw one seed of several."
        )
    raise InputError(
        f"The pool of {run.path} ({pool}) has no attention, and its head does not run on single "
        "instances: there is nothing to draw of these bags:",
        bags,
    )


def _draw(table: pd.DataFrame, split: str, count: int, seed: int) -> tuple[pd.DataFrame, str]:
    """Draw bags at random, the same number from each class."""
    if split == "train":
        raise InputError("Bags are drawn from validation or test: choose --split val or test.")
    if split == "test" and "test" not in set(table["split"]):
        split = "val"
    bags = table[table["split"] == split]
    shuffled = bags.iloc[np.random.default_rng(seed).permutation(len(bags))]
    turn = shuffled.groupby("label").cumcount()  # the n-th of its class
    chosen = shuffled.assign(turn=turn).sort_values(["turn", "label"]).head(count)
    return chosen, {"test": "test", "val": "validation"}[split]


def _cases(
    rows: pd.DataFrame, cases: BagCases, instances: pd.DataFrame, threshold: float | None
) -> Iterator[BagCase]:
    """Yield the bags as they are drawn, from the most probable to the least."""
    found = [_case(row, cases, instances, threshold) for row in rows.to_dict("records")]
    yield from sorted(found, key=lambda case: -case.probability)


def _case(
    row: dict[Any, Any], cases: BagCases, instances: pd.DataFrame, threshold: float | None
) -> BagCase:
    mine = instances[instances["index"] == row["index"]]
    names = [str(name) for name in mine if str(name).startswith(("weight", "probability"))]
    is_weight = names[0].startswith("weight")
    probability, called, scored = decide(row, cases.classes, threshold)
    bag = cases.manifest.iloc[row["index"]]
    shown = pictures(cases, bag.to_dict())
    if shown is not None and isinstance(shown[0], str):
        shown = _Files(shown)  # type: ignore[assignment]
    if is_weight:
        weights = mine[names].to_numpy()
    else:  # of several classes, the one whose probability is quoted for the bag
        weights = mine[names[cases.classes.index(scored) if len(names) > 1 else 0]].to_numpy()
    return BagCase(
        name=Path(str(row["image"])).name,
        probability=probability,
        predicted=called,
        label=cases.classes[int(row["label"])],
        scored=scored,
        weights=weights[:, 0] if is_weight and weights.shape[1] == 1 else weights,
        instances=shown,
        instance_labels=mine["label"].to_numpy() if "label" in mine else None,
        score_name="attention" if is_weight else "probability of the instance",
    )


def decide(
    row: dict[Any, Any], classes: Sequence[str], threshold: float | None
) -> tuple[float, str, str]:
    """Return the probability that is quoted, the class that is called, and the class quoted.

    Args:
        row: of a table of predictions.
        classes: names of the labels.
        threshold: of class 1, for two classes.
    """
    if "probability" in row:
        values = np.array([1 - row["probability"], row["probability"]])
    else:
        values = np.array([row[f"probability_{k}"] for k in range(len(classes))])
    if len(values) > 2 or threshold is None:
        called = int(values.argmax())
        return float(values[called]), classes[called], classes[called]
    called = int(values[1] >= threshold)
    return float(values[1]), classes[called], classes[1]


class _Files(Sequence[Any]):
    """Pictures that are read when they are drawn."""

    def __init__(self, paths: Sequence[str]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, number: Any) -> Any:
        return read_image(self.paths[number], convert=True)
