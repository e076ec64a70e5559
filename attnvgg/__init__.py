"""Attention-gated image classification whose maps and metrics can be audited.

The names below are imported when they are first asked for: the processes that paint the sample,
and `attnvgg --help`, need no PyTorch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from attnvgg.deploy.predictor import Predictor
    from attnvgg.models import AttentionBlock, AttnVGG, BagClassifier, FocalLoss
    from attnvgg.training.checkpoint import load_model

__all__ = ["AttentionBlock", "AttnVGG", "BagClassifier", "FocalLoss", "Predictor", "load_model"]

HOMES = {
    "AttentionBlock": "attnvgg.models",
    "AttnVGG": "attnvgg.models",
    "BagClassifier": "attnvgg.models",
    "FocalLoss": "attnvgg.models",
    "Predictor": "attnvgg.deploy.predictor",
    "load_model": "attnvgg.training.checkpoint",
}


def __getattr__(name: str) -> Any:
    if name not in HOMES:
        raise AttributeError(f"module 'attnvgg' has no attribute {name!r}")
    return getattr(importlib.import_module(HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
