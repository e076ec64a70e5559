"""The whole configuration of a training run as one tree of frozen dataclasses.

The command line and the YAML files are generated from it; a value of `null` means "the recipe's
own", and `resolve` fills it in, so that `config.yaml` in the run folder has no open ends.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal

from attnvgg.data.transforms import IMAGENET_MEAN, IMAGENET_STD
from attnvgg.errors import InputError

Source = Literal[
    "auto", "kaggle", "isic2016", "isic2017", "isic-archive", "csv", "folders", "sample"
]


@dataclass(frozen=True)
class DataConfig:
    """Which cases, how they are split, and how a picture becomes a tensor."""

    source: Source = "auto"
    """Where the cases come from; auto: the Kaggle data under data/, else the synthetic sample."""
    root: Path | None = None
    """Folder of the source (for csv: the file); null: its usual place under data/."""
    mask: Literal["lesion", "dermoscopic"] = "lesion"
    """Which masks the ISIC folders offer to the run."""
    fractions: tuple[float, float, float] = (0.7, 0.1, 0.2)
    """Shares of training, validation and test, by group; [0.8, 0.2, 0] has no test set."""
    split_seed: int = 1234
    """Seed of the split."""
    keep_negatives: int | None = None
    """At most so many images of class 0 in training, of two classes; validation and test keep
    their prevalence; null: 6000 for kaggle, else all."""
    classes: tuple[str, ...] | None = None
    """Names of the classes, in the order of the labels; null: as the source names them."""
    image_size: int | None = None
    """Side of the model's input in pixels; null: 224 (the sample: 96)."""
    resize: int | None = None
    """Side to which the square cut-out is resized before the crop; null: image_size."""
    crop: float = 1.0
    """Side of the centre square as a share of the shorter image side."""
    mean: tuple[float, float, float] = IMAGENET_MEAN
    """Mean of each colour channel, in [0, 1]."""
    std: tuple[float, float, float] = IMAGENET_STD
    """Standard deviation of each colour channel."""
    augmentation: Literal["tutorial", "paper", "none"] = "tutorial"
    """tutorial: rotation by up to 10 degrees and flip; paper: crops, quarter turns, both flips."""
    convert: bool = False
    """Accept 16-bit, CMYK, grey, palette, transparent and EXIF-rotated files, converted."""
    positive_repeats: int = 1
    """How often an image of class 1 or above occurs in one pass over the training set."""
    passes: int = 1
    """Passes over the training set in one epoch."""
    workers: int | None = None
    """Loader processes; null: one less than the cores, at most 8."""
    cache: Path | None = None
    """Folder of decoded images; null: attnvgg/images in the user's cache folder."""
    cache_gib: float = 20.0
    """Bound of that folder in GiB; 0 turns it off."""


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
    start: str | None = None
    """Written by the run: what the backbone did start from."""


@dataclass(frozen=True)
class LossConfig:
    """Focal loss."""

    gamma: float = 2.0
    """Focusing exponent; 0 is cross-entropy."""
    alpha: float | tuple[float, ...] | Literal["balanced"] | None = None
    """Weight of class 1 (class 0 gets the rest), or a weight a class; balanced: from the training
    frequencies."""


@dataclass(frozen=True)
class OptimConfig:
    """Optimiser and its schedule."""

    name: Literal["adam", "adamw", "sgd"] = "adam"
    """Optimiser (sgd is with Nesterov momentum)."""
    lr: float | None = None
    """Learning rate; null: 1e-4 from pretrained weights, 5e-4 from random ones."""
    momentum: float = 0.9
    """Momentum of sgd."""
    weight_decay: float = 0.0
    """L2 penalty (adam, sgd) or decoupled decay (adamw)."""
    schedule: Literal["constant", "step", "cosine"] = "constant"
    """step: x0.1 every `step_epochs`; cosine: to zero over all epochs."""
    step_epochs: int = 10
    """Epochs between two steps of the step schedule."""
    warmup_steps: int = 0
    """Optimiser steps of linear warm-up."""
    clip: float | None = None
    """Largest norm of the gradient."""
    average: float | None = None
    """Decay of a running average of the weights, which then is what is validated and saved; 0 for
    none; null: none (the sample: 0.98)."""


