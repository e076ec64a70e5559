"""A bag as a row of a page: the instances that are shown, and below each its weight."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Polygon, Rectangle
from matplotlib.typing import ColorType

from attnvgg.explain.bag_case import BagCase, Selection
from attnvgg.explain.overlays import jet
from attnvgg.explain.page import INK, MARGIN, QUIET, WORDS, Page, fitted, verdict_words

# Inches of a row, from left to right and from top to bottom.
SPACE, FRAME, TRACK, NUMBER, SMALL = 0.09, 0.03, 0.06, 0.135, 0.1
HEAD = 0.045  # of an arrow
RULE, PALE = "#dcdcdc", "#ececec"

Corners = list[tuple[float, float]]


class Box(NamedTuple):
    """A place on the page, in inches from its left and its top."""

    left: float
    top: float
    width: float
    height: float


def row_height(case: BagCase, panel: float) -> float:
    """Return the height of a row in inches, whose instances are `panel` wide."""
    return max(instance_height(case, panel), WORDS * len(verdict_words(case, *_count(case))))


def slot_left(page: Page, slot: int) -> float:
    """Return the left edge of an instance; frames must not touch the mark of an error."""
    return page.column(slot) + FRAME


def draw_row(page: Page, canvas: Axes, number: int, case: BagCase, longest: int) -> None:
    """Draw a bag.

    Args:
        page: with a panel for each instance that is shown.
        canvas: of this page.
        number: of the row, from the top.
        case: what to draw.
        longest: see `BagCase.select`.
    """
    top, height = float(page.tops[number]), page.heights[number]
    if number:
        edge = top - page.row_gap / 2
        canvas.plot([MARGIN, page.width - MARGIN], [edge, edge], color=RULE, linewidth=0.5)
    page.draw_verdict(top, height, case, *_count(case))
    start = top + (height - instance_height(case, page.panel)) / 2
    draw_instances(page, canvas, start, case, case.select(longest))


def draw_instances(page: Page, canvas: Axes, top: float, case: BagCase, chosen: Selection) -> None:
    """Draw instances side by side, with a word on those left out.

    Args:
        page: with a panel for each instance that is shown.
        canvas: of this page.
        top: of the instances, in inches.
        case: what to draw.
        chosen: which of it.
    """
    for slot, instance in enumerate(chosen.first):
        _draw_instance(page, canvas, slot, top, case, instance)
    if chosen.rest:
        _draw_rest(page, len(chosen.first), top, case, chosen.rest)
    for slot, instance in enumerate(chosen.last, len(chosen.first) + 1):
        _draw_instance(page, canvas, slot, top, case, instance)


def written(weight: float) -> str:
    """Return a weight in at most five letters; what is not 0 does not look like it."""
    if weight == 0 or weight >= 0.0995:
        return f"{weight:.2f}" if weight else "0"
    return f"{weight:.3f}" if weight >= 0.001 else f"{weight:.0e}".replace("e-0", "e-")


def _draw_instance(
    page: Page, canvas: Axes, slot: int, top: float, case: BagCase, number: int
) -> None:
    """Draw the picture (or a tall bar), its frame, the bar and the number, and its names."""
    side, left = page.panel, slot_left(page, slot)
    box = Box(left, top + FRAME, side, side)
    if case.instances is not None:
        picture = case.picture(number)
        box = _inside(box, picture.shape[1] / picture.shape[0])
        extent = (box.left, box.left + box.width, box.top + box.height, box.top)
        canvas.imshow(picture, extent=extent, aspect="auto", interpolation="antialiased")
        if case.values is not None:
            track = Box(left, top + side + 3 * FRAME, side, TRACK)
            _draw_bar(canvas, track, case, number, upright=False)
    else:
        _draw_bar(canvas, box, case, number, upright=True)
    _draw_frame(canvas, box, case.labels[number])
    below = top + _number_top(case, side)
    if case.values is not None:
        words = written(case.values[number])
        page.text(left + side / 2, below + NUMBER / 2, words, ha="center", fontsize=7)
        below += NUMBER
    _write_small(page, left + side / 2, below, _names(case, number))


def _draw_rest(page: Page, slot: int, top: float, case: BagCase, rest: list[int]) -> None:
    """Say how many instances are not drawn, and what their weights come to."""
    middle = slot_left(page, slot) + page.panel / 2
    words = [f"{len(rest):,}", "more"]
    if case.values is not None:
        hidden = case.values[rest]
        several = "together" if case.kind == "softmax" else "mean"
        words = [words[0], "more,", several] if len(rest) > 1 else words
        number = written(hidden.sum() if case.kind == "softmax" else hidden.mean())
        place = top + _number_top(case, page.panel) + NUMBER / 2
        page.text(middle, place, number, ha="center", fontsize=7)
    size = fitted(6.5, max(words, key=len), _letters(page, 6.5))
    for line, text in enumerate(words):
        place = top + FRAME + page.panel / 2 + (line - (len(words) - 1) / 2) * 0.115
        page.text(middle, place, text, ha="center", fontsize=size, color=QUIET)


def _draw_bar(canvas: Axes, box: Box, case: BagCase, number: int, upright: bool) -> None:
    """Draw the place of a weight on the fixed scale, from left to right or upwards."""
    assert case.scale is not None
    place, clipped = float(case.scale.values[number]), bool(case.scale.clipped[number])
    length = box.height if upright else box.width

    def corner(along: float, across: float) -> tuple[float, float]:
        """Return a place along the scale and across it, both in [0, 1], in inches."""
        if upright:
            return box.left + across * box.width, box.top + (1 - along) * box.height
        return box.left + along * box.width, box.top + across * box.height

    def fill(colour: ColorType, corners: Corners) -> None:
        canvas.add_patch(Polygon([corner(*c) for c in corners], facecolor=colour, linewidth=0))

    fill(PALE, [(0, 0), (0, 1), (1, 1), (1, 0)])
    colour = jet()[round(255 * place), 0] / 255
    fill(colour, _bar_corners(place, HEAD / length if clipped else 0, upright))
    if case.kind == "softmax":  # the uniform weight
        beyond = 0.0 if upright else 0.25
        ends = zip(corner(0.5, -beyond), corner(0.5, 1 + beyond), strict=True)
        canvas.plot(*ends, color=INK, linewidth=0.8, solid_capstyle="butt")


def _bar_corners(place: float, head: float, upright: bool) -> Corners:
    """Return corners as places along the scale and across it, both in [0, 1] on the scale.

    Args:
        place: end of the bar.
        head: length of the arrowhead that says that the weight is beyond the scale, 0 for none.
            It is beyond the end of a lying bar, but within a standing one, where a frame may be.
        upright: standing bars are narrower than their place.
    """
    low, high, wide = (0.32, 0.68, 0.14) if upright else (0.0, 1.0, 0.0)
    if not head:
        return [(0, low), (0, high), (place, high), (place, low)]
    direction = 1 if place > 0.5 else -1
    base = place - direction * head * upright
    tip = [(base, high + wide), (base + direction * head, 0.5), (base, low - wide)]
    return [(0, low), (0, high), (base, high), *tip, (base, low)] if direction > 0 else tip


def _draw_frame(canvas: Axes, box: Box, label: float) -> None:
    """Mark the truth of an instance, where it is known."""
    if np.isnan(label):
        return
    frame = Rectangle(
        (box.left - FRAME, box.top - FRAME),
        box.width + 2 * FRAME,
        box.height + 2 * FRAME,
        fill=False,
        edgecolor=INK if label else RULE,
        linewidth=1.5 if label else 0.6,
    )
    canvas.add_patch(frame)


def _count(case: BagCase) -> list[str]:
    """Return how many instances a bag has, and how many of those known are positive, in lines."""
    words = f"{len(case):,} instance" + "s" * (len(case) > 1)
    known = int(np.isfinite(case.labels).sum())
    if not known:
        return [words]
    among = "" if known == len(case) else f" of {known:,} known"
    positive = f"{int(np.nansum(case.labels)):,}{among} positive"
    together = f"{words}, {positive}"
    return [together] if len(together) <= 25 else [words, positive]


def _names(case: BagCase, number: int) -> list[str]:
    """Return what stands below the number of an instance."""
    names = [] if case.instance_names is None else [case.instance_names[number]]
    if case.instances is None and case.instance_names is None:
        names = [f"#{number}"]
    if case.coords is not None:
        x, y = np.asarray(case.coords)[number]
        names += [f"x {x:.0f}", f"y {y:.0f}"]
    return names


def _write_small(page: Page, middle: float, top: float, lines: list[str]) -> None:
    room = _letters(page, 5.8)
    for line, words in enumerate(lines):
        short = words if len(words) <= room else f"…{words[1 - room :]}"  # ends tell names apart
        place = top + (line + 0.5) * SMALL
        page.text(middle, place, short, ha="center", fontsize=5.8, color=QUIET)


def _number_top(case: BagCase, panel: float) -> float:
    """Return how far below the top of an instance its number begins, in inches."""
    has_track = case.instances is not None and case.values is not None
    return panel + (3 * FRAME + TRACK if has_track else 2 * FRAME) + 0.01


def instance_height(case: BagCase, panel: float) -> float:
    """Return the height of an instance with all that is below it, in inches."""
    number = NUMBER if case.values is not None else 0
    return _number_top(case, panel) + number + SMALL * len(_names(case, 0))


def _inside(box: Box, ratio: float) -> Box:
    """Return the largest place of a ratio of width to height in the middle of another."""
    width, height = box.width * min(1, ratio), box.height * min(1, 1 / ratio)
    left, top = box.left + (box.width - width) / 2, box.top + (box.height - height) / 2
    return Box(left, top, width, height)


def _letters(page: Page, size: float) -> int:
    """Return how many letters of a size fit below an instance."""
    return int(72 * (page.panel + SPACE / 3) / (0.6 * size))
