"""The whole configuration of a training run on bags, see `run_config`; recipe K by default."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from attnvgg.errors import InputError
from attnvgg.models import ENCODERS, POOLS
from attnvgg.training.run_config import (
    LossConfig,
    OptimConfig,
    PictureConfig,
    RunConfig,
    flatten,
    impossible,
    updated,
)

DIGITS = ("digits", "mnist")


@dataclass(frozen=True)
class BagDataConfig(PictureConfig):
    """Which bags, how they are split, and how an instance becomes a tensor."""

    source: Literal["digits", "mnist", "csv", "folders"] = "digits"
    """digits: made of 5,000 digits of MNIST, offline; mnist: of all of them, once they are on the
    disk; csv: a table of bags; folders: <class>/<bag>."""
    root: Path | None = None
    """mnist: the folder that holds MNIST/raw (null: data); csv: the file; folders: the folder."""
    bags: Path | None = None
    """Folder of the bags that a csv names; then every bag in it needs a label."""
    fractions: tuple[float, float, float] | None = None
    """Shares of training, validation and test: of the bags, or of the digits that bags are made
    of; null: [0.68, 0.12, 0.2] of the digits, [0.7, 0.1, 0.2] of the bags."""
    split_seed: int = 0
    """Seed of the split and, for digits, of the bags."""
    redraw: bool = False
    """Of several seeds, each has a split (and digit bags) of its own: an honest spread, but no
    ensemble, because their test sets differ."""
    counts: tuple[int, int, int] = (1000, 300, 1000)
    """Digit bags of training, validation and test."""
    target: int = 1
    """Digit that makes a bag positive."""
    lengths: Literal["fixed", "uniform", "normal"] = "fixed"
    """Digits in a bag: size[0]; from size[0] to size[1]; or normal of that mean and deviation."""
    size: tuple[float, float] = (3, 3)
    """The two numbers of `lengths`."""
    positives: Literal["natural", "planted"] = "natural"
    """natural: bags as drawn; planted: half of them hold the target."""
    grey_mean: float = 0.0
    """Mean of a digit's pixels, in [0, 1]."""
    grey_std: float = 1.0
    """Their standard deviation."""
    classes: tuple[str, ...] | None = None
    """Names of the classes, in the order of the labels; null: as the source names them."""
    augmentation: Literal["tutorial", "paper", "none"] = "none"
    """Of the images in folders, see scripts/train.py."""


@dataclass(frozen=True)
class BagModelConfig:
    """Which encoder, pool and head."""

    encoder: str | None = None
    """mlp, lenet, digit_resnet18, attnvgg, torchvision, timm, or identity for features; null: mlp
    for digits, identity for features, torchvision for images."""
    backbone: str | None = None
    """Network of the encoder, for torchvision and timm; null: its own default."""
    weights: str | None = None
    """Weights of the encoder: null (random), imagenet (for timm: its own), or a file."""
    freeze: bool = False
    """Keep the encoder as it is, in eval mode."""
    pool: str = "gated_attention"
    """attention, gated_attention, multi_branch, leaky_attention, softmax_mean, noisy_and, mean,
    max, log_sum_exp."""
    level: Literal["embedding", "instance"] = "embedding"
    """Of mean, max and log_sum_exp: pool the features, or the logits of the instances."""
    width: int = 256
    """Hidden features of the attention."""
    branches: int = 4
    """Of multi_branch."""
    bias: bool = False
    """Whether the attention layers have biases."""
    init: Literal["default", "glorot"] = "glorot"
    """How the attention layers begin: PyTorch's way or Glorot's."""
    head: Literal["linear", "mlp"] = "linear"
    """Last layer: linear, or 1,024 hidden features with LeakyReLU and dropout."""
    dropout: float = 0.1
    """Of the mlp head."""
    num_classes: int | None = None
    """Logits; null: one a class, of files 1 for two classes."""
    chunk_size: int | Literal["auto"] | None = "auto"
    """A batch of more instances is pooled in pieces of so many, exactly; null: never; auto: 65536,
    of images 64 with a frozen encoder and never with another."""


