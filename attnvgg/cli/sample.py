"""`attnvgg sample`: make one of the built-in synthetic samples."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from attnvgg.cli.cases import SAMPLE_ROOT
from attnvgg.cli.common import run_command
from attnvgg.data import sample as pictures
from attnvgg.data import slide_sample as slides

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SampleConfig:
    """Make a built-in synthetic sample: pictures as of Kaggle, or slides as of PANDA."""

    kind: Literal["pictures", "slides"] = "pictures"
    """Drawn dermoscopic pictures, or drawn slides of biopsies."""
    root: Path | None = None
    """Folder to make; null: data/sample for pictures, the user's cache for slides."""
    count: int | None = None
    """Number of pictures (null: 2000) or slides (null: 240)."""
    seed: int | None = None
    """Of everything that is drawn."""
    workers: int | None = None
    """Processes; null: one a core."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return run_command(sample, SampleConfig, argv, "sample")


def sample(config: SampleConfig) -> None:
    """Make it, or find it made."""
    if config.kind == "slides":
        _slides(config)
    else:
        _pictures(config)


def _pictures(config: SampleConfig) -> None:
    count = pictures.COUNT if config.count is None else config.count
    seed = pictures.SEED if config.seed is None else config.seed
    root = pictures.make_sample(config.root or SAMPLE_ROOT, count, seed, config.workers)
    logger.info("The synthetic sample is in %s: %d pictures with masks.", root, count)


def _slides(config: SampleConfig) -> None:
    count = slides.COUNT if config.count is None else config.count
    seed = slides.SEED if config.seed is None else config.seed
    root = slides.slide_sample(config.root, count, seed, config.workers)
    logger.info("The SYNTHETIC slides are in %s: %d with train.csv and regions.", root, count)
    if count < slides.FEW:
        return
    logger.info(
        "AUC for tumour or none: ceiling %.3f (who sees the planted regions through the 16 "
        "tiles), floor %.3f (mean colour of the tissue, cross-validated by patient).",
        slides.region_ceiling(root),
        slides.mean_colour_floor(root),
    )
