"""From the options to the table of cases: which source, which split, which images."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from attnvgg.data.sample import make_sample, open_sample
from attnvgg.data.sources import find_kaggle, load_source
from attnvgg.data.splits import check_splits, split_manifest, subsample_negatives
from attnvgg.errors import InputError
from attnvgg.training.config import DataConfig

logger = logging.getLogger(__name__)

DATA = Path("data")
SAMPLE_ROOT = DATA / "sample"

# What to give as --data.root; the sample and the Kaggle images have a place of their own.
ROOTS = {
    "isic2016": "the folder that holds Train/ and Test/",
    "isic2017": "the folder that holds Train/, Val/ and Test/",
    "isic-archive": "the folder that holds metadata.csv, or that file under another name",
    "csv": "the CSV file",
    "folders": "the folder that holds a folder of images for each class",
}


def locate(config: DataConfig) -> tuple[str, Path]:
    """Return the source and its absolute root, saying so when the choice was left open.

    The root is absolute so that a run can be evaluated from another folder; links stay links.
    """
    if config.source != "auto":
        return config.source, (config.root or _usual_root(config.source)).absolute()
    if config.root is not None:
        known = ", ".join(("kaggle", *ROOTS, "sample"))
        raise InputError(f"--data.root needs --data.source, which says what is there: {known}.")
    kaggle = find_kaggle(DATA)
    if kaggle is not None:
        logger.info("Using the Kaggle melanoma images in %s.", kaggle)
        return "kaggle", kaggle.absolute()
    logger.info(
        "No Kaggle images under data/: using the built-in SYNTHETIC sample in %s "
        "(`attnvgg download` fetches the real ones).",
        SAMPLE_ROOT,
    )
    return "sample", SAMPLE_ROOT.absolute()


def _usual_root(source: str) -> Path:
    if source == "sample":
        return SAMPLE_ROOT
    if source != "kaggle":
        raise InputError(f"--data.source {source} needs --data.root: {ROOTS[source]}.")
    kaggle = find_kaggle(DATA)
    if kaggle is None:
        raise InputError(
            "There are no Kaggle images under data/: fetch them with `attnvgg download` "
            "(python scripts/download.py), or give their folder as --data.root."
        )
    return kaggle


def load_cases(
    config: DataConfig, source: str, root: Path, folds: int = 1
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Return the manifest with its checked split, and the names of the classes.

    Of a cross-validation every case is one to be tested: its folds are dealt out later.
    """
    if source == "sample":
        manifest = load_source("kaggle", open_sample(root) or make_sample(root))
    else:
        manifest = load_source(source, root, mask=config.mask)
    named = config.classes or manifest.attrs.get("classes")
    if folds > 1:
        if "split" in manifest:
            logger.warning("The published split is put aside: the folds test every case once.")
        manifest = manifest.assign(split="test")
        counts = describe(manifest).split("; ")[-1].removeprefix("test ")
        logger.info("Cases: %s, each of which is tested in one of %d folds.", counts, folds)
        return manifest, class_names(named, manifest["label"])
    manifest = split_manifest(manifest, config.fractions, config.split_seed)
    if config.keep_negatives is not None:
        manifest = subsample_negatives(manifest, config.keep_negatives, config.split_seed)
    check_splits(manifest)
    return manifest.reset_index(drop=True), class_names(named, manifest["label"])


def describe(manifest: pd.DataFrame) -> str:
    """Return one line with the cases of each split, for the log."""
    parts = []
    for split in ("train", "val", "test"):
        labels = manifest.loc[manifest["split"] == split, "label"]
        counts = labels.value_counts().sort_index().items()
        listing = ", ".join(f"{count} of class {label}" for label, count in counts)
        parts.append(f"{split} {len(labels)} ({listing})")
    return "; ".join(parts)


def class_names(named: Sequence[str] | None, labels: pd.Series[int]) -> tuple[str, ...]:
    """Return a name for each class: those given, or else plain ones.

    Raises:
        InputError: the names given do not fit the labels.
    """
    count = int(labels.max()) + 1
    if not named:
        plain = ("negative", "positive")
        return plain if count == 2 else tuple(f"class {k}" for k in range(count))
    if len(named) != count or len(set(named)) != count:
        raise InputError(
            f"There are {count} classes, so --data.classes must be {count} different names, "
            f"not: {', '.join(named)}."
        )
    return tuple(named)
