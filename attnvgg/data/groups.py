"""Which cases belong together and must never be on two sides of a split."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from attnvgg.data.tables import tidied


def linked_groups(table: pd.DataFrame, names: Iterable[str]) -> pd.Series[Any]:
    """Return one group for all rows that are linked through equal values in any of the columns.

    The rows of a patient and the rows of a lesion that occurs under two patient names all become
    one group: the connected components of rows and values. The group bears the least name in the
    first column that has one; a row without any name has the group NaN.
    """
    given = [table[name].map(tidied).astype(object) for name in names if name in table]
    rows, values, count = [], [], len(table)
    for column in given:
        codes, uniques = pd.factorize(column)
        rows.append(np.flatnonzero(codes >= 0))
        values.append(codes[codes >= 0] + count)
        count += len(uniques)
    if not given:
        return pd.Series(math.nan, index=table.index, dtype=object)
    row, value = np.concatenate(rows), np.concatenate(values)
    edges = coo_array((np.ones(len(row), dtype=np.int8), (row, value)), shape=(count, count))
    component = connected_components(edges, directed=False)[1][: len(table)]
    group = pd.Series(math.nan, index=table.index, dtype=object)
    for column in given:
        least = column.dropna().groupby(component[column.notna()]).min()
        group = group.where(group.notna(), pd.Series(component, table.index).map(least))
    return group
