"""From the options to the table of cases: which source, which split, which images."""

from __future__ import annotations

import logging
from pathlib import Path

import pandas as pd

from attnvgg.data.sample import make_sample
from attnvgg.data.sources import find_kaggle, load_source
from attnvgg.data.splits import check_splits, split_manifest, subsample_negatives
from attnvgg.errors import InputError
from attnvgg.training.config import DataConfig

logger = logging.getLogger(__name__)

DATA = Path("data")
SAMPLE_ROOT = DATA / "sample"


def locate(config: DataConfig) -> tuple[str, Path]:
    """Return the source and its root, saying so in one line when the choice was left open."""
    if config.source == "sample":
        return "sample", config.root or SAMPLE_ROOT
    if config.source != "auto":
        root = config.root or (find_kaggle(DATA) if config.source == "kaggle" else None)
        if root is None:
            raise InputError(f"--data.source {config.source} needs --data.root: where is it?")
        return config.source, root
    if config.root is not None:
        raise InputError("--data.root needs --data.source: what is it?")
    kaggle = find_kaggle(DATA)
    if kaggle is not None:
        logger.info("Using the Kaggle melanoma images in %s.", kaggle)
        return "kaggle", kaggle
    logger.info(
        "No Kaggle images under data/: using the built-in SYNTHETIC sample in %s "
        "(`attnvgg download` fetches the real ones).",
        SAMPLE_ROOT,
    )
    return "sample", SAMPLE_ROOT


def load_cases(config: DataConfig, source: str, root: Path) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Return the manifest with its checked split, and the names of the classes."""
    if source == "sample":
        make_sample(root)
        manifest = load_source("kaggle", root)
    else:
        manifest = load_source(source, root, mask=config.mask)
    classes = config.classes or manifest.attrs.get("classes") or _plain_names(manifest["label"])
    manifest = split_manifest(manifest, config.fractions, config.split_seed)
    if config.keep_negatives is not None:
        manifest = subsample_negatives(manifest, config.keep_negatives, config.split_seed)
    check_splits(manifest)
    return manifest.reset_index(drop=True), tuple(classes)


def describe(manifest: pd.DataFrame) -> str:
    """Return one line with the cases of each split, for the log."""
    parts = []
    for split in ("train", "val", "test"):
        labels = manifest.loc[manifest["split"] == split, "label"]
        counts = labels.value_counts().sort_index().items()
        listing = ", ".join(f"{count} of class {label}" for label, count in counts)
        parts.append(f"{split} {len(labels)} ({listing})")
    return "; ".join(parts)


def _plain_names(labels: pd.Series[int]) -> tuple[str, ...]:
    count = int(labels.max()) + 1
    return ("negative", "positive") if count == 2 else tuple(f"class {k}" for k in range(count))
