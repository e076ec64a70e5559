"""Tables as people write them: CSV files, their columns, cells that say nothing."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from attnvgg.data.listing import find_image
from attnvgg.errors import InputError

# What tables say where they know nothing: two patients called "unknown" are not one patient.
PLACEHOLDERS = frozenset(
    {"", "-", "--", "?", ".", "-1", "-1.0", "nan", "na", "n/a", "<na>", "nat", "none", "null"}
    | {"unknown", "missing", "unspecified", "undefined", "not available"}
)


def read_table(path: Path) -> pd.DataFrame:
    """Read a CSV file with every value as text, exactly as written, and "" where nothing is.

    The index is the number of the line less 2, so that the first below the header is 0; blank
    lines are left out.

    Raises:
        InputError: there is no such file, or it is not a table in UTF-8.
    """
    if not path.is_file():
        problem = "is not a file" if path.exists() else "does not exist"
        raise InputError(f"{path} {problem}: expected a CSV file.")
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.reader(stream, strict=True)
            header = [name.strip() for name in next(reader, [])]
            rows = [(reader.line_num, row) for row in reader if any(map(str.strip, row))]
    except (csv.Error, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as CSV in UTF-8: {error}.") from None
    named = [name for name in header if name]
    if not named:
        raise InputError(f"{path} is empty, or begins with an empty line: expected a header.")
    if len(set(named)) < len(named):
        raise InputError(f"{path} has columns of the same name:", named)
    width = len(header)
    wide = [f"line {line}" for line, row in rows if any(row[width:])]
    if wide:
        raise InputError(f"{path} has rows with more values than the header has columns:", wide)
    cells = [(row + [""] * width)[:width] for _, row in rows]
    return pd.DataFrame(cells, columns=header, index=[line - 2 for line, _ in rows], dtype=str)


def require_columns(table: pd.DataFrame, names: Iterable[str], origin: str) -> None:
    """Raise InputError when columns are missing, saying which were found."""
    missing = [name for name in names if name not in table]
    if missing:
        found = ", ".join(map(str, table.columns)) or "none"
        wanted = ", ".join(missing)
        raise InputError(f"{origin} lacks the columns {wanted}; its columns are: {found}.")


def located(
    names: pd.Series[Any], folder: Path, find: Callable[[str, Path], str] = find_image
) -> pd.Series[Any]:
    """Return the absolute paths of files that a table in `folder` names; no name stays none."""
    stripped = names.map(str.strip)
    return stripped.map(lambda name: find(name, folder) if name else math.nan)


def tidied(value: Any) -> str | float:
    """Return the value as stripped text on one line, NaN for a placeholder.

    >>> tidied(" 007 "), tidied("Unknown")
    ('007', nan)
    """
    text = "" if pd.isna(value) else " ".join(str(value).splitlines()).strip()
    return math.nan if text.casefold() in PLACEHOLDERS else text
