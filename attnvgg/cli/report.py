"""The report folder: figures for programs, pictures, a page for people, a table of cases."""

from __future__ import annotations

import json
import logging
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from attnvgg.cli.image_ensemble import OUT_OF_FOLD
from attnvgg.cli.report_page import page
from attnvgg.cli.report_plots import save_plots
from attnvgg.cli.report_tables import interval
from attnvgg.errors import InputError
from attnvgg.evaluation.assessment import Assessment, Questions, assess
from attnvgg.evaluation.predictions import read_predictions
from attnvgg.files import atomic_path, write_json

logger = logging.getLogger(__name__)

PROBABILITIES = "probabilities.csv"  # the judged cases, as the report leaves them
# What says beside a table of predictions whether its cases are synthetic, the nearest first.
BESIDE = ("metrics.json", "summary.json", "best/config.json")


@dataclass(frozen=True)
class Order:
    """A report that is asked for.

    Attributes:
        predictions: the table to judge.
        folder: where the report goes.
        name: what is judged, as its title.
        questions: see there.
        against: another table of predictions or a run, of the same cases.
    """

    predictions: Path
    folder: Path
    name: str
    questions: Questions
    against: Path | None = None


def write_report(order: Order) -> Assessment:
    """Judge predictions; write `metrics.json`, pictures, `probabilities.csv` and `report.html`.

    Raises:
        InputError: a table that cannot be judged, or see `check_folder`.
    """
    check_folder(order.folder)
    second = None if order.against is None else predictions_of(order.against)
    for table in filter(None, (order.predictions, second)):
        if table.resolve() == (order.folder / PROBABILITIES).resolve():
            raise InputError(f"The report would replace {table}: choose another folder with --out.")
    other = None if second is None else read_predictions(second)
    found = assess(read_predictions(order.predictions), order.questions, other)
    content = {**found.content, **synthetic(order.predictions)}
    if second is not None:
        content = {**synthetic(second), **content, "other": str(order.against)}
    order.folder.mkdir(parents=True, exist_ok=True)
    write_json(order.folder / "metrics.json", content)
    with atomic_path(order.folder / PROBABILITIES) as temporary:
        _probabilities(found).to_csv(temporary, index=False)
    plots = save_plots(order.folder, found)
    with atomic_path(order.folder / "report.html") as temporary:
        temporary.write_text(page(content, plots, order.name), encoding="utf-8")
    for line in _lines(content):
        logger.info("%s", line)
    logger.info("Written: %s", order.folder / "report.html")
    return replace(found, content=content)


def check_folder(folder: Path) -> None:
    """Make sure that a report may go into a folder.

    Raises:
        InputError: it is a file, or a run, which has a `metrics.json` of its own.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is no folder: choose another one with --out.")
    if (folder / "config.yaml").exists():
        raise InputError(
            f"{folder} is a run, whose metrics.json the report would replace: choose another "
            "folder with --out."
        )


def synthetic(predictions: Path) -> dict[str, Any]:
    """Return `synthetic`, and `sample` if known, where a file beside the table says so."""
    for name in BESIDE:
        try:
            found = json.loads((predictions.parent / name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue  # it is not there, or of another program
        if isinstance(found, dict) and found.get("synthetic") is True:
            return {key: found[key] for key in ("synthetic", "sample") if key in found}
    return {}


def predictions_of(place: Path) -> Path:
    """Return the table of predictions of a run, or the file itself.

    Raises:
        InputError: a folder without one.
    """
    if not place.is_dir():
        return place
    if (place / OUT_OF_FOLD).is_file():
        raise InputError(
            f"{place} is of folds, which have no predictions in common: give one of them, such as "
            f"{place / 'fold-0'}, or {place / OUT_OF_FOLD}."
        )
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
