"""`attnvgg audit`: leaks, copies, conflicts and shortcuts of a data set, before it is trusted."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from attnvgg.cli.cases import locate
from attnvgg.cli.common import Incomplete, run_command
from attnvgg.data.audit.report import audit_manifest
from attnvgg.data.audit.sheet import draw_sheet
from attnvgg.data.audit.summary import summary
from attnvgg.data.sample import make_sample, open_sample
from attnvgg.data.sources import load_source
from attnvgg.data.splits import split_manifest
from attnvgg.errors import InputError
from attnvgg.files import atomic_path
from attnvgg.training.config import DataConfig
from attnvgg.training.run import open_run, read_cases, read_task

logger = logging.getLogger(__name__)


class Leak(Incomplete):
    """The audit is done, and the split must not be used: exit code 1."""


@dataclass(frozen=True)
class AuditConfig:
    """Audit a data set and its split; the exit code is 1 if the split leaks."""

    cases: Path | None = field(
        default=None,
        metadata={
            "positional": {
                "type": Path,
                "nargs": "?",
                "default": None,
                "help": "run folder, or a CSV such as manifest.csv; else what --data says",
            }
        },
    )
    data: DataConfig = field(default_factory=DataConfig)
    """As for training: source, root, mask, and fractions and split_seed of the split."""
    out: Path = Path("audit")
    """Folder for audit.json, audit.txt and, where copies are found, audit.png."""
    shown: int = 24
    """Pairs of copies on audit.png, those across the split first; 0 draws none."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return run_command(audit, AuditConfig, argv, "audit")


def audit(config: AuditConfig) -> None:
    """Audit the cases, write the report and log its summary.

    Raises:
        Leak: a group, or copies of a picture, are on two sides of the split.
        InputError: there is nothing to audit, or no place for the report.
    """
    if config.shown < 0 or (config.data.workers or 0) < 0:
        raise InputError("--shown and --data.workers must be 0 or more.")
    if config.cases is not None and (config.data.source != "auto" or config.data.root is not None):
        raise InputError(f"Audit either {config.cases} or what --data names, not both at once.")
    if config.out.exists() and not config.out.is_dir():
        raise InputError(f"--out {config.out} is a file: name a folder.")
    manifest, origin = _cases(config)
    report = {"origin": origin, **audit_manifest(manifest, config.data.workers)}
    words = summary(report)
    texts = {"audit.json": json.dumps(report, indent=2, allow_nan=False), "audit.txt": words}
    written = [config.out / name for name in texts]
    for path, text in zip(written, texts.values(), strict=True):
        with atomic_path(path) as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")
    sets = report["duplicates"]["sets"]
    if sets and config.shown:
        written.append(config.out / "audit.png")
        draw_sheet(sets[: config.shown], len(sets), written[-1])
    else:
        (config.out / "audit.png").unlink(missing_ok=True)  # of another data set
    logger.info("%s", words)
    logger.info("Written: %s", ", ".join(map(str, written)))
    if report["leak"]:
        leaks = [found["text"] for found in report["findings"] if found["kind"] == "leak"]
        raise Leak(f"The split leaks: {' '.join(leaks)} They are listed in {written[0]}.")


def _cases(config: AuditConfig) -> tuple[pd.DataFrame, str]:
    """Return the cases with their split, unchecked, and where they come from."""
    if config.cases is None:
        source, root = locate(config.data)
        manifest = _load(source, root, config)
        split = "published" if "split" in manifest else "drawn as for training"
        return _split(manifest, config), f"{source} in {root}, split {split}"
    if config.cases.is_dir():
        run = open_run(config.cases)
        if read_task(run) == "bags":
            raise InputError(f"{config.cases} was trained on bags; the audit is of images.")
        if (config.cases / "fold-0").is_dir():
            raise InputError(
                f"Each fold of {config.cases} has a split of its own: audit them one by one, such "
                f"as {config.cases / 'fold-0'}."
            )
        return read_cases(run), f"run {config.cases}"
    manifest = load_source("csv", config.cases)
    if "split" in manifest:
        return manifest, str(config.cases)
    return _split(manifest, config), f"{config.cases}, split drawn as for training"


def _load(source: str, root: Path, config: AuditConfig) -> Any:
    if source == "sample":
        return load_source("kaggle", open_sample(root) or make_sample(root))
    return load_source(source, root, mask=config.data.mask)


def _split(manifest: pd.DataFrame, config: AuditConfig) -> pd.DataFrame:
    return split_manifest(manifest, config.data.fractions, config.data.split_seed)
