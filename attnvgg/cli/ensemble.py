"""What several runs of one recipe say together: their average, and how far they spread."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import t as student

from attnvgg.errors import InputError


def average_predictions(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Return a table of predictions with the mean probabilities, and their logits.

    Raises:
        InputError: the tables are not of the same cases.
    """
    first = tables[0]
    if any(not table["image"].equals(first["image"]) for table in tables):
        raise InputError("The seeds have judged different cases: their folders do not belong here.")
    average = first.copy()
    for name in [str(name) for name in first if str(name).startswith("probability")]:
        mean = np.mean([table[name].to_numpy() for table in tables], axis=0)
        average[name] = mean
        inside = mean.clip(1e-15, 1 - 1e-15)
        logit = np.log(inside / (1 - inside)) if name == "probability" else np.log(inside)
        average[name.replace("probability", "logit")] = logit
    return average


def spread_of(
    rows: Sequence[dict[str, float | None]], overlap: float = 0.0
) -> dict[str, dict[str, Any]]:
    """Return mean, standard deviation and 95 % t-interval of each figure in [0, 1] over the runs.

    A figure that some run does not have is left out.

    Args:
        rows: the figures of each run.
        overlap: cases tested a case trained on, where the runs share training cases: the variance
            of the mean is then (1 / n + overlap) s^2 (Nadeau & Bengio, Machine Learning 2003).
    """
    found = {}
    for key in rows[0]:
        values = [row[key] for row in rows if row.get(key) is not None]
        if len(values) < len(rows):
            continue
        numbers = np.array(values, dtype=np.float64)
        mean, deviation = float(numbers.mean()), float(numbers.std(ddof=1))
        error = deviation * math.sqrt(1 / len(numbers) + overlap)
        half = float(student.ppf(0.975, len(numbers) - 1)) * error
        found[key] = {
            "mean": mean,
            "deviation": deviation,
            "lower": max(0.0, mean - half),
            "upper": min(1.0, mean + half),
            "values": numbers.tolist(),
        }
    return found


def spread_line(title: str, figures: dict[str, Any]) -> str:
    """Return one entry of `spread_of` as a person reads it."""
    return (
        f"{title} {figures['mean']:.4f} ± {figures['deviation']:.4f} "
        f"({figures['lower']:.4f} to {figures['upper']:.4f})"
    )