@dataclass(frozen=True)
class StageOneConfig:
    """Digits that an encoder is trained on first, one by one and with their own labels."""

    share: float = 0.0
    """Share of the digits kept for it, none of which is in any bag; 0: there is no first stage."""
    epochs: int = 5
    """Number of epochs."""
    batch_size: int = 256
    """Digits a step."""
    lr: float = 1e-3
    """Learning rate of Adam."""


@dataclass(frozen=True)
class BagLossConfig(LossConfig):
    """Focal loss (gamma 0: cross-entropy) and penalties of the weights."""

    gamma: float = 0.0
    """Focusing exponent; 0 is cross-entropy."""
    alpha: float | tuple[float, ...] | Literal["balanced"] | None = "balanced"
    """Weight of class 1 (class 0 gets the rest), or a weight a class; balanced: from the training
    frequencies."""
    elastic_net: float = 0.0
    """Strength r of r ((1 - a) mean |W| + a mean W^2) over the weight matrices."""
    elastic_mix: float = 0.5
    """The share a of the squares in it."""
    attention_decay: float = 0.01
    """Strength of the sum of squares of the attention layers' weights."""


@dataclass(frozen=True)
class BagOptimConfig(OptimConfig):
    """Optimiser and its schedule."""

    lr: float | None = 3e-3
    """Learning rate."""
    average: float | None = 0.0
    """Decay of a running average of the weights, which then is what is validated and saved; 0 for
    none."""


@dataclass(frozen=True)
class TrainBagsConfig(RunConfig):
    """Train a classifier of bags and judge it on the test bags."""

    task: Literal["bags"] = "bags"
    """What is classified; tells this configuration from that of images."""
    epochs: int = 20
    """Number of epochs."""
    seed: int = 0
    """Seed of weights and order."""
    seeds: int = 1
    """Train so many models, with the seeds that follow `seed`, and average what they say."""
    batch_size: int | None = None
    """Bags a step over all processes, of any lengths, without padding; null: 32 of digits, 8 of
    features, 1 of images."""
    eval_batch_size: int | None = None  # type: ignore[assignment]
    """Bags a step in validation and test, a process; null: 256 of digits, 8 of features, 1 of
    images."""
    monitor: Literal["auc", "average_precision", "loss"] = "loss"
    """Validation figure that chooses the best epoch, and among pools and rates."""
    patience: int | None = 10
    """Stop after so many epochs without a better one."""
    pools: tuple[str, ...] | None = None
    """Train each of these pools, and keep the one that is best on validation."""
    rates: tuple[float, ...] | None = None
    """Try each of these learning rates, and keep the one that is best on validation."""
    data: BagDataConfig = field(default_factory=BagDataConfig)
    """Which bags, how they are split, and how an instance becomes a tensor."""
    model: BagModelConfig = field(default_factory=BagModelConfig)
    """Which encoder, pool and head."""
    stage_one: StageOneConfig = field(default_factory=StageOneConfig)
    """Digits that the encoder is trained on first."""
    loss: BagLossConfig = field(default_factory=BagLossConfig)
    """Focal loss (gamma 0: cross-entropy) and penalties of the weights."""
    optim: BagOptimConfig = field(default_factory=BagOptimConfig)
    """Optimiser and its schedule."""


AT_LEAST = {
    "seeds": 1, "data.grey_std": 1e-6, "model.width": 1, "model.branches": 1, "model.chunk_size": 1,
    "stage_one.share": 0, "stage_one.epochs": 1, "stage_one.batch_size": 2, "stage_one.lr": 0,
    "loss.elastic_net": 0, "loss.elastic_mix": 0, "loss.attention_decay": 0,
}  # fmt: skip
RESOLVED = (
    "batch_size", "eval_batch_size", "data.fractions", "data.image_size", "data.resize",
    "model.num_classes", "model.encoder", "optim.lr",
)  # fmt: skip


def resolve(config: TrainBagsConfig) -> TrainBagsConfig:
    """Fill in what was left to the recipe, by the kind of data, and check what was said.

    Raises:
        InputError: an option that cannot be.
    """
    check(config)
    made = config.data.source in DIGITS
    values, size = flatten(config), config.data.image_size or 224
    defaults: dict[str, Any] = {
        "data.fractions": (0.68, 0.12, 0.2) if made else (0.7, 0.1, 0.2),
        "data.image_size": size,
        "data.resize": size,
        "optim.lr": 3e-3,
    }
    return updated(config, {key: value for key, value in defaults.items() if values[key] is None})


