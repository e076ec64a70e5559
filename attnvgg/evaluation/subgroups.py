"""The same figures for women and men, young and old, each site and each source."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from attnvgg.errors import InputError
from attnvgg.evaluation.judged import Judged, judge_cases

UNKNOWN = "unknown"
AGES = (0, 30, 45, 60, 75, np.inf)
AGE_NAMES = ("under 30", "30 to 44", "45 to 59", "60 to 74", "75 and over")
MOST = 20  # levels of a column on their own; more are no subgroups but names


def judge_subgroups(cases: Judged) -> dict[str, dict[str, Any]]:
    """Return counts and figures of each level of `sex`, `age`, `site` and `source`.

    Args:
        cases: with those of the columns that are known.

    Returns:
        By column and level, see `judge_cases`; the largest level first (ages in their order),
        those beyond `MOST` as one. A column without a known value is left out.

    Raises:
        InputError: ages that are no numbers of years, with their rows.
    """
    found = {}
    for column, levels in _columns(cases.table).items():
        names = levels.value_counts().index.tolist()
        if column == "age":
            names = [name for name in (*AGE_NAMES, UNKNOWN) if name in names]
        if names == [UNKNOWN]:
            continue
        if len(names) > MOST:
            rest = f"and {len(names) - MOST} smaller ones"
            levels = levels.mask(levels.isin(names[MOST:]), rest)
            names = [*names[:MOST], rest]
        found[column] = {
            name: judge_cases(cases.among((levels == name).to_numpy())) for name in names
        }
    return found


def _columns(table: pd.DataFrame) -> dict[str, pd.Series]:
    found: dict[str, pd.Series] = {}
    for column in ("sex", "age", "site", "source"):
        if column == "age" and column in table:
            found[column] = _bands(table)
        elif column in table:
            found[column] = table[column].fillna("").astype(str).str.strip().replace("", UNKNOWN)
    return found


def _bands(table: pd.DataFrame) -> pd.Series:
    ages = pd.to_numeric(table["age"], errors="coerce")
    blank = table["age"].isna() | (table["age"].astype(str).str.strip() == "")
    wrong = table.index[(ages.isna() & ~blank) | (ages < 0) | (ages > 130)]
    if len(wrong):
        raise InputError(
            f"{len(wrong)} ages are not years from 0 to 130, of the cases:",
            [f"{table.loc[row, 'image']}: {table.loc[row, 'age']}" for row in wrong],
        )
    bands = pd.cut(ages, AGES, right=False, labels=list(AGE_NAMES))
    return bands.astype("string").fillna(UNKNOWN)
