"""The tables of a report, a section each; empty where one does not apply."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from attnvgg.cli.report_words import MEANING, title

DASH = "\N{EN DASH}"
RATES = ("sensitivity", "specificity", "ppv", "npv")


def figures_section(content: Mapping[str, Any]) -> str:
    """Return the section of every figure with its meaning."""
    rows = [
        [f"<b>{escape(title(name))}</b>", *_cells(figure), _meaning(name)]
        for name, figure in content["figures"].items()
    ]
    heads = ["", "value", "95 % interval", "what it means"]
    return f"<section><h2>Figures</h2>{table(heads, rows, 'figures')}</section>"


def _meaning(name: str) -> str:
    return _small(MEANING[name][1]) if name in MEANING else ""


def _cells(figure: Mapping[str, Any]) -> list[str]:
    if figure["value"] is None:
        return [DASH, _small(f"undefined: {figure['reason']}")]
    value = f"{figure['value']:.3f}"
    if figure["lower"] is None:
        return [value, _small(figure["reason"])]
    limits = f"{figure['lower']:.3f} to {figure['upper']:.3f}"
    return [value, f"{limits}<br>" + _small(_named(figure["method"]))]


def _named(method: str) -> str:
    return {"delong": "DeLong", "obuchowski": "Obuchowski"}.get(method, method)


def classes_section(content: Mapping[str, Any]) -> str:
    """Return the section of each of several classes."""
    if not content["per_class"]:
        return ""
    names = ["auc", "average_precision", "partial_auc", "sensitivity", "brier", "ece"]
    rows = [
        [k, f"{figures['n']:,}", *(_short(figures.get(name)) for name in names)]
        for k, figures in content["per_class"].items()
    ]
    heads = ["class", "cases", *map(title, names)]
    words = "Each class against the rest; the figures above are means over the classes."
    return _section("Classes", words, table(heads, rows, "subgroups"))


def operating_points_section(content: Mapping[str, Any]) -> str:
    """Return the section of other thresholds."""
    points = content["operating_points"]
    if points is None:
        why = "Thresholds of a given sensitivity are chosen on validation cases of both classes."
        return _section("Other thresholds", why, "") if content["threshold"] else ""
    heads = ["sensitivity asked for", "threshold", *map(title, RATES)]
    rows = [
        [f"{p['asked']:.0%}", f"{p['threshold']:.4g}", *(_short(p[name]) for name in RATES)]
        for p in points
    ]
    words = (
        "Each threshold is the highest with at least this sensitivity on validation; what it has "
        "on the judged cases stands beside it."
    )
    return _section("Other thresholds", words, table(heads, rows))


def prevalence_section(content: Mapping[str, Any]) -> str:
    """Return the section of the stated prevalence."""
    found = content["prevalence"]
    if found is None:
        return ""
    words = (
        f"Where {found['stated']:.2%} of the cases are positive (they are {found['learned']:.2%} "
        "on validation), the same threshold has the predictive values below. The probabilities of "
        "each case, made right on validation (their logits times "
        f"{found['slope']:.3g}, {found['intercept']:+.3g}: training may have seen another share) "
        "and then corrected to this prevalence, are in probabilities.csv. Both hold only if the "
        "cases look the same there and differ in nothing but their shares."
    )
    rows = [[f"<b>{name.upper()}</b>", *_cells(found[name])] for name in ("ppv", "npv")]
    return _section("At another prevalence", words, table(["", "value", "95 % interval"], rows))


def calibration_section(content: Mapping[str, Any]) -> str:
    """Return the section of calibration before and after scaling."""
    found = content["calibration"]
    if found["after"] is None:
        words = f"Temperature scaling was left out: {found['reason']}."
        return _section("Calibration", words, "")
    side = "too sure of itself" if found["temperature"] > 1 else "not sure enough"
    words = (
        f"On validation the model is {side}: its logits are best divided by "
        f"{found['temperature']:.3f}. That changes no ranking. Of the judged cases:"
    )
    names = [k for k in found["before"] if k not in ("log_loss", "reliability")]
    rows = [
        [f"<b>{escape(title(name))}</b>", *(_short(found[p][name]) for p in ("before", "after"))]
        for name in names
    ]
    losses = [f"{found[part]['log_loss']:.3f}" for part in ("before", "after")]
    rows.append(["<b>Log loss</b>", *losses])
    return _section("Calibration", words, table(["", "as it is", "after scaling"], rows))


def against_section(content: Mapping[str, Any]) -> str:
    """Return the section of the other model."""
    found = content["against"]
    if found is None:
        return ""
    rows = []
    for name in content["figures"]:
        figure = found["differences"][name]
        p = figure.get("p_value")
        rows.append([
            f"<b>{escape(title(name))}</b>",
            _short(content["figures"][name]),
            _short(found["figures"][name]),
            _short(figure, "+") + ("" if p is None else "<br>" + _small(f"p = {p:.2g}")),
        ])  # fmt: skip
    heads = ["", "this model", escape(content["other"]), "difference"]
    words = (
        "The same cases, resampled together. An interval of the difference that does not hold 0 "
        "says that the models differ; for Brier score and calibration error, lower is better. "
        "Many figures are compared: one of twenty leaves 0 out by chance."
    )
    return _section("Against the other model", words, table(heads, rows))


def subgroups_section(content: Mapping[str, Any]) -> str:
    """Return the section of the subgroups."""
    if not content["subgroups"]:
        return ""
    many = content["threshold"] is None
    names = ["auc", "balanced_accuracy", "accuracy"] if many else ["auc", *RATES, "ece"]
    rows = []
    for column, levels in content["subgroups"].items():
        heading = "age" if column == "age" else column
        rows.append([f"<b>{escape(heading)}</b>"] + [""] * (len(names) + 2 - many))
        for level, found in levels.items():
            counts = [f"{found['n']:,}"] + ([] if many else [f"{found['positives']:,}"])
            figures = [_short(found["figures"][name]) for name in names]
            rows.append([escape(level), *counts, *figures])
    heads = ["", "cases", *([] if many else ["positive"]), *map(title, names)]
    words = (
        "Small groups have wide intervals; among many groups, some differ by chance. A group of "
        "one class has no AUC."
    )
    return _section("Subgroups", words, table(heads, rows, "subgroups"))


def _section(heading: str, words: str, content: str) -> str:
    return f"<section><h2>{heading}</h2><p>{escape(words)}</p>{content}</section>"


def _short(figure: Mapping[str, Any] | None, sign: str = "") -> str:
    """Return a figure with its interval below it, small."""
    if figure is None or figure["value"] is None:
        why = "there is no case of it" if figure is None else figure["reason"]
        return f"{DASH}<br>" + _small(f"undefined: {why}")
    value = f"{figure['value']:{sign}.3f}"
    if figure["lower"] is None:
        return f"{value}<br>" + _small(figure["reason"])
    limits = f"{figure['lower']:{sign}.3f} to {figure['upper']:{sign}.3f}"
    return f'{value}<br><span class="quiet limits">{limits}</span>'


def _small(words: str) -> str:
    return f"<span class=quiet>{escape(words)}</span>"


def interval(figure: Mapping[str, Any], digits: int = 3) -> str:
    """Return `.932 (.902 to .953)`, or why there is no figure."""
    if figure["value"] is None:
        return f"undefined: {figure['reason']}"
    value = f"{figure['value']:.{digits}f}"
    if figure["lower"] is None:
        none = "" if "chance" in figure else "no interval: "
        return f"{value} ({none}{figure['reason']})"
    return f"{value} ({figure['lower']:.{digits}f} to {figure['upper']:.{digits}f})"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], kind: str = "") -> str:
    """Return a table of cells that are HTML already."""
    head = "".join(f"<th>{cell}</th>" for cell in heads)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<table class="{kind}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
