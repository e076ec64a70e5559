"""From logits to probabilities and to the class that is called: once, at the edge."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, softmax

from attnvgg.errors import InputError


def to_probabilities(logits: ArrayLike) -> NDArray[np.float64]:
    """Turn logits (n, K) into probabilities in [0, 1]: (n, 1) of class 1 for K=1, else (n, K)."""
    values = np.asarray(logits, np.float64)
    found: NDArray[np.float64] = expit(values) if values.shape[1] == 1 else softmax(values, axis=1)
    return found


def class_names(config: Mapping[str, Any], count: int) -> list[str]:
    """Return the names of the classes that a model tells apart.

    Args:
        config: of the model.
        count: of the classes.

    Raises:
        InputError: its configuration names another number of them.
    """
    names = config.get("classes") or list(range(count))
    if not isinstance(names, list | tuple) or len(names) != count:
        raise InputError(
            f"This model tells {count} classes apart, but its config.json has {names}."
        )
    return [str(name) for name in names]


def called_class(probabilities: NDArray[np.float64], threshold: float | None) -> int:
    """Return the class that is called: of two by the threshold (.5 if none), else the likeliest.

    Args:
        probabilities: (1,) of class 1, or (K,).
        threshold: of class 1.
    """
    if len(probabilities) > 2:
        return int(probabilities.argmax())
    return int(probabilities[-1] >= (0.5 if threshold is None else threshold))
