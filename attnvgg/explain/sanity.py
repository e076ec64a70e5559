"""Whether maps depend on what the model has learned (Adebayo et al., NeurIPS 2018).

The weights are replaced by those of an untrained model, from the last layer down, a block more
each time. A map that hardly changes shows the picture, or the architecture, not the learning.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata
from torch import nn

from attnvgg.errors import InputError

Values = NDArray[np.float64]


def cascade(model: nn.Module, fresh: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the name of each block, from the last down, and a copy with it and those after it new.

    It is one copy all the time: use it before asking for the next.

    Args:
        model: trained; it is left as it is.
        fresh: one of the same shape that has learned nothing, with other random weights.

    Raises:
        InputError: the two are not of the same shape.
    """
    trained, new = model.state_dict(), fresh.state_dict()
    if {n: v.shape for n, v in trained.items()} != {n: v.shape for n, v in new.items()}:
        raise InputError("The untrained model must have the shape of the trained one.")
    copy = deepcopy(model)
    blocks = list(dict.fromkeys(_block(name) for name in trained))
    for block in reversed(_in_order(blocks)):
        trained |= {name: new[name] for name in trained if _block(name) == block}
        copy.load_state_dict(trained)
        yield block, copy


def rank_correlation(maps: ArrayLike, others: ArrayLike) -> Values:
    """Return Spearman's correlation of pairs of maps over their positions, (n,).

    NaN where one of the two is the same everywhere: it has no ranks.

    Args:
        maps: (n, h, w).
        others: likewise.

    Raises:
        InputError: another shape.
    """
    one, other = np.asarray(maps, np.float64), np.asarray(others, np.float64)
    if one.shape != other.shape or one.ndim != 3:
        raise InputError(f"Pairs of maps (n, h, w), not {one.shape} and {other.shape}.")
    ranks = [rankdata(found.reshape(len(found), -1), axis=1) for found in (one, other)]
    ranks = [found - found.mean(axis=1, keepdims=True) for found in ranks]
    product = (ranks[0] * ranks[1]).sum(axis=1)
    norm = np.sqrt((ranks[0] ** 2).sum(axis=1) * (ranks[1] ** 2).sum(axis=1))
    return np.divide(product, norm, out=np.full(len(norm), np.nan), where=norm > 0)


def _block(name: str) -> str:
    """Return the block that a weight is counted to: a stage, or a module of the first level."""
    parts = name.split(".")
    return ".".join(parts[:2]) if parts[0] == "stages" else parts[0]


def _in_order(blocks: list[str]) -> list[str]:
    """Sort blocks in the order in which a picture passes them: stages, attention, classifier."""
    return sorted(blocks, key=lambda name: (not name.startswith("stages"), blocks.index(name)))
