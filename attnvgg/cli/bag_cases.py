"""From the options to bags: which source, which split, which instances."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from attnvgg.cli.cases import class_names
from attnvgg.data.augmentation import augmentation
from attnvgg.data.bag_dataset import BagDataset
from attnvgg.data.bag_sources import load_bags
from attnvgg.data.bags import FeatureBags, ImageBags, open_bags
from attnvgg.data.digit_bags import BagPlan, digit_manifest, open_digit_bags
from attnvgg.data.digits import Digits, GreyPreprocess, load_digits
from attnvgg.data.panda import load_panda
from attnvgg.data.slide_sample import slide_sample
from attnvgg.data.splits import SIDES, check_splits, split_manifest
from attnvgg.errors import InputError
from attnvgg.training.bag_config import DIGITS, BagDataConfig, TrainBagsConfig
from attnvgg.training.build import make_preprocess, open_cache

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class BagCases:
    """The bags of a run, and where their instances come from."""

    manifest: pd.DataFrame
    """Bags with their split."""
    classes: tuple[str, ...]
    """Names of the labels."""
    digits: Digits | None = None
    """What digit bags are made of."""
    features: torch.Tensor | None = None
    """In place of the digits, what an encoder made of them, (n, D)."""

    @property
    def reserved(self) -> np.ndarray:
        """Return the digits that are in no bag, kept for a first stage."""
        return np.asarray(self.manifest.attrs["reserved"], dtype=np.int64)

    @property
    def shares_instances(self) -> bool:
        """Tell whether an instance may be in several bags."""
        return self.digits is not None

    def rows(self, *splits: str) -> pd.DataFrame:
        """Return the bags of some splits, with the rows of the manifest as index."""
        return self.manifest[self.manifest["split"].isin(splits)]

    def encoded(self, features: torch.Tensor) -> BagCases:
        """Return the same bags, of features."""
        return replace(self, features=features)

    def dataset(self, config: TrainBagsConfig, *splits: str, augment: bool = False) -> BagDataset:
        """Return the bags of some splits as samples.

        Args:
            config: resolved.
            splits: which.
            augment: change images as training does.
        """
        bags, data = self.rows(*splits), config.data
        if self.digits is not None:
            return open_digit_bags(
                bags, self.digits, data.target, grey_preprocess(data), self.features
            )
        preprocess = make_preprocess(data)
        change = augmentation(data.augmentation, preprocess) if augment else None
        return open_bags(bags, preprocess, change, open_cache(data), config.seed)


def load_bag_cases(
    config: TrainBagsConfig, manifest: pd.DataFrame | None = None, digits: Digits | None = None
) -> BagCases:
    """Return the bags of a configuration, or those of a run with that configuration.

    Args:
        config: resolved.
        manifest: of the run; absent: there is none yet.
        digits: those of the source, if they were read before.

    Raises:
        InputError: bags without label, labels without bag, a split that cannot be.
    """
    data = config.data
    if digits is None and data.source in DIGITS:
        digits = load_digits(data.source, data.root)
    if digits is not None:
        made = _digit_manifest(config, digits)
        if manifest is not None and not _same_bags(manifest, made):
            raise InputError(
                "manifest.csv does not hold the bags that config.yaml beside it describes: one of "
                "them was changed, or this is the first stage of another run."
            )
        table = made
    elif manifest is not None:
        _restore(manifest, data)
        table = manifest
    else:
        within = "source" if data.source == "panda" else None  # laboratories stain differently
        _require_features(config)
        table = split_manifest(_load_table(data), _fractions(data), data.split_seed, within)
    _check_labels(table)
    classes = class_names(data.classes or table.attrs.get("classes"), table["label"])
    return BagCases(table.reset_index(drop=True), classes, digits)


def _load_table(data: BagDataConfig) -> pd.DataFrame:
    """Return the bags of a source on the disk; slides of PANDA are cut into tiles first."""
    if data.source == "panda":
        root = data.root or slide_sample()
        return load_panda(root, data.labels, data.tiles, data.workers, data.bags)
    assert data.root is not None  # as `check` has made sure
    return load_bags(data.source, data.root.absolute(), data.bags)


def _require_features(config: TrainBagsConfig) -> None:
    """Refuse an encoder of features for slides of PANDA without any, before they are cut."""
    data, encoder = config.data, config.model.encoder
    if data.source == "panda" and data.bags is None and encoder in ("standardized", "identity"):
        raise InputError(
            f"--model.encoder {encoder} takes features: give --data.bags, the folder of the "
            "feature files."
        )


def _restore(manifest: pd.DataFrame, data: BagDataConfig) -> None:
    """Cut tiles of slides that are gone again, at their place; refuse other bags that are gone."""
    if _gone(manifest) and data.source == "panda" and data.bags is None:
        root = data.root or slide_sample()
        if not root.is_dir():
            raise InputError(f"The run's tiles are gone, and so are its slides: put {root} back.")
        place = Path(_gone(manifest)[0]).parent
        logger.info("Tiles in %s are gone: they are cut again.", place)
        load_panda(root, data.labels, place, data.workers)
    if gone := _gone(manifest):
        raise InputError(
            "The bags of the run are gone: put them back, or write where they are now into its "
            "manifest.csv:",
            gone,
        )


def _gone(manifest: pd.DataFrame) -> list[str]:
    return [path for path in manifest["image"] if not os.path.exists(path)]


def describe_instances(cases: BagCases, config: TrainBagsConfig) -> dict[str, Any]:
    """Return what `best/config.json` says of how an instance becomes a tensor."""
    if cases.features is not None:
        return {"kind": "features", "features": cases.features.shape[1]}
    if cases.digits is not None:
        return grey_preprocess(config.data).to_dict()
    dataset = cases.dataset(config, "val")
    if isinstance(dataset, ImageBags):
        return make_preprocess(config.data).to_dict()
    return {"kind": "features", "features": dataset.instance_shape[0]}


def pictures(cases: BagCases, row: Mapping[Any, Any]) -> list[Any] | None:
    """Return what a bag's instances look like: digits, or the paths of images; None for features.

    Args:
        cases: of the run.
        row: of its manifest.
    """
    if cases.digits is not None:
        return list(cases.digits.images[np.array(row["instances"].split(), dtype=np.int64)])
    dataset = open_bags(pd.DataFrame([row]))
    return None if isinstance(dataset, FeatureBags) else list(dataset.files(0))


def grey_preprocess(data: BagDataConfig) -> GreyPreprocess:
    """Return how a digit becomes a tensor."""
    return GreyPreprocess(data.grey_mean, data.grey_std)


def _digit_manifest(config: TrainBagsConfig, digits: Digits) -> pd.DataFrame:
    data = config.data
    low, high = data.size
    plan = BagPlan(data.target, data.lengths, (low, high), data.positives)
    counts = dict(zip(SIDES, data.counts, strict=True))
    return digit_manifest(
        digits, plan, counts, _fractions(data), data.split_seed, config.stage_one.share
    )


def _same_bags(manifest: pd.DataFrame, made: pd.DataFrame) -> bool:
    columns = ["image", "label", "split", "instances"]
    if not set(columns) <= set(manifest) or len(manifest) != len(made):
        return False
    return bool((manifest[columns].to_numpy() == made[columns].to_numpy()).all())


def _fractions(data: BagDataConfig) -> tuple[float, float, float]:
    assert data.fractions is not None  # filled in by `resolve`
    return data.fractions


def _check_labels(table: pd.DataFrame) -> None:
    if table["label"].nunique() < 2:
        raise InputError(
            f"All {len(table)} bags have label {table['label'].iloc[0]}: two classes are needed."
        )
    check_splits(table)
