"""One bag as it is drawn: its instances, their weights, and what the model said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, NoReturn

import numpy as np
from numpy.typing import ArrayLike, NDArray

from attnvgg.errors import InputError
from attnvgg.explain.overlays import Kind, Pixels, ScaledMap, scale_map

TOLERANCE = 1e-3  # of the sum of attention weights: half precision keeps three digits


class Selection(NamedTuple):
    """Instances of a bag that are drawn (positions in the bag), and those that are not."""

    first: list[int]
    """Those of the largest weight, from the largest; without weights, the first of the bag."""
    rest: list[int]
    """Not drawn, only counted."""
    last: list[int]
    """Those of the smallest weight, to the smallest."""


@dataclass(frozen=True, eq=False)
class BagCase:
    """A bag of N instances with a weight for each."""

    name: str
    probability: float
    """Of the class `scored`, in [0, 1]."""
    predicted: str
    """Class that the model called."""
    label: str | None = None
    """True class, where known; another one than `predicted` is marked as an error."""
    scored: str | None = None
    """Class that the probability is of; `predicted` if absent."""
    weights: ArrayLike | None = None
    """(N,) or (N, M) for M branches, whose mean is drawn; None: a pool without weights."""
    instances: Sequence[Pixels] | Pixels | None = None
    """N pictures uint8, (h, w) or RGB (h, w, 3); only those drawn are read, so that a lazy sequence
    will do. None: there are only features, and the weights are drawn without pictures."""
    instance_labels: ArrayLike | None = None
    """(N,), 1 = positive, 0 = negative, NaN = not known."""
    instance_names: Sequence[str] | None = None
    """N names, written below the instances."""
    score_name: str = "attention"
    """What the weights are. Those of "attention" sum to 1 over the bag (each branch does); anything
    else, such as "probability of the instance", is (N,) in [0, 1]."""
    coords: ArrayLike | None = None
    """(N, 2), x and y in level-0 pixels, written below the instances."""

    def __post_init__(self) -> None:
        if self.weights is None and self.instances is None:
            self._refuse("has neither weights nor pictures, so there is nothing to draw")
        if not 0 <= self.probability <= 1:
            self._refuse(f"has the probability {self.probability}, which is not in [0, 1]")
        if not len(self):
            self._refuse("has no instances")
        self._check_weights()
        self._check_lengths()
        labels = self.labels
        if not (np.isnan(labels) | (labels == 0) | (labels == 1)).all():
            self._refuse("has instance labels other than 0, 1 and NaN (not known)")

    def __len__(self) -> int:
        """Return the number of instances."""
        return len(
            np.atleast_1d(np.asarray(self.weights)) if self.instances is None else self.instances
        )

    @property
    def wrong(self) -> bool:
        """Tell whether the model called another class than the true one."""
        return self.label is not None and self.label != self.predicted

    @property
    def kind(self) -> Kind:
        """Scale on which the weights are drawn, see `scale_map`."""
        return "softmax" if self.score_name == "attention" else "sigmoid"

    @property
    def branches(self) -> int:
        """Number of weights an instance has: 0 where the pool has none."""
        if self.weights is None:
            return 0
        return int(np.prod(np.shape(self.weights)[1:]))

    @cached_property
    def values(self) -> NDArray[np.float64] | None:
        """What is drawn of the weights, (N,): their mean over branches."""
        if self.weights is None:
            return None
        weights = np.asarray(self.weights, dtype=np.float64)
        return weights.reshape(len(weights), -1).mean(axis=1)

    @cached_property
    def labels(self) -> NDArray[np.float64]:
        """Truth of the instances, (N,), NaN where not known."""
        if self.instance_labels is None:
            return np.full(len(self), np.nan)
        return np.asarray(self.instance_labels, dtype=np.float64)

    @cached_property
    def scale(self) -> ScaledMap | None:
        """Places of the weights on the fixed scale and whether they are clipped, each (N,)."""
        if self.values is None:
            return None
        values, clipped = scale_map(self.values[None], self.kind)
        return ScaledMap(values[0], clipped[0])

    def select(self, longest: int) -> Selection:
        """Choose the instances to draw.

        Args:
            longest: a bag of more instances shows so many, of which about a fifth, but at least
                one, are those of the smallest weight.
        """
        count = len(self)
        if self.values is None:
            numbers = list(range(count))
            return Selection(numbers[:longest], numbers[longest:], [])
        order = np.argsort(-self.values, kind="stable").tolist()
        if count <= longest:
            return Selection(order, [], [])
        least = max(1, longest // 5)
        return Selection(order[: longest - least], order[longest - least : -least], order[-least:])

    def picture(self, number: int) -> Pixels:
        """Return an instance as RGB (h, w, 3).

        Args:
            number: position in the bag.

        Raises:
            InputError: it is not a picture.
        """
        assert self.instances is not None
        picture = np.asarray(self.instances[number])
        grey = picture.ndim == 2
        if picture.dtype != np.uint8 or not (grey or picture.shape[2:] == (3,)) or not picture.size:
            found = f"{picture.dtype} {picture.shape}"
            self._refuse(f"needs pictures uint8 (h, w) or (h, w, 3); instance {number} is {found}")
        return np.repeat(picture[..., None], 3, axis=2) if grey else picture

    def _check_weights(self) -> None:
        if self.weights is None:
            return
        weights = np.asarray(self.weights, dtype=np.float64)
        branched = self.kind == "softmax" and weights.ndim == 2 and weights.shape[1] > 0
        if weights.ndim != 1 and not branched:
            self._refuse(f"has weights ({self.score_name}) of the shape {weights.shape}")
        if len(weights) != len(self):
            self._refuse(f"has {len(self)} instances, but {len(weights)} weights")
        if not np.isfinite(weights).all():
            self._refuse("has weights that are not finite")
        if self.kind == "sigmoid":
            if weights.min() < 0 or weights.max() > 1:
                self._refuse(f"has values ({self.score_name}) outside of [0, 1]")
            return
        sums = np.atleast_1d(weights.sum(axis=0))
        worst = sums[np.abs(sums - 1).argmax()]
        if weights.min() < 0 or abs(worst - 1) > TOLERANCE:
            self._refuse(f"has attention that does not sum to 1 (but {worst:.4g}) or is negative")

    def _check_lengths(self) -> None:
        for what, values, tail in (
            ("instance labels", self.instance_labels, ()),
            ("instance names", self.instance_names, ()),
            ("coords", self.coords, (2,)),
        ):
            shape = (len(self), *tail)
            if values is not None and np.shape(values) != shape:
                self._refuse(f"has {what} of the shape {np.shape(values)}, not {shape}")

    def _refuse(self, complaint: str) -> NoReturn:
        raise InputError(f"The bag {self.name or 'without a name'} {complaint}.")
