"""Pools that reduce each feature of a bag to one number, without weights."""

from typing import Any

import torch
from torch import Tensor, nn

from attnvgg.errors import InputError
from attnvgg.models.pool import Level, Pool
from attnvgg.models.ragged import logsumexp_bags, max_bags, mean_bags

MARGIN = 1e-6  # the bag probability of noisy-and stays this far from 0 and 1


class ReducingPool(Pool):
    """One reduction of each feature, in float32 at least, without weights.

    Args:
        in_features: of an instance, or classes at the instance level.
        level: where it stands.
        arguments: what else the constructor needs, as JSON.

    Raises:
        InputError: an unknown level, or a number that is not above 0.
    """

    def __init__(self, in_features: int, level: Level, **arguments: Any) -> None:
        super().__init__(in_features, level=level, **arguments)
        if level not in ("embedding", "instance"):
            raise InputError(f'level is "embedding" or "instance", not "{level}".')
        self.level = level

    def pool(self, rows: Tensor, offsets: Tensor) -> tuple[Tensor, None]:
        """Pool checked ragged bags, as `forward`."""
        wide = rows.to(torch.promote_types(rows.dtype, torch.float32))
        return self.reduce(wide, offsets).to(rows.dtype), None  # (B, D)

    def reduce(self, rows: Tensor, offsets: Tensor) -> Tensor:
        """Reduce each bag, (sum N, D) to (B, D)."""
        raise NotImplementedError


class MeanPool(ReducingPool):
    """The mean; arguments as for `ReducingPool`."""

    name = "mean"

    def __init__(self, in_features: int, level: Level = "embedding") -> None:
        super().__init__(in_features, level)

    def reduce(self, rows: Tensor, offsets: Tensor) -> Tensor:
        return mean_bags(rows, offsets)


class MaxPool(ReducingPool):
    """The maximum; arguments as for `ReducingPool`."""

    name = "max"

    def __init__(self, in_features: int, level: Level = "embedding") -> None:
        super().__init__(in_features, level)

    def reduce(self, rows: Tensor, offsets: Tensor) -> Tensor:
        return max_bags(rows, offsets)


class LogSumExpPool(ReducingPool):
    """(1 / r) log mean exp(r x): near the mean for a small r, near the maximum for a large one.

    Args:
        in_features: as for `ReducingPool`.
        r: sharpness, above 0.
        level: as for `ReducingPool`.
    """

    name = "log_sum_exp"

    def __init__(self, in_features: int, r: float = 1.0, level: Level = "embedding") -> None:
        super().__init__(in_features, level, r=r)
        self.r = r

    def reduce(self, rows: Tensor, offsets: Tensor) -> Tensor:
        counts = offsets.diff()[:, None].to(rows.dtype)  # (B, 1)
        return (logsumexp_bags(self.r * rows, offsets) - counts.log()) / self.r


class NoisyAndPool(ReducingPool):
    """A bag is positive once the mean probability of its instances passes a threshold b.

    P = (sigma(a (mean p - b)) - sigma(-a b)) / (sigma(a (1 - b)) - sigma(-a b)) for each class,
    p being the probabilities of its instances (Kraus et al., Bioinformatics 2016); b is learned,
    one a class, and stays in (0, 1). Takes logits and gives logits.

    Args:
        in_features: classes.
        a: steepness, above 0.
    """

    name = "noisy_and"

    def __init__(self, in_features: int, a: float = 10.0) -> None:
        super().__init__(in_features, "instance", a=a)
        del self.spec["level"]  # there is no other
        self.a = a
        self.threshold_logit = nn.Parameter(torch.zeros(in_features))  # b starts at 0.5

    @property
    def threshold(self) -> Tensor:
        """b, (K,)."""
        return self.threshold_logit.sigmoid()

    def reduce(self, rows: Tensor, offsets: Tensor) -> Tensor:
        mean = mean_bags(rows.sigmoid(), offsets)  # (B, K)
        b = self.threshold.to(rows.dtype)  # (K,)
        lowest, highest = (-self.a * b).sigmoid(), (self.a * (1 - b)).sigmoid()
        probability = ((self.a * (mean - b)).sigmoid() - lowest) / (highest - lowest)  # (B, K)
        return probability.logit(MARGIN)