def check(config: TrainBagsConfig) -> None:
    """Refuse values that no run can have, before any work is done.

    Raises:
        InputError: listing them.
    """
    wrong = impossible(config, AT_LEAST)
    pools = config.pools if config.pools is not None else (config.model.pool,)
    said, known = "--model.pool" if config.pools is None else "--pools", ", ".join(POOLS)
    wrong += [f"{said} {pool}: known are {known}" for pool in pools if pool not in POOLS]
    if not pools or len(set(pools)) < len(pools):
        wrong.append("--pools: must name pools, each once")
    if config.model.encoder not in (None, *ENCODERS):
        wrong.append(f"--model.encoder {config.model.encoder}: known are {', '.join(ENCODERS)}")
    for rate in config.rates or ():
        if not 0 < rate < math.inf:
            wrong.append(f"--rates {rate}: must be above 0")
    if config.rates is not None and len(set(config.rates)) < max(1, len(config.rates)):
        wrong.append("--rates: must name rates, each once")
    if config.stage_one.share >= 1:
        wrong.append(f"--stage_one.share {config.stage_one.share}: must be below 1")
    if config.stage_one.share and config.data.source not in DIGITS:
        wrong.append("--stage_one.share: only digits have labels of their own to train on")
    if config.loss.elastic_mix > 1:
        wrong.append(f"--loss.elastic_mix {config.loss.elastic_mix}: must be at most 1")
    if config.data.source not in DIGITS and config.data.root is None:
        wrong.append(f"--data.source {config.data.source}: needs --data.root")
    if config.data.bags is not None and config.data.source != "csv":
        wrong.append("--data.bags: only a csv names bags that lie elsewhere")
    if wrong:
        raise InputError("These options cannot be:", wrong)


def settle(
    config: TrainBagsConfig, classes: tuple[str, ...], instance_shape: tuple[int, ...]
) -> TrainBagsConfig:
    """Fill in what depends on the bags: classes, logits, encoder, bags a step, chunks.

    Args:
        config: resolved.
        classes: names of the labels.
        instance_shape: of one instance.

    Raises:
        InputError: the number of logits that was asked for does not fit the labels.
    """
    made, count = config.data.source in DIGITS, len(classes)
    logits, encoder = config.model.num_classes, config.model.encoder
    if logits is None:
        logits = 1 if count == 2 and not made else count
    if logits != count and (logits, count) != (1, 2):
        raise InputError(f"--model.num_classes {logits} does not fit labels of {count} classes.")
    if encoder is None:
        encoder = "mlp" if made else "identity" if len(instance_shape) == 1 else "torchvision"
    kind = "digits" if made else "features" if len(instance_shape) == 1 else "images"
    steps, judged = {"digits": (32, 256), "features": (8, 8), "images": (1, 1)}[kind]
    chunk: int | Literal["auto"] | None = config.model.chunk_size
    if chunk == "auto":
        chunk = 65536 if kind != "images" else 64 if config.model.freeze else None
    changes = {
        "data.classes": classes,
        "model.num_classes": logits,
        "model.encoder": encoder,
        "model.chunk_size": chunk,
        "batch_size": config.batch_size or steps,
        "eval_batch_size": config.eval_batch_size or judged,
    }
    return updated(config, changes)


def is_plain(config: TrainBagsConfig) -> bool:
    """Tell whether there is one model to train: no choice of pools or rates, no first stage."""
    return config.pools is None and config.rates is None and not config.stage_one.share


def candidates(config: TrainBagsConfig) -> dict[str, TrainBagsConfig]:
    """Return the configuration of each pool and rate that is tried, by a name for its folder."""
    found = {}
    for pool in config.pools or (config.model.pool,):
        for rate in config.rates or (config.optim.lr,):
            changes = {"model.pool": pool, "optim.lr": rate, "pools": None, "rates": None}
            found[f"{pool}-lr{rate}"] = updated(config, changes)
    return found
