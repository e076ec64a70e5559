"""The one table that every source becomes: a row a case, checked once and trusted from then on.

Columns: `image` (absolute path) and `label` (0..K-1); where known also `group` (patient or lesion,
never to be split), `split` (train, val or test), `mask` (absolute path, may be missing), `weight`,
`sex`, `age` (years), `site` and `source`. A column that a source does not know is absent.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from attnvgg.data.listing import require_utf8
from attnvgg.data.tables import located, read_table, require_columns, tidied
from attnvgg.errors import InputError
from attnvgg.files import atomic_path

REQUIRED = ("image", "label")
OPTIONAL = ("group", "split", "mask", "weight", "sex", "age", "site", "source")
SPLITS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}


@dataclass(frozen=True)
class CaseKind:
    """What the rows of a table are: images here, bags in `bag_manifest.py`."""

    noun: str
    """What messages call a case."""
    optional: tuple[str, ...]
    """Columns that there may be beside those required."""
    exists: Callable[[str], bool] | None
    """Whether a case is on the disk; None: `image` is a key, not a path."""


IMAGES = CaseKind("image", OPTIONAL, os.path.isfile)


def check_manifest(table: pd.DataFrame, origin: str, kind: CaseKind = IMAGES) -> pd.DataFrame:
    """Return the table validated, typed and with its columns in fixed order.

    Columns that are not of a manifest, or say nothing in any row, are left out. A case without a
    group, in a table that has groups, becomes a group of its own. Rows are named by the line that
    they have in a CSV file, which is their index + 2.

    Args:
        table: at least `image` and `label`.
        origin: the file or folder it comes from, for the messages.
        kind: what the rows are.

    Raises:
        InputError: columns or cases are missing; labels are not integers 0..K-1; an image occurs
            twice, does not exist or has a name that is not UTF-8; a split, mask or weight is not
            what it should be.
    """
    require_columns(table, REQUIRED, origin)
    if table.empty:
        raise InputError(f"{origin} holds no cases.")
    if not pd.api.types.is_integer_dtype(table.index):
        table = table.reset_index(drop=True)
    image = _cases(table["image"], origin, kind)
    label = _labels(table["label"], origin, kind.noun)
    _refuse_duplicates(image, origin, kind.noun)
    if kind.exists:
        _require_files(image, origin, f"{kind.noun}s", kind.exists)
    columns = {"image": image, "label": label, **_optional(table, image, origin, kind)}
    checked = pd.DataFrame(columns).reset_index(drop=True)
    checked.attrs = dict(table.attrs)
    return checked


def _optional(
    table: pd.DataFrame, image: pd.Series[Any], origin: str, kind: CaseKind
) -> dict[str, pd.Series[Any]]:
    """Return the optional columns that say something, checked, by name and in order."""
    columns = {name: table[name].map(tidied) for name in kind.optional if name in table}
    columns = {name: column for name, column in columns.items() if column.notna().any()}
    if "group" in columns:
        columns["group"] = columns["group"].where(
            columns["group"].notna(), _own_groups(image, kind.noun)
        )
    if "split" in columns:
        columns["split"] = _splits(columns["split"], origin)
    if "mask" in columns:
        columns["mask"] = columns["mask"].map(os.path.abspath, na_action="ignore")
        _require_files(columns["mask"].dropna(), origin, "masks", os.path.isfile)
    if "weight" in columns:
        columns["weight"] = _weights(columns["weight"], origin)
    if "age" in columns:
        columns["age"] = columns["age"].map(_number)
    return columns


def read_manifest(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Read and check a manifest; its relative paths start at the file's folder or `images` there.

    Raises:
        InputError: the file cannot be read, or is not a manifest.
    """
    path = Path(path)
    table = read_table(path)
    for name in {"image", "mask"} & set(table):
        table[name] = located(table[name], path.parent)
    return check_manifest(table, str(path))


def write_manifest(
    table: pd.DataFrame, path: str | os.PathLike[str], kind: CaseKind = IMAGES
) -> None:
    """Write a manifest as CSV, atomically; `read_manifest` returns exactly the same table.

    Raises:
        InputError: the name of a file is not UTF-8, as a CSV is.
    """
    columns = [name for name in (*REQUIRED, *kind.optional) if name in table]
    for name in {"image", "mask"} & set(columns):
        require_utf8(table[name].dropna(), str(path))
    with atomic_path(path) as temporary:
        table[columns].to_csv(temporary, index=False, lineterminator="\n")


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan


def _cases(column: pd.Series[Any], origin: str, kind: CaseKind) -> pd.Series[Any]:
    missing = column.isna() | column.map(lambda value: not str(value).strip())
    if missing.any():
        raise InputError(f"{origin} names no {kind.noun} in some rows:", _lines(column[missing]))
    require_utf8(column, origin)
    return column.map(os.path.abspath if kind.exists else str.strip)


def _labels(column: pd.Series[Any], origin: str, noun: str) -> pd.Series[int]:
    numbers = column.map(_number).astype(float)
    wrong = ~numbers.map(float.is_integer)
    if wrong.any():
        raise InputError(
            f"Labels in {origin} must be integers from 0 to K-1: number the classes, or sort the "
            f"{noun}s into one folder a class and use the source `folders`.",
            _lines(column[wrong]),
        )
    found = sorted(set(numbers))
    if found != list(range(len(found))):
        shown = ", ".join(f"{label:.0f}" for label in found[:20])
        more = ", ..." if len(found) > 20 else ""
        raise InputError(
            f"Labels in {origin} must be 0 to K-1 without gaps, K being the number of classes; "
            f"found: {shown}{more}."
        )
    return numbers.astype("int64")


def _splits(column: pd.Series[Any], origin: str) -> pd.Series[Any]:
    names = column.map(lambda name: SPLITS.get(str(name).lower(), math.nan))
    wrong = names.isna()
    if wrong.any():
        raise InputError(
            f"The column `split` of {origin} must say train, val or test in every row, or nothing "
            "in all of them:",
            _lines(column[wrong]),
        )
    return names


def _weights(column: pd.Series[Any], origin: str) -> pd.Series[float]:
    weights = column.map(_number).astype(float)
    wrong = ~weights.between(0, math.inf, inclusive="left")
    if wrong.any():
        raise InputError(f"Weights in {origin} must be numbers from 0 on:", _lines(column[wrong]))
    return weights


def _own_groups(image: pd.Series[Any], noun: str) -> pd.Series[Any]:
    """Name a group after each case: unique, and the same wherever the data lie."""
    root = os.path.commonpath([os.path.dirname(path) for path in image])
    return image.map(lambda path: f"{noun}:{os.path.relpath(path, root)}")


def _refuse_duplicates(image: pd.Series[Any], origin: str, noun: str) -> None:
    repeated = image[image.duplicated(keep=False)]
    if not repeated.empty:
        rows = repeated.index.to_series().map(_line).astype(str)
        listing = [f"{path} (lines {', '.join(lines)})" for path, lines in rows.groupby(repeated)]
        raise InputError(f"{origin} names {noun}s more than once:", listing)


def _require_files(
    paths: pd.Series[Any], origin: str, what: str, exists: Callable[[str], bool]
) -> None:
    missing = [path for path in paths if not exists(path)]
    if missing:
        raise InputError(f"{origin} names {what} that do not exist:", missing)


def _lines(values: pd.Series[Any]) -> list[str]:
    return [f"line {_line(row)}: {value!r}" for row, value in values.items()]


def _line(row: Any) -> int:
    return int(row) + 2  # the header is line 1
