"""Bags as rows of a figure: what the model said, its instances, and the weight of each."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Sequence

import numpy as np

from attnvgg.errors import InputError
from attnvgg.explain.bag_case import BagCase
from attnvgg.explain.bag_row import FRAME, SPACE, draw_row, row_height, slot_left
from attnvgg.explain.overlays import Kind
from attnvgg.explain.page import DPI, MARGIN, PANEL, TEXT, TIMES, WIDTH, Page

LARGEST, NARROWEST = 1.1, 4.9  # inches of an instance, of the page
MOST = 20  # instances in a row; more could hardly be seen

MEANING: dict[Kind, str] = {
    "softmax": "Number: attention weight of the instance; those of a bag sum to 1. Bar: the same "
    f"relative to a uniform weight (weight {TIMES} number of instances), on a log scale that is "
    "the same for every bag; the mark in its middle is the uniform weight.",
    "sigmoid": "Number and bar: {}, on a scale from 0 to 1 that is the same for every bag.",
}


def save_bag_grid(
    path: str | os.PathLike[str],
    cases: Sequence[BagCase],
    *,
    threshold: float | None = None,
    title: str | None = None,
    caption: str | None = None,
    longest: int = 10,
    dpi: int = DPI,
) -> None:
    """Write a figure with a row a bag, its instances ordered by weight; about eight fill a page.

    Args:
        path: file to write; its suffix chooses the format (.png, .pdf, .svg, .jpg).
        cases: rows, from the top; all weights are of one kind (or absent).
        threshold: of the decision, stated below the figure.
        title: above the figure.
        caption: said below the figure in full, such as where the bags are from.
        longest: bags of more instances show so many, see `BagCase.select`; 2 to 20.
        dpi: pixels an inch; the page is at most 7 inches wide.

    Raises:
        InputError: no bags, different kinds of weights, or a format that cannot be written.
    """
    scores = _check(cases, longest)
    clipped = any(case.scale is not None and case.scale.clipped.any() for case in cases)
    slots = max(min(len(case), longest) + (len(case) > longest) for case in cases)
    beside = 2 * MARGIN + TEXT + 2 * FRAME
    panel = min(LARGEST, (WIDTH - beside + SPACE) / slots - SPACE)
    width = max(NARROWEST, beside + slots * (panel + SPACE) - SPACE)
    notes = textwrap.wrap(
        " ".join(_notes(cases, scores, threshold, caption, clipped)), round(132 * width / WIDTH)
    )
    page = Page(
        [row_height(case, panel) for case in cases],
        title is not None,
        len(notes),
        has_bar=scores is not None,
        width=width,
        panel=panel,
        gap=SPACE,
        row_gap=2 * SPACE,
    )
    canvas = page.canvas()
    for number, case in enumerate(cases):
        draw_row(page, canvas, number, case, longest)
    _draw_frame_of_page(page, scores, title, clipped)
    page.draw_notes(notes)
    page.write(path, dpi)


def _check(cases: Sequence[BagCase], longest: int) -> BagCase | None:
    """Return a case that stands for the weights of all, None where there are none."""
    if not cases:
        raise InputError("There are no bags to draw.")
    if not 2 <= longest <= MOST:
        raise InputError(f"A row shows at least 2 and at most {MOST} instances, not {longest}.")
    weighted = [case for case in cases if case.branches]
    if len({case.score_name for case in weighted}) > 1:
        raise InputError(
            "Weights of different kinds cannot share a scale; draw a figure of each kind.",
            (f"{case.name}: {case.score_name}" for case in weighted),
        )
    return weighted[0] if weighted else None


def _draw_frame_of_page(
    page: Page, scores: BagCase | None, title: str | None, clipped: bool
) -> None:
    """Draw what is above and below the rows."""
    page.draw_heads((), title)
    left, order = slot_left(page, 0), ""
    if scores is not None:
        order = ", most attention first" if scores.kind == "softmax" else ", highest first"
        width = min(2 * PANEL, page.width - 2 * MARGIN - left)
        page.draw_colour_bar(scores.kind, clipped, left, width)
    page.text(left, page.tops[0] - 0.15, f"instances{order}", fontsize=9)


def _notes(
    cases: Sequence[BagCase],
    scores: BagCase | None,
    threshold: float | None,
    caption: str | None,
    clipped: bool,
) -> list[str]:
    """Return the sentences below the figure."""
    sentences = []
    if scores is not None:
        sentences.append(MEANING[scores.kind].format(scores.score_name))
    if clipped:
        sentences.append("Arrowheads: beyond the scale.")
    if branches := sorted({case.branches for case in cases} - {0, 1}):
        counts = " or ".join(map(str, branches))
        sentences.append(f"Of attention with {counts} branches the mean is drawn.")
    if any(not case.branches for case in cases):
        sentences.append("Without numbers: the model gives no weights; order of the bag.")
    labels = np.concatenate([case.labels for case in cases])
    if np.isfinite(labels).any():
        unknown = ", none: not known" if np.isnan(labels).any() else ""
        sentences.append(f"Black frame: positive instance, grey: negative{unknown}.")
    if any(case.instances is None and case.instance_names is None for case in cases):
        sentences.append("#: number of the instance in its bag, from 0.")
    if any(case.coords is not None for case in cases):
        sentences.append("x, y: level-0 pixels.")
    if threshold is not None:
        wrong = "; red: wrong" if any(case.wrong for case in cases) else ""
        sentences.append(f"Decision at p ≥ {threshold:.3g}{wrong}.")
    return [*sentences, caption] if caption else sentences
