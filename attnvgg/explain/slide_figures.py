"""A slide as a figure: the slide, where the model looked, and the tiles it looked at most."""

from __future__ import annotations

import os
import textwrap
from dataclasses import replace

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.patheffects import AbstractPathEffect, withStroke

from attnvgg.errors import InputError
from attnvgg.explain.bag_case import Selection
from attnvgg.explain.bag_row import FRAME, RULE, SPACE, Box, draw_instances, instance_height
from attnvgg.explain.figures import outline
from attnvgg.explain.overlays import COLOUR_SHARE, Kind
from attnvgg.explain.page import DPI, GAP, INK, LINE, MARGIN, PANEL, QUIET, TIMES, Page
from attnvgg.explain.slide_maps import SlideCase, colours, found_shares, on_scale

MOST = 10  # tiles in the row
LARGEST = 1.0  # inches of a tile
ACROSS = 3 * PANEL + 2 * GAP  # inches beside the words
TALLEST = 4.2  # inches of a slide
STACKED = 2.0  # a slide that many times as wide as high lies above its map, not beside it
HEAD, ROW_GAP, NUMERAL = 0.24, 0.16, 0.075  # inches

SCALE: dict[Kind, str] = {
    "softmax": f"Colours: attention weight of a tile relative to a uniform one (weight {TIMES} "
    "number of tiles), on a log scale that is the same for every slide; the mean where tiles "
    "overlap; none: no tile. Number below a tile: its weight; those of a slide sum to 1. Bar: its "
    "place among the colours.",
    "sigmoid": "Colours, number and bar: {} (of a tile), on a scale from 0 to 1 that is the same "
    "for every slide; the mean where tiles overlap; none: no tile.",
}


def save_slide(
    path: str | os.PathLike[str],
    case: SlideCase,
    *,
    top: int = 8,
    threshold: float | None = None,
    title: str | None = None,
    caption: str | None = None,
    dpi: int = DPI,
) -> None:
    """Write a figure of one slide: the slide | its map, below them the tiles of most weight.

    Args:
        path: file to write; its suffix chooses the format (.png, .pdf, .svg, .jpg).
        case: what to draw.
        top: tiles in the row, which also are numbered on the slide; at most `MOST`.
        threshold: of the decision, stated below the figure.
        title: above the figure.
        caption: said below the figure in full.
        dpi: pixels an inch; the page is 7 inches wide.

    Raises:
        InputError: no tiles or too many in the row, or a format that cannot be written.
    """
    if not 1 <= top <= MOST:
        raise InputError(f"The row shows 1 to {MOST} tiles, not {top}.")
    order = case.order.tolist()
    chosen = Selection(order[:top], order[top:], [])
    bag = replace(case.bag, instance_names=_names(case))
    boxes, height = _places(case.width / case.height)
    clipped = bool(on_scale(case.shown, bag.kind).clipped.any())
    notes = textwrap.wrap(" ".join(_notes(case, threshold, caption, clipped)), 132)
    slots = max(len(chosen.first) + bool(chosen.rest), 5)
    panel = min(LARGEST, (ACROSS - 2 * FRAME + SPACE) / slots - SPACE)
    page = Page(
        [height, instance_height(bag, panel)],
        title is not None,
        len(notes),
        panel=panel,
        gap=SPACE,
        row_gap=ROW_GAP,
    )
    page.draw_verdict(float(page.tops[0]), height, bag, *_facts(case))
    _draw_slide(page, case, boxes, chosen.first)
    _draw_beside(page, case, chosen)
    draw_instances(page, page.canvas(), float(page.tops[1]), bag, chosen)
    page.draw_heads((), title)
    page.draw_colour_bar(bag.kind, clipped, page.column(0) + FRAME, 2 * PANEL)
    page.draw_notes(notes)
    page.write(path, dpi)


def _places(ratio: float) -> tuple[tuple[Box, Box], float]:
    """Return where slide and map are, from the corner of the row, and the height of the row.

    Args:
        ratio: of the slide's width to its height.
    """
    if ratio >= STACKED:
        tall = ACROSS / ratio
        below = Box(0, tall + HEAD, ACROSS, tall)
        return (Box(0, 0, ACROSS, tall), below), below.top + tall
    half = (ACROSS - GAP) / 2
    tall = min(half / ratio, TALLEST)
    wide = tall * ratio
    return (Box(0, 0, wide, tall), Box(wide + GAP, 0, wide, tall)), tall


def _draw_slide(page: Page, case: SlideCase, boxes: tuple[Box, Box], top: list[int]) -> None:
    """Draw the slide with its top tiles numbered, and the map over it, both in level-0 pixels."""
    corner = Box(page.column(0) + FRAME, float(page.tops[0]), 0, 0)
    for box, head in zip(boxes, ("slide", _head(case)), strict=True):
        left, upper = corner.left + box.left, corner.top + box.top
        page.text(left + box.width / 2, upper - HEAD / 2, head, ha="center", fontsize=9)
        axes = page.axes(left, upper, box.width, box.height)
        axes.imshow(
            case.overview, extent=(0, case.width, case.height, 0), interpolation="antialiased"
        )
        axes.set(xticks=[], yticks=[], xlim=(0, case.width), ylim=(case.height, 0), aspect="auto")
        for spine in axes.spines.values():
            spine.set(color=RULE, linewidth=0.5)
        if head == "slide":
            _draw_numbers(axes, case, top, case.width / box.width)
            _draw_length(axes, case)
        else:
            downsample = min(max(1.0, max(case.width, case.height) / 1500), case.side)
            painted = colours(case.map(downsample), case.bag.kind)
            tall, wide, _ = painted.shape
            extent = (0, wide * downsample, tall * downsample, 0)
            axes.imshow(painted, extent=extent, alpha=COLOUR_SHARE, interpolation="nearest")
            axes.set(xlim=(0, case.width), ylim=(case.height, 0), aspect="auto")
        if case.mask is not None:
            outline(axes, case.mask, origin="lower", extent=(0, case.width, 0, case.height))


