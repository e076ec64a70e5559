"""Pools: a bag of any size becomes one vector, whatever the order of its instances."""

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from attnvgg.errors import InputError
from attnvgg.models.attention import attend
from attnvgg.models.parts import Part
from attnvgg.models.ragged import lengths_of, logsumexp_bags, max_bags, mean_bags, pack, unpack
from attnvgg.models.scorers import Init, LeakyScorer, MeanScorer, TanhScorer

Level = Literal["embedding", "instance"]

MARGIN = 1e-6  # the bag probability of noisy-and stays this far from 0 and 1


class Pool(Part):
    """A map from the instances of a bag to one vector.

    Attributes:
        level: "embedding": the head runs on the pooled vector; "instance": the head runs on every
            instance and its logits are pooled, so the features of this pool are classes.
        has_weights: whether it says how much each instance counts.
        out_features: of the pooled vector.

    Args:
        in_features: of an instance.
        arguments: what else the constructor needs, as JSON; numbers among them are above 0.

    Raises:
        InputError: a number that is not above 0.
    """

    has_weights: ClassVar[bool] = False
    level: Level = "embedding"

    def __init__(self, in_features: int, **arguments: Any) -> None:
        super().__init__(in_features=in_features, **arguments)
        for name, argument in {"in_features": in_features, **arguments}.items():
            if isinstance(argument, int | float) and not isinstance(argument, bool):
                _need_positive(name, argument)
        self.in_features = self.out_features = in_features

    def forward(
        self, values: Tensor, mask: Tensor | None = None, offsets: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Pool each bag.

        Args:
            values: (B, N, D), or (sum N, D) with `offsets`.
            mask: (B, N), True where the instance is real; the others may hold anything.
            offsets: (B + 1), bag b is rows offsets[b] to offsets[b + 1].

        Returns:
            The pooled vectors (B, out_features), and the weights (B, N, M), 0 in the padding, or
            (sum N, M) with `offsets`; None from a pool without weights.

        Raises:
            InputError: shapes that do not belong together, or a bag without a real instance.
        """
        if offsets is None:
            rows, offsets = pack(values, mask)  # (sum N, D): no pool ever sees the padding
            pooled, weights = self(rows, offsets=offsets)
            shape = values.shape[:2] if mask is None else mask
            return pooled, None if weights is None else unpack(weights, shape)
        if mask is not None:
            raise InputError("Bags are either padded (a mask) or ragged (offsets), not both.")
        if values.ndim != 2 or values.shape[1] != self.in_features:
            raise InputError(
                f"The pool takes instances of {self.in_features} features, "
                f"not values of shape {tuple(values.shape)}."
            )
        lengths_of(offsets, total=len(values))
        return self.pool(values, offsets.to(values.device, torch.int64))

    def pool(self, rows: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor | None]:
        """Pool checked ragged bags, as `forward`."""
        raise NotImplementedError


def _need_positive(name: str, number: float) -> None:
    if not number > 0:
        raise InputError(f"The {name} of a pool must be above 0, not {number}.")


class ScoredPool(Pool):
    """Softmax over the scores of the instances, weighted sum of the untransformed instances.

    Attributes:
        scorer: module that scores instances (..., D), each on its own, (..., M).
        branches: M; the vectors of the branches are concatenated.
    """

    has_weights = True
    branches: int = 1
    scorer: nn.Module

    def scores(self, values: Tensor) -> Tensor:
        """Score instances (..., D), each on its own, (..., M)."""
        return self.scorer(values)

    def pool(self, rows: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
        """Pool checked ragged bags, as `forward`."""
        pooled, weights = attend(rows, self.scores(rows), offsets=offsets)
        return pooled.flatten(1), weights  # (B, M D), (sum N, M)


class AttentionPool(ScoredPool):
    """Attention of Ilse et al. (ICML 2018), equation 8; arguments as for `TanhScorer`."""

    name = "attention"
    gated: ClassVar[bool] = False

    def __init__(
        self, in_features: int, width: int = 128, bias: bool = True, init: Init = "default"
    ) -> None:
        super().__init__(in_features, width=width, bias=bias, init=init)
        self.scorer = TanhScorer(in_features, width, 1, self.gated, bias, init)


class GatedAttentionPool(AttentionPool):
    """Gated attention of Ilse et al. (ICML 2018), equation 9; arguments as for `TanhScorer`."""

    name = "gated_attention"
    gated = True


class MultiBranchPool(ScoredPool):
    """Several w over one V and U; arguments as for `TanhScorer`."""

    name = "multi_branch"

    def __init__(
        self,
        in_features: int,
        width: int = 128,
        branches: int = 4,
        gated: bool = True,
        bias: bool = True,
        init: Init = "default",
    ) -> None:
        super().__init__(
            in_features, width=width, branches=branches, gated=gated, bias=bias, init=init
        )
        self.branches = branches
        self.out_features = branches * in_features
        self.scorer = TanhScorer(in_features, width, branches, gated, bias, init)


class LeakyAttentionPool(ScoredPool):
    """Attention by a small network; arguments as for `LeakyScorer`."""

    name = "leaky_attention"

    def __init__(self, in_features: int, width: int = 128) -> None:
        super().__init__(in_features, width=width)
        self.scorer = LeakyScorer(in_features, width)


class SoftmaxMeanPool(ScoredPool):
    """A gate from the mean of transformed features; arguments as for `MeanScorer`."""

    name = "softmax_mean"

    def __init__(self, in_features: int, width: int = 128) -> None:
        super().__init__(in_features, width=width)
        self.scorer = MeanScorer(in_features, width)


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


POOLS: dict[str, type[Pool]] = {
    pool.name: pool
    for pool in (
        AttentionPool,
        GatedAttentionPool,
        MultiBranchPool,
        LeakyAttentionPool,
        SoftmaxMeanPool,
        NoisyAndPool,
        MeanPool,
        MaxPool,
        LogSumExpPool,
    )
}
