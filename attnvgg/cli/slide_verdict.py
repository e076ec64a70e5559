"""What the models of a run on bags say of one slide, and of each of its tiles."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from attnvgg.cli.bag_runs import members, read_bags_config
from attnvgg.errors import InputError
from attnvgg.evaluation import evaluate_predictions, read_predictions
from attnvgg.evaluation.probabilities import to_probabilities
from attnvgg.models import BagClassifier
from attnvgg.training.bag_config import DIGITS, TrainBagsConfig
from attnvgg.training.checkpoint import load_model
from attnvgg.training.run import RunFolder, read_task

logger = logging.getLogger(__name__)

SAME = 1e-3  # probabilities further apart are not those of the same tiles


class Verdict(NamedTuple):
    """What the models of a run say of a slide, on average."""

    probabilities: NDArray[np.float64]
    """(K,), or (1,) of class 1."""
    weights: NDArray[np.float64]
    """(N,), or (N, M) for M branches: attention, or the probabilities (N, K) of the tiles."""
    is_attention: bool
    """Which of the two."""

    def row(self) -> dict[str, float]:
        """Return the probabilities as they are named in a table of predictions."""
        values = self.probabilities.tolist()
        if len(values) == 1:
            return {"probability": values[0]}
        return {f"probability_{k}": value for k, value in enumerate(values)}


def read_slide_config(run: RunFolder) -> TrainBagsConfig:
    """Return the configuration of a run that may have slides as bags.

    Raises:
        InputError: it has other bags, or images, or is not finished.
    """
    if read_task(run) != "bags":
        raise InputError(f"{run.path} classifies images: --slide is for runs of train_bags.")
    config = read_bags_config(run)
    if config.data.source in DIGITS:
        raise InputError(f"{run.path} has bags of digits: --slide is for runs on slides.")
    if config.data.redraw and config.seeds > 1:
        raise InputError(
            f"Every seed of {run.path} has bags of its own: draw with one of them, such as "
            f"{run.path}/seed-{config.seed}."
        )
    if not run.predictions.is_file():
        raise InputError(f"{run.path} is not finished: continue it with --resume {run.path}.")
    return config


def load_models(run: RunFolder, config: TrainBagsConfig) -> list[BagClassifier]:
    """Return the model of every seed of a run."""
    folders = [run] if config.seeds == 1 else [folder for _, folder in members(config, run)]
    models: list[Any] = [load_model(folder.path) for folder in folders]
    for model in models:
        model.chunk_size = config.model.chunk_size
    return models


def judge(model: BagClassifier, instances: Tensor) -> Verdict:
    """Return what one model says of a bag.

    Raises:
        InputError: it says nothing of single instances.
    """
    with torch.inference_mode():
        logits, attention = model(instances, torch.tensor([0, len(instances)]))
        probabilities = to_probabilities(logits.float().numpy())[0]
        if attention is not None:
            return Verdict(probabilities, attention.double().numpy(), True)
        if model.pool.level != "instance":
            raise InputError(
                f"The pool {model.pool.spec['name']} has no attention, and its head does not run "
                "on single tiles: there is no map of this model."
            )
        found = to_probabilities(model.instance_logits(instances).float().numpy())
        return Verdict(probabilities, found, False)


def average(verdicts: Sequence[Verdict], run: RunFolder) -> Verdict:
    """Return the mean over models; that of several models has no branches."""
    if len(verdicts) == 1:
        return verdicts[0]
    if len({verdict.is_attention for verdict in verdicts}) > 1:
        raise InputError(
            f"The seeds of {run.path} do not say the same of a tile: draw with one of them, such "
            f"as {run.path}/seed-0."
        )
    is_attention = verdicts[0].is_attention
    weights = [v.weights.mean(axis=1) if is_attention else v.weights for v in verdicts]
    probabilities = np.mean([verdict.probabilities for verdict in verdicts], axis=0)
    return Verdict(probabilities, np.mean(weights, axis=0), is_attention)


def read_threshold(
    run: RunFolder, bag: pd.Series[Any] | None, said: dict[str, float]
) -> float | None:
    """Return the threshold of the run; warn where it has said something else of the slide.

    Args:
        run: finished.
        bag: the slide's row in its manifest, if it has one.
        said: of the slide now, see `Verdict.row`.
    """
    table = read_predictions(run.predictions)
    judged = table[table["image"] == (None if bag is None else bag["image"])]
    for name, value in said.items():
        before = judged[name].iloc[0] if len(judged) else value
        if abs(before - value) > SAME:
            logger.warning(
                "%s says %s = %.4f of this slide, here it is %.4f: slide, tiles or features have "
                "changed since.",
                run.predictions, name, before, value,
            )  # fmt: skip
    rule = evaluate_predictions(table)["threshold"]
    return rule and float(rule["value"])
