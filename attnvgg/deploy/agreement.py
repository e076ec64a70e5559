"""How far an engine's answers are from those of PyTorch, on real images."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from attnvgg.deploy.engines import Engine
from attnvgg.deploy.engines.interface import Images, Outputs, Refused
from attnvgg.evaluation.probabilities import to_probabilities

# What is accepted: (mean difference of probabilities, of the AUC, rank correlation of maps).
TOLERANCE = {"openvino-int8": (0.01, 0.005, 0.98)}
USUAL = (1e-4, 1e-4, 0.9999)
ENOUGH = 100  # images for the AUC to be judged: of few, one pair that swaps moves it too far
FLAT = 1e-6  # a map whose positions differ by less, relatively, has no order


@dataclass(frozen=True)
class Agreement:
    """Differences between two engines on the same images.

    Attributes:
        images: how many.
        mean_difference: mean absolute difference of the probability (of K>2, of the largest).
        largest_difference: of any image.
        auc: of both, where labels of two classes or more are known.
        rank_correlation: mean over images of Spearman's correlation of each map that is not flat;
            empty for a model without maps.
    """

    images: int
    mean_difference: float
    largest_difference: float
    auc: tuple[float, float] | None
    rank_correlation: tuple[float | None, ...]

    @property
    def words(self) -> str:
        """Return the differences in a line."""
        parts = [f"|dp| mean {self.mean_difference:.2g}, largest {self.largest_difference:.2g}"]
        if self.auc is not None:
            few = "" if self.images >= ENOUGH else ", too few images to judge it"
            parts.append(f"AUC {self.auc[0]:.4f}, of PyTorch {self.auc[1]:.4f}{few}")
        known = [f"{value:.4f}" for value in self.rank_correlation if value is not None]
        if known:
            parts.append(f"rank correlation of the maps {', '.join(known)}")
        return f"{'; '.join(parts)} ({self.images} images)"

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        found = asdict(self)
        return {k: list(v) if isinstance(v, tuple) else v for k, v in found.items()}

    def require(self, kind: str) -> None:
        """Raise Refused if the differences are more than is accepted of this engine."""
        most, auc, ranks = TOLERANCE.get(kind, USUAL)
        wrong = []
        if not self.mean_difference <= most:  # not a number is no agreement
            wrong.append(f"mean |dp| {self.mean_difference:.2g} is above {most:g}")
        judged = self.auc if self.images >= ENOUGH else None
        if judged is not None and abs(judged[0] - judged[1]) > auc:
            wrong.append(f"the AUC moved from {judged[1]:.4f} to {judged[0]:.4f}")
        known = [value for value in self.rank_correlation if value is not None]
        if known and min(known) < ranks:
            wrong.append(f"rank correlation of the maps {min(known):.4f} is below {ranks:g}")
        if wrong:
            raise Refused(
                f"The engine {kind} is refused: it is too far from PyTorch on {self.images} "
                f"images ({'; '.join(wrong)}). Take another engine."
            )


def compare(
    engine: Engine, reference: Engine, batches: Iterable[Images], labels: np.ndarray | None = None
) -> Agreement:
    """Return how far an engine is from a reference.

    Args:
        engine: gives logits first, then maps.
        reference: of the same network.
        batches: images (B, 3, H, W).
        labels: of all images, if known, (n,).
    """
    pairs = [(engine(batch), reference(batch)) for batch in batches]
    mine, theirs = (
        to_probabilities(np.concatenate([pair[side][0] for pair in pairs])) for side in (0, 1)
    )
    difference = np.abs(mine - theirs).max(axis=1)
    maps = range(1, len(pairs[0][0]))
    return Agreement(
        images=len(difference),
        mean_difference=float(difference.mean()),
        largest_difference=float(difference.max()),
        auc=_areas(labels, mine, theirs),
        rank_correlation=tuple(_ranks(pairs, number) for number in maps),
    )


def _areas(
    labels: np.ndarray | None, mine: np.ndarray, theirs: np.ndarray
) -> tuple[float, float] | None:
    from attnvgg.evaluation.metrics import roc_auc  # scikit-learn takes a second, too

    if labels is None or len(np.unique(labels)) < max(2, mine.shape[1]):
        return None
    if not np.isfinite(mine).all():
        return None  # which the differences tell already
    scores = [p if p.shape[1] > 2 else p[:, -1] for p in (mine, theirs)]
    return float(roc_auc(labels, scores[0])), float(roc_auc(labels, scores[1]))


def _ranks(pairs: list[tuple[Outputs, Outputs]], number: int) -> float | None:
    """Return the mean rank correlation of one map over the images in which it has an order.

    Where it has one and the engine's has none, or is not of numbers, they do not go together: 0.
    """
    from scipy.stats import spearmanr  # takes a second, and most processes compare nothing

    found = []
    for ours, theirs in pairs:
        for one, other in zip(ours[number], theirs[number], strict=True):
            if other.size > 1 and np.ptp(other) > FLAT * np.abs(other).max():
                ordered = np.isfinite(one).all() and np.ptp(one) > 0
                ranks = spearmanr(one.ravel(), other.ravel()).statistic if ordered else 0.0
                found.append(float(ranks))
    return float(np.mean(found)) if found else None
