"""Cross-validation: every case is tested once, by a model that never saw its group."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from attnvgg.data.splits import deal, side_shares
from attnvgg.errors import InputError


def fold_manifests(
    manifest: pd.DataFrame,
    folds: int,
    fractions: Sequence[float] = (0.7, 0.1, 0.2),
    seed: int = 1234,
) -> list[pd.DataFrame]:
    """Return the manifest once a fold, each with its own `split`; no group is on two sides.

    The groups are dealt into parts of equal share of every class. A fold tests its own part; the
    rest becomes training and validation in the proportion of their fractions. A split that the
    manifest may have is put aside. Like `split_manifest`, the deal depends on the seed and on the
    images' names, not on the order of the rows.

    Args:
        manifest: `image`, `label` and perhaps `group` (without it every image is its own).
        folds: at least 2.
        fractions: of training, validation and test; the last is 1 / folds instead.
        seed: of the deal.

    Raises:
        InputError: too few folds, or too few groups for every side of a fold to have every class.
    """
    if folds < 2:
        raise InputError(f"Cross-validation needs at least 2 folds, not {folds}.")
    groups = manifest["image"]
    if "group" in manifest:
        groups = manifest["group"].where(manifest["group"].notna(), groups)
    most = int(groups.groupby(manifest["label"]).nunique().min())
    if folds > most:
        raise InputError(
            f"--folds {folds} is too many: the rarest class has {most} groups (patients or "
            "images), and every fold tests at least one."
        )
    shares = side_shares(fractions)
    both = shares["train"] + shares["val"]
    wanted = {side: shares[side] / both for side in ("train", "val")}
    bare = manifest.drop(columns="split", errors="ignore")
    part = deal(bare, {f"fold {number}": 1 / folds for number in range(folds)}, seed)
    part = part.reindex(bare.index)  # it comes sorted
    place = int(bare.columns.get_indexer(pd.Index(["label", "group"])).max()) + 1
    found = []
    for number in range(folds):
        tested = part == f"fold {number}"
        sides = pd.Series("test", index=bare.index)
        sides[~tested] = deal(bare[~tested], wanted, seed)
        table = bare.copy()
        table.insert(place, "split", sides)
        found.append(table)
    return found
