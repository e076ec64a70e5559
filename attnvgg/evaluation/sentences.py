"""What a person reads of the content of `metrics.json`."""

from __future__ import annotations

from typing import Any


def summary(metrics: dict[str, Any]) -> str:
    """Return the few lines of `evaluate_predictions` that a person reads."""
    split = metrics["judged_on"]
    figures = metrics[split]
    name = "Test" if split == "test" else "Validation"
    many = metrics["threshold"] is None
    counts = f"{figures['n']} cases of {figures['groups']} groups"
    if not many:
        counts += f", {figures['positives']} positive"
    lines = [
        f"{name} ({counts}): AUC {_interval(figures['auc'])}, "
        f"average precision {_plain(figures['average_precision'])}."
    ]
    if many:
        start, shown = "By the highest probability", ["balanced_accuracy", "accuracy"]
    else:
        start = f"At threshold {metrics['threshold']['value']:.4g} ({_rule(metrics)})"
        shown = ["sensitivity", "specificity", "balanced_accuracy", "ppv", "npv"]
    lines.append(f"{start}: {', '.join(f'{_title(k)} {_plain(figures[k])}' for k in shown)}.")
    if many:
        lines[-1] = f"{lines[-1][:-1]} ({majority(figures)})."
        lines.append(
            "If the classes are grades (ordered): quadratic weighted kappa "
            f"{_percentiles(figures['quadratic_kappa'])}."
        )
    if metrics["note"]:
        lines.append(f"OPTIMISTIC. {metrics['note']}")
    return "\n".join(lines)


def _interval(auc: dict[str, Any]) -> str:
    if auc["lower"] is None:
        return f"{_plain(auc['value'])} ({auc['reason']})"
    return (
        f"{auc['value']:.3f} ({auc['level']:.0%} interval {auc['lower']:.3f} to "
        f"{auc['upper']:.3f}, {auc['method'].capitalize().replace('Delong', 'DeLong')})"
    )


def majority(figures: dict[str, Any]) -> str:
    """Return in words what an accuracy must be compared with."""
    found = figures["majority"]
    return f"calling every case class {found['class']}: {found['accuracy']:.3f}"


def _percentiles(found: dict[str, Any]) -> str:
    if found["lower"] is None:
        return _plain(found["value"])
    return (
        f"{found['value']:.3f} ({found['level']:.0%} interval {found['lower']:.3f} to "
        f"{found['upper']:.3f}, {found['method']})"
    )


def _rule(metrics: dict[str, Any]) -> str:
    rule = metrics["threshold"]
    return rule["rule"] + (f" on {rule['chosen_on']}" if rule["chosen_on"] else "")


def _plain(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"


def _title(key: str) -> str:
    return key.upper() if key in ("ppv", "npv") else key.replace("_", " ")
