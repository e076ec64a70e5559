"""Do the instances that a model points at deserve it? Figures of `instances.csv`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from attnvgg.evaluation.bootstrap import share_interval


def judge_instances(
    instances: pd.DataFrame,
    split: str,
    level: float = 0.95,
    groups: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return how well the instances of positive bags were found, where their truth is known.

    Several branches are averaged first; of several classes, all but the first are positive.

    Args:
        instances: `image, split, instance`, `weight` (or `weight_0..`) or `probability`, and
            `label`, 1 for a positive instance.
        split: which bags.
        level: of the interval.
        groups: patient of each bag, by `image`; none: each bag is its own.

    Returns:
        `bags`, the number of bags with a positive instance;
        `top_positive`, the share of them whose highest instance is positive (a tie counts by its
        share of positives) with its interval `lower` and `upper` by `method`, see `share_interval`;
        `mass_on_positives`, the mean share of the weights on positive instances (weights only).
    """
    rows = instances[instances["split"] == split]
    scores = [str(name) for name in rows if str(name).startswith(("weight", "probability"))]
    values = rows[scores].mean(axis=1).to_numpy()
    if "probability_0" in scores:
        values = 1 - rows["probability_0"].to_numpy()
    table = pd.DataFrame({"bag": rows["image"], "score": values, "label": rows["label"] == 1})
    table = table[table.groupby("bag")["label"].transform("any")]
    highest = table["score"] == table.groupby("bag")["score"].transform("max")
    hits = table[highest].groupby("bag")["label"].mean()
    count = len(hits)
    found: dict[str, Any] = {"bags": count, "score": scores[0].partition("_")[0]}
    interval: dict[str, Any] = dict.fromkeys(("value", "lower", "upper", "method"))
    if count:
        patients = np.array([(groups or {}).get(str(bag)) for bag in hits.index], dtype=object)
        interval = share_interval(hits.to_numpy(float), np.ones(count, bool), patients, level)
    found |= {"top_positive": interval.pop("value"), **interval, "level": level}
    if found["score"] == "weight":
        share = (table["score"] * table["label"]).groupby(table["bag"]).sum()
        found["mass_on_positives"] = float(np.mean(share)) if count else None
    return found
