"""Bags of any size in one batch: padded and ragged layouts, and reductions over each bag.

Ragged is the layout that computes: the instances of all bags one after another, (sum N, ...), and
`offsets` (B + 1), bag b being rows offsets[b] to offsets[b + 1]. No reduction here makes anything
larger than its input; none checks its offsets, which is the task of `lengths_of`.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from attnvgg.errors import InputError


def pack(values: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Turn a padded batch into a ragged one, without a copy where nothing is padding.

    Args:
        values: (B, N, ...).
        mask: (B, N), True where the instance is real.

    Returns:
        The real instances (sum N, ...) and the offsets (B + 1).

    Raises:
        InputError: shapes that do not belong together, or a bag without a real instance.
    """
    if values.ndim < 3:
        raise InputError(f"Padded bags are (B, N, ...), not {tuple(values.shape)}.")
    if mask is None:
        bags, longest = values.shape[:2]
        if longest == 0:
            refuse_empty(torch.zeros(bags))
        steps = torch.arange(bags + 1, device=values.device)
        return values.flatten(0, 1), steps * longest
    lengths = count_real(mask, values)
    return values[mask], F.pad(lengths.cumsum(0), (1, 0))


def unpack(rows: Tensor, mask: Tensor | Sequence[int]) -> Tensor:
    """Turn ragged rows (sum N, ...) into a padded batch (B, N, ...), 0 in the padding.

    Args:
        rows: (sum N, ...), as `pack` returned them.
        mask: (B, N), True where the instance is real, or the sizes (B, N) where all are.
    """
    if not isinstance(mask, Tensor):
        return rows.unflatten(0, tuple(mask))
    return rows.new_zeros(*mask.shape, *rows.shape[1:]).index_put((mask,), rows)


def count_real(mask: Tensor, values: Tensor) -> Tensor:
    """Check the mask of padded values (B, N, ...) and count the real instances, (B,).

    Raises:
        InputError: a mask of another type or shape, or a bag without a real instance.
    """
    if mask.dtype != torch.bool or mask.shape != values.shape[:2]:
        raise InputError(
            f"The mask must be boolean and {tuple(values.shape[:2])}, "
            f"not {mask.dtype} and {tuple(mask.shape)}."
        )
    lengths = mask.sum(dim=1)
    refuse_empty(lengths)
    return lengths


def lengths_of(offsets: Tensor, total: int) -> Tensor:
    """Check the offsets of `total` rows and return the number of instances of each bag, (B,).

    Raises:
        InputError: offsets that are none, or a bag without instances.
    """
    if offsets.ndim != 1 or len(offsets) < 2 or offsets.is_floating_point():
        raise InputError("Offsets must be a vector of at least two integers.")
    first, last = offsets[0].item(), offsets[-1].item()
    if first != 0 or last != total:
        raise InputError(
            f"Offsets must run from 0 to the number of instances, {total}, "
            f"not from {first} to {last}."
        )
    lengths = offsets.diff()
    if lengths.min() < 0:
        raise InputError("Offsets must not decrease.")
    refuse_empty(lengths)
    return lengths


def refuse_empty(lengths: Tensor) -> None:
    """Raise the InputError that names each bag of length 0, if there is one."""
    if not lengths.all():
        empty = (lengths == 0).nonzero().flatten().tolist()
        raise InputError(
            "A bag without instances has no attention.", (f"bag {bag}" for bag in empty)
        )


def bag_of_rows(offsets: Tensor, total: int) -> Tensor:
    """Return the bag of each of `total` rows, (sum N,)."""
    return torch.repeat_interleave(offsets.diff(), output_size=total)


def to_rows(totals: Tensor, offsets: Tensor, total: int) -> Tensor:
    """Repeat what each bag has, (B, M), for each of its rows, (sum N, M)."""
    if len(totals) == 1:
        return totals.expand(total, -1)
    return totals.index_select(0, bag_of_rows(offsets, total))


def sum_bags(rows: Tensor, offsets: Tensor, weights: Tensor | None = None) -> Tensor:
    """Sum the rows of each bag, (B, D), or with weights once a branch, (B, M, D).

    Args:
        rows: (sum N, D).
        offsets: (B + 1).
        weights: (sum N, M), of the same type as the rows.
    """
    instances = torch.arange(len(rows), device=rows.device)
    if weights is None:
        return F.embedding_bag(instances, rows, offsets, mode="sum", include_last_offset=True)
    if len(offsets) == 2:  # one bag, as slides are
        # Half precision would round the many small weights, and autocast would choose it.
        with torch.autocast(rows.device.type, enabled=False):
            return (weights.t() @ rows).unsqueeze(0)
    branches = weights.shape[1]
    # A sum over instances that are looked up, once a branch: forward and backward read the rows
    # where they lie, and the gradient of all branches is written into one tensor.
    starts = torch.arange(branches, device=rows.device)[:, None] * len(rows) + offsets[:-1]
    pooled = F.embedding_bag(
        instances.repeat(branches),
        rows,
        starts.flatten(),
        mode="sum",
        per_sample_weights=weights.t().flatten(),
    )
    return pooled.view(branches, -1, rows.shape[1]).transpose(0, 1)


def mean_bags(rows: Tensor, offsets: Tensor) -> Tensor:
    """Average the rows (sum N, D) of each bag, (B, D)."""
    return sum_bags(rows, offsets) / offsets.diff()[:, None]


def max_bags(rows: Tensor, offsets: Tensor) -> Tensor:
    """Return the maximum of each feature in each bag, (B, D); NaN where the bag has one."""
    if len(offsets) == 2:
        return rows.amax(dim=0, keepdim=True)
    bags = bag_of_rows(offsets, len(rows))[:, None].expand_as(rows)
    lowest = rows.new_full((len(offsets) - 1, rows.shape[1]), -torch.inf)
    return lowest.scatter_reduce(0, bags, rows, "amax")


def logsumexp_bags(rows: Tensor, offsets: Tensor) -> Tensor:
    """Return log sum exp over the rows (sum N, D) of each bag, (B, D)."""
    if len(offsets) == 2:
        return rows.logsumexp(dim=0, keepdim=True)
    highest = max_bags(rows.detach(), offsets)  # subtracted so that exp cannot overflow
    powers = (rows - to_rows(highest, offsets, len(rows))).exp()
    return sum_bags(powers, offsets).log() + highest


def softmax_bags(scores: Tensor, offsets: Tensor) -> Tensor:
    """Return the softmax of each column of scores (sum N, M) within each bag, (sum N, M)."""
    return _Softmax.apply(scores, offsets)


class _Softmax(torch.autograd.Function):
    """A few operations a pass instead of a score of them: most bags are small."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, offsets: Tensor) -> Tensor:
        bags = bag_of_rows(offsets, len(scores))
        highest = max_bags(scores, offsets)
        powers = (scores - highest.index_select(0, bags)).exp_()
        weights = powers / _total(powers, bags, len(highest))
        ctx.save_for_backward(weights, bags)
        ctx.count = len(highest)
        return weights

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        weights, bags = ctx.saved_tensors
        pulls = weights * gradients[0]
        return pulls - weights * _total(pulls, bags, ctx.count), None


def _total(rows: Tensor, bags: Tensor, count: int) -> Tensor:
    """Return for every row the sum over its bag, (sum N, M)."""
    totals = rows.new_zeros(count, rows.shape[1]).index_add(0, bags, rows)
    return totals.index_select(0, bags)
