"""The audit of a table of images: everything that should be known before a model is trained."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pandas as pd

from attnvgg.data.audit import duplicates, shortcuts
from attnvgg.data.audit.reading import Measured, measure_images
from attnvgg.data.cores import available_cores

logger = logging.getLogger(__name__)

Report = dict[str, Any]


def audit_manifest(manifest: pd.DataFrame, workers: int | None = None) -> Report:
    """Read every image of a manifest and return what may spoil a result got from it.

    Args:
        manifest: `image`, `label` and, where known, `group` and `split`; see `manifest.py`.
        workers: threads beside the one that calls; None means one for each further core.

    Returns:
        Plain values, ready for JSON. `findings` has a sentence for each thing found, `leak` says
        whether one of them is a leak: a group, or copies of a picture, on two sides of the split.
    """
    cases = manifest.reset_index(drop=True)
    threads = available_cores() - 1 if workers is None else workers
    found = measure_images(cases["image"].tolist(), threads)
    readable = [row for row, one in enumerate(found) if isinstance(one, Measured)]
    measured = [one for one in found if isinstance(one, Measured)]
    broken = [(row, one) for row, one in enumerate(found) if isinstance(one, str)]
    report: Report = {
        "images": len(cases),
        "classes": _classes(cases),
        "groups": _groups(cases),
        "duplicates": _duplicates(cases.iloc[readable].reset_index(drop=True), measured),
        "unreadable": [{"image": cases["image"][row], "reason": why} for row, why in broken],
        "needs_convert": dict(Counter(one.needs_convert for one in measured if one.needs_convert)),
        **_shortcuts(cases.iloc[readable], measured),
        "limits": _limits(),
    }
    report["findings"] = _findings(report)
    report["leak"] = any(finding["kind"] == "leak" for finding in report["findings"])
    return report


def _classes(cases: pd.DataFrame) -> Report:
    """Return the number of pictures of each class, by split."""
    sides = cases["split"] if "split" in cases else pd.Series("all", cases.index)
    counts = pd.crosstab(sides, cases["label"])
    return {
        str(side): {str(label): int(n) for label, n in row.items()}
        for side, row in counts.iterrows()
    }


def _groups(cases: pd.DataFrame) -> Report | None:
    """Return the groups, and which of them a split tears apart; None if none are known."""
    if "group" not in cases:
        return None
    torn = []
    if "split" in cases:
        sides = cases.groupby("group")["split"].agg(lambda column: sorted(set(column)))
        torn = [
            {"group": str(name), "splits": found} for name, found in sides.items() if len(found) > 1
        ]
    return {"count": int(cases["group"].nunique()), "across_splits": torn}


def _duplicates(cases: pd.DataFrame, measured: Sequence[Measured]) -> Report:
    """Return the sets of copies; `cases` are those measured."""
    search = duplicates.find_duplicates(
        [one.file for one in measured],
        [one.pixels for one in measured],
        [one.fingerprint for one in measured],
        [one.look for one in measured],
    )
    flat = [row for row, one in enumerate(measured) if one.fingerprint is None]
    return {
        "sets": duplicates.duplicate_sets(search.links, cases),
        "crowded": search.crowded,
        "without_contrast": cases["image"].iloc[flat].tolist(),
    }


def _shortcuts(cases: pd.DataFrame, measured: Sequence[Measured]) -> Report:
    """Return what goes with the split or the label though it should not."""
    if not measured:
        return {"split_shifts": [], "class_odds": [], "label_shifts": [], "artefacts": []}
    table = shortcuts.measurements(cases, measured)
    divided = "split" in table
    return {
        "split_shifts": shortcuts.split_shifts(table) if divided else [],
        "class_odds": shortcuts.class_odds(table) if divided else [],
        "label_shifts": shortcuts.label_shifts(table),
        "artefacts": shortcuts.artefact_odds(table),
    }


def _limits() -> Report:
    """Return the limits by which something became a finding."""
    return {
        "similarity_of_near_duplicates": duplicates.ALIKE,
        "grey_levels_between_near_duplicates": duplicates.LOOK[::3].tolist(),
        "p_value_after_holm": shortcuts.SIGNIFICANT,
        "kolmogorov_smirnov": shortcuts.LARGE_SHIFT,
        "odds_ratio": shortcuts.LARGE_ODDS,
    }


def _findings(report: Report) -> list[dict[str, str]]:
    """Return a sentence for each kind of thing found, leaks first."""
    groups, sets = report["groups"], report["duplicates"]["sets"]
    torn = groups["across_splits"] if groups else []
    across = [found for found in sets if found["across_splits"]]
    conflicts = sum(found["label_conflict"] for found in sets)
    strangers = sum(found["across_groups"] for found in sets)
    duties = report["needs_convert"]
    leaks = [
        torn and f"{_many(len(torn), 'group')} (patient or lesion) on two sides of the split",
        across
        and f"{_many(len(across), 'picture')} with copies on two sides of the split "
        f"({_kinds(across)})",
    ]
    inner = [found for found in sets if not found["across_splits"]]
    crowded, flat = report["duplicates"]["crowded"], report["duplicates"]["without_contrast"]
    warnings = [
        inner and f"{_many(len(inner), 'picture')} with copies within a split ({_kinds(inner)})",
        conflicts and f"{_many(conflicts, 'set')} of copies with different labels",
        strangers and f"{_many(strangers, 'set')} of copies with different groups",
        crowded
        and f"{_many(crowded, 'picture')} with so many look-alikes that only the closest "
        f"{duplicates.NEIGHBOURS} were compared",
        flat
        and f"{_many(len(flat), 'picture')} without contrast, of which only exact copies are found",
        report["unreadable"]
        and f"{_many(len(report['unreadable']), 'file')} unreadable, passed over",
        duties
        and f"{_many(sum(duties.values()), 'file')} that training takes only with "
        "--data.convert true",
        *_missing_classes(report["classes"]),
        *_shortcut_sentences(report),
    ]
    kinds = (("leak", leaks), ("warning", warnings))
    return [{"kind": kind, "text": f"{text}."} for kind, found in kinds for text in found if text]


def _missing_classes(classes: Report) -> list[str]:
    return [
        f"no picture of class {label} in {side}"
        for side, counts in classes.items()
        for label, count in counts.items()
        if not count
    ]


def _shortcut_sentences(report: Report) -> list[str]:
    """Return a sentence for each row that was judged a finding."""
    chosen = {
        name: [row for row in report[name] if row.get("finding")]
        for name in ("split_shifts", "class_odds", "label_shifts", "artefacts")
    }
    odds = "odds ratio {odds_ratio:.2f}, 95 % interval {low:.2f} to {high:.2f}"
    forms = {
        "split_shifts": "{of} of {to} differs from {from} (Kolmogorov-Smirnov {largest:.2f})",
        "class_odds": f"class {{class}} is not as frequent in {{to}} as in {{from}} ({odds})",
        "label_shifts": "{of} differs between class {class} and the others "
        "(Kolmogorov-Smirnov {largest:.2f})",
        "artefacts": f"{{artefact}} goes with class {{class}} ({odds})",
    }
    return [forms[name].format(**row) for name, rows in chosen.items() for row in rows]


def _kinds(sets: Sequence[Report]) -> str:
    words = {"bytes": "the same file", "pixels": "the same pixels", "near": "changed"}
    counts = Counter(found["kind"] for found in sets)
    return ", ".join(f"{counts[kind]} {word}" for kind, word in words.items() if counts[kind])


def _many(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
