"""Pools that weigh the instances of a bag by attention, and the register of all pools."""

from typing import ClassVar

from torch import Tensor, nn

from attnvgg.models.attention import attend
from attnvgg.models.pool import Pool
from attnvgg.models.reducing import LogSumExpPool, MaxPool, MeanPool, NoisyAndPool
from attnvgg.models.scorers import Init, LeakyScorer, MeanScorer, TanhScorer


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
