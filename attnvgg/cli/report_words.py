"""What the figures of a report mean, in plain words."""

from __future__ import annotations

MEANING = {
    "auc": (
        "AUC",
        "How often a positive case gets a higher probability than a negative one: .5 is a coin, 1 "
        "is always. It says nothing of thresholds or of what the probabilities mean.",
    ),
    "average_precision": (
        "Average precision",
        "The mean PPV while more and more positives are found. Chance is the share of positives, "
        "so it can only be compared at the same prevalence.",
    ),
    "partial_auc": (
        "Partial AUC (sensitivity above 80 %)",
        "The part of the area under the ROC curve where few positives are missed: from 0 to .2; "
        "a coin has .02.",
    ),
    "sensitivity": ("Sensitivity", "Of the positive cases, the share that is called positive."),
    "specificity": ("Specificity", "Of the negative cases, the share that is called negative."),
    "balanced_accuracy": (
        "Balanced accuracy",
        "The mean share of each class that is called rightly; .5 is a coin for two classes.",
    ),
    "accuracy": (
        "Accuracy",
        "The share of all cases that is called rightly; compare it with calling every case the "
        "most frequent class.",
    ),
    "ppv": (
        "PPV",
        "Of the cases called positive, the share that is. Where fewer cases are positive, it is "
        "lower.",
    ),
    "npv": ("NPV", "Of the cases called negative, the share that is."),
    "brier": (
        "Brier score",
        "The mean squared distance of the probabilities from the truth (for more than two classes "
        "summed over them): 0 is perfect.",
    ),
    "ece": (
        "Calibration error (ECE)",
        "How far probabilities lie from the shares of positives, on average over 15 bins of "
        "equally many cases: 0 is perfect. By chance: what a model whose probabilities are "
        "right has in such a small set; in 95 % of sets no more.",
    ),
    "top_label_ece": (
        "Calibration error (ECE) of the most probable class",
        "How far the highest probability lies from how often that class is right, over 15 bins of "
        "equally many cases: 0 is perfect. By chance: as above, of a class right as often as said.",
    ),
    "weighted_auc": ("AUC, weighted", "As above, each class weighted by its share of the cases."),
    "weighted_average_precision": (
        "Average precision, weighted",
        "As above, each class weighted by its share of the cases.",
    ),
    "weighted_partial_auc": (
        "Partial AUC, weighted",
        "As above, each class weighted by its share of the cases.",
    ),
}

PLOTS = {
    "roc": "ROC curve: what sensitivity costs in false alarms. The dashed line is a coin.",
    "precision_recall": "Precision and recall: of those called positive, how many are.",
    "reliability": (
        "Reliability: points on the dashed line mean what they say; below it the model says too "
        "much. Bins of equally many cases; bars are Wilson's 95 % intervals, which take cases for "
        "independent."
    ),
    "decision_curve": (
        "Decision curve: what acting on the model is worth, in true positives a case less false "
        "positives weighed by the odds of the threshold. Useful where it lies above both other "
        "lines."
    ),
    "confusion": "Confusion: counts, and shares of each true class (of each row).",
}

METHODS = (
    "Intervals of 95 %. AUC: DeLong's, on the logit scale, or where patients have several cases "
    "Obuchowski's (1997), with Student's quantile for the patients of the rarer class. Shares "
    "where no patient repeats: Wilson's; where bootstrap sets say nothing, as of none or all, "
    "Wilson's of as many cases as patients. All others: percentiles of 2,000 bootstrap sets, in "
    "which whole patients are drawn, among those with and without a positive case; none where a "
    "class has one patient, or where all sets are alike. The calibration error has no confidence "
    "interval: its noise only adds. Beside it stands what chance gives, the 95th percentile of "
    "2,000 sets of labels drawn from the probabilities, one a patient where no patient has both "
    "labels, else one a case. Where two models are compared, both are judged on "
    "the same sets. Intervals are for more patients of the same kind; they do not cover another "
    "hospital, camera or population, nor another training run."
)


def title(name: str) -> str:
    """Return the name of a figure as a person reads it."""
    return MEANING[name][0] if name in MEANING else name.replace("_", " ").capitalize()
