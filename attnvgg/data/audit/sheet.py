"""A contact sheet of the copies that were found, for the eye to judge them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from attnvgg.data.decoding import read_image
from attnvgg.errors import InputError
from attnvgg.files import atomic_path

THUMB, SEAM, TEXT, GAP, MARGIN, TITLE = 1.3, 0.07, 0.52, 0.3, 0.15, 0.45  # inches
COLUMNS, DPI, PIXELS = 3, 150, 195
INK, QUIET, ALARM = "#1a1a1a", "#6f6f6f", "#b3372f"
HOW = {"bytes": "same file", "pixels": "same pixels"}


def draw_sheet(sets: Sequence[dict[str, Any]], total: int, path: str | os.PathLike[str]) -> None:
    """Draw two pictures of each set side by side, from two splits where there are two.

    Args:
        sets: as `duplicate_sets` returns them, at least one.
        total: how many were found, of which these are the first.
        path: PNG to write, atomically.
    """
    columns = min(COLUMNS, len(sets))
    rows = -(-len(sets) // columns)
    cell = 2 * THUMB + SEAM + GAP
    width = max(2 * MARGIN + columns * cell - GAP, 5.0)
    height = TITLE + rows * (THUMB + TEXT) + MARGIN
    figure = Figure(figsize=(width, height), facecolor="white")
    canvas = figure.add_axes((0, 0, 1, 1))
    canvas.set(xlim=(0, width), ylim=(height, 0), autoscale_on=False)
    canvas.set_axis_off()
    across = sum(found["across_splits"] for found in sets)
    more = f" of {total:,}" if total > len(sets) else ""
    words = f"{len(sets)}{more} sets of copies, {across} of them across the split"
    style: dict[str, Any] = {"fontsize": 10, "fontweight": "bold", "color": INK, "va": "center"}
    canvas.text(MARGIN, TITLE / 2, words, **style)
    for number, found in enumerate(sets):
        left = MARGIN + number % columns * cell
        top = TITLE + number // columns * (THUMB + TEXT)
        _draw_pair(canvas, found, left, top)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=DPI, format="png")


def _draw_pair(canvas: Axes, found: dict[str, Any], left: float, top: float) -> None:
    """Draw two members of a set, their splits and labels, and how alike they are."""
    for place, member in enumerate(two_members(found["images"])):
        at = left + place * (THUMB + SEAM)
        canvas.imshow(_thumb(member["image"]), extent=(at, at + THUMB, top + THUMB, top))
        split, label = member.get("split", ""), f"class {member['label']}"
        colour = ALARM if found["across_splits"] else INK
        style: dict[str, Any] = {"fontsize": 7, "va": "top", "ha": "left"}
        canvas.text(at, top + THUMB + 0.04, split or label, color=colour, **style)
        colour = ALARM if found["label_conflict"] else QUIET
        if split:
            canvas.text(
                at + THUMB, top + THUMB + 0.04, label, color=colour, **style | {"ha": "right"}
            )
        canvas.text(at, top + THUMB + 0.17, _shortened(member["image"]), color=QUIET, **style)
    how = HOW.get(found["kind"], f"similarity {found['similarity']:.3f}")
    more = f"; {len(found['images'])} copies in all" if len(found["images"]) > 2 else ""
    canvas.text(left, top + THUMB + 0.3, how + more, color=QUIET, fontsize=7, va="top")


def two_members(members: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the first member and the first that differs from it in split, else in label."""
    first = members[0]
    for column in ("split", "label"):
        for other in members[1:]:
            if other.get(column) != first.get(column):
                return [first, other]
    return [first, members[1]]


def _thumb(path: str) -> Any:
    try:
        picture = read_image(path, PIXELS, convert=True)
    except InputError:  # it was readable a moment ago
        return np.full((PIXELS, PIXELS, 3), 235, np.uint8)
    side = max(picture.shape[:2])
    high, wide = (round(PIXELS * length / side) for length in picture.shape[:2])
    small = cv2.resize(picture, (wide, high), interpolation=cv2.INTER_AREA)
    thumb = np.full((PIXELS, PIXELS, 3), 255, np.uint8)
    thumb[(PIXELS - high) // 2 :, (PIXELS - wide) // 2 :][:high, :wide] = small
    return thumb


def _shortened(path: str, room: int = 26) -> str:
    name = Path(path).name
    return name if len(name) <= room else f"…{name[1 - room :]}"
