"""Training, validation and test: whole groups on one side, the classes in proportion."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from attnvgg.errors import InputError

logger = logging.getLogger(__name__)

SIDES = ("train", "val", "test")
ATTEMPTS = 20  # orders tried when few groups hold several classes each and a side is left without
DEAL, DRAW = 2, 3  # keep these random streams apart from others of the same seed


def split_manifest(
    manifest: pd.DataFrame,
    fractions: Sequence[float] = (0.7, 0.1, 0.2),
    seed: int = 1234,
    within: str | None = None,
) -> pd.DataFrame:
    """Return the manifest with the column `split`; no group is on two sides.

    A published split is kept; if it has training and test but no validation, that is carved from
    training, in the proportion of the fractions. Otherwise the groups are dealt out so that every
    side gets its fraction of every class. The split depends on the seed and on the images' paths
    relative to each other, not on the order of the rows.

    Args:
        manifest: `image`, `label` and perhaps `group` (without it every image is its own).
        fractions: shares of training, validation and test. (0.8, 0.2, 0) makes no test set, as
            many tutorials do; the report then calls the results optimistic.
        seed: of the deal.
        within: a column, such as `source`, of each of whose values every side gets its fraction of
            every class too, as far as whole groups allow.

    Raises:
        InputError: the fractions or the seed make no sense; there are too few groups for every
            side to have every class; the published split lacks more than validation or test.
    """
    shares = side_shares(fractions)
    if seed < 0:
        raise InputError(f"The seed of the split must be 0 or more, not {seed}.")
    manifest = manifest.copy()
    if "split" in manifest:
        _complete(manifest, shares, seed, within)
    else:
        wanted = {side: share for side, share in shares.items() if share}
        place = manifest.columns.get_indexer(pd.Index(["label", "group"])).max() + 1
        manifest.insert(int(place), "split", deal(manifest, wanted, seed, within))
    if "test" not in set(manifest["split"]):
        logger.info("The split has no test set.")
    return manifest


def side_shares(fractions: Sequence[float]) -> dict[str, float]:
    """Return the share of each side by its name.

    Raises:
        InputError: they are not three numbers that sum to 1, of which only the last may be 0.
    """
    shares = dict(zip(SIDES, map(float, fractions), strict=False))
    valid = len(fractions) == len(SIDES) and math.isclose(sum(shares.values()), 1, abs_tol=1e-6)
    if not valid or shares["train"] <= 0 or shares["val"] <= 0 or shares["test"] < 0:
        raise InputError(
            "The fractions of training, validation and test must be three numbers that sum to 1, "
            f"of which only the last may be 0; got: {', '.join(map(str, fractions))}."
        )
    return shares


def _complete(
    manifest: pd.DataFrame, shares: dict[str, float], seed: int, within: str | None
) -> None:
    """Carve, in place, the validation that a published split may lack out of its training."""
    published = set(manifest["split"])
    if published == {"train", "test"}:
        train = manifest["split"] == "train"
        wanted = {side: shares[side] / (1 - shares["test"]) for side in ("train", "val")}
        manifest.loc[train, "split"] = deal(manifest[train], wanted, seed, within)
        logger.info("The published split has no validation: it is taken from training.")
    elif not {"train", "val"} <= published <= set(SIDES):
        raise InputError(
            "A published split must have train and val or train and test, in every row; "
            f"this one has: {', '.join(sorted(map(str, published)))}."
        )


def subsample_negatives(manifest: pd.DataFrame, keep: int, seed: int) -> pd.DataFrame:
    """Return the manifest with at most `keep` rows of label 0 in training, drawn by the seed.

    Validation and test keep their natural prevalence: subsampling them too would falsify average
    precision, predictive values and the threshold.

    Raises:
        InputError: nothing would be kept; there are more than two classes, of which 0 is then no
            more the negative one than any other.
    """
    classes = int(manifest["label"].max()) + 1
    if classes > 2:
        raise InputError(
            f"Negatives can be left out of training where there are two classes, not {classes}."
        )
    if keep < 1:
        raise InputError(f"At least 1 image of class 0 must be kept for training, not {keep}.")
    manifest = manifest.reset_index(drop=True)
    negatives = manifest[(manifest["split"] == "train") & (manifest["label"] == 0)]
    surplus = len(negatives) - keep
    if surplus <= 0:
        return manifest
    # sorted, so that the draw does not depend on the order of the rows
    rows = negatives["image"].sort_values().index.to_numpy()
    dropped = np.random.default_rng([seed, DRAW]).choice(rows, surplus, replace=False)
    logger.info("Left out of training: %d of its %d images of class 0.", surplus, len(negatives))
    return manifest.drop(index=dropped.tolist()).reset_index(drop=True)


def check_splits(manifest: pd.DataFrame) -> None:
    """Audit a split before it is used.

    Raises:
        InputError: there is no split; training or validation is empty; a group is on two sides; a
            side has one class only; a class does not occur in training.
    """
    if "split" not in manifest:
        raise InputError("The manifest has no column `split`.")
    for side in ("train", "val"):
        if not (manifest["split"] == side).any():
            raise InputError(f"The split {side} is empty.")
    if "group" in manifest:
        _refuse_leaks(manifest)
    labels = manifest.groupby("split")["label"].agg(lambda column: sorted(set(column)))
    for name, present in labels.items():
        if len(present) < 2:
            raise InputError(f"The split {name} has only one class, {present[0]}.")
        unseen = sorted(set(present) - set(labels["train"]))
        if unseen:
            raise InputError(f"The split {name} has classes that training lacks:", unseen)


def _refuse_leaks(manifest: pd.DataFrame) -> None:
    sides = manifest.groupby("group")["split"].agg(lambda column: sorted(set(column)))
    leaks = sides[sides.map(len) > 1]
    if not leaks.empty:
        listing = [f"{group}: {', '.join(names)}" for group, names in leaks.items()]
        raise InputError(f"{len(leaks)} groups are on more than one side of the split:", listing)


def deal(
    manifest: pd.DataFrame, shares: dict[str, float], seed: int, within: str | None = None
) -> pd.Series[Any]:
    """Return the side of every row, by its index: whole groups, the classes in proportion.

    Args:
        manifest: see `split_manifest`.
        shares: of each side, which sum to 1.
        seed: of the deal.
        within: see `split_manifest`.

    Raises:
        InputError: there are too few groups for every side to have every class.
    """
    ordered = manifest.sort_values("image")
    names = ordered["image"]
    if "group" in ordered:
        names = ordered["group"].where(ordered["group"].notna(), names)
    codes = pd.factorize(names)[0]
    labels = ordered["label"].to_numpy()
    counts = _count(codes, labels)
    strata = counts
    if within is not None and within in ordered:
        both = ordered.groupby(["label", within], dropna=False).ngroup().to_numpy()
        # the classes as such, too: every side must have each of them, though not each pair
        strata = np.hstack([counts, _count(codes, both)])
    groups_of_class = (counts > 0).sum(axis=0)
    if groups_of_class.min() < len(shares):
        listing = [f"class {label}: {count} groups" for label, count in enumerate(groups_of_class)]
        raise InputError(
            f"Every class needs a group (patient or image) for each of {', '.join(shares)}; "
            "there are too few:",
            listing,
        )
    for attempt in range(ATTEMPTS):
        stream = (seed, DEAL, attempt)
        side = assign_groups(strata, np.array(list(shares.values())), stream)[codes]
        if len(set(zip(side, labels, strict=True))) == len(shares) * counts.shape[1]:
            return pd.Series(np.array(list(shares))[side], index=ordered.index)
    raise InputError(
        f"The groups cannot be dealt out so that each of {', '.join(shares)} has every class: "
        "too few of them hold one class alone."
    )


def _count(
    groups: NDArray[np.integer[Any]], kinds: NDArray[np.integer[Any]]
) -> NDArray[np.float64]:
    """Return how many cases of each kind each group has, (G, K)."""
    counts = np.zeros((groups.max() + 1, kinds.max() + 1))
    np.add.at(counts, (groups, kinds), 1)
    return counts


def assign_groups(
    counts: NDArray[np.float64], fractions: NDArray[np.float64], seed: int | Sequence[int]
) -> NDArray[np.int64]:
    """Assign groups to sides such that each side holds its fraction of each class.

    Large groups first, each goes where it adds least to the chi-square distance

        sum over sides s and classes k of (have[s, k] - target[s, k])^2 / target[s, k];

    which a group g changes by `sum_k g_k (2 have[s, k] + g_k) / target[s, k]` and terms that are
    equal for all sides. While a class is short of groups, they go to the sides that have none.

    Args:
        counts: cases of each group and class, (G, K).
        fractions: of each side, (S,).
        seed: of the order among groups of similar size.

    Returns:
        The side of each group, (G,).
    """
    target = fractions[:, None] * counts.sum(axis=0)
    have = np.zeros_like(target)
    left = (counts > 0).sum(axis=0)  # groups of each class still to come
    sides = np.zeros(len(counts), dtype=np.int64)
    for group in _by_size(counts, seed):
        cases = counts[group]
        inside = cases > 0
        cost = (cases * (2 * have + cases) / target).sum(axis=1)
        lacks = inside & (have == 0)
        urgent = (lacks & (left <= (have == 0).sum(axis=0))).sum(axis=1)
        # most urgent first, then the least cost
        side = np.lexsort((cost, -urgent))[0]
        sides[group] = side
        have[side] += cases
        left -= inside
    return sides


def _by_size(counts: NDArray[np.float64], seed: int | Sequence[int]) -> NDArray[np.int64]:
    """Order groups by the share of a class that they hold, in halving steps, else at random.

    Strictly by size, the largest patients would be on the same sides for every seed.
    """
    weight = (counts / counts.sum(axis=0)).sum(axis=1)
    shuffled = np.random.default_rng(seed).permutation(len(counts))
    step = np.floor(np.log2(weight[shuffled]))
    return shuffled[np.argsort(-step, kind="stable")]
