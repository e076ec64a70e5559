"""`attnvgg download`: the melanoma photographs from Kaggle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from attnvgg.cli.common import run_command
from attnvgg.data.download import DATASET, download_kaggle


@dataclass(frozen=True)
class DownloadConfig:
    """Download the melanoma photographs from Kaggle; running it again resumes or does nothing."""

    root: Path = Path("data")
    """Folder that will hold the folder of the dataset."""
    dataset: str = DATASET
    """owner/name, as in the address of the dataset's page."""
    keep_archive: bool = False
    """Keep the ZIP archive beside the extracted folder."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return run_command(download, DownloadConfig, argv, "download")


def download(config: DownloadConfig) -> None:
    """Download the dataset that the configuration names."""
    download_kaggle(config.root, config.dataset, config.keep_archive)
