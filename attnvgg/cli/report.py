"""The report folder: figures for programs, pictures, a page for people, a table of cases."""

from __future__ import annotations

import json
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from attnvgg.cli.report_page import page
from attnvgg.cli.report_plots import save_plots
from attnvgg.cli.report_tables import interval
from attnvgg.errors import InputError
from attnvgg.evaluation.assessment import Assessment, Questions, assess
from attnvgg.evaluation.predictions import read_predictions
from attnvgg.files import atomic_path

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Order:
    """A report that is asked for.

    Attributes:
        predictions: the table to judge.
        folder: where the report goes.
        name: what is judged, as its title.
        questions: see there.
        against: another table of predictions or a run, of the same cases.
        about: what is known of the cases beside the table, such as `synthetic`.
    """

    predictions: Path
    folder: Path
    name: str
    questions: Questions
    against: Path | None = None
    about: dict[str, Any] | None = None


def write_report(order: Order) -> Assessment:
    """Judge predictions; write `metrics.json`, pictures, `probabilities.csv` and `report.html`.

    Raises:
        InputError: a table that cannot be judged, or a folder that is a file.
    """
    if order.folder.exists() and not order.folder.is_dir():
        raise InputError(f"{order.folder} is no folder: choose another one with --out.")
    other = None if order.against is None else read_predictions(predictions_of(order.against))
    found = assess(read_predictions(order.predictions), order.questions, other)
    content = {**found.content, **(order.about or {})}
    if order.against is not None:
        content["other"] = str(order.against)
    order.folder.mkdir(parents=True, exist_ok=True)
    with atomic_path(order.folder / "metrics.json") as temporary:
        temporary.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")
    with atomic_path(order.folder / "probabilities.csv") as temporary:
        _probabilities(found).to_csv(temporary, index=False)
    plots = save_plots(order.folder, found)
    with atomic_path(order.folder / "report.html") as temporary:
        temporary.write_text(page(content, plots, order.name), encoding="utf-8")
    for line in _lines(content):
        logger.info("%s", line)
    logger.info("Written: %s", order.folder / "report.html")
    return found


def predictions_of(place: Path) -> Path:
    """Return the table of predictions of a run, or the file itself.

    Raises:
        InputError: a folder without one.
    """
    if not place.is_dir():
        return place
    if not (place / "predictions.csv").is_file():
        raise InputError(f"{place} has no predictions.csv: evaluate that run first.")
    return place / "predictions.csv"


def report_folder(predictions: str | os.PathLike[str]) -> Path:
    """Return where the report of a file goes when nothing is said: `<stem>_report` beside it."""
    path = Path(predictions)
    return path.with_name(f"{path.stem}_report")


def _probabilities(found: Assessment) -> pd.DataFrame:
    """Return the judged cases with what was made of their probabilities."""
    cases = found.cases
    table = cases.table[["image", "label", "group", "split"]].copy()
    for name, values in (("probability", cases.probabilities), ("calibrated", found.calibrated)):
        if values is not None:
            width = values.shape[1]
            for k in range(width):
                table[name if width == 1 else f"{name}_{k}"] = values[:, k]
    if found.corrected is not None:
        table["at_prevalence"] = found.corrected
    return table


def _lines(content: dict[str, Any]) -> list[str]:
    """Return what a person reads on the terminal."""
    names: tuple[str, ...] = ("partial_auc", "brier", "ece", "top_label_ece")
    figures = content["figures"]
    names = names if content["threshold"] else ("auc", *names)
    known = [f"{_word(name)} {interval(figures[name])}" for name in names if name in figures]
    lines = [f"{'; '.join(known)}."]
    found = content["prevalence"]
    if found is not None:
        lines.append(
            f"At a prevalence of {found['stated']:.2%}: PPV {interval(found['ppv'])}, "
            f"NPV {interval(found['npv'])}."
        )
    if content["against"] is not None:
        difference = content["against"]["differences"]["auc"]
        p = difference.get("p_value")
        lines.append(
            f"AUC less that of {content['other']}: {interval(difference)}"
            + (f", p = {p:.2g}." if p is not None else ".")
        )
    return lines


def _word(name: str) -> str:
    words = {"auc": "Macro AUC", "partial_auc": "Partial AUC", "brier": "Brier score"}
    return words.get(name, "calibration error")
