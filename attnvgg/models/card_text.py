"""The card of a model as the README.md of a repository on the hub: YAML, then words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from attnvgg.models.card import FIGURES, SPLITS, SYNTHETIC, UNKNOWN

LIBRARY = "attnvgg"


def card_markdown(card: Mapping[str, Any], *, license: str | None = None) -> str:
    """Return the card as the README.md of a repository on the hub: YAML, then words.

    Args:
        card: from `model_card`.
        license: identifier known to the hub, such as mit; None: none is claimed.
    """
    head = yaml.safe_dump(_front_matter(card, license), sort_keys=False, allow_unicode=True)
    threshold = card["threshold"]
    preprocessing = card["preprocessing"]
    parts = [
        f"# {card['name']}",
        *([f"**{SYNTHETIC}**"] if card["synthetic"] is True else []),
        f"**{card['caution']}**",
        f"{card['class']} of attnvgg, for {card['kind']}. Digest of the weights: "
        f"`{card['digest']}`.",
        _usage(card),
        "## Intended use\n\n" + card["intended_use"],
        "Out of scope:\n\n" + _bullets(card["out_of_scope"]),
        "## Training data\n\n" + _training(card),
        "## Figures\n\n" + _figures(card["metrics"]),
        "## Decision\n\n"
        + _bullets(
            [
                f"Classes, in the order of the labels: {_listed(card['classes'])}",
                f"Threshold of class 1: {threshold['value']}",
                f"How it was chosen: {threshold['rule']}; on: {threshold['chosen_on']}",
            ]
        ),
        "## Preprocessing\n\n" + _pairs(preprocessing),
        "## Limitations\n\n" + _bullets(card["limitations"]),
        "## Arguments\n\n" + _pairs(card["arguments"]),
    ]
    return f"---\n{head}---\n\n" + "\n\n".join(parts) + "\n"


def _front_matter(card: Mapping[str, Any], license: str | None) -> dict[str, Any]:
    """Return what the hub reads; https://github.com/huggingface/hub-docs, modelcard.md."""
    tags = [LIBRARY, "pytorch", "attention", "not-for-clinical-use"]
    tags += ["multiple-instance-learning"] if card["kind"] == "bags" else []
    tags += ["synthetic-data"] if card["synthetic"] is True else []
    found: dict[str, Any] = {"library_name": LIBRARY}
    found |= {"license": license} if license else {}
    found |= {"pipeline_tag": "image-classification"} if card["kind"] == "images" else {}
    found["tags"] = tags
    results = [] if isinstance(card["metrics"], str) else _results(card)
    if results:
        found["model-index"] = [{"name": card["name"], "results": results}]
    return found


def _results(card: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the figures of the split that the model is judged on: the others flatter."""
    split = card["metrics"]["judged_on"]
    judged = card["metrics"].get(split, {"figures": {}})
    metrics = []
    for key, figure in judged["figures"].items():
        if key in FIGURES and isinstance(figure["value"], int | float):
            type_, name = FIGURES[key]
            words = name if figure["level"] is None else f"{name} ({_interval(figure)})"
            metrics.append({"type": type_, "value": figure["value"], "name": words})
    if not metrics:
        return []
    source = card["training_data"]["source"]
    words = f"SYNTHETIC: {source}" if card["synthetic"] is True else source
    task = {"type": "image-classification", "name": "Classification"}
    return [{"task": task, "dataset": {"type": source, "name": words, "split": split}}
            | {"metrics": metrics}]  # fmt: skip


def _usage(card: Mapping[str, Any]) -> str:
    lines = (
        "from attnvgg import load_model", "",
        f'model = load_model("{card["name"]}")  # .config, .preprocess',
    )  # fmt: skip
    return "\n".join(["```python", *lines, "```"])


def _training(card: Mapping[str, Any]) -> str:
    data = card["training_data"]
    synthetic = {True: "yes: drawn by a program", False: "no"}.get(card["synthetic"], UNKNOWN)
    counts = data["counts"]
    if isinstance(counts, Mapping):
        counts = "; ".join(f"{split}: {_listed(cases)}" for split, cases in counts.items())
    known = {"Synthetic": synthetic, "Source": data["source"], "Cases": counts}
    return _pairs(known | {"Start of training": data["start"]})


def _figures(metrics: Mapping[str, Any] | str) -> str:
    if isinstance(metrics, str):
        return metrics[0].upper() + metrics[1:] + "."
    rows = ["| split | figure | value | interval |", "| --- | --- | --- | --- |"]
    for split in SPLITS.values():
        for key, figure in metrics.get(split, {"figures": {}})["figures"].items():
            name = FIGURES[key][1] if key in FIGURES else "Accuracy at 0.5"
            rows.append(f"| {split} | {name} | {_number(figure['value'])} | {_interval(figure)} |")
    counts = [
        f"{split}: {metrics[split]['n']} cases, {metrics[split]['positives']} positive, "
        f"{metrics[split]['groups']} groups (patients)"
        for split in SPLITS.values()
        if split in metrics
    ]
    return "\n".join([*rows, "", _bullets([*counts, f"Judged on: {metrics['judged_on']}"])])


def _interval(figure: Mapping[str, Any]) -> str:
    if figure["lower"] is None or figure["upper"] is None:
        return str(figure["reason"] or "no interval")
    level = figure["level"] or 0.95
    return f"{100 * level:.0f} % interval {figure['lower']:.3f} to {figure['upper']:.3f}"


def _number(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, int | float) else UNKNOWN


def _listed(values: Any) -> str:
    if isinstance(values, Mapping):
        return ", ".join(f"{name} {value}" for name, value in values.items())
    return values if isinstance(values, str) else ", ".join(map(str, values))


def _pairs(values: Mapping[str, Any] | str) -> str:
    if isinstance(values, str):
        return values[0].upper() + values[1:] + "."
    return _bullets([f"{name}: {value}" for name, value in values.items()]) or "None."


def _bullets(lines: list[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)
