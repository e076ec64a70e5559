"""One page of HTML with everything in it: it opens without a network and prints well."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from attnvgg.cli.report_style import STYLE
from attnvgg.cli.report_tables import (
    against_section,
    calibration_section,
    classes_section,
    figures_section,
    operating_points_section,
    prevalence_section,
    subgroups_section,
)
from attnvgg.cli.report_words import METHODS, PLOTS


def page(content: Mapping[str, Any], plots: Mapping[str, Path], name: str) -> str:
    """Return the page.

    Args:
        content: see `Assessment`; `synthetic` where the cases are.
        plots: pictures to put in, by name.
        name: what was judged.
    """
    parts = [
        _head(content, name),
        figures_section(content),
        _plots(plots),
        classes_section(content),
        operating_points_section(content),
        prevalence_section(content),
        calibration_section(content),
        against_section(content),
        subgroups_section(content),
        f"<section><h2>How it was computed</h2><p>{escape(METHODS)}</p></section>",
    ]
    heading = escape(f"Evaluation of {name}")
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        "img-src data:; style-src 'unsafe-inline'\">"  # the browser itself asks nobody anything
        f"<title>{heading}</title><style>{STYLE}</style></head>\n"
        "<body><main>" + "\n".join(part for part in parts if part) + "</main></body></html>\n"
    )


def _head(content: Mapping[str, Any], name: str) -> str:
    counts, banners = content["counts"], []
    if content.get("synthetic"):
        words = (
            "<strong>Synthetic.</strong> The cases were made by a program: the figures say how "
            "the software works, nothing about patients."
        )
        if reference := content.get("sample"):
            words += (
                f" Their AUC can be {reference['ceiling']:.3f} at most (what they were made "
                f"from), and simple means reach {reference['floor']:.3f}."
            )
        banners.append(words)
    if content["note"]:
        banners.append(f"<strong>Optimistic.</strong> {escape(content['note'])}")
    cases = f"{counts['n']:,} cases of {counts['groups']:,} patients or groups"
    if counts["positives"] is not None:
        cases += f", {counts['positives']:,} of them positive"
    split = "test" if content["judged_on"] == "test" else "validation"
    lines = [f"<h1>Evaluation</h1><p class=name>{escape(name)}</p>"]
    lines += [f"<p class=banner>{banner}</p>" for banner in banners]
    lines.append(f"<p>Judged on the {split} set: {cases}. {_decision(content)}</p>")
    lines.append(_verdict(content))
    return f"<header>{''.join(lines)}</header>"


def _decision(content: Mapping[str, Any]) -> str:
    rule = content["threshold"]
    if rule is None:
        return "Each case is called its most probable class."
    source = f" on {rule['chosen_on']}" if rule["chosen_on"] else ""
    return (
        f"A case is called positive from a probability of {rule['value']:.4g} on: the threshold "
        f"is {escape(rule['rule'])}{source}, and was locked before the cases were judged."
    )


def _verdict(content: Mapping[str, Any]) -> str:
    auc, rule = content["figures"]["auc"], content["threshold"]
    if auc["value"] is None:
        return f"<p class=verdict>There is no AUC: {escape(auc['reason'])}.</p>"
    reach = ""
    if auc["lower"] is not None:
        reach = f" (between {100 * auc['lower']:.0f} and {100 * auc['upper']:.0f})"
    pairs = "of a positive and a negative case" if rule else "of a class and the others"
    sentence = (
        f"Of 100 pairs {pairs}, the model gives the higher probability to the right one in "
        f"{100 * auc['value']:.0f}{reach}."
    )
    figures = content["figures"]
    if rule and figures["sensitivity"]["value"] is not None:
        sentence += (
            f" It finds {figures['sensitivity']['value']:.0%} of the positive cases and raises a "
            f"false alarm in {1 - figures['specificity']['value']:.0%} of the negative ones."
        )
    return f"<p class=verdict>{sentence}</p>"


def _plots(plots: Mapping[str, Path]) -> str:
    shown = []
    for name, path in plots.items():
        data = base64.b64encode(path.read_bytes()).decode("ascii")
        words = escape(PLOTS[name])
        image = f'<img alt="{words}" src="data:image/png;base64,{data}">'
        shown.append(f"<figure>{image}<figcaption>{words}</figcaption></figure>")
    return f"<section><h2>Pictures</h2><div class=plots>{''.join(shown)}</div></section>"
