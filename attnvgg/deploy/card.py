"""The card of a model in use: what its configuration says, and what its run says beside it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from attnvgg.data.tables import read_table
from attnvgg.errors import InputError
from attnvgg.models import card as cards
from attnvgg.models.card import Kind
from attnvgg.models.card_text import card_markdown

__all__ = ["card_markdown", "model_card", "training_data"]

DRAWN = ("sample",)  # sources of images that a program draws
SPLITS = ("train", "val", "test")
INNER = ("best", "model.safetensors")  # of a run, from which its model may be loaded too


def model_card(
    config: Mapping[str, Any],
    *,
    kind: Kind,
    digest: str,
    origin: str | os.PathLike[str] | None = None,
) -> dict[str, Any]:
    """Return the card of a model as plain JSON values; `engine` is None, for others to fill in.

    Args:
        config: of the model, as `Predictor` and `BagPredictor` have it.
        kind: what it classifies.
        digest: of its weights, or of the exported files.
        origin: where it was loaded from; of a run, source and number of the training cases are
            read. Of a path only the last name is told.
    """
    name = None if origin is None else _name(str(origin))
    data = None if origin is None else training_data(Path(origin), config)
    return cards.model_card(config, kind=kind, digest=digest, origin=name, data=data)


def training_data(run: Path, config: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return what a run folder says of its data; nothing where it is none, or is damaged.

    Args:
        run: of one model, or of several.
        config: of the model, for the names of the classes.

    Returns:
        `source`, `counts` (a mapping from classes to cases, a split), `synthetic` where the
        source tells it.
    """
    while run.name in INNER:
        run = run.parent
    found: dict[str, Any] = {}
    try:
        source = yaml.safe_load((run / "config.yaml").read_text())["data"]["source"]
        found["source"] = str(source)
        found |= {"synthetic": True} if source in DRAWN else {}
        found["counts"] = _counts(run / "manifest.csv", (config or {}).get("classes"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError, InputError):
        pass
    return found


def _counts(path: Path, classes: Any) -> dict[str, dict[str, int]]:
    """Return the number of cases of each class, a split."""
    table = read_table(path)
    counts: dict[str, dict[str, int]] = {}
    for split in SPLITS:
        labels = table["label"][table["split"] == split].value_counts().sort_index()
        counts[split] = {_class(label, classes): int(n) for label, n in labels.items()}
    return counts


def _class(label: Any, classes: Any) -> str:
    known = isinstance(classes, list | tuple) and str(label).isdigit() and int(label) < len(classes)
    return str(classes[int(label)]) if known else str(label)


def _name(origin: str) -> str | None:
    """Return owner/name of a repository, or the last name of a path that says something."""
    if not os.path.exists(origin):
        return origin
    parts = Path(os.path.abspath(origin)).parts
    return next((part for part in reversed(parts) if part not in INNER), "")
