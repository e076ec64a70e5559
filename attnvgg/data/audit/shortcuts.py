"""What may tell a model the label, or the split, without any look at the lesion."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from attnvgg.data.audit.artefacts import NAMES
from attnvgg.data.audit.reading import Measured
from attnvgg.data.audit.statistics import holm, odds_ratio, shift

# A finding is both: beyond chance after Holm's correction for all tests of its table, and large.
SIGNIFICANT = 0.01
LARGE_SHIFT = 0.15  # Kolmogorov-Smirnov; of two normal distributions .38 standard deviations apart
LARGE_ODDS = 1.5  # or less than 1 / 1.5
FEWEST = 8  # pictures on either side of a comparison

Row = dict[str, Any]


def measurements(cases: pd.DataFrame, measured: Sequence[Measured]) -> pd.DataFrame:
    """Return the cases with a column for each thing measured; `unit` is the number of the group.

    `resolution` is the binary logarithm of the number of pixels, `aspect` that of width to height,
    colours are shares of the sum of red, green and blue, `brightness` is its mean.
    """
    colours = np.array([m.colour for m in measured])
    sums = colours.sum(axis=1) + 1e-9
    names = cases["image"]
    if "group" in cases:
        names = cases["group"].where(cases["group"].notna(), names)
    return cases.assign(
        unit=pd.factorize(names)[0],
        resolution=[np.log2(m.height * m.width) for m in measured],
        aspect=[np.log2(m.width / m.height) for m in measured],
        brightness=sums / 3,
        red=colours[:, 0] / sums,
        blue=colours[:, 2] / sums,
        **{name: [m.artefacts[name] for m in measured] for name in NAMES},
    )


def split_shifts(table: pd.DataFrame) -> list[Row]:
    """Return how resolution and colour of validation and of test differ from training."""
    rows = []
    for side in ("val", "test"):
        for what in ("resolution", "aspect", "brightness", "red", "blue"):
            first, second = (table[table["split"] == name] for name in ("train", side))
            rows += _shift({"from": "train", "to": side, "of": what}, first, second)
    return _judged(rows, lambda row: row["largest"] >= LARGE_SHIFT)


def label_shifts(table: pd.DataFrame) -> list[Row]:
    """Return how the size of the pictures differs between a class and the others.

    Colour may rightly tell classes apart; the number of pixels may not.
    """
    rows = []
    for label, positive in _classes(table):
        for what in ("resolution", "aspect"):
            place = {"class": label, "of": what}
            rows += _shift(place, table[~positive], table[positive])
    return _judged(rows, lambda row: row["largest"] >= LARGE_SHIFT)


def artefact_odds(table: pd.DataFrame) -> list[Row]:
    """Return how artefacts go with the label: one row for each of them and each class."""
    rows = []
    for label, positive in _classes(table):
        for name in NAMES:
            rows.append({"class": label, "artefact": name, **_odds(table, table[name], positive)})
    return _judged(rows, _is_large)


def class_odds(table: pd.DataFrame) -> list[Row]:
    """Return how the classes' frequencies in validation and test differ from training."""
    rows = []
    for side in ("val", "test"):
        both = table[table["split"].isin(["train", side])]
        for label, positive in _classes(both):
            found = _odds(both, both["split"] == side, positive)
            if (both["split"] == side).any():
                rows.append({"from": "train", "to": side, "class": label, **found})
    return _judged(rows, _is_large)


def _classes(table: pd.DataFrame) -> Iterator[tuple[int, NDArray[np.bool_]]]:
    """Yield each class that is asked about: of two the second, of more all."""
    labels = table["label"].to_numpy()
    known = sorted({int(label) for label in labels})
    for label in known[1:] if len(known) == 2 else known:
        yield label, labels == label


def _shift(place: Row, first: pd.DataFrame, second: pd.DataFrame) -> list[Row]:
    """Return one row, or none where a side has too few pictures."""
    if min(len(first), len(second)) < FEWEST:
        return []
    what = place["of"]
    units = [side.groupby("unit")[what].median().to_numpy() for side in (first, second)]
    found = shift(first[what].to_numpy(), second[what].to_numpy(), units)
    medians = {"median_from": first[what].median(), "median_to": second[what].median()}
    return [place | medians | found._asdict()]


def _odds(table: pd.DataFrame, sign: pd.Series[Any], positive: NDArray[np.bool_]) -> Row:
    shown = sign.to_numpy(dtype=bool)
    units = table["unit"].to_numpy()
    row: Row = {
        "with": int(shown.sum()),
        "share_in_class": float(shown[positive].mean()) if positive.any() else None,
        "share_in_others": float(shown[~positive].mean()) if not positive.all() else None,
    }
    ratio = odds_ratio(shown, positive, pd.factorize(units)[0])
    if ratio is None:
        why = "no picture shows it" if not shown.any() else "every picture shows it"
        return row | {"odds_ratio": None, "undefined": why if len(set(shown)) < 2 else "one class"}
    names = ("odds_ratio", "low", "high", "p_value", "counted")
    return row | dict(zip(names, ratio, strict=True))


def _is_large(row: Row) -> bool:
    return not 1 / LARGE_ODDS < row["odds_ratio"] < LARGE_ODDS


def _judged(rows: list[Row], is_large: Any) -> list[Row]:
    """Add to each row with a p-value its correction, and whether the row is a finding."""
    tested = [row for row in rows if row.get("p_value") is not None]
    for row, corrected in zip(tested, holm([row["p_value"] for row in tested]), strict=True):
        row["p_corrected"] = corrected
        row["finding"] = bool(corrected < SIGNIFICANT and is_large(row))
    return rows
