"""`attnvgg sample`: make the built-in synthetic sample."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from attnvgg.cli.cases import SAMPLE_ROOT
from attnvgg.cli.common import run_command
from attnvgg.data.sample import COUNT, SEED, make_sample

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SampleConfig:
    """Make the built-in synthetic sample: drawn pictures in the layout of the Kaggle images."""

    root: Path = SAMPLE_ROOT
    """Folder to make."""
    count: int = COUNT
    """Number of pictures."""
    seed: int = SEED
    """Of everything that is drawn."""
    workers: int | None = None
    """Processes; null: one a core."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return run_command(sample, SampleConfig, argv, "sample")


def sample(config: SampleConfig) -> None:
    """Make it, or find it made."""
    root = make_sample(config.root, config.count, config.seed, config.workers)
    logger.info("The synthetic sample is in %s: %d pictures with masks.", root, config.count)
