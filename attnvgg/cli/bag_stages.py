"""The first of two stages: an encoder that learns single digits, and what it makes of all."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import cast

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator
from torch import nn

from attnvgg.cli.bag_cases import BagCases
from attnvgg.cli.bag_fit import fit_plain
from attnvgg.data.splits import split_manifest
from attnvgg.errors import InputError
from attnvgg.models import BagClassifier
from attnvgg.training.bag_config import (
    BagLossConfig,
    BagModelConfig,
    BagOptimConfig,
    StageOneConfig,
    TrainBagsConfig,
)
from attnvgg.training.run import RunFolder
from attnvgg.training.sharing import load_model_everywhere

logger = logging.getLogger(__name__)

ENCODED = 512  # digits at a time through a trained encoder


def train_stage_one(
    config: TrainBagsConfig, run: RunFolder, accelerator: Accelerator, cases: BagCases
) -> nn.Module:
    """Return an encoder that was trained to tell single digits apart.

    They are bags of one digit each, so that the same loop trains them, with the same ways to stop
    and go on. None of them is in any bag of the second stage.
    """
    folder = RunFolder(run.path / "stage-1", writes=run.writes)
    options, single = stage_one(config, cases)
    logger.info("Stage 1: %d digits of their own train the encoder.", len(single.manifest))
    if folder.state.is_file() or not folder.best.is_dir():
        fit_plain(options, folder, accelerator, single)
        if accelerator.is_main_process:
            folder.state.unlink()  # 130 MB that nothing will go on from
        accelerator.wait_for_everyone()
    return cast(BagClassifier, load_model_everywhere(folder, accelerator)).encoder


def stage_one(config: TrainBagsConfig, cases: BagCases) -> tuple[TrainBagsConfig, BagCases]:
    """Return options and bags of the first stage."""
    digits = cases.digits
    assert digits is not None  # as `check` has made sure
    least = max(20, round(config.stage_one.batch_size / 0.9))
    if len(cases.reserved) < least:
        raise InputError(
            f"--stage_one.share {config.stage_one.share} leaves {len(cases.reserved)} digits to "
            f"the first stage, which needs {least}: raise it, or lower --stage_one.batch_size."
        )
    manifest = pd.DataFrame(
        {
            "image": [f"digit-{row:05d}" for row in cases.reserved],
            "label": digits.labels[cases.reserved],
            "instances": cases.reserved.astype(str),
        }
    )
    manifest = split_manifest(manifest, (0.9, 0.1, 0.0), config.data.split_seed)
    stage, names = config.stage_one, tuple(map(str, range(10)))
    options = replace(
        config,
        epochs=stage.epochs, batch_size=stage.batch_size, patience=None, monitor="loss",
        model=BagModelConfig(
            encoder=config.model.encoder, pool="mean", num_classes=10,
            chunk_size=config.model.chunk_size,
        ),
        loss=BagLossConfig(alpha=None, attention_decay=0.0), optim=BagOptimConfig(lr=stage.lr),
        data=replace(config.data, classes=names),
        stage_one=StageOneConfig(), pools=None, rates=None, name=None, resume=None,
    )  # fmt: skip
    return options, BagCases(manifest, names, digits)


def encode(
    config: TrainBagsConfig, encoder: nn.Module, cases: BagCases, accelerator: Accelerator
) -> torch.Tensor:
    """Return what the encoder makes of every digit, (n, D), on the CPU."""
    device = accelerator.device
    encoder = encoder.to(device).eval()
    everything = _all_digits(cases).dataset(config, "train")
    found = []
    with torch.inference_mode():
        for start in range(0, len(everything), ENCODED):
            rows = range(start, min(start + ENCODED, len(everything)))
            batch = everything.__getitems__(rows)["instances"]
            found.append(encoder(batch.to(device)).float().cpu())
    return torch.cat(found)


def _all_digits(cases: BagCases) -> BagCases:
    """Return every digit as a bag of its own."""
    assert cases.digits is not None
    rows = np.arange(len(cases.digits)).astype(str)
    labels = cases.digits.labels
    table = pd.DataFrame({"image": rows, "label": labels, "split": "train", "instances": rows})
    return replace(cases, manifest=table)
