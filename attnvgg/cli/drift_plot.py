"""The picture of a comparison: each statistic then and now, on the same bins."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from attnvgg.evaluation.drift import Drift
from attnvgg.explain.page import ALARM, DPI, INK, QUIET
from attnvgg.files import atomic_path

REFERENCE, PERIOD = "#22577a", "#c77f1a"
COLUMNS, BINS = 4, 24
PANEL = (2.6, 2.0)  # inches
HEAD = 0.75  # inches


def save_histograms(
    path: Path,
    found: Sequence[Drift],
    reference: pd.DataFrame,
    period: pd.DataFrame,
    words: str,
) -> None:
    """Write a panel a statistic: shares of the reference filled, those of the period as a line.

    Args:
        path: of the PNG file.
        found: what was compared.
        reference: its values, a column a statistic, and `split`: whose they are.
        period: likewise.
        words: title.
    """
    columns = min(COLUMNS, len(found))
    rows = math.ceil(len(found) / columns)
    size = (PANEL[0] * columns, PANEL[1] * rows + HEAD)
    figure = Figure(figsize=size, facecolor="white", layout="constrained")
    figure.suptitle(words, fontsize=10, color=INK, x=0.01, ha="left", fontweight="bold")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, one in zip(panels, found, strict=False):
        old = reference[reference[one.name].notna()]
        of = "training" if (old["split"] == "train").all() else "validation"
        _draw(axes, one, _values(old[one.name]), _values(period[one.name]), of)
    for axes in panels[len(found) :]:
        axes.set_axis_off()
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=DPI, format="png")


def _values(column: pd.Series[float]) -> NDArray[np.float64]:
    values = pd.to_numeric(column, errors="coerce").to_numpy(np.float64)
    return values[np.isfinite(values)]


def _draw(
    axes: Axes, one: Drift, old: NDArray[np.float64], new: NDArray[np.float64], of: str
) -> None:
    """Draw a statistic; `of` says whose the reference is."""
    edges = np.histogram_bin_edges(np.concatenate([old, new]), BINS)
    for values, colour, filled in ((old, REFERENCE, True), (new, PERIOD, False)):
        shares = np.histogram(values, edges)[0] / len(values)
        style = {"fill": True, "alpha": 0.35, "linewidth": 0} if filled else {"linewidth": 1.4}
        axes.stairs(shares, edges, color=colour, **style)  # type: ignore[arg-type]
    for place, n, words, colour in (
        (0.99, len(old), of, REFERENCE),
        (0.88, len(new), "period", PERIOD),
    ):
        axes.text(
            0.98, place, f"{words}, n = {n:,}", transform=axes.transAxes, ha="right", va="top",
            fontsize=6.5, color=colour,
        )  # fmt: skip
    words = f"{one.name}: PSI {one.psi:.2f}, p {_p(one.p)}" + (" DRIFTED" if one.drifted else "")
    axes.set_title(words, fontsize=7.5, color=ALARM if one.drifted else INK, loc="left")
    axes.set_ylim(0, axes.get_ylim()[1] * 1.3)  # room for the words
    axes.set_yticks([share for share in axes.get_yticks() if share <= min(1, axes.get_ylim()[1])])
    axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.3g} %")
    axes.tick_params(length=2, width=0.5, color=QUIET, labelsize=6, labelcolor=INK)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set(color=QUIET, linewidth=0.6)


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"= {value:.3f}"
