"""The card of a model, as the page shows it."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from attnvgg.models.card import FIGURES, SYNTHETIC

AT_ONE_HALF = "Accuracy at 0.5"


def card_html(card: Mapping[str, Any]) -> str:
    """Return what there is to know of a model.

    Args:
        card: from `Service.card`.
    """
    parts = [
        f"<p><b>{escape(words)}</b></p>"
        for words in (*([SYNTHETIC] if card["synthetic"] is True else []), card["caution"])
    ]
    return f"<div class='card'>{''.join(parts)}{_facts(card)}{_metrics(card)}{_limits(card)}</div>"


def notice_html(card: Mapping[str, Any]) -> str:
    """Return what must be said before anything else."""
    drawn = f"<p class='drawn'>{escape(SYNTHETIC)}</p>" if card["synthetic"] is True else ""
    return f"<div class='notice' role='note'>{drawn}<p>{escape(card['caution'])}</p></div>"


def _facts(card: Mapping[str, Any]) -> str:
    threshold, data = card["threshold"], card["training_data"]
    value = threshold["value"]
    number = f"{value:.4f}" if isinstance(value, float) else value
    facts = {
        "Model": f"{card['name']} ({card['class']})",
        "Classes": _listed(card["classes"]),
        "Threshold": f"{number}; rule: {threshold['rule']}; chosen on: {threshold['chosen_on']}",
        "Training data": f"{data['source']}; start: {data['start']}",
        "Intended use": card["intended_use"],
        "Engine": card["engine"],
        "Digest": card["digest"],
    }
    rows = [
        f"<dt>{name}</dt><dd>{escape(str(words))}</dd>" for name, words in facts.items() if words
    ]
    return f"<dl>{''.join(rows)}</dl>"


def _metrics(card: Mapping[str, Any]) -> str:
    """Return the figures of the split that the model is judged on."""
    metrics = card["metrics"]
    judged = metrics.get(metrics["judged_on"]) if isinstance(metrics, Mapping) else None
    if not judged:
        return "<h3>How good it is</h3><p>Not recorded.</p>"
    rows = [
        f"<tr><th scope='row'>{FIGURES[key][1] if key in FIGURES else AT_ONE_HALF}</th>"
        f"<td>{_number(figure['value'])}</td><td>{escape(_interval(figure))}</td></tr>"
        for key, figure in judged["figures"].items()
    ]
    words = f"{judged['n']} images, {judged['positives']} of class 1, {judged['groups']} patients"
    return (
        f"<h3>How good it is: {escape(metrics['judged_on'])} data</h3>"
        f"<table><caption>{escape(words)}</caption><thead><tr><th scope='col'>Figure</th>"
        f"<th scope='col'>Value</th><th scope='col'>95 % interval</th></tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table>"
    )


def _limits(card: Mapping[str, Any]) -> str:
    return "".join(
        f"<h3>{title}</h3><ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>"
        for title, lines in (
            ("Not for", card["out_of_scope"]),
            ("What to keep in mind", card["limitations"]),
        )
    )


def _interval(figure: Mapping[str, Any]) -> str:
    if figure["lower"] is None or figure["upper"] is None:
        return "not recorded"
    level = figure["level"] or 0.95
    words = f"{figure['lower']:.3f} to {figure['upper']:.3f}"
    return words if round(level, 4) == 0.95 else f"{words} ({100 * level:.0f} %)"


def _number(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, int | float) else "not recorded"


def _listed(values: Any) -> str:
    return values if isinstance(values, str) else ", ".join(map(str, values))
