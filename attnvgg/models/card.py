"""What there is to know of a saved model, and what there is not, for people and for programs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

Kind = Literal["images", "bags"]

UNKNOWN = "not recorded"
CAUTION = (
    "Not a medical device: for research and teaching only. It must not be used to diagnose, to "
    "treat or to triage anybody."
)
SYNTHETIC = (
    "SYNTHETIC: the model was trained and judged on pictures drawn by a program. Its figures say "
    "nothing about patients."
)
OUT_OF_SCOPE = (
    "decisions about patients, alone or beside a person",
    "pictures of another kind (device, magnification, staining, body site) than those of training",
    "classes other than those named here: whatever is shown, one of them is called",
)
LIMITATIONS = (
    "A probability is that of the training data's share of each class; where classes are rarer or "
    "more frequent, it has to be corrected.",
    "Attention maps show where the model took its values from; they do not prove why it decided.",
    "How it does on skin tones, ages, sites or devices that were not judged apart is not known.",
)
FIGURES = {  # name of a figure: name on the hub, name for people
    "auc": ("roc_auc", "AUC"),
    "average_precision": ("average_precision", "Average precision"),
    "accuracy": ("accuracy", "Accuracy"),
    "balanced_accuracy": ("balanced_accuracy", "Balanced accuracy"),
    "sensitivity": ("sensitivity", "Sensitivity"),
    "specificity": ("specificity", "Specificity"),
    "ppv": ("ppv", "PPV"),
    "npv": ("npv", "NPV"),
    "quadratic_kappa": ("quadratic_kappa", "Quadratic kappa"),
}
SPLITS = {"val": "validation", "test": "test"}


def model_card(
    config: Mapping[str, Any],
    *,
    kind: Kind,
    digest: str,
    origin: str | None = None,
    data: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the card of a model as plain JSON values; what is not known is "not recorded".

    Args:
        config: of the model; only class and arguments must be in it.
        kind: what it classifies.
        digest: of its weights.
        origin: name of its run or repository; None: that of its class.
        data: what is known of the training data: `source`, `counts` (cases a split).
    """
    metrics = _mapping(config.get("metrics"))
    synthetic = _synthetic(config, metrics, data or {})
    found = config.get("threshold")
    rule = _mapping(metrics.get("threshold"))
    same = found is not None and rule.get("value") == found
    return {
        "name": origin or config["class"],
        "class": config["class"],
        "kind": kind,
        "digest": digest,
        "synthetic": synthetic,
        "caution": CAUTION,
        "training_data": {
            "statement": SYNTHETIC if synthetic is True else None,
            "source": (data or {}).get("source", UNKNOWN),
            "counts": (data or {}).get("counts", UNKNOWN),
            "start": config.get("start") or UNKNOWN,
        },
        "classes": list(config.get("classes") or []) or UNKNOWN,
        "threshold": {
            "value": UNKNOWN if found is None else found,
            "rule": (rule.get("rule") if same else None) or UNKNOWN,
            "chosen_on": (rule.get("chosen_on") if same else None) or UNKNOWN,
        },
        "metrics": _metrics(metrics),
        "preprocessing": config.get("preprocess") or UNKNOWN,
        "arguments": dict(config.get("arguments") or {}),
        "intended_use": _intended(kind),
        "out_of_scope": list(OUT_OF_SCOPE),
        "limitations": [*LIMITATIONS, *_own_limits(metrics)],
        "engine": None,
    }


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _synthetic(
    config: Mapping[str, Any], metrics: Mapping[str, Any], data: Mapping[str, Any]
) -> bool | str:
    """Return whether the training data were drawn, as far as anything says so."""
    said = [place["synthetic"] for place in (config, metrics, data) if "synthetic" in place]
    return any(map(bool, said)) if said else UNKNOWN


def _intended(kind: Kind) -> str:
    cases = {"images": "photographs", "bags": "bags of instances, such as the tiles of a slide,"}
    return (
        f"Research and teaching: to study how attention classifies {cases[kind]} of the classes "
        "named here, on data like those of training."
    )


def _own_limits(metrics: Mapping[str, Any]) -> list[str]:
    """Return what the figures themselves say that they are not good for."""
    found = [metrics[key] for key in ("note", "intervals") if isinstance(metrics.get(key), str)]
    return found if metrics else ["How good it is was not recorded with it."]


def _metrics(metrics: Mapping[str, Any]) -> dict[str, Any] | str:
    """Return the figures of each split, each with its interval, or the word that there are none."""
    if not metrics:
        return UNKNOWN
    found: dict[str, Any] = {}
    for split, name in SPLITS.items():
        judged = _mapping(metrics.get(split))
        if not judged:
            continue
        figures = {key: _figure(judged[key]) for key in FIGURES if key in judged}
        if split == metrics.get("judged_on") and isinstance(metrics.get("accuracy"), Mapping):
            figures["at_one_half"] = _figure(metrics["accuracy"])
        counts = {key: judged.get(key, UNKNOWN) for key in ("n", "positives", "groups")}
        found[name] = counts | {"figures": figures}
    judged_on = SPLITS.get(str(metrics.get("judged_on")), UNKNOWN)
    return {"judged_on": judged_on, "optimistic": metrics.get("optimistic", UNKNOWN), **found}


def _figure(value: Any) -> dict[str, Any]:
    """Return value, interval and, where there is none, why."""
    known = _mapping(value)
    if not known:
        known = {"value": value, "reason": "no interval was recorded"}
    names = ("value", "lower", "upper", "level", "method", "reason")
    return {name: known.get(name) for name in names}
