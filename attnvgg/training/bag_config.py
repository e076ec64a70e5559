"""From the options of a run on bags to a configuration without open ends, see `run_config`."""

from __future__ import annotations

import math
from typing import Any, Literal

from attnvgg.errors import InputError
from attnvgg.models import ENCODERS, POOLS
from attnvgg.training.bag_options import (
    DIGITS,
    BagDataConfig,
    BagLossConfig,
    BagModelConfig,
    BagOptimConfig,
    StageOneConfig,
    TrainBagsConfig,
)
from attnvgg.training.run_config import flatten, impossible, updated

__all__ = [
    "DIGITS",
    "RESOLVED",
    "BagDataConfig",
    "BagLossConfig",
    "BagModelConfig",
    "BagOptimConfig",
    "StageOneConfig",
    "TrainBagsConfig",
    "candidates",
    "check",
    "is_plain",
    "resolve",
    "settle",
]

AT_LEAST = {
    "seeds": 1, "data.grey_std": 1e-6, "model.width": 1, "model.branches": 1, "model.chunk_size": 1,
    "stage_one.share": 0, "stage_one.epochs": 1, "stage_one.batch_size": 2, "stage_one.lr": 0,
    "loss.elastic_net": 0, "loss.elastic_mix": 0, "loss.attention_decay": 0,
}  # fmt: skip
TILE = 128  # pixels a side, recipe G
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
    values = flatten(config)
    size = config.data.image_size or (TILE if config.data.source == "panda" else 224)
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
    wrong += _misplaced(config.data)
    if wrong:
        raise InputError("These options cannot be:", wrong)


def _misplaced(data: BagDataConfig) -> list[str]:
    """Return what is wrong with the place of the bags, and options that belong to another."""
    wrong = []
    if data.source in ("csv", "folders") and data.root is None:
        wrong.append(f"--data.source {data.source}: needs --data.root")
    if data.source == "digits" and data.root is not None:
        wrong.append(
            f"--data.root {data.root}: digits have none; say what is there by --data.source or "
            "--config"
        )
    if data.bags is not None and data.source not in ("csv", "panda"):
        wrong.append("--data.bags: only a csv and panda name bags that lie elsewhere")
    if data.source != "panda":
        if data.labels != "binary":
            wrong.append(f"--data.labels {data.labels}: only panda has grades")
        if data.tiles is not None:
            wrong.append("--data.tiles: only slides of panda are cut into tiles")
    return wrong


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
    kind = "digits" if made else "features" if len(instance_shape) == 1 else "images"
    if encoder is None:
        slides = config.data.source == "panda"
        of_features, of_images = (
            ("standardized", "panda") if slides else ("identity", "torchvision")
        )
        encoder = {"digits": "mlp", "features": of_features, "images": of_images}[kind]
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
