"""Bags of any size on their way into batches: checked, packed, named where they are unusable."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from attnvgg.errors import InputError
from attnvgg.models.bags import PIECE
from attnvgg.models.streaming import read_rows

Shape = tuple[int, ...]


class PackedBags(NamedTuple):
    """Bags that are computed together.

    Attributes:
        rows: their instances, (sum N, ...): a tensor, or one large bag as it was given.
        offsets: (B + 1), bag b is rows offsets[b] to offsets[b + 1].
    """

    rows: Any
    offsets: Tensor


def packed(
    bags: Iterable[Any], size: int, require: Callable[[Shape], None]
) -> Iterator[PackedBags]:
    """Yield bags in batches of up to so many instances; a larger bag is alone and is not copied.

    Args:
        bags: (N, ...) each: arrays, memory maps, HDF5 data sets, tensors or lists.
        size: instances.
        require: raises InputError for a shape of instances that cannot be.

    Raises:
        InputError: a bag that cannot be used, by its number.
    """
    batch: list[Any] = []
    filled, first, known = 0, 0, None
    for number, given in enumerate(bags):
        bag = _checked(given, number)
        shape = tuple(bag.shape[1:])
        if shape != known:
            try:
                require(shape)
            except InputError as error:
                raise InputError(f"{_name(number)}: {error}") from error
        if batch and (filled + len(bag) > size or shape != known):
            yield _joined(batch, first, size)
            batch, filled = [], 0
        if not batch:
            first = number
        batch.append(bag)
        filled, known = filled + len(bag), shape
    if batch:
        yield _joined(batch, first, size)


def _checked(bag: Any, number: int) -> Any:
    """Return a bag of one instance or more as an array, or what reads as one."""
    try:
        bag = bag if hasattr(bag, "shape") else np.asarray(bag, np.float32)
    except (TypeError, ValueError):
        raise InputError(f"{_name(number)} is no array of numbers (N, ...).") from None
    if not len(bag.shape) or not bag.shape[0]:
        raise InputError(f"{_name(number)} has no instances.")
    kind = bag.dtype
    if not (kind.is_floating_point if isinstance(bag, Tensor) else kind.kind == "f"):
        raise InputError(f"{_name(number)} holds {kind}, not floating-point numbers.")
    return bag


def _joined(batch: list[Any], first: int, size: int) -> PackedBags:
    lengths = [len(bag) for bag in batch]
    offsets = torch.tensor([0, *accumulate(lengths)])
    if lengths[0] > size:
        _require_finite(batch, first)
        return PackedBags(batch[0], offsets)
    rows = torch.cat([_read(bag) for bag in batch])
    if not rows.sum().isfinite():  # one pass, and nothing is kept
        _require_finite(rows.split(lengths), first)
    return PackedBags(rows, offsets)


def _read(bag: Any) -> Tensor:
    """Return a small bag as a tensor, without a copy where there can be one."""
    if not isinstance(bag, Tensor):  # any byte order, any stride
        bag = read_rows(np.ascontiguousarray(bag, np.float32), slice(None))
    return bag.float()


def _require_finite(bags: Sequence[Any], first: int) -> None:
    """Refuse NaN and infinite values; a large bag is read part by part."""
    for number, bag in enumerate(bags, first):
        for start in range(0, len(bag), PIECE):
            if not read_rows(bag, slice(start, start + PIECE)).isfinite().all():
                raise InputError(f"{_name(number)} holds values that are NaN or infinite.")


def _name(number: int) -> str:
    return f"Bag {number} (the first is 0)"
