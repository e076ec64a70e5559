"""What every pool is: a bag of any size becomes one vector, whatever the order of its instances."""

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from attnvgg.errors import InputError
from attnvgg.models.parts import Part
from attnvgg.models.ragged import lengths_of, pack, unpack

Level = Literal["embedding", "instance"]


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
