"""Bag runs that are there already: their options, their bags, their seeds."""

from __future__ import annotations

import pandas as pd
from accelerate import Accelerator

from attnvgg.cli.bag_cases import BagCases, load_bag_cases
from attnvgg.cli.bag_ensemble import combine
from attnvgg.cli.bag_judge import judge_bags
from attnvgg.cli.common import parse_config
from attnvgg.data.bag_manifest import read_bags
from attnvgg.errors import InputError
from attnvgg.training.bag_config import DIGITS, RESOLVED, TrainBagsConfig
from attnvgg.training.run import RunFolder
from attnvgg.training.run_config import require_resolved, updated


def read_bags_config(run: RunFolder) -> TrainBagsConfig:
    """Return the configuration that a run was made with."""
    config: TrainBagsConfig = parse_config(
        TrainBagsConfig, ["--config", str(run.config)], "train_bags"
    )
    require_resolved(config, RESOLVED, run.config)
    return config


def read_bag_manifest(run: RunFolder) -> pd.DataFrame | None:
    """Return the bags that a run was begun with, None for a new one; they may be gone since.

    Raises:
        InputError: its manifest is missing or damaged.
    """
    if not run.config.is_file():
        return None
    manifest = read_bags(run.manifest, may_be_gone=True)
    if "split" not in manifest:
        raise InputError(f"{run.manifest} is damaged: it has no column `split`.")
    return manifest


def members(config: TrainBagsConfig, run: RunFolder) -> list[tuple[TrainBagsConfig, RunFolder]]:
    """Return configuration and folder of each seed of a run of several."""
    found = []
    for number in range(config.seeds):
        changes = {"seeds": 1, "seed": config.seed + number, "resume": None}
        if config.data.redraw:
            changes["data.split_seed"] = config.data.split_seed + number
        folder = RunFolder(run.path / f"seed-{config.seed + number}", writes=run.writes)
        found.append((updated(config, changes), folder))
    return found


def member_cases(
    config: TrainBagsConfig, member: TrainBagsConfig, folder: RunFolder, shared: BagCases
) -> BagCases:
    """Return the bags of one seed: those of all seeds, or its own."""
    if not config.data.redraw:
        return shared
    return load_bag_cases(member, read_bag_manifest(folder), shared.digits)


def judge_again(run: RunFolder, accelerator: Accelerator, config: TrainBagsConfig) -> None:
    """Judge the models of a run again, and what they say together.

    Raises:
        InputError: a seed of it is not finished.
    """
    if config.data.source in DIGITS and config.model.encoder == "identity":
        raise InputError(
            f"{run.path} takes what the encoder of its run makes of digits: evaluate that run, "
            f"{run.path.parent.parent}."
        )
    shared = load_bag_cases(config, read_bag_manifest(run))
    if config.seeds == 1:
        judge_bags(run, accelerator, config, shared)
        return
    found = members(config, run)
    unfinished = [folder.path for _, folder in found if not folder.best.is_dir()]
    if unfinished:
        raise InputError(f"--resume {run.path} first: these seeds have no model yet:", unfinished)
    for member, folder in found:
        cases = member_cases(config, member, folder, shared)
        judge_bags(folder, accelerator, member, cases, quiet=True)
    if accelerator.is_main_process:
        combine(run, [folder for _, folder in found], config.data.redraw, shared.shares_instances)
