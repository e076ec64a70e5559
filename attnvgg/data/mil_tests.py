"""Synthetic bags that show whether a model keeps to the assumption it is used under.

The three tests of Raff and Holt, "Reproducibility in Multiple Instance Learning: A Case For
Algorithmic Unit Tests" (NeurIPS 2023, arXiv 2310.17867). In each, the training bags hold a cue
that is easier than the truth, and the test bags turn the cue round: a model that followed the cue
ranks them the wrong way, AUC below 0.5.

- `single_concept` (Algorithm 1, the standard assumption: positive iff one instance is). Positive
  bags hold 1 to 3 concept instances. Cue: in training every negative bag holds one poison instance
  and no positive bag does; in the test it is the other way round. Poison is a negative instance, so
  it must not matter; a model that reads "no poison" as "positive" is caught.
- `multi_concept` (Algorithm 2, the threshold assumption: positive iff both concepts are there).
  Positive bags hold 1 to 3 of each concept, negative bags one of one. The cue is the same poison.
- `false_frequency` (Algorithm 3, the threshold assumption). Positive bags hold one of each concept;
  negative bags hold one of one in training, and 35 to 44 of one in the test. Cue: how much of a
  concept there is, instead of which.

Distributions and numbers of instances are those of a published implementation that cites the
algorithms (torchmil's `*StandardMILDataset` and `FalseFrequencyMILDataset`); the paper's own text
was not at hand to compare with. Ours are: 1 to 9 background instances in every test (there a free
argument of the first), exactly half of the bags positive, the concept of a `false_frequency`
negative drawn (there always the first, so that seeing the second would be enough), 16 features.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from attnvgg.errors import InputError

Side = Literal["train", "test"]
Counts = NDArray[np.int64]  # (B, 4), instances of each kind in each bag

BACKGROUND, FIRST, SECOND, POISON = range(4)  # kinds of instances
FEATURES = 16
POISONED = ("single_concept", "multi_concept")

DRAW, ADD = 11, 12  # random streams

# mean and standard deviation of every feature, by kind
WIDE = np.array([(0, 1), (0, 3), (1, 1), (-10, 0.1)])
NARROW = np.array([(0, 1), (2, 0.1), (3, 0.1), (-10, 0.1)])


class MilBags(NamedTuple):
    """Ragged bags: bag b is rows offsets[b] to offsets[b + 1].

    Attributes:
        values: (sum N, D), float32.
        offsets: (B + 1).
        labels: (B), 1 for a positive bag.
        kinds: (sum N), BACKGROUND, FIRST or SECOND concept, or POISON.
    """

    values: Tensor
    offsets: Tensor
    labels: Tensor
    kinds: Tensor

    @property
    def instance_labels(self) -> Tensor:
        """Return 1 for each instance of a concept and 0 for the others, (sum N)."""
        return ((self.kinds == FIRST) | (self.kinds == SECOND)).long()


def draw_bags(test: str, side: Side, count: int, seed: int, features: int = FEATURES) -> MilBags:
    """Draw the bags of one test; the same arguments give the same bags.

    Args:
        test: a name in TESTS.
        side: "train" where the cue helps, "test" where it misleads.
        count: number of bags, of which half (rounded down) are positive.
        seed: of everything that is drawn; the two sides never share a draw.
        features: D.

    Raises:
        InputError: an unknown test or side, fewer than two bags, no feature, a negative seed.
    """
    if test not in TESTS or side not in ("train", "test"):
        raise InputError(
            f"There is no test {test!r} with a side {side!r}: tests are {', '.join(TESTS)}, "
            'sides "train" and "test".'
        )
    if count < 2 or features < 1 or seed < 0:
        raise InputError(
            "A test needs at least 2 bags, 1 feature and a seed of at least 0; "
            f"got {count} bags, {features} features, seed {seed}."
        )
    key = [seed, DRAW, list(TESTS).index(test), ("train", "test").index(side)]
    generator = np.random.default_rng(key)
    positive = generator.permutation(np.arange(count) % 2 == 1)  # (B,)
    compose, scales = TESTS[test]
    counts = compose(generator, positive, side == "train")  # (B, 4)
    return _fill(generator, counts, scales, positive, features)


def draw_poison(count: int, seed: int, features: int = FEATURES) -> Tensor:
    """Draw instances as only negative training bags hold them, (count, D)."""
    mean, deviation = WIDE[POISON]
    generator = np.random.default_rng([seed, ADD])
    return torch.from_numpy(generator.normal(mean, deviation, (count, features))).float()


def add_instances(values: Tensor, offsets: Tensor, added: Tensor) -> tuple[Tensor, Tensor]:
    """Return the bags with one more instance each, at their end.

    Args:
        values: (sum N, D).
        offsets: (B + 1).
        added: (B, D), one for each bag.
    """
    places = torch.arange(len(added))
    bags = torch.cat([torch.repeat_interleave(places, offsets.diff()), places])
    order = bags.argsort(stable=True)
    return torch.cat([values, added])[order], offsets + torch.arange(len(offsets))


def _fill(
    generator: np.random.Generator,
    counts: Counts,
    scales: NDArray[np.float64],
    positive: NDArray[np.bool_],
    features: int,
) -> MilBags:
    """Draw the instances of bags whose composition is known, in random order within a bag."""
    bags = np.repeat(np.arange(len(counts)), counts.sum(axis=1))  # (sum N,)
    kinds = np.repeat(np.tile(np.arange(4), len(counts)), counts.ravel())
    kinds = kinds[np.lexsort((generator.random(len(kinds)), bags))]
    mean, deviation = scales[kinds].T[..., None]  # (sum N, 1) each
    values = generator.normal(mean, deviation, (len(kinds), features))
    offsets = np.concatenate([[0], counts.sum(axis=1).cumsum()])
    return MilBags(
        values=torch.from_numpy(values).float(),
        offsets=torch.from_numpy(offsets),
        labels=torch.from_numpy(positive.astype(np.int64)),
        kinds=torch.from_numpy(kinds),
    )


def _single_concept(
    generator: np.random.Generator, positive: NDArray[np.bool_], train: bool
) -> Counts:
    concepts = generator.integers(1, 4, len(positive)) * positive
    first = generator.binomial(concepts, 0.5)
    return _compose(generator, first, concepts - first, positive != train)


def _multi_concept(
    generator: np.random.Generator, positive: NDArray[np.bool_], train: bool
) -> Counts:
    pairs = generator.integers(1, 4, len(positive))
    lone = generator.integers(0, 2, len(positive))  # 1 where a negative bag holds the second
    first, second = np.where(positive, pairs, 1 - lone), np.where(positive, pairs, lone)
    return _compose(generator, first, second, positive != train)


def _false_frequency(
    generator: np.random.Generator, positive: NDArray[np.bool_], train: bool
) -> Counts:
    copies = generator.integers(35, 45, len(positive)) if not train else np.ones_like(positive, int)
    lone = generator.integers(0, 2, len(positive))
    first, second = np.where(positive, 1, copies * (1 - lone)), np.where(positive, 1, copies * lone)
    return _compose(generator, first, second, np.zeros_like(positive))


def _compose(
    generator: np.random.Generator, first: Counts, second: Counts, poison: NDArray[np.bool_]
) -> Counts:
    """Return the instances of each kind, (B, 4), with 1 to 9 of the background."""
    return np.stack([generator.integers(1, 10, len(first)), first, second, poison], axis=1)


TESTS: dict[
    str,
    tuple[Callable[[np.random.Generator, NDArray[np.bool_], bool], Counts], NDArray[np.float64]],
] = {
    "single_concept": (_single_concept, WIDE),
    "multi_concept": (_multi_concept, NARROW),
    "false_frequency": (_false_frequency, NARROW),
}
