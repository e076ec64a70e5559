"""What a model said of a whole set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from attnvgg.evaluation.metrics import average_precision, choose_threshold, roc_auc
from attnvgg.evaluation.probabilities import to_probabilities


@dataclass(frozen=True)
class Predictions:
    """Logits of a whole set: `index` (n,) row numbers, `labels` (n,), `logits` (n, K)."""

    index: np.ndarray
    labels: np.ndarray
    logits: np.ndarray

    @property
    def probabilities(self) -> np.ndarray:
        """Return probabilities, see `to_probabilities`."""
        return to_probabilities(self.logits)

    def renumbered(self, rows: np.ndarray) -> Predictions:
        """Return the same with `index` i replaced by `rows[i]`: from a subset to its whole."""
        return replace(self, index=rows[self.index])


def joined(seen: Sequence[tuple[Tensor, Tensor, Tensor]]) -> Predictions:
    """Join the batches of all processes, sorted by case."""
    index, labels, logits = (torch.cat(parts).numpy() for parts in zip(*seen, strict=True))
    order = np.argsort(index, kind="stable")
    return Predictions(index[order], labels[order], logits[order])


def score(predictions: Predictions, criterion: nn.Module) -> dict[str, float]:
    """Return loss, AUC and average precision over the whole set (macro for K > 2)."""
    labels, logits = torch.from_numpy(predictions.labels), torch.from_numpy(predictions.logits)
    probabilities = predictions.probabilities
    scores = probabilities if probabilities.shape[1] > 2 else probabilities[:, -1]
    device = next(iter(criterion.buffers()), torch.empty(0)).device
    return {
        "loss": float(criterion(logits.to(device), labels.to(device))),
        "auc": roc_auc(predictions.labels, scores),
        "average_precision": average_precision(predictions.labels, scores),
    }


def lock_threshold(predictions: Predictions) -> float | None:
    """Return the threshold of class 1 at 90 % sensitivity (two classes), else None."""
    if predictions.probabilities.shape[1] > 2:
        return None
    return choose_threshold(predictions.labels, predictions.probabilities[:, -1])


def prediction_table(manifest: pd.DataFrame, predictions: Predictions) -> pd.DataFrame:
    """Return the rows of `predictions.csv`.

    Args:
        manifest: the run's cases.
        predictions: whose `index` are row numbers of the manifest.

    Returns:
        `index, image, label, group, split`, then `logit, probability` (K=1) or `logit_0..`,
        `probability_0..`, then `sex, age, site, source` where known.
    """
    rows = manifest.iloc[predictions.index]
    table = rows.reindex(columns=["image", "label", "group", "split"])
    table.insert(0, "index", predictions.index)
    for name, values in (
        ("logit", predictions.logits),
        ("probability", predictions.probabilities),
    ):
        width = values.shape[1]
        for k in range(width):
            table[name if width == 1 else f"{name}_{k}"] = values[:, k]
    known = [name for name in ("sex", "age", "site", "source") if name in rows]
    return pd.concat([table, rows[known]], axis=1).reset_index(drop=True)
