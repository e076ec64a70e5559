"""Bags of digits: a bag is positive if one digit or more in it is the target (Ilse et al., 2018).

No digit occurs twice in a bag, and the digits of training, validation and test are different ones:
a model can pass the test only by knowing what the target looks like.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from attnvgg.data.bags import ArrayBags
from attnvgg.data.digits import Digits, GreyPreprocess
from attnvgg.data.splits import SIDES, side_shares
from attnvgg.errors import InputError

DEAL_DIGITS, FILL = 4, 5  # keep these random streams apart from others of the same seed


@dataclass(frozen=True)
class BagPlan:
    """How bags are filled."""

    target: int = 1
    """The digit that makes a bag positive."""
    lengths: Literal["fixed", "uniform", "normal"] = "fixed"
    """fixed: a digits; uniform: a to b, both included; normal: mean a, standard deviation b,
    rounded, at least 1."""
    size: tuple[float, float] = (3, 3)
    """The numbers a and b."""
    positives: Literal["natural", "planted"] = "natural"
    """natural: bags as they are drawn; planted: every second one holds the target, the others do
    not."""

    def __post_init__(self) -> None:
        a, b = self.size
        if self.target not in range(10):
            raise InputError(f"The target must be a digit from 0 to 9, not {self.target}.")
        if self.lengths == "normal":
            valid = a >= 1 and b >= 0
        else:
            top = a if self.lengths == "fixed" else b
            valid = 1 <= a <= top and float(a).is_integer() and float(top).is_integer()
        if not valid:
            raise InputError(
                f"A bag needs a digit or more, so ({a}, {b}) cannot be the size of bags of "
                f"{self.lengths} length."
            )

    def length(self, chance: np.random.Generator) -> int:
        """Draw how many digits a bag has."""
        a, b = self.size
        if self.lengths == "normal":
            return max(1, round(chance.normal(a, b)))
        return int(a) if self.lengths == "fixed" else int(chance.integers(int(a), int(b) + 1))


def deal_digits(
    labels: NDArray[np.int64], shares: Sequence[float], seed: int
) -> list[NDArray[np.int64]]:
    """Deal digits out into disjoint parts, each class in proportion.

    Args:
        labels: of the digits, (n,).
        shares: of each part; what they leave of 1 is dealt to nobody.
        seed: of the deal.

    Returns:
        For each share the sorted rows of its digits.
    """
    chance = np.random.default_rng([seed, DEAL_DIGITS])
    parts: list[list[NDArray[np.int64]]] = [[] for _ in shares]
    for digit in np.unique(labels):
        rows = chance.permutation(np.flatnonzero(labels == digit))
        ends = np.round(np.cumsum(shares) * len(rows)).astype(np.int64)
        for part, piece in zip(parts, np.split(rows, ends), strict=False):
            part.append(piece)
    return [np.sort(np.concatenate(part)) for part in parts]


def digit_manifest(
    digits: Digits,
    plan: BagPlan,
    counts: Mapping[str, int],
    shares: Sequence[float] = (0.6, 0.2, 0.2),
    seed: int = 1234,
    reserve: float = 0.0,
) -> pd.DataFrame:
    """Return a manifest of digit bags: image ("test-0007"), label, split, and instances.

    More bags of the same seed begin with the same bags.

    Args:
        digits: the instances.
        plan: how bags are filled.
        counts: bags of "train", "val" and "test".
        shares: of the digits, for training, validation and test. Where the digits have an
            official test set, test bags are filled from that, and the rest is shared by the other
            two in the same proportion.
        seed: of the deal and of the bags.
        reserve: share of the digits (where there is an official test set, of the others) that is
            kept out of all bags, for whoever needs digits with labels of their own.

    Returns:
        The manifest; `instances` names rows of the digits, "12 934 55". In `.attrs`, `classes`
        holds the names of the labels and `reserved` the rows of the digits kept out.

    Raises:
        InputError: counts or shares make no sense; there are too few digits.
    """
    if seed < 0:
        raise InputError(f"The seed of the bags must be 0 or more, not {seed}.")
    parts = _parts(digits, shares, seed, reserve)
    wrong = [f"{side}: {count}" for side, count in counts.items() if side not in SIDES or count < 0]
    if wrong or not sum(counts.values()):
        raise InputError("Bags are counted for train, val and test, from 0 on, not so:", wrong)
    rows = []
    for number, side in enumerate(SIDES):
        chance = np.random.default_rng([seed, FILL, number])
        for bag in range(counts.get(side, 0)):
            wanted = bool(bag % 2) if plan.positives == "planted" else None
            name = f"{side}-{bag:04d}"
            members = _fill(digits.labels, parts[side], plan, wanted, chance, name)
            label = int((digits.labels[members] == plan.target).any())
            rows.append((name, label, side, " ".join(map(str, members))))
    table = pd.DataFrame(rows, columns=["image", "label", "split", "instances"])
    table.attrs["classes"] = (f"no {plan.target}", f"holds a {plan.target}")
    table.attrs["reserved"] = tuple(parts["reserved"].tolist())
    return table


def open_digit_bags(
    manifest: pd.DataFrame,
    digits: Digits,
    target: int,
    preprocess: GreyPreprocess | None = None,
    features: torch.Tensor | None = None,
) -> ArrayBags:
    """Return the bags of a manifest with their pictures (1, 28, 28), or with features.

    Args:
        manifest: of `digit_manifest`, or a part of it.
        digits: those the manifest was made from.
        target: the digit whose instances are labelled 1, all others 0.
        preprocess: how a digit becomes a tensor; absent: values in [0, 1].
        features: in place of the pictures, what an encoder made of every digit, (n, D).
    """
    is_target = torch.from_numpy((digits.labels == target).astype(np.int64))
    if features is not None:
        return ArrayBags(manifest, features, is_target)
    grey = preprocess or GreyPreprocess()
    pictures = torch.from_numpy(digits.images)[:, None]
    return ArrayBags(manifest, pictures, is_target, grey.mean, grey.std)


def _parts(
    digits: Digits, shares: Sequence[float], seed: int, reserve: float
) -> dict[str, NDArray[np.int64]]:
    """Return the digits of each side, and the `reserved`."""
    if not 0 <= reserve < 1:
        raise InputError(f"The reserved share must be at least 0 and below 1, not {reserve}.")
    share = side_shares(shares)
    if digits.is_test is None:
        dealt = {side: part * (1 - reserve) for side, part in share.items()}
        free, official = np.arange(len(digits)), None
    else:
        rest = (1 - reserve) / (share["train"] + share["val"])
        dealt = {side: share[side] * rest for side in ("train", "val")}
        free, official = np.flatnonzero(~digits.is_test), np.flatnonzero(digits.is_test)
    dealt["reserved"] = reserve
    pieces = deal_digits(digits.labels[free], list(dealt.values()), seed)
    parts = {name: free[piece] for name, piece in zip(dealt, pieces, strict=True)}
    return parts if official is None else parts | {"test": official}


def _fill(
    labels: NDArray[np.int64],
    pool: NDArray[np.int64],
    plan: BagPlan,
    wanted: bool | None,
    chance: np.random.Generator,
    name: str,
) -> NDArray[np.int64]:
    """Draw the digits of a bag, different ones.

    A bag whose label is given is one of those of its length that chance would give this label:
    without the target it is drawn from the others, with it again and again until it is in.
    """
    length = plan.length(chance)
    is_target = labels[pool] == plan.target
    if wanted is False:
        pool = pool[~is_target]
    if length > len(pool) or (wanted and not is_target.any()):
        raise InputError(
            "There are too few digits for the bags: raise the share of their side, or make them "
            "smaller.",
            [f"{name}: {length} of {len(pool)} digits, {is_target.sum()} of them {plan.target}"],
        )
    while True:
        members = chance.choice(pool, length, replace=False)
        if not wanted or (labels[members] == plan.target).any():
            return members
