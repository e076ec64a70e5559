"""Training of one bag model in one run folder: the plain way, by choice, or in two stages."""

from __future__ import annotations

import logging
import shutil
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator
from torch import nn

from attnvgg.cli.bag_cases import BagCases, describe_instances
from attnvgg.cli.bag_judge import judge_bags
from attnvgg.data.bag_manifest import write_bags
from attnvgg.data.splits import split_manifest
from attnvgg.files import atomic_path
from attnvgg.models import BagClassifier
from attnvgg.training.bag_config import (
    BagLossConfig,
    BagModelConfig,
    BagOptimConfig,
    StageOneConfig,
    TrainBagsConfig,
    candidates,
    is_plain,
)
from attnvgg.training.build import judging_loader
from attnvgg.training.build_bags import bag_workers, build_bag_model, make_bag_trainer
from attnvgg.training.checkpoint import Progress, load_model
from attnvgg.training.engine import fit
from attnvgg.training.predictions import Predictions, lock_threshold
from attnvgg.training.run import RunFolder
from attnvgg.training.run_config import as_plain, updated

logger = logging.getLogger(__name__)

ENCODED = 512  # digits at a time through a trained encoder


def train_member(
    config: TrainBagsConfig, run: RunFolder, accelerator: Accelerator, cases: BagCases
) -> dict[str, Any] | None:
    """Train what the configuration asks for, and judge it; go on where an earlier call ended.

    Args:
        config: resolved, of one seed.
        run: its folder, new or begun.
        accelerator: see `engine.make_accelerator`.
        cases: the bags.

    Returns:
        The content of `metrics.json`; None in all processes but the main one.
    """
    if is_plain(config):
        fit_plain(config, run, accelerator, cases)
        return judge_bags(run, accelerator, config, cases)
    begin(run, config, cases, accelerator, size=2**20)
    with run.locked():
        encoder = None
        if config.stage_one.share:
            encoder = train_stage_one(config, run, accelerator, cases)
            cases = cases.encoded(encode(config, encoder, cases, accelerator))
            changes = {"model.encoder": "identity", "stage_one.share": 0.0}
        else:
            changes = {}
        table = _try_all(config, changes, run, accelerator, cases)
        if accelerator.is_main_process:
            _adopt(run, table, encoder, cases, config)
        accelerator.wait_for_everyone()
    return judge_bags(run, accelerator, config, replace(cases, features=None))


def fit_plain(
    config: TrainBagsConfig, run: RunFolder, accelerator: Accelerator, cases: BagCases
) -> Progress:
    """Train one model and keep its best epoch."""
    training = cases.dataset(config, "train", augment=True)
    validation = cases.dataset(config, "val")
    resumed = run.state.is_file()
    model = build_bag_model(config, training.instance_shape, resumed=resumed)
    trainer = make_bag_trainer(config, accelerator, model, cases.rows("train"), training)
    begin(run, config, cases, accelerator, size=8 * _size(model))
    described = describe_instances(cases, config) if cases.features is None else {
        "kind": "features", "features": cases.features.shape[1]
    }  # fmt: skip

    def save_best(predictions: Predictions, row: dict[str, Any]) -> None:
        cast(BagClassifier, trainer.judged).save_pretrained(
            run.best,
            preprocess=described,
            classes=list(cases.classes),
            threshold=lock_threshold(predictions),
            validation=row,
        )

    loader = judging_loader(
        config, accelerator, validation, bag_workers(config, accelerator, validation)
    )
    with run.locked():
        return fit(trainer, loader, run, save_best)


def begin(
    run: RunFolder, config: TrainBagsConfig, cases: BagCases, accelerator: Accelerator, size: int
) -> None:
    """Make the folder of a run with its options and its bags, unless it is there."""
    if accelerator.is_main_process and not run.config.is_file():
        if run.path.is_dir():  # the run was ended between two lines
            for leftover in (run.manifest, *run.path.glob(".*-*")):
                leftover.unlink(missing_ok=True)
            run.path.rmdir()
        run.create(needed_bytes=size)
        write_bags(cases.manifest, run.manifest)
        run.write_config(as_plain(config))
    accelerator.wait_for_everyone()


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
    return cast(BagClassifier, load_model(folder.path)).encoder


