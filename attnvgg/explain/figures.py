"""Cases as rows of a figure (image | pool-3 | pool-4, label, probability), or as plain pixels."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke
from numpy.typing import ArrayLike, NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from attnvgg.errors import InputError
from attnvgg.explain.case import Case
from attnvgg.explain.overlays import Interpolation, Kind, scale_map
from attnvgg.explain.page import DPI, GAP, PANEL, TIMES, WIDTH, Page
from attnvgg.files import atomic_path

HEADS = ("image", "pool-3", "pool-4")
CLASS_HEAD = "Grad-CAM"
LONGEST = round(2 * PANEL * DPI)  # pixels of an image at that; more could not be seen

MEANING: dict[Kind, str] = {
    "softmax": f"Colours: attention weight relative to a uniform one (weight {TIMES} number of "
    "positions), on a log scale that is the same for every image.",
    "sigmoid": "Colours: attention weight, on a scale that is the same for every image.",
    "per-image": "Colours: attention weight STRETCHED PER IMAGE from its lowest to its highest; "
    "colours of two maps cannot be compared.",
}

CLASS_MEANING = (
    "Those maps are the same for every class; Grad-CAM, stretched per image from nothing (blue) to "
    "the most (red), shows what speaks for the class that p is of."
)


def save_grid(
    path: str | os.PathLike[str],
    cases: Sequence[Case],
    *,
    kind: Kind = "softmax",
    interpolation: Interpolation = "bilinear",
    threshold: float | None = None,
    title: str | None = None,
    caption: str | None = None,
    dpi: int = DPI,
) -> None:
    """Write a figure with a row a case; about eight rows fill a page.

    Args:
        path: file to write; its suffix chooses the format (.png, .pdf, .svg, .jpg).
        cases: rows, from the top; reduced to `LONGEST` they look the same and need less memory.
        kind: scale of the colours, see `scale_map`; it is stated on the figure.
        interpolation: see `upsample`.
        threshold: of the decision, stated below the figure.
        title: above the figure.
        caption: said below the figure in full, such as that the images are synthetic.
        dpi: pixels an inch; a panel is 1.75 inches wide.

    Raises:
        InputError: no cases, maps of another kind, or a format that cannot be written.
    """
    page = _draw_grid(cases, kind, interpolation, threshold, title, caption, dpi)
    page.write(path, dpi)


def grid_png(
    cases: Sequence[Case],
    *,
    kind: Kind = "softmax",
    threshold: float | None = None,
    caption: str | None = None,
    dpi: int = DPI,
) -> bytes:
    """Return the figure of `save_grid` as the content of a PNG file; nothing is written."""
    return _draw_grid(cases, kind, "bilinear", threshold, None, caption, dpi).to_png(dpi)


def save_panels(
    path: str | os.PathLike[str],
    case: Case,
    *,
    kind: Kind = "softmax",
    interpolation: Interpolation = "bilinear",
    caption: str | None = None,
) -> None:
    """Write image | pool-3 | pool-4 (| Grad-CAM) side by side as a PNG, in source pixels.

    There is nothing else on it; what it shows is said in the text that PNG calls Description.

    Args:
        path: file to write.
        case: what to show.
        kind: see `scale_map`.
        interpolation: see `upsample`.
        caption: added to the description.

    Raises:
        InputError: maps of another kind.
    """
    words = " ".join([f"{' | '.join(_heads([case]))}.", *_meaning([case], kind), caption or ""])
    description = PngInfo()
    description.add_text("Description", words.strip())
    picture = Image.fromarray(np.hstack(case.panels(kind, interpolation)))
    with atomic_path(path) as temporary:  # higher levels take long and save little
        picture.save(temporary, "PNG", pnginfo=description, compress_level=1)


def outline(axes: Axes, mask: ArrayLike, **place: Any) -> None:
    """Draw a line around a region.

    Args:
        axes: of the picture.
        mask: region, (h, w), more where it is.
        place: of the mask in the axes, as `contour` takes it.
    """
    values = np.asarray(mask, dtype=np.float64)
    if values.max() <= values.min():
        return  # empty, or the whole image: no outline
    for colour, width, alpha in (("black", 1.6, 0.35), ("white", 0.7, 1.0)):
        middle = (values.max() + values.min()) / 2
        axes.contour(values, [middle], colors=colour, linewidths=width, alpha=alpha, **place)


def _draw_grid(
    cases: Sequence[Case],
    kind: Kind,
    interpolation: Interpolation,
    threshold: float | None,
    title: str | None,
    caption: str | None,
    dpi: int,
) -> Page:
    if not cases:
        raise InputError("There are no cases to draw.")
    rows = [case.reduced(round(2 * PANEL * dpi)) for case in cases]
    clipped = any(_clipped(row, kind) for row in rows)
    heads = _heads(rows)
    width = WIDTH + (len(heads) - len(HEADS)) * (PANEL + GAP)
    notes = _notes(rows, kind, threshold, caption, clipped)
    heights = [PANEL * float(np.clip(r.image.shape[0] / r.image.shape[1], 0.5, 1.5)) for r in rows]
    page = Page(heights, title is not None, len(notes), width=width)
    for number, row in enumerate(rows):
        _draw_row(page, number, row, kind, interpolation)
    page.draw_heads(heads, title)
    page.draw_colour_bar(kind, clipped, page.column(1), 2 * PANEL + GAP)
    page.draw_notes(notes)
    return page


def _draw_row(
    page: Page, number: int, case: Case, kind: Kind, interpolation: Interpolation
) -> None:
    top, height = float(page.tops[number]), page.heights[number]
    for column, panel in enumerate(case.panels(kind, interpolation)):
        axes = page.axes(page.column(column), top, PANEL, height)
        axes.imshow(panel, interpolation="antialiased")
        axes.set_axis_off()
        if case.mask is not None:
            outline(axes, case.mask)
        if column == len(HEADS):
            _write_corner(axes, f"for {case.scored or case.predicted}")
        elif column > 0:
            _draw_remark(axes, np.asarray((case.attn1, case.attn2)[column - 1]), kind)
    page.draw_verdict(top, height, case)


def _notes(
    rows: Sequence[Case], kind: Kind, threshold: float | None, caption: str | None, clipped: bool
) -> list[str]:
    """Return the lines below the figure."""
    sentences = _meaning(rows, kind)
    if clipped:
        sentences.append("Arrowheads and 'clipped': share of positions beyond the scale.")
    if any(row.mask is not None for row in rows):
        sentences.append("White line: lesion mask.")
    if any(_unseen(row) for row in rows):
        sentences.append("Darkened: outside of what the model saw.")
    if threshold is not None:
        wrong = "; red: wrong" if any(row.wrong for row in rows) else ""
        sentences.append(f"Decision at p ≥ {threshold:.3g}{wrong}.")
    if caption:
        sentences.append(caption)
    panels = len(_heads(rows)) - len(HEADS)
    return textwrap.wrap(" ".join(sentences), 132 + panels * 34)


def _heads(rows: Sequence[Case]) -> tuple[str, ...]:
    """Return the names of the columns."""
    return (*HEADS, CLASS_HEAD) if any(row.class_map is not None for row in rows) else HEADS


def _meaning(rows: Sequence[Case], kind: Kind) -> list[str]:
    """Say what the colours mean."""
    return [MEANING[kind], CLASS_MEANING] if len(_heads(rows)) > len(HEADS) else [MEANING[kind]]


def _draw_remark(axes: Axes, attention: NDArray[Any], kind: Kind) -> None:
    """Say in the corner what the colours of this map cannot."""
    share = scale_map(attention, kind).clipped.mean()
    if kind == "per-image":
        words = f"{attention.min():.2g} to {attention.max():.2g}"
    elif share:
        words = "<1 % clipped" if share < 0.01 else f"{100 * share:.0f} % clipped"
    else:
        return
    _write_corner(axes, words)


def _write_corner(axes: Axes, words: str) -> None:
    axes.text(
        0.97, 0.035, words, transform=axes.transAxes, ha="right", va="bottom", fontsize=5.8,
        color="white", path_effects=[withStroke(linewidth=1.4, foreground="#000000a0")],
    )  # fmt: skip


def _clipped(case: Case, kind: Kind) -> bool:
    return any(scale_map(attention, kind).clipped.any() for attention in (case.attn1, case.attn2))


def _unseen(case: Case) -> bool:
    """Tell whether some of the image is outside of the region."""
    return case.region is not None and case.region.side + 1 < max(case.image.shape[:2])
