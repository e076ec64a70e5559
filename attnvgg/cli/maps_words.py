"""What the audit of maps found, in words and small tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Figure = Mapping[str, Any]
Report = Mapping[str, Any]


def summarise(report: Report) -> str:
    """Return the text that is logged and written to maps.txt."""
    classes = ", ".join(f"{count} {name}" for name, count in report["classes"].items())
    head = (
        f"Maps of {report['run']}: {report['images']} {report['split']} images of "
        f"{report['groups']} groups ({classes}). Brackets: 95% intervals over groups."
    )
    parts = [
        ["SYNTHETIC data: this says nothing about photographs."] if report["synthetic"] else [],
        [head],
        _localisation(report["localisation"]),
        _faithfulness(report),
        _sanity(report["sanity"]),
        _pasting(report["pasting"]),
    ]
    return "\n\n".join("\n".join(part) for part in parts if part)


def judgement(null: Figure) -> str:
    """Return in words whether a map beats the random maps of its own grid.

    Args:
        null: the paired differences of both areas.
    """
    signs = {"deletion": -1, "insertion": 1}  # less area is better in deletion
    said = [f"{_direction(null[way], sign)} in {way}" for way, sign in signs.items()]
    return " and ".join(said)


def shown(figure: Figure, sign: bool = False) -> str:
    """Return a figure with its interval."""
    if figure["value"] is None:
        return "undefined"
    form = "+.3f" if sign else ".3f"
    if figure["lower"] is None:
        return f"{figure['value']:{form}} [no interval]"
    return f"{figure['value']:{form}} [{figure['lower']:{form}}, {figure['upper']:{form}}]"


def _direction(difference: Figure, sign: int) -> str:
    if difference["lower"] is None:
        return "undecided"
    low, high = sorted((sign * difference["lower"], sign * difference["upper"]))
    return "better" if low > 0 else "worse" if high < 0 else "no different"


def _localisation(found: Report | None) -> list[str]:
    title = "1. Does the map lie on the lesion?"
    if found is None:
        return [title, "No image has a mask: not judged."]
    rows = [
        [
            name,
            *(shown(one[key]) for key in ("jaccard", "pointing", "mass")),
            shown(one["mass_above_area"], sign=True),
            shown(one["background"]["jaccard"]),
        ]
        for name, one in found["figures"].items()
    ]
    heads = ["", "Jaccard", "pointing game", "mass in mask", "mass - area", "Jaccard, background"]
    flat = {name: one["flat"] for name, one in found["figures"].items() if one["flat"]}
    notes = [f"Flat maps (they mark nothing): {flat}."] if flat else []
    return [
        title,
        *table(heads, rows),
        f"The lesion covers {shown(found['area'])} of the image: what chance gives pointing and "
        "mass. A map is on the lesion if it does better than the centred Gaussian, which has not "
        f"seen the image. Images with a mask: {found['with_mask']}, of which empty or full, and "
        f"not judged: {found['empty_or_full_masks']}.",
        *notes,
    ]


def _faithfulness(report: Report) -> list[str]:
    found = report["faithfulness"]
    rows, said = [], []
    for name, one in found["figures"].items():
        cells = [shown(one["deletion"]), shown(one["insertion"])]
        if one["minus"]:
            null = next(iter(one["minus"]))  # the random maps of its own grid
            cells += [shown(one["minus"][null][way], True) for way in ("deletion", "insertion")]
            said.append(f"{name}: {judgement(one['minus'][null])}, against {null} maps.")
        rows.append([name, *cells])
    heads = ["", "deletion (low: good)", "insertion (high: good)", "deletion - random",
             "insertion - random"]  # fmt: skip
    called = ", ".join(f"{count} {name}" for name, count in report["called"].items())
    return [
        "2. Does the model need what the map marks?",
        *table(heads, rows),
        *said,
        f"Area under the probability of the class that was called ({called}), {found['steps']} "
        f"steps, baseline: the picture blurred with {found['blur']:.1%} of its side. Whole picture "
        f"{shown(found['probability_whole'])}, blurred {shown(found['probability_blurred'])}.",
    ]


def _sanity(found: Report) -> list[str]:
    names = list(found["figures"])
    blocks = [one["block"] for one in found["figures"][names[0]]]
    rows = [
        [block, *(_models(found["figures"][name][place]) for name in names)]
        for place, block in enumerate(blocks)
    ]
    lost = {
        name: undefined
        for name in names
        if (undefined := sum(one["undefined"] for one in found["figures"][name]))
    }
    words = ", ".join(f"{name} {count}" for name, count in lost.items())
    notes = [f"Maps that are the same everywhere have no ranks, and do not count: {words}."]
    notes = notes if lost else []
    return [
        "3. Does the map depend on what was learned?",
        *table(["random from here up", *names], rows),
        "Spearman's rank correlation with the map of the trained model while blocks are replaced "
        f"by untrained ones, from the last down: mean of {found['draws']} untrained models, the "
        "lowest and the highest. 1: the map did not change. A map of attention does not pass "
        "through the classifier, nor that of pool-3 through attn2, and cannot change with them.",
        *notes,
    ]


def _models(figure: Figure) -> str:
    """Return a mean over untrained models, and their range."""
    if figure["value"] is None:
        return "undefined"
    low, high = figure["lowest_model"], figure["highest_model"]
    return f"{figure['value']:+.2f} ({low:+.2f} to {high:+.2f})"


def _pasting(found: Report | None) -> list[str]:
    title = "4. Do things beside the lesion move the probability?"
    if found is None:
        return [title, "No image has a mask, so it is not known where the lesion is: not judged."]
    rows = [
        [
            name,
            shown(one["change"], True),
            shown(one["size_of_change"]),
            shown(one["other_call"]),
            str(one["change"]["count"]),
        ]
        for name, one in found["figures"].items()
    ]
    which = found["class"] or "the class that was called"
    return [
        title,
        *table(["", f"change of p({which})", "size of change", "called otherwise", "n"], rows),
        "Pasted beside the mask, never over it. The skin patch is the control: the place and shape "
        "of the colour patch in the colour of the skin around. Images without room for it do not "
        "count.",
    ]


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return lines with aligned columns; rows may be shorter than the heads."""
    whole = [heads, *([*row, *[""] * (len(heads) - len(row))] for row in rows)]
    widths = [max(len(row[column]) for row in whole) for column in range(len(heads))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in whole
    ]
