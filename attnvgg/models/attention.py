"""Attention: one function for positions of an image, padded bags and ragged bags."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnvgg.errors import InputError
from attnvgg.models.ragged import (
    bag_of_rows,
    count_real,
    lengths_of,
    refuse_empty,
    softmax_bags,
    sum_bags,
)

Normalize = Literal["softmax", "sigmoid"]


def attend(
    values: Tensor,
    scores: Tensor,
    mask: Tensor | None = None,
    offsets: Tensor | None = None,
    normalize: Normalize = "softmax",
) -> tuple[Tensor, Tensor]:
    """Pool the values of each bag by the attention that their scores ask for.

    A bag is an image (its instances are positions), a set of instances or a slide (tiles). With
    "softmax" the weights of a bag sum to 1 and the pooled value is the weighted sum; with
    "sigmoid" each weight is in (0, 1) on its own and the pooled value is the mean of weight x
    value. Padding, packing and order never change the result.

    Args:
        values: (B, N, D), or (sum N, D) with `offsets`.
        scores: (B, N, M), one column a branch, or (sum N, M) with `offsets`.
        mask: (B, N), True where the instance is real; the others may hold anything.
        offsets: (B + 1), bag b is rows offsets[b] to offsets[b + 1].
        normalize: how scores become weights.

    Returns:
        The pooled values (B, M, D) and the weights, shaped as `scores` and at least float32,
        because the sum of many half-precision weights is not 1; 0 where the mask is False.

    Raises:
        InputError: shapes that do not belong together, or a bag without a real instance.
    """
    if normalize not in ("softmax", "sigmoid"):
        raise InputError(f'normalize is "softmax" or "sigmoid", not "{normalize}".')
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
    if offsets is None:
        return _attend_padded(values, scores, mask, normalize)
    if mask is not None:
        raise InputError("Bags are either padded (a mask) or ragged (offsets), not both.")
    return _attend_ragged(values, scores, offsets, normalize)


def _attend_padded(
    values: Tensor, scores: Tensor, mask: Tensor | None, normalize: Normalize
) -> tuple[Tensor, Tensor]:
    if values.ndim != 3 or scores.ndim != 3 or values.shape[:2] != scores.shape[:2]:
        raise InputError(
            "Values (B, N, D) and scores (B, N, M) do not belong together: "
            f"{tuple(values.shape)} and {tuple(scores.shape)}."
        )
    count: Tensor | int = values.shape[1]  # real instances a bag
    if mask is not None:
        count = count_real(mask, values)[:, None, None]
        padding = ~mask.unsqueeze(2)  # (B, N, 1)
        values = values.masked_fill(padding, 0)  # 0 x NaN would be NaN
        scores = scores.masked_fill(padding, -torch.inf)
    elif values.shape[1] == 0:
        refuse_empty(torch.zeros(len(values)))

    weights = scores.softmax(dim=1) if normalize == "softmax" else scores.sigmoid()
    shares = weights if normalize == "softmax" else weights / count  # (B, N, M)
    # Half precision would round the many small shares, and autocast would choose it.
    with torch.autocast(values.device.type, enabled=False):
        pooled = shares.transpose(1, 2) @ values.to(shares.dtype)
    return pooled.to(values.dtype), weights  # (B, M, D), (B, N, M)


def _attend_ragged(
    values: Tensor, scores: Tensor, offsets: Tensor, normalize: Normalize
) -> tuple[Tensor, Tensor]:
    if values.ndim != 2 or scores.ndim != 2 or len(values) != len(scores):
        raise InputError(
            "Values (sum N, D) and scores (sum N, M) do not belong together: "
            f"{tuple(values.shape)} and {tuple(scores.shape)}."
        )
    lengths = lengths_of(offsets, total=len(values)).to(values.device)  # (B,)
    offsets = offsets.to(values.device, torch.int64)
    if normalize == "softmax":
        weights = shares = softmax_bags(scores, offsets)
    else:
        weights = scores.sigmoid()
        bags = bag_of_rows(offsets, len(values))  # (sum N,)
        shares = weights / lengths[bags, None]
    pooled = sum_bags(values.to(shares.dtype), offsets, shares)
    return pooled.to(values.dtype), weights  # (B, M, D), (sum N, M)


class AttentionBlock(nn.Module):
    """Attention over the positions of a local feature map, asked for by a guide.

    Scores c = phi(relu(W_l l + up(W_g g))) (Jetley et al., ICLR 2018; Yan et al., IPMI 2019).

    Args:
        in_features_l: channels of the local map.
        in_features_g: channels of the guide.
        attn_features: width of the space in which the two are added.
        normalize_attn: softmax over positions and weighted sum, else sigmoid and mean.
    """

    def __init__(
        self,
        in_features_l: int,
        in_features_g: int,
        attn_features: int = 256,
        normalize_attn: bool = True,
    ) -> None:
        super().__init__()
        self.normalize: Normalize = "softmax" if normalize_attn else "sigmoid"
        self.project_local = nn.Conv2d(in_features_l, attn_features, kernel_size=1, bias=False)
        self.project_guide = nn.Conv2d(in_features_g, attn_features, kernel_size=1, bias=False)
        self.score = nn.Conv2d(attn_features, 1, kernel_size=1)
        for layer in (self.project_local, self.project_guide, self.score):
            nn.init.kaiming_normal_(layer.weight, mode="fan_in", nonlinearity="relu")
        nn.init.zeros_(self.score.bias)  # type: ignore[arg-type]

    def forward(self, local: Tensor, guide: Tensor) -> tuple[Tensor, Tensor]:
        """Return the attention map (B, 1, h, w) and the attended vector (B, C).

        Args:
            local: (B, C, h, w).
            guide: (B, G, any height, any width), resized to the positions of `local`.
        """
        guide = self.project_guide(guide)  # (B, A, g, g): cheaper before than after resizing
        guide = F.interpolate(guide, local.shape[2:], mode="bilinear")  # (B, A, h, w)
        scores = self.score(F.relu(self.project_local(local) + guide))  # (B, 1, h, w)
        pooled, weights = attend(_rows(local), _rows(scores), normalize=self.normalize)
        return weights.view_as(scores), pooled.squeeze(1)  # (B, 1, h, w), (B, C)


def _rows(image: Tensor) -> Tensor:
    """One row a position: (B, C, h, w) to (B, h w, C)."""
    return image.flatten(2).transpose(1, 2)
