"""What a served model says of validation and test cases, and what that is worth."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from attnvgg.cli.bag_runs import read_bags_config
from attnvgg.cli.endpoint_cases import Sent, cases_of_run, cases_of_table, send_all
from attnvgg.cli.image_runs import read_config
from attnvgg.cli.report import Order, check_folder, predictions_of, synthetic, write_report
from attnvgg.deploy.endpoint import Endpoint
from attnvgg.deploy.wire import Answer
from attnvgg.errors import InputError
from attnvgg.evaluation import evaluate_predictions, share_interval, summary
from attnvgg.evaluation.assessment import Questions
from attnvgg.evaluation.predictions import read_predictions
from attnvgg.evaluation.probabilities import to_probabilities
from attnvgg.files import atomic_path, write_json
from attnvgg.training.predictions import Predictions, prediction_table
from attnvgg.training.run import open_run, read_task

logger = logging.getLogger(__name__)

SAME = 1e-6  # between a probability and that of the logits beside it


@dataclass(frozen=True)
class Asked:
    """What is asked of an endpoint.

    Attributes:
        target: a run, or a CSV with the columns image and label.
        questions: of the report; without a threshold and validation cases it is the endpoint's.
        requests: sent at a time.
        out: folder of the report; None: `report` beside the answers.
        against: another run or predictions.csv of the same cases, to compare with.
    """

    target: Path
    questions: Questions
    requests: int
    out: Path | None = None
    against: Path | None = None


def judge_endpoint(endpoint: Endpoint, asked: Asked) -> None:
    """Write what a served model says of the cases, judge it, and log what that is worth.

    Raises:
        InputError: a case is not answered, or the endpoint serves another kind of model.
    """
    if asked.requests < 1:
        raise InputError(f"--requests {asked.requests}: must be at least 1.")
    cases, questions = _cases(asked.target), asked.questions
    report = asked.out or cases.folder / "report"
    check_folder(report)
    if asked.against is not None:
        read_predictions(predictions_of(asked.against))  # before anything is sent
    endpoint.model()  # a wrong address shows before the first case is read
    answers = send_all(endpoint, cases, asked.requests)
    table, first = answer_table(cases, answers), answers[0]
    if questions.threshold is None and not (table["split"] == "val").any():
        questions = Questions(first.threshold, questions.sensitivities, questions.prevalence)
    metrics = evaluate_predictions(table, questions.threshold)
    metrics["accuracy"] = _accuracy(table, answers, metrics["judged_on"])
    metrics["endpoint"] = {"model": first.model, "engine": first.engine}
    metrics["difference"] = difference(table, cases.own)
    metrics |= synthetic(cases.own) if cases.own is not None else {}
    path = cases.folder / "predictions.csv"
    with atomic_path(path) as temporary:
        table.to_csv(temporary, index=False)
    write_json(cases.folder / "metrics.json", metrics)
    tell(endpoint, metrics, len(table))
    name = f"{asked.target} by {endpoint.url}"
    write_report(Order(path, report, name, questions, asked.against))
    logger.info("Written: %s", path)


def _cases(target: Path) -> Sent:
    if target.is_file() or target.suffix == ".csv":
        return cases_of_table(target)
    run = open_run(target)
    is_bags = read_task(run) == "bags"
    return cases_of_run(run, read_bags_config(run) if is_bags else read_config(run))


def answer_table(cases: Sent, answers: Sequence[Answer]) -> pd.DataFrame:
    """Return answers as `predictions.csv` has them, with the probabilities that were sent.

    Raises:
        InputError: the model tells other classes apart, or several models answered.
    """
    first, labels = answers[0], cases.manifest["label"].to_numpy(np.int64)
    if len({(answer.model, answer.classes, len(answer.logits)) for answer in answers}) > 1:
        raise InputError("Several models have answered: ask one, and while nobody replaces it.")
    if labels.max() >= len(first.classes):
        raise InputError(
            f"The endpoint tells {len(first.classes)} classes apart ({', '.join(first.classes)}), "
            f"but the cases have labels up to {labels.max()}: it serves another model."
        )
    logits = np.stack([answer.logits for answer in answers])
    table = prediction_table(cases.manifest, Predictions(cases.rows, labels[cases.rows], logits))
    sent = np.stack([answer.probabilities for answer in answers])[:, -len(logits[0]) :]
    apart = float(np.abs(sent - to_probabilities(logits)).max())
    if not apart < SAME:
        raise InputError(
            f"The endpoint's probabilities are {apart:.2g} off those of its logits: one of them is "
            "not what the model says."
        )
    names = [str(name) for name in table if str(name).startswith("probability")]
    table[names] = sent
    return table


def difference(table: pd.DataFrame, own: Path | None) -> float | None:
    """Return how far a probability is at most from the run's own.

    Returns:
        None where the run has none, or has them of other cases.
    """
    if own is None or not own.is_file():
        return None
    other = read_predictions(own).set_index("image")
    names = [str(name) for name in table if str(name).startswith("probability")]
    if set(other.index) != set(table["image"]) or not set(names) <= set(other):
        return None
    theirs = other.loc[table["image"], names].to_numpy(np.float64)
    return float(np.abs(table[names].to_numpy(np.float64) - theirs).max())


def tell(endpoint: Endpoint, metrics: dict[str, Any], count: int) -> None:
    """Log the figures that a person reads."""
    about, found = metrics["endpoint"], metrics["accuracy"]
    logger.info(
        "%s answered for %d cases, by %s, model %.12s.",
        endpoint.url, count, about["engine"], about["model"],
    )  # fmt: skip
    logger.info("%s", summary(metrics))
    logger.info(
        "Accuracy of what the endpoint calls the cases: %.4f (95%% interval %.4f to %.4f, %s).",
        found["value"], found["lower"], found["upper"], found["method"],
    )  # fmt: skip
    if metrics["difference"] is not None:
        logger.info(
            "From the run's own predictions a probability differs by at most %.3g.",
            metrics["difference"],
        )


def _accuracy(table: pd.DataFrame, answers: Sequence[Answer], split: str) -> dict[str, Any]:
    """Return the share of cases that are called what they are, with its interval."""
    called = np.array([answer.classes.index(answer.called) for answer in answers])
    rows = (table["split"] == split).to_numpy()
    labels = table["label"].to_numpy()[rows]
    return share_interval(called[rows] == labels, labels > 0, table["group"][rows])
