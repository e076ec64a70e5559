"""What a picture of the sample gives away without being looked at: its floor."""

import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from attnvgg.data.synthetic.pictures import FEATURES


def floor_model() -> Pipeline:
    """Logistic regression on standardised `FEATURES`."""
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))


def overall(truth: pd.DataFrame, labels: pd.Series, patients: pd.Series) -> dict[str, float | None]:
    """Ceiling and floor (cross-validated by patient) over all pictures; None if these are few."""
    if min(labels.sum(), (1 - labels).sum()) < 10:
        return {"ceiling": None, "floor": None}
    folds = StratifiedGroupKFold(5)
    guesses = cross_val_predict(
        floor_model(), truth[FEATURES], labels, groups=patients, cv=folds, method="predict_proba"
    )
    return {
        "ceiling": round(float(roc_auc_score(labels, truth["score"])), 4),
        "floor": round(float(roc_auc_score(labels, guesses[:, 1])), 4),
    }
