"""`attnvgg train_bags`: from bags to a judged model, or to several and their average."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from attnvgg.cli.bag_cases import BagCases, load_bag_cases
from attnvgg.cli.bag_ensemble import combine
from attnvgg.cli.bag_fit import begin
from attnvgg.cli.bag_member import train_member
from attnvgg.cli.bag_runs import member_cases, members, read_bag_manifest
from attnvgg.cli.bag_stages import stage_one
from attnvgg.cli.cases import describe
from attnvgg.cli.job import run_training
from attnvgg.cli.train import parse_resumable
from attnvgg.data.bag_dataset import BagDataset
from attnvgg.data.bags import prepare_bags
from attnvgg.data.splits import SIDES
from attnvgg.training.bag_config import (
    RESOLVED,
    TrainBagsConfig,
    candidates,
    check,
    is_plain,
    resolve,
    settle,
)
from attnvgg.training.build_bags import bag_workers, build_bag_model, make_bag_trainer
from attnvgg.training.engine import make_accelerator
from attnvgg.training.run import RunFolder, new_run_name
from attnvgg.training.run_config import require_resolved, updated
from attnvgg.training.signals import Interrupted

logger = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return run_training(train_bags, TrainBagsConfig, argv, "train_bags", parse_resumable)


def train_bags(config: TrainBagsConfig) -> None:
    """Train one model or several, keep the best epoch of each, judge them on the test bags."""
    check(config)
    accelerator = make_accelerator(config)
    if not accelerator.is_main_process:
        logging.getLogger("attnvgg").setLevel(logging.ERROR)
    config, run = _begin(config, accelerator)
    # Slides may have to be drawn or cut: by one process, then by one on each machine.
    with accelerator.main_process_first(), accelerator.local_main_process_first():
        cases = load_bag_cases(config, read_bag_manifest(run))
    everything = cases.dataset(config, *SIDES)
    if config.resume is None:
        _read_once(config, accelerator, everything)
    config = settle(config, cases.classes, everything.instance_shape)
    logger.info("Bags: %s.", describe(cases.manifest))
    logger.info("Run folder: %s", run.path)
    if config.resume is None:
        _rehearse(config, accelerator, cases)
    try:
        if config.seeds == 1:
            train_member(config, run, accelerator, cases)
        else:
            _train_seeds(config, run, accelerator, cases)
    except Interrupted as stop:
        told = f"stopped; continue with --resume {run.path}"
        raise Interrupted(told, stop.signum) from None


def _train_seeds(
    config: TrainBagsConfig, run: RunFolder, accelerator: Accelerator, shared: BagCases
) -> None:
    found = members(config, run)
    drawn = [member_cases(config, member, folder, shared) for member, folder in found]
    begin(run, config, shared, accelerator, size=2**20)
    with run.locked():
        for (member, folder), cases in zip(found, drawn, strict=True):
            logger.info("Seed %d: %s", member.seed, folder.path)
            train_member(member, folder, accelerator, cases)
        if accelerator.is_main_process:
            combine(
                run, [folder for _, folder in found], config.data.redraw, shared.shares_instances
            )


def _read_once(config: TrainBagsConfig, accelerator: Accelerator, bags: BagDataset) -> None:
    """Read every bag, so that all that are wrong are told before the run has a folder."""
    if not bags.in_memory and accelerator.is_local_main_process:
        prepare_bags(bags, bag_workers(config, accelerator, bags))
    accelerator.wait_for_everyone()


def _rehearse(config: TrainBagsConfig, accelerator: Accelerator, cases: BagCases) -> None:
    """Build every model once, so that parts that do not fit leave no folder behind."""
    if config.seeds == 1 and is_plain(config):
        return  # that model is built before its folder is made
    tried = {one.model.pool: (one, cases) for one in candidates(config).values()}
    if config.stage_one.share:
        tried["stage 1"] = stage_one(config, cases)
    for options, bags in tried.values():
        training = bags.dataset(options, "train")
        model = build_bag_model(options, training.instance_shape)
        make_bag_trainer(options, accelerator, model, bags.rows("train"), training)


def _begin(config: TrainBagsConfig, accelerator: Accelerator) -> tuple[TrainBagsConfig, RunFolder]:
    """Find or reopen the run."""
    writes = accelerator.is_main_process
    if config.resume is not None:
        run = RunFolder(config.resume, writes=writes)
        logger.info("Resuming %s.", run.path)
        require_resolved(config, RESOLVED, run.config)
        return config, run
    name = broadcast_object_list([config.name or new_run_name()])[0]
    run = RunFolder(config.out / name, writes=writes)
    if writes:
        run.check_writable()
    changes = {"name": name}
    for key in (
        "root",
        "bags",
        "tiles",
    ):  # absolute, so that a run can be evaluated from another folder
        path: Path | None = getattr(config.data, key)
        if path is not None:
            changes[f"data.{key}"] = path.absolute()
    return resolve(updated(config, changes)), run
