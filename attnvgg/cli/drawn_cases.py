"""Which cases of a run are looked at: some of a split, drawn at random from each class."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pandas as pd

from attnvgg.errors import InputError
from attnvgg.training.run import RunFolder, read_cases

Split = Literal["test", "val", "train"]
NAMES: dict[str, str] = {"test": "test", "val": "validation", "train": "training"}


def draw_cases(run: RunFolder, split: Split, count: int, seed: int) -> tuple[pd.DataFrame, str]:
    """Draw cases of a split at random, as far as there are the same number from each class.

    Args:
        run: whose manifest is read.
        split: test falls back to val where the run has no test set.
        count: of cases, at most.
        seed: of the draw.

    Returns:
        The rows, and what the split is called in words.

    Raises:
        InputError: there are no such cases.
    """
    manifest = read_cases(run)
    present = set(manifest["split"])
    chosen = "val" if split == "test" and "test" not in present else split
    cases = manifest[manifest["split"] == chosen]
    if cases.empty:
        raise InputError(f"{run.path} has no {chosen} cases.")
    generator = np.random.default_rng(seed)
    shuffled = cases.iloc[generator.permutation(len(cases))]
    turn = shuffled.groupby("label").cumcount()  # the n-th of its class
    rows = shuffled.assign(turn=turn).sort_values(["turn", "label"]).head(count)
    return rows, NAMES[chosen]
