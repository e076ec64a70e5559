"""Arrays in, figures out: how good predictions are, and how sure that is."""

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
from attnvgg.evaluation.predictions import read_predictions
from attnvgg.evaluation.report import evaluate_predictions, summary

__all__ = [
    "AucInterval",
    "Confusion",
    "auc_interval",
    "average_precision",
    "balanced_accuracy",
    "choose_threshold",
    "confusion",
    "evaluate_predictions",
    "judge_instances",
    "read_predictions",
    "recalls",
    "roc_auc",
    "summary",
    "wilson_interval",
]
