"""The whole configuration of a training run on images, see `run_config`."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from attnvgg.errors import InputError
from attnvgg.training import run_config
from attnvgg.training.run_config import (
    LossConfig,
    PictureConfig,
    RunConfig,
    flatten,
    impossible,
    updated,
)

Source = Literal[
    "auto", "kaggle", "isic2016", "isic2017", "isic-archive", "csv", "folders", "sample"
]


@dataclass(frozen=True)
class DataConfig(PictureConfig):
    """Which cases, how they are split, and how a picture becomes a tensor."""

    source: Source = "auto"
    """Where the cases come from; auto: the Kaggle data under data/, else the synthetic sample."""
    root: Path | None = None
    """Folder of the source (for csv: the file); null: its usual place under data/."""
    mask: Literal["lesion", "dermoscopic"] = "lesion"
    """Which masks the ISIC folders offer to `--loss.prior`."""
    fractions: tuple[float, float, float] = (0.7, 0.1, 0.2)
    """Shares of training, validation and test, by group; [0.8, 0.2, 0] has no test set."""
    split_seed: int = 1234
    """Seed of the split."""
    keep_negatives: int | None = None
    """At most so many images of class 0 in training, of two classes; validation and test keep
    their prevalence; null: 6000 for kaggle, else all."""
    classes: tuple[str, ...] | None = None
    """Names of the classes, in the order of the labels; null: as the source names them."""
    augmentation: Literal["tutorial", "paper", "none"] = "tutorial"
    """tutorial: rotation by up to 10 degrees and flip; paper: crops, quarter turns, both flips."""
    positive_repeats: int = 1
    """How often an image of class 1 or above occurs in one pass over the training set."""
    passes: int = 1
    """Passes over the training set in one epoch."""


@dataclass(frozen=True)
class ModelConfig:
    """Which network."""

    name: Literal["attnvgg", "gap", "vgg"] = "attnvgg"
    """attnvgg, or a control of the paper: VGG-GAP, VGG with its dense layers."""
    backbone: str = "vgg16_bn"
    """vgg11, vgg13, vgg16 or vgg19, with or without _bn."""
    num_classes: int | None = None
    """Logits; null: 1 for two classes, else one a class."""
    attention: bool = True
    """false: plain averages of pool-3 and pool-4 in their place (Mel-CNN)."""
    normalize_attn: bool = True
    """true: softmax over the positions; false: a sigmoid at each."""
    dropout: float | None = None
    """Dropout before the last layer."""
    weights: str | None = "imagenet"
    """imagenet, null (random), or a file of backbone weights."""
    freeze: int = 0
    """VGG stages, from the first on, that stay as they start: 0 to 5."""
    start: str | None = None
    """Written by the run: what the backbone did start from."""


@dataclass(frozen=True)
class FrozenConfig:
    """What `--model.freeze` stages make of the images, computed once and then trained from."""

    views: int = 0
    """Augmented views of each training image that are kept; the epochs take turns with them. 0:
    nothing is kept, each step computes the frozen stages anew."""
    engine: Literal["eager", "compiled", "onnx", "openvino", "openvino-int8"] = "eager"
    """What computes them. openvino-int8 is several times faster, but the maps are not quite those
    of the model that is saved; on a GPU only eager and compiled."""
    cache: Path | None = None
    """Folder where they are kept; null: attnvgg/frozen in the user's cache folder."""
    cache_gib: float = 50.0
    """Bound of that folder in GiB; those that were not used for longest make room."""


@dataclass(frozen=True)
class ImageLossConfig(LossConfig):
    """Focal loss, and what is asked of the attention maps."""

    prior: Literal["none", "mask", "background"] = "none"
    """mask: the maps should lie where the masks of the training images lie (Dice); background:
    everywhere else, the negative control of the paper."""
    prior_weights: tuple[float, float] = (0.001, 0.01)
    """Weights of that for the maps of pool-3 and pool-4."""


