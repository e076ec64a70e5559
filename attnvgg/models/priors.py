"""A prior on attention: maps are asked to lie where a mask lies (Yan et al., IPMI 2019, eq. 2)."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnvgg.errors import InputError


class PriorSum(NamedTuple):
    """What the prior asks for, to be divided by the number of images that it asks of.

    Attributes:
        total: sum over those images, a scalar.
        images: their number, a scalar.
    """

    total: Tensor
    images: Tensor


class AttentionPrior(nn.Module):
    """w3 Dice(A3, avgpool(M)) + w4 Dice(A4, avgpool(M)) of each image with a mask M.

    An image without a mask, and one whose mask (or, in the control, the rest of it) is empty, asks
    for nothing. There is a sum and not a mean, because the images with a mask may be spread
    unevenly over several processes.

    Args:
        weights: w3 and w4.
        rescale: divide each map by its maximum first, as maps need that sum to 1 (softmax).
        background: ask for 1 - M, the negative control of the paper.

    Raises:
        InputError: weights that are no two numbers of at least 0.
    """

    def __init__(
        self,
        weights: tuple[float, float] = (0.001, 0.01),
        *,
        rescale: bool,
        background: bool = False,
    ) -> None:
        super().__init__()
        if len(weights) != 2 or not min(weights) >= 0:
            raise InputError(f"A prior has two weights of at least 0, not {tuple(weights)}.")
        self.weights, self.rescale, self.background = tuple(weights), rescale, background

    def forward(self, attn1: Tensor, attn2: Tensor, mask: Tensor, has_mask: Tensor) -> PriorSum:
        """Return the prior of a batch.

        Args:
            attn1: map of pool-3, (B, 1, h, w).
            attn2: map of pool-4, (B, 1, h', w').
            mask: in [0, 1], (B, 1, H, W); anything where there is none.
            has_mask: (B,), bool.
        """
        # What is no mask must not be reckoned with: a NaN in it would be one in every gradient.
        mask = torch.where(has_mask[:, None, None, None], mask.float(), 0)
        used = has_mask & (mask.sum(dim=(1, 2, 3)) > 0)
        if self.background:
            mask = 1 - mask
            used = used & (mask.sum(dim=(1, 2, 3)) > 0)
        penalty = torch.zeros(len(mask), device=mask.device)
        for weight, attention in zip(self.weights, (attn1, attn2), strict=True):
            attention = attention.float()
            if self.rescale:
                attention = attention / attention.amax(dim=(2, 3), keepdim=True)
            height, width = attention.shape[2:]
            wanted = F.adaptive_avg_pool2d(mask, (height, width))
            penalty = penalty + weight * dice_distance(attention, wanted)
        return PriorSum(torch.where(used, penalty, 0).sum(), used.sum())


def dice_distance(attention: Tensor, mask: Tensor) -> Tensor:
    """Return 1 - 2 sum(A M) / (sum A + sum M) of each image, (B,); 1 where both are empty.

    Args:
        attention: in [0, 1], (B, 1, h, w).
        mask: likewise.
    """
    overlap = (attention * mask).sum(dim=(1, 2, 3))
    both = (attention + mask).sum(dim=(1, 2, 3))
    return 1 - 2 * overlap / both.clamp_min(torch.finfo(both.dtype).tiny)