@dataclass(frozen=True)
class TrainConfig:
    """Train a classifier and judge it on the test set."""

    epochs: int = 2
    """Number of epochs."""
    seed: int = 1234
    """Seed of weights, order and augmentation."""
    batch_size: int | None = None
    """Images a step over all processes; null: 100 (the sample: 16)."""
    eval_batch_size: int = 50
    """Images a step in validation and test, a process."""
    accumulate: int = 1
    """Batches whose gradients are averaged into one optimiser step of batch_size x accumulate."""
    precision: Literal["no", "bf16", "fp16"] = "no"
    """Mixed precision."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto takes the GPU where there is one."""
    threads: int | None = None
    """CPU threads; null: PyTorch's choice."""
    monitor: Literal["auc", "average_precision", "loss"] = "auc"
    """Validation figure that chooses the best epoch."""
    patience: int | None = None
    """Stop after so many epochs without a better one."""
    save_minutes: float = 15.0
    """A resumable state is also written so often within an epoch."""
    out: Path = Path("runs")
    """Folder of all runs."""
    name: str | None = None
    """Name of the run's folder; null: date and time."""
    resume: Path | None = None
    """Run folder to continue; only how long it goes on, and on which machine, may change."""
    data: DataConfig = field(default_factory=DataConfig)
    """Which cases, how they are split, and how a picture becomes a tensor."""
    model: ModelConfig = field(default_factory=ModelConfig)
    """Which network."""
    loss: LossConfig = field(default_factory=LossConfig)
    """Focal loss."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    """Optimiser and its schedule."""


# What may differ between a run and its continuation: how long, and on which machine.
CHANGEABLE = {
    "epochs", "patience", "device", "threads", "save_minutes", "resume",
    "data.workers", "data.cache", "data.cache_gib", "eval_batch_size",
}  # fmt: skip

REAL = {"data.image_size": 224, "batch_size": 100, "optim.average": 0.0}
KAGGLE = REAL | {"data.keep_negatives": 6000}
SAMPLE = {"data.image_size": 96, "batch_size": 16, "optim.average": 0.98}

AT_LEAST = {
    "epochs": 1, "seed": 0, "batch_size": 1, "eval_batch_size": 1, "accumulate": 1, "threads": 1,
    "patience": 1, "save_minutes": 0, "data.split_seed": 0, "data.keep_negatives": 1,
    "data.image_size": 32, "data.positive_repeats": 1, "data.passes": 1, "data.workers": 0,
    "data.cache_gib": 0, "model.num_classes": 1, "model.dropout": 0, "loss.gamma": 0,
    "optim.lr": 0, "optim.momentum": 0, "optim.weight_decay": 0, "optim.step_epochs": 1,
    "optim.warmup_steps": 0, "optim.clip": 0, "optim.average": 0,
}  # fmt: skip
RESOLVED = (
    "batch_size", "data.image_size", "data.resize", "data.root", "model.num_classes", "optim.lr",
)  # fmt: skip
BELOW_ONE = ("model.dropout", "optim.momentum", "optim.average")


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
    values = flatten(config)
    wrong = [
        f"--{key} {values[key]}: must be at least {lowest}"
        for key, lowest in AT_LEAST.items()
        if values[key] is not None and not lowest <= values[key] < math.inf
    ]
    wrong += [
        f"--{key} {values[key]}: must be below 1"
        for key in BELOW_ONE
        if values[key] is not None and values[key] >= 1
    ]
    if config.name is not None and Path(config.name).name != config.name:
        wrong.append(f"--name {config.name}: must be a name, not a path (--out is for the folder)")
    if config.model.name == "vgg" and config.data.image_size not in (None, 224):
        wrong.append("--model.name vgg: its dense layers need --data.image_size 224")
    if wrong:
        raise InputError("These options cannot be:", wrong)


def require_resolved(config: TrainConfig, origin: Path) -> None:
    """Refuse the configuration of a run that lacks what every run has written.

    Raises:
        InputError: listing what is missing.
    """
    values = flatten(config)
    missing = [f"--{key}" for key in RESOLVED if values[key] is None]
    if missing:
        raise InputError(f"{origin} is damaged, these are missing:", missing)


def flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    """Return {"data.root": ..., "epochs": ...}: every leaf under its dotted name."""
    leaves: dict[str, Any] = {}
    for item in fields(config):
        value = getattr(config, item.name)
        if is_dataclass(value):
            leaves |= flatten(value, f"{prefix}{item.name}.")
        else:
            leaves[prefix + item.name] = value
    return leaves


def updated(config: Any, changes: Mapping[str, Any]) -> Any:
    """Return a copy of the tree with the leaves of these dotted names replaced."""
    for dotted, value in changes.items():
        head, _, rest = dotted.partition(".")
        new = updated(getattr(config, head), {rest: value}) if rest else value
        config = replace(config, **{head: new})
    return config


def as_plain(config: Any) -> dict[str, Any]:
    """Return nested dictionaries of plain values, as written to `config.yaml`."""
    return {key: _plain(value) for key, value in asdict(config).items()}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, tuple):
        return list(value)
    return str(value) if isinstance(value, Path) else value
