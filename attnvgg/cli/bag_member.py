"""Training of one seed: the plain way, by choice among pools and rates, or in two stages."""

from __future__ import annotations

import logging
import shutil
from typing import Any, cast

import pandas as pd
from accelerate import Accelerator
from torch import nn

from attnvgg.cli.bag_cases import BagCases, describe_instances
from attnvgg.cli.bag_fit import begin, fit_plain
from attnvgg.cli.bag_judge import judge_bags, keep_verdict
from attnvgg.cli.bag_stages import encode, train_stage_one
from attnvgg.files import atomic_path
from attnvgg.models import BagClassifier
from attnvgg.training.bag_config import TrainBagsConfig, candidates, is_plain
from attnvgg.training.checkpoint import load_model
from attnvgg.training.run import RunFolder
from attnvgg.training.run_config import updated
from attnvgg.training.steps import NonFiniteLoss

logger = logging.getLogger(__name__)


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
        return _judged(run, accelerator, config, cases)
    begin(run, config, cases, accelerator, size=2**20)
    with run.locked():
        encoder, bags, changes = None, cases, {}
        if config.stage_one.share:
            encoder = train_stage_one(config, run, accelerator, cases)
            bags = cases.encoded(encode(config, encoder, cases, accelerator))
            changes = {"model.encoder": "identity", "stage_one.share": 0.0}
        table = _try_all(config, changes, run, accelerator, bags)
        if accelerator.is_main_process:
            _adopt(run, table, encoder, cases, config)
        accelerator.wait_for_everyone()
    return _judged(run, accelerator, config, cases)


def _judged(
    run: RunFolder, accelerator: Accelerator, config: TrainBagsConfig, cases: BagCases
) -> dict[str, Any] | None:
    metrics = judge_bags(run, accelerator, config, cases)
    if metrics is not None:
        keep_verdict(run, metrics)
    return metrics


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
        try:
            progress = fit_plain(options, folder, accelerator, cases)
        except NonFiniteLoss:
            logger.warning("%s has diverged, and is left out.", name)
            continue
        tried.append((progress.best_score, name, options, folder, progress.best_epoch))
    if not tried:
        raise NonFiniteLoss("Every pool has diverged with every rate: lower --rates.")
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
    if encoder is not None:
        model = BagClassifier(encoder.cpu(), model.pool, model.head)
    model.save_pretrained(run.best, preprocess=describe_instances(cases, config), **kept)
    with atomic_path(run.metrics) as temporary:
        shutil.copyfile(source.metrics, temporary)
