"""Training of one bag model in one run folder."""

from __future__ import annotations

from typing import Any, cast

from accelerate import Accelerator
from torch import nn

from attnvgg.cli.bag_cases import BagCases, describe_instances
from attnvgg.data.bag_manifest import write_bags
from attnvgg.models import BagClassifier
from attnvgg.models.feature_encoders import StandardizedEncoder
from attnvgg.training.bag_config import TrainBagsConfig
from attnvgg.training.build import judging_loader
from attnvgg.training.build_bags import (
    bag_workers,
    build_bag_model,
    make_bag_trainer,
    standardize,
)
from attnvgg.training.checkpoint import Progress
from attnvgg.training.engine import fit
from attnvgg.training.predictions import Predictions, lock_threshold
from attnvgg.training.run import RunFolder
from attnvgg.training.run_config import as_plain


def fit_plain(
    config: TrainBagsConfig, run: RunFolder, accelerator: Accelerator, cases: BagCases
) -> Progress:
    """Train one model and keep its best epoch."""
    training = cases.dataset(config, "train", augment=True)
    validation = cases.dataset(config, "val")
    resumed = run.state.is_file()
    model = build_bag_model(config, training.instance_shape, resumed=resumed)
    if isinstance(model.encoder, StandardizedEncoder) and not resumed:
        standardize(model.encoder, training)
    trainer = make_bag_trainer(config, accelerator, model, cases.rows("train"), training)
    begin(run, config, cases, accelerator, size=8 * _size(model))
    described = describe_instances(cases, config)

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
        run.clear_unbegun()
        run.create(needed_bytes=size)
        write_bags(cases.manifest, run.manifest)
        run.write_config(as_plain(config))
    accelerator.wait_for_everyone()


def _size(model: nn.Module) -> int:
    return sum(value.numel() * value.element_size() for value in model.state_dict().values())
