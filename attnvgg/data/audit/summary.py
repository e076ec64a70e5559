"""The audit in words: what was looked at, what was found, and what that means."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

SHOWN = 10  # of a list; the rest is in audit.json
CLEAN = "Nothing found: no leak, no copies, no shortcut among those looked for."
CAVEAT = (
    "What was not looked for may still be there: crops, collages, other photographs of a lesion, "
    "copies made brighter, darker or of other colour or contrast. The limits of what is alike come "
    "from drawn pictures: look at the pairs."
)


def summary(report: dict[str, Any]) -> str:
    """Return the text of an audit."""
    return "\n".join(_lines(report))


def _lines(report: dict[str, Any]) -> Iterator[str]:
    groups = report["groups"]
    known = f"{groups['count']:,} groups" if groups else "no groups known (patients, lesions)"
    yield f"Audit of {report.get('origin', 'a data set')}: {report['images']:,} images, {known}."
    yield from _balance(report["classes"])
    if not report["findings"]:
        yield CLEAN
    yield from _blind(report)
    for finding in report["findings"]:
        yield f"{finding['kind'].upper():<8} {finding['text']}"
    torn = groups["across_splits"] if groups else []
    yield from _listing("Groups on two sides", [f"{t['group']}: {_and(t['splits'])}" for t in torn])
    yield from _listing("Copies", [_copies(found) for found in report["duplicates"]["sets"]])
    unreadable = [f"{one['image']}: {one['reason']}" for one in report["unreadable"]]
    yield from _listing("Unreadable", unreadable)
    yield from _artefacts(report["artefacts"])
    yield CAVEAT


def _blind(report: dict[str, Any]) -> Iterator[str]:
    """Say which leaks could not have been found."""
    sides = set(report["classes"])
    if "train" not in sides or len(sides) < 2:
        yield f"NOT LOOKED FOR: leaks, for training has no other side here ({_and(sorted(sides))})."
    elif report["groups"] is None:
        yield "NOT LOOKED FOR: patients on two sides, for none are known; only copies were."
    if len(report["unreadable"]) == report["images"]:
        yield "NOT LOOKED FOR: copies and shortcuts, for no image can be read."


def _balance(classes: dict[str, dict[str, int]]) -> Iterator[str]:
    for side in sorted(classes, key=("train", "val", "test", "all").index):
        counts = classes[side]
        total = sum(counts.values())
        shares = ", ".join(f"class {k} {n:,} ({n / total:.1%})" for k, n in counts.items())
        yield f"  {side:<6} {total:>7,}: {shares}"


def _copies(found: dict[str, Any]) -> str:
    conflict = "; different labels" if found["label_conflict"] else ""
    images = [f"{one['image']} ({one.get('split', 'no split')})" for one in found["images"]]
    more = f" and {len(images) - 3} more" if len(images) > 3 else ""
    how = found["kind"] if found["kind"] != "near" else f"near, {found['similarity']:.3f}"
    return f"{' = '.join(images[:3])}{more} [{how}{conflict}]"


def _artefacts(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Yield the table of the artefacts; intervals are not corrected for their number."""
    if not rows:
        return
    table = pd.DataFrame(
        {
            "artefact": row["artefact"],
            "class": row["class"],
            "images": row["with"],
            "in class": _percent(row["share_in_class"]),
            "in others": _percent(row["share_in_others"]),
            "odds ratio (95 %)": _odds(row),
        }
        for row in rows
    )
    yield "Artefacts and the label:"
    yield from (f"  {line}" for line in table.to_string(index=False).splitlines())


def _odds(row: dict[str, Any]) -> str:
    if row["odds_ratio"] is None:
        return f"undefined: {row['undefined']}"
    ratio = f"{row['odds_ratio']:.2f} ({row['low']:.2f}-{row['high']:.2f})"
    return f"{ratio} of groups" if row["counted"] == "groups" else ratio


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"


def _listing(title: str, items: Sequence[str]) -> Iterator[str]:
    if items:
        yield f"{title}:"
        yield from (f"  {item}" for item in items[:SHOWN])
    if len(items) > SHOWN:
        yield f"  ... and {len(items) - SHOWN:,} more, all in audit.json"


def _and(names: Sequence[str]) -> str:
    return " and ".join(names)
