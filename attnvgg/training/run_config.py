"""What every training run can be told, and how trees of such options are handled.

The command line and the YAML files are generated from frozen dataclasses; a value of `null` means
"the recipe's own" and is filled in before a run begins: its `config.yaml` has no open ends.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal

from attnvgg.data.transforms import IMAGENET_MEAN, IMAGENET_STD
from attnvgg.errors import InputError


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
class PictureConfig:
    """How a picture becomes a tensor, and who does it."""

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
    convert: bool = False
    """Accept 16-bit, CMYK, grey, palette, transparent and EXIF-rotated files, converted."""
    workers: int | None = None
    """Loader processes; null: one less than the cores, at most 8."""
    cache: Path | None = None
    """Folder of decoded images; null: attnvgg/images in the user's cache folder."""
    cache_gib: float = 20.0
    """Bound of that folder in GiB; 0 turns it off."""


@dataclass(frozen=True)
class RunConfig:
    """What a run of any kind of cases can be told."""

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
    loss: LossConfig = field(default_factory=LossConfig)
    """Focal loss."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    """Optimiser and its schedule."""


# What may differ between a run and its continuation: how long, and on which machine.
CHANGEABLE = {
    "epochs", "patience", "device", "threads", "save_minutes", "resume",
    "data.workers", "data.cache", "data.cache_gib", "eval_batch_size",
}  # fmt: skip

AT_LEAST = {
    "epochs": 1, "seed": 0, "batch_size": 1, "eval_batch_size": 1, "accumulate": 1, "threads": 1,
    "patience": 1, "save_minutes": 0, "data.split_seed": 0, "data.image_size": 32,
    "data.workers": 0, "data.cache_gib": 0, "model.num_classes": 1, "model.dropout": 0,
    "loss.gamma": 0, "optim.lr": 0, "optim.momentum": 0, "optim.weight_decay": 0,
    "optim.step_epochs": 1, "optim.warmup_steps": 0, "optim.clip": 0, "optim.average": 0,
}  # fmt: skip
AT_MOST = {"seed": 2**32 - 1, "data.split_seed": 2**32 - 1}
BELOW_ONE = ("model.dropout", "optim.momentum", "optim.average")


def impossible(config: RunConfig, at_least: Mapping[str, float]) -> list[str]:
    """Return what is wrong with single values, a line each.

    Args:
        config: any tree of options.
        at_least: lowest values by dotted name, beside those that hold for every run.
    """
    values = flatten(config)
    wrong = [
        f"--{key} {values[key]}: must be at least {lowest}"
        for key, lowest in (AT_LEAST | dict(at_least)).items()
        if isinstance(values.get(key), int | float) and not lowest <= values[key] < math.inf
    ]
    wrong += [
        f"--{key} {values[key]}: must be at most {highest}"
        for key, highest in AT_MOST.items()
        if values.get(key) is not None and values[key] > highest
    ]
    wrong += [
        f"--{key} {values[key]}: must be below 1"
        for key in BELOW_ONE
        if values.get(key) is not None and values[key] >= 1
    ]
    if config.name is not None and Path(config.name).name != config.name:
        wrong.append(f"--name {config.name}: must be a name, not a path (--out is for the folder)")
    return wrong


def require_resolved(config: RunConfig, names: Sequence[str], origin: Path) -> None:
    """Refuse the configuration of a run that lacks what every run has written.

    Raises:
        InputError: listing what is missing.
    """
    values = flatten(config)
    missing = [f"--{key}" for key in names if values[key] is None]
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
