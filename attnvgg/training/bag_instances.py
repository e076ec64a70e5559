"""What a bag model said of every instance: attention weights, or probabilities of instances."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from accelerate.utils import gather_object
from torch import Tensor, nn

from attnvgg.errors import InputError
from attnvgg.evaluation.probabilities import to_probabilities
from attnvgg.models import BagClassifier


class InstanceLog:
    """Watches an evaluation and keeps a row an instance; see `evaluate`.

    A pool with weights gives `weight` (several branches: `weight_0`, ...), a model whose head runs
    on the instances `probability` of class 1 (of more classes: of each). Other models say nothing
    of single instances.
    """

    def __init__(self) -> None:
        self.rows: list[dict[str, Tensor]] = []

    def __call__(self, module: nn.Module, batch: dict[str, Any], output: Any) -> None:
        """Keep what was said of the instances of a batch."""
        assert isinstance(module, BagClassifier)
        found = {}
        if output.attention is not None:
            found["weight"] = output.attention.float().cpu()
        elif module.pool.level == "instance":
            logits = module.instance_logits(batch["instances"])
            found["probability"] = torch.from_numpy(to_probabilities(logits.float().cpu().numpy()))
        else:
            return
        lengths = batch["offsets"].diff()
        found["index"] = batch["index"].repeat_interleave(lengths)
        found["instance"] = torch.cat([torch.arange(n) for n in lengths.tolist()])
        if "instance_labels" in batch:
            found["label"] = batch["instance_labels"]
        self.rows.append(found)

    def table(self, manifest: pd.DataFrame, rows: np.ndarray) -> pd.DataFrame | None:
        """Return the rows of `instances.csv`; None if nothing was said of instances.

        Call it in all processes.

        Args:
            manifest: the run's bags.
            rows: the row of the manifest for each `index`.

        Returns:
            `index, image, split, instance`, the number of the instance in its bag from 0, then
            `weight` or `probability` (or several of them, numbered), and `label`, NaN where it is
            not known, if any bag knows it.
        """
        seen = gather_object(self.rows)
        if not seen:
            return None
        if any("label" in part for part in seen):  # a batch of bags that know nothing has none
            for part in seen:
                part.setdefault("label", torch.full(part["index"].shape, torch.nan))
        joined = {key: torch.cat([part[key] for part in seen]).numpy() for key in seen[0]}
        cases = manifest.iloc[rows[joined["index"]]]
        table = pd.DataFrame(
            {
                "index": rows[joined["index"]],
                "image": cases["image"].to_numpy(),
                "split": cases["split"].to_numpy(),
                "instance": joined["instance"],
            }
        )
        for name in ("weight", "probability"):
            values = joined.get(name)
            if values is not None:
                shown = values[:, -1:] if name == "probability" and values.shape[1] <= 2 else values
                for k in range(shown.shape[1]):
                    table[name if shown.shape[1] == 1 else f"{name}_{k}"] = shown[:, k]
        if "label" in joined:
            table["label"] = joined["label"]
        return table.sort_values(["index", "instance"], kind="stable").reset_index(drop=True)


def read_instances(path: Path) -> pd.DataFrame:
    """Return the table of `instances.csv`.

    Raises:
        InputError: it is damaged.
    """
    try:
        table = pd.read_csv(path)
    except (ValueError, OSError) as error:
        raise InputError(f"{path} is damaged: evaluate the run again.") from error
    said = [name for name in table if str(name).startswith(("weight", "probability"))]
    if not {"index", "image", "split", "instance"} <= set(table) or not said or table.empty:
        raise InputError(f"{path} is damaged: evaluate the run again.")
    return table


def merged(tables: list[pd.DataFrame]) -> pd.DataFrame | None:
    """Average what several models say of the same instances.

    Branches are averaged within a model first, for one model's third branch is not another's.

    Returns:
        The table with one `weight` or `probability`; None where the models do not say the same
        kind of thing.
    """
    plain = [_single(table) for table in tables]
    if any(table is None for table in plain):
        return None
    first = plain[0]
    assert first is not None
    kind = "weight" if "weight" in first else "probability"
    if any(table is None or kind not in table for table in plain):
        return None
    mean = np.mean([table[kind].to_numpy() for table in plain if table is not None], axis=0)
    return first.assign(**{kind: mean})


def _single(table: pd.DataFrame) -> pd.DataFrame | None:
    """Return the table with one figure an instance, None where there is none (many classes)."""
    if "weight" in table or "probability" in table:
        return table
    branches = [name for name in table if str(name).startswith("weight_")]
    if not branches:
        return None
    return table.drop(columns=branches).assign(weight=table[branches].mean(axis=1))