@dataclass(frozen=True)
class TrainConfig(RunConfig):
    """Train a classifier and judge it on the test set; with --seeds or --folds several."""

    seeds: int = 1
    """Train so many models, with the seeds that follow `seed`, and average what they say."""
    folds: int = 1
    """Cross-validation: so many models, each tested on its own part of the patients; 1: one split,
    by `data.fractions`."""
    compile: bool = False
    """Let PyTorch write code for the training step: worth the minutes that takes on a GPU."""
    data: DataConfig = field(default_factory=DataConfig)
    """Which cases, how they are split, and how a picture becomes a tensor."""
    model: ModelConfig = field(default_factory=ModelConfig)
    """Which network."""
    frozen: FrozenConfig = field(default_factory=FrozenConfig)
    """What `--model.freeze` stages make of the images, computed once and then trained from."""
    loss: ImageLossConfig = field(default_factory=ImageLossConfig)
    """Focal loss, and what is asked of the attention maps."""


REAL = {"data.image_size": 224, "batch_size": 100, "optim.average": 0.0}
KAGGLE = REAL | {"data.keep_negatives": 6000}
SAMPLE = {"data.image_size": 96, "batch_size": 16, "optim.average": 0.98}

AT_LEAST = {
    "data.keep_negatives": 1, "data.positive_repeats": 1, "data.passes": 1, "seeds": 1, "folds": 1,
    "model.freeze": 0, "frozen.views": 0, "frozen.cache_gib": 0,
}  # fmt: skip
# What may differ between a run on images and its continuation.
CHANGEABLE = run_config.CHANGEABLE | {"compile", "frozen.cache", "frozen.cache_gib"}
STAGES = 5  # of VGG
RESOLVED = (
    "batch_size", "data.image_size", "data.resize", "data.root", "model.num_classes", "optim.lr",
)  # fmt: skip


def resolve(config: TrainConfig) -> TrainConfig:
    """Fill in what was left to the recipe, by the kind of data, and check what was said.

    Raises:
        InputError: an option that cannot be.
    """
    defaults = {"sample": SAMPLE, "kaggle": KAGGLE}.get(config.data.source, REAL)
    values = flatten(config)
    changes = {key: value for key, value in defaults.items() if values[key] is None}
    config = updated(config, changes)
    if config.data.resize is None:
        config = updated(config, {"data.resize": config.data.image_size})
    check(config)
    return config


def check(config: TrainConfig) -> None:
    """Refuse values that no run can have, before any work is done.

    Raises:
        InputError: listing them.
    """
    wrong = impossible(config, AT_LEAST)
    if config.model.name == "vgg" and config.data.image_size not in (None, 224):
        wrong.append("--model.name vgg: its dense layers need --data.image_size 224")
    wrong += _impossible_prior(config) + _impossible_freezing(config)
    if config.seeds > 1 and config.folds > 1:
        wrong.append(f"--seeds {config.seeds}: not together with --folds {config.folds}")
    if wrong:
        raise InputError("These options cannot be:", wrong)


def _impossible_prior(config: TrainConfig) -> list[str]:
    """Return what is wrong with the prior on attention, a line each."""
    loss, wrong = config.loss, []
    if not min(loss.prior_weights) >= 0 or not max(loss.prior_weights) < math.inf:
        wrong.append(f"--loss.prior_weights {list(loss.prior_weights)}: must be at least 0")
    has_maps = config.model.name == "attnvgg" and config.model.attention
    if loss.prior != "none" and not has_maps:
        wrong.append(f"--loss.prior {loss.prior}: this model has no attention maps")
    return wrong


def _impossible_freezing(config: TrainConfig) -> list[str]:
    """Return what is wrong with frozen stages and what is kept of them, a line each."""
    freeze, views, wrong = config.model.freeze, config.frozen.views, []
    if freeze > STAGES:
        wrong.append(f"--model.freeze {freeze}: VGG has {STAGES} stages")
    if not views:
        return wrong
    option = f"--frozen.views {views}"
    if not freeze:
        wrong.append(f"{option}: needs --model.freeze, the number of stages computed once")
    if config.model.name == "vgg":
        wrong.append(f"{option}: not with --model.name vgg, whose dense layers take most of a step")
    if config.loss.prior != "none":
        wrong.append(f"{option}: not with --loss.prior, whose masks would need views of their own")
    if views > 1 and config.data.augmentation == "none":
        wrong.append(f"{option}: all are alike with --data.augmentation none, keep 1")
    return wrong
