"""The page of a figure: where its parts are, and those that are not cases."""

from __future__ import annotations

import os
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure

from attnvgg.errors import InputError
from attnvgg.explain.overlays import Kind, jet
from attnvgg.files import atomic_path

# Inches of the page, from left to right and from top to bottom.
TEXT, PANEL, GAP, MARGIN = 1.35, 1.75, 0.06, 0.12
TITLE, HEADS, BAR, TICKS, LINE = 0.32, 0.24, 0.11, 0.34, 0.135
WIDTH = 2 * MARGIN + TEXT + 3 * PANEL + 2 * GAP
WORDS = 0.185  # from one line beside the panels to the next
DPI = 200
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


class Verdict(Protocol):
    """What is said beside the panels of a row: the truth, and what the model made of it."""

    @property
    def name(self) -> str: ...
    @property
    def probability(self) -> float: ...
    @property
    def predicted(self) -> str: ...
    @property
    def label(self) -> str | None: ...
    @property
    def scored(self) -> str | None: ...
    @property
    def wrong(self) -> bool: ...


class Page:
    """A figure without any global state, and the places of its parts in inches from the top.

    Args:
        heights: of the rows, in inches.
        has_title: leaves room for a title.
        notes: number of lines at the foot.
        has_bar: leaves room for the colour bar.
        width: of the page, in inches.
        panel: width of a panel, in inches.
        gap: between two panels, in inches.
        row_gap: between two rows, in inches.
    """

    def __init__(
        self,
        heights: Sequence[float],
        has_title: bool,
        notes: int,
        *,
        has_bar: bool = True,
        width: float = WIDTH,
        panel: float = PANEL,
        gap: float = GAP,
        row_gap: float = GAP,
    ) -> None:
        self.width, self.heights, self.panel = width, heights, panel
        self.gap, self.row_gap = gap, row_gap
        top = MARGIN + (TITLE if has_title else 0) + HEADS
        self.tops = top + np.cumsum([0, *(height + row_gap for height in heights)])
        self.bar_top = self.tops[-1] + GAP
        self.notes_top = self.bar_top + (BAR + TICKS if has_bar else 0)
        self.height = float(self.notes_top + notes * LINE + MARGIN)
        self.figure = Figure(figsize=(self.width, self.height), facecolor="white")

    def column(self, number: int) -> float:
        """Return the left edge of a column of panels."""
        return MARGIN + TEXT + number * (self.panel + self.gap)

    def axes(self, left: float, top: float, width: float, height: float) -> Axes:
        """Return axes at a place."""
        bottom = self.height - top - height
        box = (left / self.width, bottom / self.height, width / self.width, height / self.height)
        return self.figure.add_axes(box)

    def canvas(self) -> Axes:
        """Return axes over the whole page, in inches: for many small things, axes each are slow."""
        axes = self.axes(0, 0, self.width, self.height)
        axes.set(xlim=(0, self.width), ylim=(self.height, 0), autoscale_on=False)
        axes.set_axis_off()
        return axes

    def text(self, left: float, top: float, words: str, **style: Any) -> None:
        """Write words at a place."""
        x, y = left / self.width, 1 - top / self.height
        self.figure.text(x, y, words, **{"color": INK, "va": "center", **style})

    def draw_heads(self, heads: Sequence[str], title: str | None) -> None:
        """Write the title and the names of the columns."""
        for column, head in enumerate(heads):
            self.text(
                self.column(column) + self.panel / 2,
                self.tops[0] - HEADS / 2,
                head,
                ha="center",
                fontsize=9,
            )
        if title is not None:
            room = round(66 * self.width / WIDTH)
            style = {"fontsize": fitted(11, title, room), "fontweight": "bold"}
            self.text(MARGIN, MARGIN + TITLE / 2 - 0.04, title, **style)

    def draw_verdict(self, top: float, height: float, case: Verdict, *more: str) -> None:
        """Write label, probability and, for an error, what the case was called, beside a row."""
        words = verdict_words(case, *more)
        if case.wrong:
            bar = self.axes(self.column(0) - 0.075, top, 0.025, height)
            bar.set_axis_off()
            bar.axvspan(0, 1, color=ALARM, linewidth=0)
            bar.set_xlim(0, 1)
        start = top + height / 2 - WORDS * (len(words) - 1) / 2
        for line, (text, size, style) in enumerate(words):
            room = round((135 if style.get("fontweight") else 160) / size)  # letters beside panels
            style = {"fontsize": fitted(size, text, room), **style}
            self.text(MARGIN, start + line * WORDS, text, **style)

    def draw_colour_bar(self, kind: Kind, clipped: bool, left: float, width: float) -> None:
        """Draw the scale below the rows."""
        axes = self.axes(left, self.bar_top, width, BAR)
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

    def to_png(self, dpi: int) -> bytes:
        """Return the figure as the content of a PNG file."""
        content = BytesIO()
        self.figure.savefig(content, dpi=dpi, format="png")
        return content.getvalue()

    def write(self, path: str | os.PathLike[str], dpi: int) -> None:
        """Write the figure, all of it or nothing.

        Raises:
            InputError: a format that cannot be written.
        """
        form = Path(path).suffix[1:].lower()  # without one, matplotlib would choose the name itself
        with atomic_path(path) as temporary:
            try:
                self.figure.savefig(temporary, dpi=dpi, format=form)
            except ValueError as error:
                reason = str(error).rstrip(".")
                raise InputError(f"{path} cannot be written as a figure: {reason}.") from error


def verdict_words(case: Verdict, *more: str) -> list[tuple[str, float, dict[str, Any]]]:
    """Return the lines beside a row with their sizes and styles; `more` are the last ones."""
    words: list[tuple[str, float, dict[str, Any]]] = [
        (case.label or case.predicted, 9.5, {"fontweight": "bold"}),
        (f"p({case.scored or case.predicted}) {compared(case.probability)}", 8, {}),
    ]
    if case.wrong:
        words.append((f"called {case.predicted}", 8, {"color": ALARM}))
    elif case.label is None:
        words.append(("predicted (no label)", 6.5, {"color": QUIET}))
    quiet = [shortened(case.name, 22)] if case.name else []
    return words + [(line, 6.5, {"color": QUIET}) for line in (*quiet, *more)]


def compared(probability: float) -> str:
    """Return "= 0.87", or with as many digits as tell it from 0 and 1, at most four.

    >>> compared(0.9962), compared(0.99999)
    ('= 0.996', '> 0.9999')
    """
    for digits in (2, 3, 4):
        if 0 < float(text := f"{probability:.{digits}f}") < 1:
            return f"= {text}"
    return "> 0.9999" if probability > 0.5 else "< 0.0001"


def fitted(size: float, words: str, room: int) -> float:
    """Return the font size at which words take the place of at most `room` letters."""
    return size * min(1.0, room / max(len(words), 1))


def shortened(name: str, room: int) -> str:
    """Return a name of at most `room` letters: its beginning and its end."""
    end = 4 * room // 11
    return name if len(name) <= room else f"{name[: room - 1 - end]}…{name[-end:]}"
