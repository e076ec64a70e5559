"""The options of a training run on bags, see `run_config`; recipe K by default."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from attnvgg.training.run_config import LossConfig, OptimConfig, PictureConfig, RunConfig

DIGITS = ("digits", "mnist")


@dataclass(frozen=True)
class BagDataConfig(PictureConfig):
    """Which bags, how they are split, and how an instance becomes a tensor."""

    source: Literal["digits", "mnist", "csv", "folders", "panda"] = "digits"
    """digits: made of 5,000 digits of MNIST, offline; mnist: of all of them, once they are on the
    disk; csv: a table of bags; folders: <class>/<bag>; panda: train.csv and slides, or tiles cut
    from them."""
    root: Path | None = None
    """mnist: the folder that holds MNIST/raw (null: data); csv: the file; folders, panda: the
    folder (panda, null: a sample that is drawn once)."""
    bags: Path | None = None
    """Folder of the bags that a csv names; then every bag in it needs a label. Of panda, the
    folder of feature files of its slides, which then are the bags."""
    labels: Literal["binary", "isup"] = "binary"
    """What panda asks for: cancer or none (ISUP grade 1 or more), or the grade from 0 to 5."""
    tiles: Path | None = None
    """Folder where the 16 tiles of each slide of panda are kept; null: attnvgg/tiles in the user's
    cache folder."""
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
    augmentation: Literal["tutorial", "paper", "stain", "none"] = "none"
    """Of the images in folders, see scripts/train.py; stain: other amounts of haematoxylin and
    eosin, quarter turns and flips."""


@dataclass(frozen=True)
class BagModelConfig:
    """Which encoder, pool and head."""

    encoder: str | None = None
    """mlp, lenet, digit_resnet18, panda, attnvgg, torchvision, timm; for features standardized (by
    the mean and deviation of training, then a dense layer) or identity; null: mlp for digits,
    of slides panda for tiles and standardized for features, of others torchvision and identity."""
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
