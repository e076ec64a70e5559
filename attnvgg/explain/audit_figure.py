"""The audit of maps on one page: curves, bars, and the pictures that they come from."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from attnvgg.explain.audit_plots import (
    draw_curves,
    draw_localisation,
    draw_pasting,
    draw_sanity,
)
from attnvgg.explain.figures import outline
from attnvgg.explain.overlays import Kind, Pixels, overlay
from attnvgg.explain.page import ALARM, INK, QUIET
from attnvgg.files import atomic_path

Report = Mapping[str, Any]

DPI = 160
# Inches of the page, from the left and from the top.
WIDTH, LEFT, PICTURE, GAP = 11.2, 0.75, 1.27, 0.05
CURVES, BARS, PICTURES, FOOT = 0.95, 4.45, 8.15, 0.65

NOTE = (
    "Bands and bars: 95% intervals over groups of images; of the sanity check, the lowest and the "
    "highest untrained model. Examples: the first of the images, which were drawn at random; white "
    "line: lesion mask; colours of pool-3 and pool-4 on the scale that is the same for every "
    "image, those of Grad-CAM, which is of the class that was called, stretched per image. The "
    "maps of attention are the same for every class."
)


@dataclass(frozen=True, eq=False)
class Example:
    """One image with its maps."""

    image: Pixels
    mask: np.ndarray
    maps: Mapping[str, np.ndarray]
    kind: Kind
    """Scale of the maps of attention, see `scale_map`."""
    words: str


def save_audit(
    path: str | os.PathLike[str],
    report: Report,
    examples: Sequence[Example],
    pasted: Mapping[str, Pixels],
) -> None:
    """Write the figure.

    Args:
        path: PNG to write.
        report: as in maps.json.
        examples: a column each, at most six.
        pasted: a picture with each artefact.
    """
    rows = max(1 + len(examples[0].maps), len(pasted))
    height = PICTURES + rows * (PICTURE + GAP) + FOOT
    figure = Figure(figsize=(WIDTH, height), facecolor="white")
    _draw_title(figure, report)
    faithfulness = report["faithfulness"]
    first = _axes(figure, LEFT, CURVES, 4.95, 2.6)
    second = _axes(figure, LEFT + 5.3, CURVES, 4.95, 2.6)
    second.sharey(first)
    for axes, way in ((first, "deletion"), (second, "insertion")):
        draw_curves(axes, faithfulness, way)
    first.set_ylabel("probability of the class called", fontsize=8)
    draw_localisation(_axes(figure, LEFT, BARS, 3.75, 2.5), report["localisation"])
    draw_sanity(_axes(figure, LEFT + 4.45, BARS, 2.75, 2.5), report["sanity"])
    draw_pasting(_axes(figure, LEFT + 8.05, BARS, 2.2, 2.5), report["pasting"])
    _draw_examples(figure, examples)
    for row, (name, picture) in enumerate(pasted.items()):
        _beside(_picture(figure, WIDTH - 0.2 - PICTURE, row, picture), name)
    lines = "\n".join(textwrap.wrap(NOTE, 178))
    figure.text(0.02, 0.14 / height, lines, fontsize=7.2, color=QUIET, va="bottom")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=DPI, format="png")


def _draw_title(figure: Figure, report: Report) -> None:
    height = figure.get_figheight()
    words = (
        f"{report['run']}: how far to trust its maps "
        f"({report['images']} {report['split']} images of {report['groups']} groups)"
    )
    figure.text(0.02, 1 - 0.32 / height, words, fontsize=13, fontweight="bold", color=INK)
    if report["synthetic"]:
        said = "SYNTHETIC data: drawn pictures, not photographs."
        figure.text(0.02, 1 - 0.56 / height, said, fontsize=9, color=ALARM)


def _draw_examples(figure: Figure, examples: Sequence[Example]) -> None:
    """Draw each example as a column: the image, then its maps."""
    for column, example in enumerate(examples):
        side = len(example.image)
        pictures = {"image": example.image}
        for name, found in example.maps.items():
            kind: Kind = "sigmoid" if name == "Grad-CAM" else example.kind
            pictures[name] = overlay(example.image, found, kind=kind, input_size=side)
        for row, (name, picture) in enumerate(pictures.items()):
            axes = _picture(figure, LEFT + column * (PICTURE + GAP), row, picture)
            outline(axes, example.mask)
            if column == 0:
                _beside(axes, name)
            if row == 0:
                axes.set_title(example.words, fontsize=7.5, color=INK, pad=3)


def _axes(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Return axes at a place in inches."""
    across, down = figure.get_size_inches()
    box = (left / across, 1 - (top + height) / down, width / across, height / down)
    return figure.add_axes(box)


def _picture(figure: Figure, left: float, row: int, picture: Pixels) -> Axes:
    axes = _axes(figure, left, PICTURES + row * (PICTURE + GAP), PICTURE, PICTURE)
    axes.imshow(picture, interpolation="antialiased")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    return axes


def _beside(axes: Axes, words: str) -> None:
    axes.set_ylabel(words, fontsize=8, color=INK, labelpad=3)
