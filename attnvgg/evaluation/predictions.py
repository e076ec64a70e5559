"""The table of predictions: reading it, and refusing what cannot be judged.

It needs `image, label, group, split` and `probability`, or `probability_0..` (K=2 is judged as
binary on class 1): the predictions of any program can be judged.
"""

from __future__ import annotations

import math
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from attnvgg.errors import InputError

COLUMNS = ("image", "label", "group", "split")
TEXT = ("image", "group", "split", "sex", "site", "source")
NUMBERS = ("probability", "logit")
FACTS = ("group", "sex", "age", "site", "source")
# Those of `attnvgg.data.tables`, which a test holds equal: evaluation imports no data.
PLACEHOLDERS = frozenset(
    {"", "-", "--", "?", ".", "-1", "-1.0", "nan", "na", "n/a", "<na>", "nat", "none", "null"}
    | {"unknown", "missing", "unspecified", "undefined", "not available"}
)

Probabilities = NDArray[np.float64]


def read_predictions(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Return a table of predictions with its names as text and its numbers to the last bit.

    Raises:
        InputError: there is no such file, or it is not a CSV with each column once.
    """
    try:
        names = _header(path)
        return pd.read_csv(
            path,
            dtype=dict.fromkeys(TEXT, str),
            keep_default_na=False,  # an image may be called NA
            na_values=[""],
            # pandas' own parser may miss the last bit, and a threshold lies exactly on a score
            converters={name: _number for name in names if name.startswith(NUMBERS)},
        )
    except InputError:
        raise
    except FileNotFoundError as error:
        raise InputError(f"There are no predictions at {Path(path)}.") from error
    except (ValueError, OSError) as error:
        reason = str(error).strip().rstrip(".")
        raise InputError(f"{Path(path)} is not a CSV of predictions: {reason}.") from error


def _header(path: str | os.PathLike[str]) -> list[str]:
    """Return the names of the columns as they are written: pandas renames those that repeat."""
    names = pd.read_csv(path, header=None, nrows=1, dtype=str, keep_default_na=False)
    found: list[str] = names.iloc[0].tolist()
    if len(found) == 1 and re.search(r"[;\t|]", found[0]):
        raise InputError(f"{Path(path)} must have its columns separated by commas: {found[0]}")
    _refuse_repeated([name for name in found if name])
    return found


def _refuse_repeated(names: list[str]) -> None:
    repeated = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if repeated:
        raise InputError("The table of predictions has columns more than once:", repeated)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan  # refused later, with its row


def checked_predictions(frame: pd.DataFrame) -> tuple[pd.DataFrame, Probabilities]:
    """Return the table with whole labels, and its probabilities (n, K).

    Placeholders such as "unknown" are missing values in it: two patients called so are not one.

    Raises:
        InputError: with the rows or columns that offend.
    """
    _refuse_repeated(list(map(str, frame.columns)))
    missing = [name for name in COLUMNS if name not in frame]
    columns = _probability_columns(frame)
    if missing or not columns:
        missing += [] if columns else ["probability"]
        hint = " (an empty `group` will do where no patient is known)" if "group" in missing else ""
        raise InputError(f"The table of predictions lacks columns{hint}:", missing)
    if frame.empty:
        raise InputError("The table of predictions has no rows.")
    table = frame.reset_index(drop=True)
    values = table[columns].apply(pd.to_numeric, errors="coerce").to_numpy(np.float64)
    labels = pd.to_numeric(table["label"], errors="coerce")
    count = max(len(columns), 2)
    _refuse(~labels.isin(range(count)), f"labels are not whole numbers in 0..{count - 1}", table)
    outside = ~((values >= 0) & (values <= 1)).all(axis=1)  # also what is not a number
    _refuse(outside, "probabilities are not in [0, 1]", table)
    if len(columns) > 1:
        _refuse(np.abs(values.sum(axis=1) - 1) > 1e-3, "probabilities do not sum to 1", table)
    _refuse(table["split"].isna(), "cases have no split (train, val or test)", table)
    _refuse(
        ~table["split"].isin(["train", "val", "test"]), "splits are not train, val or test", table
    )
    _refuse(table["image"].isna(), "cases have no image name", table)
    _refuse(table["image"].duplicated(), "cases are not unique", table)
    facts = {name: _known(table[name]) for name in FACTS if name in table}
    return table.assign(label=labels.astype(np.int64), **facts), values


def _known(values: pd.Series[Any]) -> pd.Series[Any]:
    """Return the values, missing where there is a placeholder."""
    return values.mask(values.astype(str).str.strip().str.casefold().isin(PLACEHOLDERS))


def _probability_columns(frame: pd.DataFrame) -> list[str]:
    numbered = [name for name in map(str, frame.columns) if re.fullmatch(r"probability_\d+", name)]
    if "probability" in frame:
        if numbered:
            both = ["probability", *numbered]
            raise InputError("Keep either `probability` or those of each class, not both:", both)
        return ["probability"]
    names = [f"probability_{k}" for k in range(len(numbered))]
    if len(names) == 1 or set(names) != set(numbered):
        raise InputError(
            "Classes are numbered from 0 to K - 1, a column each (or `probability` alone for class "
            "1 of two); these are not:",
            numbered,
        )
    return names


def _refuse(offends: Any, problem: str, table: pd.DataFrame) -> None:
    rows = np.flatnonzero(np.asarray(offends))
    if len(rows):
        names = table["image"].astype(object).fillna("without a name")
        raise InputError(
            f"{len(rows)} {problem}, in rows:", [f"{row + 1}: {names[row]}" for row in rows]
        )
