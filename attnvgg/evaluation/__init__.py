"""Arrays in, figures out: how good predictions are, and how sure that is.

The names below are imported when they are first asked for: a model in use needs probabilities, and
not the seconds that scikit-learn takes to import.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from attnvgg.evaluation.assessment import Assessment, Questions, assess
    from attnvgg.evaluation.bootstrap import share_interval
    from attnvgg.evaluation.instances import judge_instances
    from attnvgg.evaluation.intervals import AucInterval, auc_interval, wilson_interval
    from attnvgg.evaluation.metrics import (
        Confusion,
        average_precision,
        balanced_accuracy,
        choose_threshold,
        confusion,
        recalls,
        roc_auc,
    )
    from attnvgg.evaluation.ordinal import quadratic_kappa
    from attnvgg.evaluation.paired import auc_difference
    from attnvgg.evaluation.predictions import read_predictions
    from attnvgg.evaluation.report import evaluate_predictions
    from attnvgg.evaluation.sentences import majority, summary

__all__ = [
    "Assessment",
    "AucInterval",
    "Confusion",
    "Questions",
    "assess",
    "auc_difference",
    "auc_interval",
    "average_precision",
    "balanced_accuracy",
    "choose_threshold",
    "confusion",
    "evaluate_predictions",
    "judge_instances",
    "majority",
    "quadratic_kappa",
    "read_predictions",
    "recalls",
    "roc_auc",
    "share_interval",
    "summary",
    "wilson_interval",
]

HOMES = {
    "Assessment": "assessment",
    "AucInterval": "intervals",
    "Confusion": "metrics",
    "Questions": "assessment",
    "assess": "assessment",
    "auc_difference": "paired",
    "auc_interval": "intervals",
    "average_precision": "metrics",
    "balanced_accuracy": "metrics",
    "choose_threshold": "metrics",
    "confusion": "metrics",
    "evaluate_predictions": "report",
    "judge_instances": "instances",
    "majority": "sentences",
    "quadratic_kappa": "ordinal",
    "read_predictions": "predictions",
    "recalls": "metrics",
    "roc_auc": "metrics",
    "share_interval": "bootstrap",
    "summary": "sentences",
    "wilson_interval": "intervals",
}


def __getattr__(name: str) -> Any:
    if name not in HOMES:
        raise AttributeError(f"module 'attnvgg.evaluation' has no attribute {name!r}")
    return getattr(importlib.import_module(f"attnvgg.evaluation.{HOMES[name]}"), name)
