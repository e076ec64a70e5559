"""Arrays in, figures out: how good predictions are, and how sure that is."""

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
