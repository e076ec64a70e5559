"""Several models of one recipe: the seeds of one split, or the folds of a cross-validation."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, NamedTuple

import pandas as pd
from accelerate import Accelerator

from attnvgg.cli.common import parse_config
from attnvgg.cli.image_ensemble import combine_folds, combine_seeds
from attnvgg.data.folds import fold_manifests
from attnvgg.data.images import prepare_images
from attnvgg.data.splits import check_splits, subsample_negatives
from attnvgg.errors import InputError
from attnvgg.training.build import loader_workers
from attnvgg.training.build_images import build_model, make_datasets, make_trainer
from attnvgg.training.config import RESOLVED, TrainConfig
from attnvgg.training.run import RunFolder, read_cases
from attnvgg.training.run_config import require_resolved, updated
from attnvgg.training.signals import Interrupted

logger = logging.getLogger(__name__)

Judge = Callable[[RunFolder, Accelerator, TrainConfig], dict[str, Any] | None]
Train = Callable[..., dict[str, Any] | None]


def read_config(run: RunFolder) -> TrainConfig:
    """Return the configuration that a run was made with."""
    config: TrainConfig = parse_config(TrainConfig, ["--config", str(run.config)], "train")
    require_resolved(config, RESOLVED, run.config)
    return config


class Member(NamedTuple):
    """One of several models: its options, its folder, its cases."""

    config: TrainConfig
    folder: RunFolder
    manifest: pd.DataFrame


def is_single(config: TrainConfig) -> bool:
    """Tell whether a run is of one model."""
    return config.seeds == config.folds == 1


def members(config: TrainConfig, run: RunFolder, manifest: pd.DataFrame) -> list[Member]:
    """Return the models of a run.

    Args:
        config: of the run, resolved.
        run: its folder.
        manifest: its cases; of folds the split of them is put aside.
    """
    if config.folds > 1:
        data = config.data
        tables = fold_manifests(manifest, config.folds, data.fractions, data.split_seed)
        named = [(f"fold-{number}", config.seed, table) for number, table in enumerate(tables)]
    else:
        seeds = range(config.seed, config.seed + config.seeds)
        named = [(f"seed-{seed}", seed, manifest) for seed in seeds]
    found = []
    for name, seed, table in named:
        options = updated(config, {"seeds": 1, "folds": 1, "seed": seed, "resume": None})
        folder = RunFolder(run.path / name, writes=run.writes)
        found.append(Member(options, folder, _thinned(config, table)))
    return found


def _thinned(config: TrainConfig, manifest: pd.DataFrame) -> pd.DataFrame:
    """Return the cases of a fold with as many negatives in training as are asked for, checked."""
    data = config.data
    if config.folds > 1 and data.keep_negatives is not None:
        manifest = subsample_negatives(manifest, data.keep_negatives, data.split_seed)
    check_splits(manifest)
    return manifest


def train_members(
    config: TrainConfig,
    run: RunFolder,
    accelerator: Accelerator,
    manifest: pd.DataFrame,
    train: Train,
) -> None:
    """Train all models of a run, those that are finished excepted, and say how far they spread.

    Args:
        config: of the run, resolved.
        run: its folder, new or begun.
        accelerator: see `engine.make_accelerator`.
        manifest: its cases.
        train: trains one of them, see `image_member.train_member`.
    """
    found = members(config, run, manifest)
    if accelerator.is_local_main_process:
        everything = make_datasets(config, manifest.assign(split="train"))
        prepare_images(everything["train"], loader_workers(config.data.workers, accelerator))
    accelerator.wait_for_everyone()
    with run.locked():
        for member in found:
            logger.info("%s: %s", member.folder.path.name, member.folder.path)
            if accelerator.is_main_process:
                member.folder.clear_unbegun()
            try:
                train(member.config, member.folder, accelerator, member.manifest, checked=True)
            except Interrupted as stop:
                told = f"stopped; continue with --resume {run.path}"
                raise Interrupted(told, stop.signum) from None
        if accelerator.is_main_process:
            combine(config, run, manifest, found)


def combine(
    config: TrainConfig, run: RunFolder, manifest: pd.DataFrame, found: list[Member]
) -> None:
    """Write what the finished models of a run say together."""
    folders = [member.folder for member in found]
    if config.folds > 1:
        combine_folds(run, folders, manifest)
    else:
        combine_seeds(run, folders)


def settle(config: TrainConfig, accelerator: Accelerator, manifest: pd.DataFrame) -> TrainConfig:
    """Build the first model once: what does not fit shows before there is a folder.

    Returns:
        The options with what depends on data and start.
    """
    (first, *_) = members(config, RunFolder(config.out), manifest)
    model, settled = build_model(first.config, first.manifest)
    make_trainer(
        settled, accelerator, model, first.manifest, make_datasets(settled, first.manifest)["train"]
    )
    several = {"seeds": config.seeds, "folds": config.folds, "seed": config.seed}
    return updated(settled, several | {"resume": config.resume})


def judge_members(
    run: RunFolder, accelerator: Accelerator, config: TrainConfig, judge: Judge
) -> None:
    """Judge the models of a run again, and what they say together.

    Args:
        run: of one model or several.
        accelerator: see `engine.make_accelerator`.
        config: of the run.
        judge: judges one model, see `evaluate.judge`.

    Raises:
        InputError: a model of it is not finished.
    """
    if is_single(config):
        judge(run, accelerator, config)
        return
    manifest = read_cases(run)
    found = members(config, run, manifest)
    unfinished = [member.folder.path for member in found if not member.folder.best.is_dir()]
    if unfinished:
        raise InputError(f"--resume {run.path} first: these have no model yet:", unfinished)
    for member in found:
        judge(member.folder, accelerator, member.config)
    if accelerator.is_main_process:
        combine(config, run, manifest, found)
