"""The table of predictions: reading it, and refusing what cannot be judged.

It needs `image, label, group, split` and `probability`, or `probability_0..` (K=2 is judged as
binary on class 1): the predictions of any program can be judged.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from attnvgg.errors import InputError

COLUMNS = ("image", "label", "group", "split")
TEXT = ("image", "group", "split", "sex", "site", "source")
NUMBERS = ("probability", "logit")

Probabilities = NDArray[np.float64]


def read_predictions(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Return a table of predictions with its names as text and its numbers to the last bit.

    Raises:
        InputError: there is no such file, or it is not a CSV.
    """
    try:
        names = pd.read_csv(path, nrows=0).columns
        return pd.read_csv(
            path,
            dtype=dict.fromkeys(TEXT, str),
            keep_default_na=False,  # a patient may be called NA
            na_values=[""],
            # pandas' own parser may miss the last bit, and a threshold lies exactly on a score
            converters={name: _number for name in names if name.startswith(NUMBERS)},
        )
    except FileNotFoundError as error:
        raise InputError(f"There are no predictions at {Path(path)}.") from error
    except (ValueError, OSError) as error:
        reason = str(error).strip().rstrip(".")
        raise InputError(f"{Path(path)} is not a CSV of predictions: {reason}.") from error


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan  # refused later, with its row


def checked_predictions(frame: pd.DataFrame) -> tuple[pd.DataFrame, Probabilities]:
    """Return the table with whole labels, and its probabilities (n, K).

    Raises:
        InputError: with the rows that offend.
    """
    missing = [name for name in COLUMNS if name not in frame]
    columns = _probability_columns(frame)
    if missing or not columns:
        missing += [] if columns else ["probability"]
        raise InputError("The table of predictions lacks columns:", missing)
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
    _refuse(
        ~table["split"].isin(["train", "val", "test"]), "splits are not train, val or test", table
    )
    _refuse(table["image"].isna() | table["image"].duplicated(), "cases are not unique", table)
    return table.assign(label=labels.astype(np.int64)), values


def _probability_columns(frame: pd.DataFrame) -> list[str]:
    if "probability" in frame:
        return ["probability"]
    count = sum(str(name).startswith("probability_") for name in frame.columns)
    names = [f"probability_{k}" for k in range(count)]
    return names if count > 1 and set(names) <= set(frame.columns) else []


def _refuse(offends: Any, problem: str, table: pd.DataFrame) -> None:
    rows = np.flatnonzero(np.asarray(offends))
    if len(rows):
        names = table["image"].astype(str)
        raise InputError(
            f"{len(rows)} {problem}, in rows:", [f"{row + 1}: {names[row]}" for row in rows]
        )
