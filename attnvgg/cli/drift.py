"""`attnvgg drift`: whether what a server is asked still looks like its model's training data."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from attnvgg.cli.common import FAILED, run_command
from attnvgg.cli.drift_plot import save_histograms
from attnvgg.cli.drift_reference import WHO, Device, reference_of, statistics_of
from attnvgg.deploy.serving.trail import read_trail
from attnvgg.errors import InputError
from attnvgg.evaluation.drift import ALPHA, LEAST, LIMIT, Drift, compare
from attnvgg.files import write_json
from attnvgg.training.run import open_run

logger = logging.getLogger(__name__)

SOURCES = (
    "Inputs are compared with the training images, what the model says (probability, entropy of "
    "its attention) with that of validation images: of the images that it was trained on it says "
    "other things than of new ones."
)
DEPENDENT = "Cases count as independent: many pictures of few patients look like drift sooner."


@dataclass(frozen=True)
class DriftConfig:
    """Compare a period of an audit trail with what the model was trained on.

    Exit code 1 tells that a statistic has drifted: its population stability index is at least 0.1,
    and so large a one is improbable without drift.
    """

    run: Path = field(metadata={"positional": {"type": Path, "help": "run folder of the model"}})
    trail: Path = field(metadata={"positional": {"type": Path, "help": "file of the audit trail"}})
    since: str | None = None
    """First moment of the period, as in 2026-11-22 or 2026-11-22T08:00; UTC without a zone."""
    until: str | None = None
    """First moment after it."""
    out: Path | None = None
    """Folder of drift.json and drift.png; null: drift in the run folder."""
    engine: str = "auto"
    """Computes the reference, the first time: eager, compiled, onnx, openvino, openvino-int8, or
    auto, which takes what suits this machine, as the server does."""
    device: Device = "auto"
    """auto takes the GPU where there is one."""


class Verdict(NamedTuple):
    """What a period is worth."""

    found: list[Drift]
    left_out: dict[str, str]
    summary: dict[str, Any]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    drifted: list[str] = []

    def work(config: DriftConfig) -> None:
        drifted.extend(one.name for one in drift(config).found if one.drifted)

    code = run_command(work, DriftConfig, argv, "drift")
    return code or (FAILED if drifted else 0)


def drift(config: DriftConfig) -> Verdict:
    """Compare, say what was found, and write it down.

    Raises:
        InputError: no run with its images, no trail, or too few predictions in the period.
    """
    if config.run.is_dir() and not (config.run / "config.yaml").is_file():
        raise InputError(
            f"{config.run} is no run folder: exported and saved models come without the training "
            "images that a period is compared with, so give the run."
        )
    run = open_run(config.run)
    table = read_trail(config.trail, config.since, config.until)
    digest, reference = reference_of(run, config.engine, config.device)
    period = _of_model(table, digest, config)
    given, said = statistics_of(reference)
    found, left_out = compare(reference, period, [*given, *said])
    summary = _summary(config, digest, table, period, found)
    out = config.out or run.path / "drift"
    _tell(found, left_out, summary)
    content = summary | {"left_out": left_out, "statistics": [asdict(one) for one in found]}
    write_json(out / "drift.json", content)
    save_histograms(out / "drift.png", found, reference, period, summary["words"])
    logger.info("Written: %s, %s", out / "drift.json", out / "drift.png")
    return Verdict(found, left_out, summary)


def _of_model(table: pd.DataFrame, digest: str, config: DriftConfig) -> pd.DataFrame:
    """Return the predictions of this model; say how many there are of others.

    Raises:
        InputError: there are too few.
    """
    if table.attrs["torn"]:
        logger.info("Torn lines of the trail, passed over: %d.", table.attrs["torn"])
    if table.empty:
        raise InputError(f"{config.trail} has no predictions in this period.")
    mine = table[WHO] == digest
    others = table.loc[~mine, WHO].value_counts()
    if not mine.any():
        raise InputError(
            f"{config.trail} has only predictions of other models than that of {config.run} in "
            "this period (an exported model has a digest of its own):",
            [f"{name}: {count}" for name, count in others.items()],
        )
    for name, count in others.items():
        logger.info("%d predictions of another model are left out: %s.", count, name)
    if mine.sum() < LEAST:
        raise InputError(
            f"{config.trail} has {mine.sum()} predictions of this model in this period: too few "
            f"to compare, at least {LEAST} are needed."
        )
    return table[mine]


def _summary(
    config: DriftConfig, digest: str, table: pd.DataFrame, period: pd.DataFrame, found: list[Drift]
) -> dict[str, Any]:
    """Return what the figures are of."""
    first, last = (moment.isoformat() for moment in (period["time"].min(), period["time"].max()))
    names = [one.name for one in found if one.drifted]
    return {
        "model": digest,
        "first": first,
        "last": last,
        "predictions": len(period),
        "other_models": len(table) - len(period),
        "torn_lines": table.attrs["torn"],
        "limit": LIMIT,
        "alpha": ALPHA,
        "drifted": names,
        "words": f"{len(period)} predictions, {first[:16]} to {last[:16]} UTC",
        "notes": [SOURCES, DEPENDENT],
    }


def _tell(found: list[Drift], left_out: dict[str, str], summary: dict[str, Any]) -> None:
    """Print the table and the verdict."""
    logger.info("%s", SOURCES)
    logger.info("Period: %s.", summary["words"])
    width = max(len(one.name) for one in found)
    head = f"{'':{width}}  reference  period    PSI  without drift       p     KS   KS p"
    logger.info("%s", head)
    for one in found:
        logger.info(
            f"{one.name:{width}}  {one.reference:9d}  {one.period:6d}  {one.psi:5.3f}  "
            f"{one.expected:13.3f}  {one.p:6.4f}  {one.ks:5.3f}  {one.ks_p:5.3f}"
            f"{'  DRIFTED' if one.drifted else ''}"
        )
    for name, reason in left_out.items():
        logger.info("%s is not compared: %s", name, reason)
    names = summary["drifted"]
    level = f"PSI at least {LIMIT}, p below {ALPHA}/{len(found)}"
    logger.info("%s", DEPENDENT)
    if names:
        logger.info("DRIFTED (%s): %s.", level, ", ".join(names))
    else:
        logger.info("No drift (%s) in %d statistics.", level, len(found))
