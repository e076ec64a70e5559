"""Training from the maps of frozen stages: what is computed once, and from what."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from accelerate import Accelerator
from torch import nn

from attnvgg.data.frozen import FrozenDataset
from attnvgg.data.images import ImageDataset
from attnvgg.deploy.frozen import FrozenTrunk, compute_maps, frozen_trunk, plan_maps
from attnvgg.files import cache_folder
from attnvgg.training.checkpoint import load_state
from attnvgg.training.config import TrainConfig
from attnvgg.training.run import RunFolder


class Plan(NamedTuple):
    """The images by their maps, and what computes these."""

    trunk: FrozenTrunk
    datasets: dict[str, FrozenDataset]


def plan_frozen(
    config: TrainConfig,
    run: RunFolder,
    accelerator: Accelerator,
    model: nn.Module,
    datasets: Mapping[str, ImageDataset],
) -> Plan | None:
    """Return the training and validation set by their maps; None where none are to be kept.

    Of a run that is resumed the model gets its weights here: the maps are theirs.
    """
    frozen = config.frozen
    if not frozen.views:
        return None
    if run.state.is_file():
        load_state(run.state, {"model": model})
    trunk = frozen_trunk(
        model,
        datasets["train"],
        frozen.engine,
        device=accelerator.device.type,
        threads=config.threads,
    )
    folder = frozen.cache or cache_folder() / "frozen"
    training = plan_maps(
        trunk, datasets["train"], folder, views=frozen.views, augmentation=config.data.augmentation
    )
    return Plan(trunk, {"train": training, "val": plan_maps(trunk, datasets["val"], folder)})


def compute_frozen(config: TrainConfig, plan: Plan, accelerator: Accelerator, workers: int) -> None:
    """Compute the maps of a plan, once on each machine."""
    if accelerator.is_local_main_process:
        limit = int(config.frozen.cache_gib * 2**30)
        compute_maps(plan.trunk, list(plan.datasets.values()), limit, workers)
    accelerator.wait_for_everyone()
    for dataset in plan.datasets.values():
        dataset.store.open()
