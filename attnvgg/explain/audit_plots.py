"""The plots on the page of the audit of maps, each on axes of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from attnvgg.explain.page import INK, QUIET

Report = Mapping[str, Any]

# Okabe and Ito's colours, told apart by everyone; what has seen no image is grey.
COLOURS = {"pool-3": "#0072B2", "pool-4": "#D55E00", "Grad-CAM": "#009E73"}
NULL_STYLES: dict[str, dict[str, Any]] = {
    "centred Gaussian": {"color": "#555555", "linestyle": (0, (5, 2))},
    "random": {"color": "#999999", "linestyle": (0, (1, 1.5))},
}
WAYS = {
    "deletion": ("Deletion: marked places blurred first (falling fast: good)", "blurred"),
    "insertion": ("Insertion: marked places brought back first (rising fast: good)", "back"),
}


def style_of(name: str) -> dict[str, Any]:
    """Return how a map is drawn, by its name."""
    if name in COLOURS:
        return {"color": COLOURS[name], "linestyle": "-"}
    return NULL_STYLES["random" if name.startswith("random") else name]


def draw_curves(axes: Axes, found: Report, way: str) -> None:
    """Draw the mean curves of all maps, with their bands.

    Args:
        axes: to draw on.
        found: of the report, `faithfulness`.
        way: deletion or insertion.
    """
    title, done = WAYS[way]
    share = np.linspace(0, 1, found["steps"] + 1)
    for name, one in found["figures"].items():
        curve = {key: np.array(part, np.float64) for key, part in one["curves"][way].items()}
        style = style_of(name)
        label = f"{name}  {one[way]['value']:.3f}"
        axes.plot(share, curve["value"], label=label, linewidth=1.6, **style)
        axes.fill_between(
            share, curve["lower"], curve["upper"], color=style["color"], alpha=0.13, linewidth=0
        )
    tidy(axes, title)
    axes.set(xlim=(0, 1), xlabel=f"share of pixels {done}")
    axes.margins(y=0.04)
    legend = axes.legend(
        fontsize=7.5, framealpha=0.7, edgecolor="none", title="area under the curve"
    )
    legend.get_title().set_fontsize(7.5)


def draw_localisation(axes: Axes, found: Report | None) -> None:
    """Draw the three figures of each map as bars with intervals."""
    tidy(axes, "Localisation: does it lie on the lesion?")
    if found is None:
        _say(axes, "no masks: not judged")
        return
    keys = {"jaccard": "Jaccard", "pointing": "pointing game", "mass": "mass in mask"}
    names = list(found["figures"])
    width = 0.8 / len(names)
    for number, name in enumerate(names):
        at = np.arange(len(keys)) + (number - (len(names) - 1) / 2) * width
        figures = [found["figures"][name][key] for key in keys]
        hatch = "////" if name.startswith("random") else None
        colour = style_of(name)["color"]
        values = [one["value"] or 0 for one in figures]
        axes.bar(at, values, width * 0.9, label=name, color=colour, hatch=hatch,
                 edgecolor="white", linewidth=0, alpha=0.85)  # fmt: skip
        _whiskers(axes, at, figures)
    axes.set_xticks(range(len(keys)), list(keys.values()), fontsize=8)
    area = found["area"]["value"]
    if area is not None:
        axes.plot([0.55, 2.5], [area, area], color=INK, linewidth=0.9)
        axes.set_xlim(-0.55, 2.95)
        axes.text(2.52, area, "lesion's\narea", fontsize=6.8, va="center", color=INK)
    axes.set_ylim(0, 1.4)
    axes.set_yticks(np.linspace(0, 1, 6))
    axes.legend(fontsize=6.8, frameon=False, ncols=2, loc="upper left")


def draw_sanity(axes: Axes, found: Report) -> None:
    """Draw how alike maps stay, with the range over the untrained models."""
    tidy(axes, "Sanity: does it change when learning is undone?")
    blocks = ["none", *(one["block"] for one in next(iter(found["figures"].values())))]
    for name, steps in found["figures"].items():
        start = {"value": 1.0, "lowest_model": 1.0, "highest_model": 1.0}
        curve = {k: np.array([one[k] for one in (start, *steps)], np.float64) for k in start}
        style = style_of(name)
        axes.plot(range(len(blocks)), curve["value"], marker="o", markersize=3, label=name, **style)
        low, high = curve["lowest_model"], curve["highest_model"]
        band = {"color": style["color"], "alpha": 0.13, "linewidth": 0}
        axes.fill_between(range(len(blocks)), low, high, **band)
    axes.axhline(0, color=QUIET, linewidth=0.6)
    short = [block.replace("stages.", "stage ") for block in blocks]
    axes.set_xticks(range(len(blocks)), short, rotation=35, ha="right", fontsize=7)
    axes.set_ylabel("rank correlation with the trained map", fontsize=8)
    axes.set_ylim(-1.05, 1.08)
    axes.legend(fontsize=7, frameon=False, loc="lower left")


def draw_pasting(axes: Axes, found: Report | None) -> None:
    """Draw the change of the probability by each artefact, with its interval."""
    tidy(axes, "Pasted beside the lesion")
    if found is None:
        _say(axes, "no masks: not judged")
        return
    names = list(found["figures"])
    for place, name in enumerate(names):
        one = found["figures"][name]["change"]
        if one["value"] is None:
            continue
        colour = QUIET if name == "skin patch" else INK
        axes.plot([one["value"]], [place], "o", color=colour, markersize=5)
        if one["lower"] is not None:
            axes.plot([one["lower"], one["upper"]], [place, place], color=colour, linewidth=1.8)
    axes.axvline(0, color=QUIET, linewidth=0.6)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_ylim(len(names) - 0.5, -0.5)
    reach = max(0.1, 1.1 * max(abs(bound) for bound in axes.get_xlim()))
    axes.locator_params(axis="x", nbins=4)
    which = found["class"] or "the class called"
    axes.set(xlim=(-reach, reach), xlabel=f"change of p({which})")


def tidy(axes: Axes, title: str) -> None:
    """Give axes their title and quiet spines."""
    axes.set_title(title, fontsize=9, color=INK, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(QUIET)
    axes.tick_params(labelsize=7.5, color=QUIET)
    axes.xaxis.label.set_fontsize(8)


def _whiskers(axes: Axes, at: np.ndarray, figures: Sequence[Mapping[str, Any]]) -> None:
    for place, one in zip(at, figures, strict=True):
        if one["lower"] is not None:
            axes.plot([place, place], [one["lower"], one["upper"]], color=INK, linewidth=0.9)


def _say(axes: Axes, words: str) -> None:
    axes.text(0.5, 0.5, words, ha="center", va="center", color=QUIET, transform=axes.transAxes)
    axes.set_xticks([])
    axes.set_yticks([])
