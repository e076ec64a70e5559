"""The manifest of bags: `image` is the key of a bag, a path or the name of a bag of digits.

The other columns are those of a manifest of images without `mask`. Bags that are rows of one array
(see `ArrayBags`) have a column `instances`, the numbers of their rows: "12 934 55".
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pandas as pd

from attnvgg.data.listing import find_bag
from attnvgg.data.manifest import CaseKind, check_manifest, write_manifest
from attnvgg.data.tables import located, read_table
from attnvgg.errors import InputError

OPTIONAL = ("group", "split", "weight", "sex", "age", "site", "source")
ON_DISK = CaseKind("bag", OPTIONAL, os.path.exists)
GONE = CaseKind("bag", OPTIONAL, None)
IN_ARRAY = CaseKind("bag", (*OPTIONAL, "instances"), None)

ROWS = re.compile(r"[0-9]{1,18}( [0-9]{1,18})*")  # what fits into 64 bits


def check_bags(table: pd.DataFrame, origin: str, *, may_be_gone: bool = False) -> pd.DataFrame:
    """Return the table validated, typed and with its columns in fixed order.

    Args:
        table: at least `image` and `label`.
        origin: the file or folder it comes from, for the messages.
        may_be_gone: accept bags that are not on the disk.

    Raises:
        InputError: as `check_manifest`; `instances` are not numbers of different rows.
    """
    if "instances" not in table:
        return check_manifest(table, origin, GONE if may_be_gone else ON_DISK)
    _require_rows(table, origin)
    return check_manifest(table, origin, IN_ARRAY)


def read_bags(path: str | os.PathLike[str], *, may_be_gone: bool = False) -> pd.DataFrame:
    """Read and check a manifest of bags; its relative paths start at the file's folder.

    Args:
        path: of the file.
        may_be_gone: accept bags that are not on the disk.

    Raises:
        InputError: the file cannot be read, or is not a manifest.
    """
    path = Path(path)
    table = read_table(path)
    if "image" in table and "instances" not in table:
        table["image"] = located(table["image"], path.parent, find_bag)
    return check_bags(table, str(path), may_be_gone=may_be_gone)


def write_bags(table: pd.DataFrame, path: str | os.PathLike[str]) -> None:
    """Write a manifest of bags as CSV, atomically; `read_bags` returns exactly the same table.

    Raises:
        InputError: the name of a bag is not UTF-8, as a CSV is.
    """
    write_manifest(table, path, IN_ARRAY if "instances" in table else ON_DISK)


def _require_rows(table: pd.DataFrame, origin: str) -> None:
    """Refuse bags without instances, or with one twice, by name."""
    names = table.get("image", table["instances"])
    rows = zip(names, table["instances"], strict=True)
    wrong = [f"{name}: {text!r}" for name, text in rows if not _are_rows(text)]
    if wrong:
        raise InputError(
            f"The column `instances` of {origin} must name one row or more, each once, as in "
            '"12 934 55":',
            wrong,
        )


def _are_rows(text: Any) -> bool:
    if not isinstance(text, str) or not ROWS.fullmatch(text.strip()):
        return False
    rows = text.split()
    return len(set(map(int, rows))) == len(rows)