def stage_one(config: TrainBagsConfig, cases: BagCases) -> tuple[TrainBagsConfig, BagCases]:
    """Return options and bags of the first stage."""
    digits = cases.digits
    assert digits is not None  # as `check` has made sure
    manifest = pd.DataFrame(
        {
            "image": [f"digit-{row:05d}" for row in cases.reserved],
            "label": digits.labels[cases.reserved],
            "instances": cases.reserved.astype(str),
        }
    )
    manifest = split_manifest(manifest, (0.9, 0.1, 0.0), config.data.split_seed)
    stage = config.stage_one
    options = replace(
        config,
        epochs=stage.epochs, batch_size=stage.batch_size, patience=None, monitor="loss",
        model=BagModelConfig(encoder=config.model.encoder, pool="mean", num_classes=10),
        loss=BagLossConfig(alpha=None, attention_decay=0.0), optim=BagOptimConfig(lr=stage.lr),
        stage_one=StageOneConfig(), pools=None, rates=None, name=None, resume=None,
    )  # fmt: skip
    return options, BagCases(manifest, tuple(map(str, range(10))), digits)


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


def _try_all(
    config: TrainBagsConfig,
    changes: dict[str, Any],
    run: RunFolder,
    accelerator: Accelerator,
    cases: BagCases,
) -> pd.DataFrame:
    """Train every pool with every rate; judge each pool's best rate on validation and test.

    Returns:
        `pools.csv`: a row a pool with its rate, its figures, and whether it is the chosen one.
    """
    tried = []
    for name, candidate in candidates(config).items():
        folder = RunFolder(run.path / "candidates" / name, writes=run.writes)
        options = updated(candidate, changes)
        progress = fit_plain(options, folder, accelerator, cases)
        tried.append((progress.best_score, name, options, folder, progress.best_epoch))
    rows = []
    for pool in dict.fromkeys(options.model.pool for _, _, options, _, _ in tried):
        score, name, options, folder, epoch = max(
            (one for one in tried if one[2].model.pool == pool), key=lambda one: one[0]
        )
        metrics = judge_bags(folder, accelerator, options, cases, quiet=True)
        row = {"pool": pool, "rate": options.optim.lr, "epoch": epoch, "candidate": name}
        row[f"validation_{config.monitor}"] = -score if config.monitor == "loss" else score
        rows.append(row | _figures(metrics))
    table = pd.DataFrame(rows)
    scores = table[f"validation_{config.monitor}"]
    best = scores.idxmin() if config.monitor == "loss" else scores.idxmax()
    table["chosen"] = table.index == best
    if accelerator.is_main_process:
        with atomic_path(run.path / "pools.csv") as temporary:
            table.to_csv(temporary, index=False)
    return table


def _figures(metrics: dict[str, Any] | None) -> dict[str, Any]:
    """Return the figures of a pool's row; none in a process that did not judge."""
    if metrics is None:
        return {}
    judged = metrics[metrics["judged_on"]]
    found = {"auc": judged["auc"]["value"], "accuracy": metrics["accuracy"]["value"]}
    if metrics["instances"] is not None:
        found["top_positive"] = metrics["instances"]["top_positive"]
    return found


def _adopt(
    run: RunFolder,
    table: pd.DataFrame,
    encoder: nn.Module | None,
    cases: BagCases,
    config: TrainBagsConfig,
) -> None:
    """Make the chosen candidate the model of the run, with its encoder if that was trained here."""
    chosen = table[table["chosen"]].iloc[0]
    source = RunFolder(run.path / "candidates" / chosen["candidate"])
    logger.info("Chosen on validation: %s, learning rate %g.", chosen["pool"], chosen["rate"])
    model = cast(BagClassifier, load_model(source.path))
    kept = {key: model.config[key] for key in ("classes", "threshold", "validation")}
    plain = replace(cases, features=None)
    described = describe_instances(plain, config)
    if encoder is not None:
        model = BagClassifier(encoder.cpu(), model.pool, model.head)
    model.save_pretrained(run.best, preprocess=described, **kept)
    with atomic_path(run.metrics) as temporary:
        shutil.copyfile(source.metrics, temporary)


def _size(model: nn.Module) -> int:
    return sum(value.numel() * value.element_size() for value in model.state_dict().values())
