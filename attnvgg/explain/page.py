"""The page of a figure: where its parts are, and those that are not cases."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure

from attnvgg.explain.overlays import Kind, jet

# Inches of the page, from left to right and from top to bottom.
TEXT, PANEL, GAP, MARGIN = 1.35, 1.75, 0.06, 0.12
TITLE, HEADS, BAR, TICKS, LINE = 0.32, 0.24, 0.11, 0.34, 0.135
INK, QUIET, ALARM = "#1a1a1a", "#6f6f6f", "#b3372f"

TIMES = "\N{MULTIPLICATION SIGN}"
TICK_LABELS: dict[Kind, tuple[str, ...]] = {
    "softmax": (
        f"{TIMES}1/16",
        f"{TIMES}1/4",
        f"{TIMES}1 = no preference",
        f"{TIMES}4",
        f"{TIMES}16",
    ),
    "sigmoid": ("0", "0.25", "0.5", "0.75", "1"),
    "per-image": ("min", "", "of each map", "", "max"),
}


class Page:
    """A figure without any global state, and the places of its parts in inches from the top."""

    def __init__(self, heights: Sequence[float], has_title: bool, notes: int) -> None:
        self.width = 2 * MARGIN + TEXT + 3 * PANEL + 2 * GAP
        self.heights = heights
        top = MARGIN + (TITLE if has_title else 0) + HEADS
        self.tops = top + np.cumsum([0, *(height + GAP for height in heights)])
        self.bar_top = self.tops[-1] + GAP
        self.notes_top = self.bar_top + BAR + TICKS
        self.height = float(self.notes_top + notes * LINE + MARGIN)
        self.figure = Figure(figsize=(self.width, self.height), facecolor="white")

    def column(self, number: int) -> float:
        """Return the left edge of a column of panels."""
        return MARGIN + TEXT + number * (PANEL + GAP)

    def axes(self, left: float, top: float, width: float, height: float) -> Axes:
        """Return axes at a place."""
        bottom = self.height - top - height
        box = (left / self.width, bottom / self.height, width / self.width, height / self.height)
        return self.figure.add_axes(box)

    def text(self, left: float, top: float, words: str, **style: Any) -> None:
        """Write words at a place."""
        x, y = left / self.width, 1 - top / self.height
        self.figure.text(x, y, words, **{"color": INK, "va": "center", **style})

    def draw_heads(self, heads: Sequence[str], title: str | None) -> None:
        """Write the title and the names of the columns."""
        for column, head in enumerate(heads):
            self.text(
                self.column(column) + PANEL / 2,
                self.tops[0] - HEADS / 2,
                head,
                ha="center",
                fontsize=9,
            )
        if title is not None:
            style = {"fontsize": fitted(11, title, 66), "fontweight": "bold"}
            self.text(MARGIN, MARGIN + TITLE / 2 - 0.04, title, **style)

    def draw_colour_bar(self, kind: Kind, clipped: bool) -> None:
        """Draw the scale below the two columns of maps."""
        axes = self.axes(self.column(1), self.bar_top, 2 * PANEL + GAP, BAR)
        colours = ScalarMappable(Normalize(0, 1), ListedColormap(jet()[:, 0] / 255))
        bar = self.figure.colorbar(
            colours,
            cax=axes,
            orientation="horizontal",
            extend="both" if clipped else "neither",
            extendfrac=0.03,
            ticks=np.linspace(0, 1, 5),
        )
        bar.outline.set_visible(False)
        axes.set_xticklabels(TICK_LABELS[kind], fontsize=7, color=INK)
        axes.tick_params(length=2.5, width=0.6, color=QUIET, pad=2)

    def draw_notes(self, notes: Sequence[str]) -> None:
        """Write lines at the foot."""
        for number, note in enumerate(notes):
            self.text(
                MARGIN, self.notes_top + (number + 0.5) * LINE, note, fontsize=6.8, color=QUIET
            )


def fitted(size: float, words: str, room: int) -> float:
    """Return the font size at which words take the place of at most `room` letters."""
    return size * min(1.0, room / max(len(words), 1))
