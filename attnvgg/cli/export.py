"""`attnvgg export`: a trained model as files for ONNX Runtime, OpenVINO or PyTorch."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from attnvgg.cli.common import parse_with_output, run_command
from attnvgg.deploy.calibration import of_files, of_run
from attnvgg.deploy.export import export_model
from attnvgg.errors import InputError
from attnvgg.training.checkpoint import load_model, preprocess_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ExportConfig:
    """Write a trained model of images for another runtime.

    It is compared with PyTorch on validation images first, and refused where it is too far.
    """

    model: str = field(
        metadata={"positional": {"help": "run folder, saved model, or owner/name on the hub"}}
    )
    to: Literal["onnx", "openvino", "openvino-int8", "torch"] = "onnx"
    """onnx; openvino; openvino-int8, calibrated on the run's training images; torch: a program for
    torch.export.load."""
    output: Path | None = None
    """Folder of the files (-o); null: export/<to> in the run, or <to> here."""
    images: Path | None = None
    """Folder of images to calibrate and compare with, where those of the run are not here."""
    replace: bool = False
    """Replace an earlier export in that folder."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return run_command(export, ExportConfig, argv, "export", parse_with_output)


def export(config: ExportConfig) -> None:
    """Export, and say how far the answers are from PyTorch's."""
    place = Path(config.model)
    model = load_model(place if place.is_dir() else config.model)
    preprocess_of(model)  # which says what is no model of images
    training, validation = of_run(place)
    if config.images is not None:
        training = validation = of_files([config.images])
    if validation is None:
        raise InputError(
            f"There are no images of {config.model} here to compare with: give some with --images."
        )
    is_run = (place / "config.yaml").is_file()
    folder = config.output or (place / "export" / config.to if is_run else Path(config.to))
    agreement = export_model(
        model,
        config.to,
        folder,
        training=training or validation,
        validation=validation,
        replace=config.replace,
    )
    same = "" if training and training != validation else ", the very images calibrated on"
    logger.info("Compared with PyTorch: %s%s.", agreement.words, same)
    logger.info("Written: %s", folder)