def _draw_numbers(axes: Axes, case: SlideCase, top: list[int], inch: float) -> None:
    """Frame the tiles of the row and number them, where there is room for a number.

    Args:
        axes: in level-0 pixels.
        case: what is drawn.
        top: tiles of the row, in its order.
        inch: in level-0 pixels.
    """
    shadow: list[AbstractPathEffect] = [withStroke(linewidth=1.6, foreground="white")]
    corners = case.coords[top]
    for x, y in corners.tolist():
        frame = Rectangle((x, y), case.side, case.side, fill=False, edgecolor=INK, linewidth=0.8)
        axes.add_patch(frame).set_path_effects(shadow)
    size = (case.width, case.height)
    middles = (corners.clip(0, size) + (corners + case.side).clip(0, size)) / 2  # of what is seen
    numbered: list[tuple[float, float]] = []
    for rank, (x, y) in enumerate(middles.tolist(), 1):
        if any(max(abs(x - u), abs(y - v)) < NUMERAL * inch for u, v in numbered):
            continue
        numbered.append((x, y))
        axes.text(
            x, y, str(rank), ha="center", va="center_baseline", fontsize=5.5, color=INK,
            path_effects=shadow,
        )  # fmt: skip


def _draw_length(axes: Axes, case: SlideCase) -> None:
    """Draw a length of 1, 2 or 5 times a power of ten, at most a quarter of the slide."""
    if case.mpp is None:
        return
    longest = case.width * case.mpp / 4  # microns
    power = 10.0 ** np.floor(np.log10(longest))
    microns = max(step * power for step in (1, 2, 5) if step * power <= longest)
    words = f"{microns / 1000:g} mm" if microns >= 1000 else f"{microns:g} µm"
    start, length = 0.03, microns / case.mpp / case.width
    shadow = [withStroke(linewidth=2.4, foreground="white")]
    axes.plot(
        [start, start + length], [0.035, 0.035], transform=axes.transAxes, color=INK,
        linewidth=1.4, solid_capstyle="butt", path_effects=shadow,
    )  # fmt: skip
    axes.annotate(
        words, (start, 0.035), xycoords="axes fraction", xytext=(0, 2.5),
        textcoords="offset points", ha="left", fontsize=6, color=INK, path_effects=shadow,
    )  # fmt: skip


def _draw_beside(page: Page, case: SlideCase, chosen: Selection) -> None:
    """Say beside the row of tiles what it is."""
    shown, count = len(chosen.first), len(case.bag)
    lines = [f"{shown:,} of {count:,} tiles," if shown < count else f"all {count:,} tiles,"]
    lines.append("most attention first" if case.bag.kind == "softmax" else "highest first")
    middle = float(page.tops[1]) + FRAME + page.panel / 2 - LINE * (len(lines) - 1) / 2
    for line, words in enumerate(lines):
        page.text(MARGIN, middle + line * LINE, words, fontsize=6.5, color=QUIET)


def _head(case: SlideCase) -> str:
    return "attention" if case.bag.kind == "softmax" else case.bag.score_name


def _names(case: SlideCase) -> list[str]:
    """Return the rank of every tile as its name, and how much of it is the region."""
    names, shares = [""] * len(case.bag), found_shares(case)
    for rank, number in enumerate(case.order.tolist(), 1):
        names[number] = f"tile {rank}" if shares is None else f"{rank}: {100 * shares[number]:.0f}%"
    return names


def _facts(case: SlideCase) -> list[str]:
    """Return what is said of the slide beside it."""
    facts = [
        f"{case.width:,} {TIMES} {case.height:,} px",
        "µm per px not known" if case.mpp is None else f"{case.mpp:.3g} µm per px",
        f"{len(case.bag):,} tile" + "s" * (len(case.bag) > 1),
    ]
    return [*facts, f"of {case.side:,} px"]


def _notes(
    case: SlideCase, threshold: float | None, caption: str | None, clipped: bool
) -> list[str]:
    """Return the sentences below the figure."""
    sentences = [SCALE[case.bag.kind].format(case.bag.score_name)]
    if clipped:
        sentences.append("Arrowheads: beyond the scale.")
    if case.bag.branches > 1:
        sentences.append(f"Of attention with {case.bag.branches} branches the mean is drawn.")
    sentences.append("px, x, y: pixels of level 0.")
    if case.mask is not None:
        sentences.append("White line, %: region that was to be found, its share of a tile.")
    if threshold is not None:
        wrong = "; red: wrong" if case.bag.wrong else ""
        sentences.append(f"Decision at p ≥ {threshold:.3g}{wrong}.")
    return [*sentences, caption] if caption else sentences
