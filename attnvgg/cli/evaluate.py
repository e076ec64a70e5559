"""`attnvgg evaluate`: the worth of a run, or of any program's predictions."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from attnvgg.cli.bag_runs import judge_again, read_bags_config
from attnvgg.cli.common import parse_config, run_command
from attnvgg.cli.endpoint_judge import Asked, judge_endpoint
from attnvgg.cli.image_ensemble import OUT_OF_FOLD
from attnvgg.cli.image_runs import judge_members, read_config
from attnvgg.cli.report import Order, check_folder, predictions_of, report_folder, write_report
from attnvgg.data.images import ImageDataset
from attnvgg.data.sample import sample_reference
from attnvgg.deploy.endpoint import Endpoint
from attnvgg.errors import InputError
from attnvgg.evaluation.assessment import SENSITIVITIES, Questions
from attnvgg.evaluation.report import evaluate_predictions
from attnvgg.evaluation.sentences import summary
from attnvgg.files import atomic_path, write_json
from attnvgg.models.views import with_views
from attnvgg.training.bag_config import check as check_bags
from attnvgg.training.build import judging_loader, loader_workers, open_cache
from attnvgg.training.config import TrainConfig, check
from attnvgg.training.engine import evaluate, make_accelerator
from attnvgg.training.predictions import prediction_table
from attnvgg.training.run import RunFolder, open_run, read_cases, read_task
from attnvgg.training.run_config import updated
from attnvgg.training.sharing import load_model_everywhere

logger = logging.getLogger(__name__)

REPORTED = ("against", "prevalence", "sensitivities", "threshold", "out")  # asked of the report
LOCAL = ("views", "device", "batch_size", "workers", "threads")  # of a loaded model


@dataclass(frozen=True)
class EvaluateConfig:
    """Judge a run's best model, or a table of predictions of any program, and write a report."""

    target: Path = field(
        metadata={"positional": {"type": Path, "help": "run folder, or a predictions.csv"}}
    )
    against: Path | None = None
    """Another run or predictions.csv of the same cases, to compare with."""
    prevalence: float | None = None
    """Share of positives where the model is to be used; corrects probabilities, PPV and NPV."""
    sensitivities: list[float] = field(default_factory=lambda: list(SENSITIVITIES))
    """Asked for on validation; the report has what they are worth."""
    threshold: float | None = None
    """Of the report's decision, locked before; null: chosen on validation."""
    out: Path | None = None
    """Folder of the report; null: report in the run, or <stem>_report beside the file."""
    views: Literal[1, 8] = 1
    """8: of a run on images, the mean over all quarter turns and flips of each image."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto takes the GPU where there is one."""
    batch_size: int | None = None
    """Images or bags a step; null: as in the run."""
    workers: int | None = None
    """Loader processes; null: as in the run."""
    threads: int | None = None
    """CPU threads; null: PyTorch's choice."""
    endpoint: str | None = None
    """URL of a served model: the run's cases, or those of a CSV with image and label, are sent to
    it in place of loading the model. A token is taken from ATTNVGG_TOKEN."""
    requests: int = 4
    """Sent to the endpoint at a time."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return run_command(evaluate_any, EvaluateConfig, argv, "evaluate", _parse)


def _parse(config_class: type[Any], words: Sequence[str], command: str) -> Any:
    """Return the options; --sensitivities may be followed by numbers instead of a list."""
    found = list(words)
    if "--sensitivities" in found:
        start = found.index("--sensitivities") + 1
        numbers = list(takewhile(_is_number, found[start:]))
        if numbers:
            found[start - 1 : start + len(numbers)] = [f"--sensitivities=[{','.join(numbers)}]"]
    return parse_config(config_class, found, command)


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def evaluate_any(options: EvaluateConfig) -> None:
    """Judge a run, a file or an endpoint, and write the report."""
    if options.endpoint is not None:
        _evaluate_endpoint(options, options.endpoint)
        return
    is_file = options.target.is_file() or options.target.suffix == ".csv"
    own = report_folder(options.target) if is_file else options.target / "report"
    folder = options.out or own
    check_folder(folder)
    if options.against is not None:
        predictions_of(options.against)  # a run is not judged first when this is missing
    questions = Questions(options.threshold, options.sensitivities, options.prevalence)
    if is_file:
        if options.views > 1:
            raise InputError(
                f"--views {options.views} is for a run, whose model sees each image: "
                f"{options.target} is a table."
            )
        order = Order(options.target, folder, str(options.target), questions, options.against)
        content = write_report(order).content
        logger.info("%s", summary(content))
        if content.get("synthetic"):
            logger.info("SYNTHETIC: the cases were made by a program; nothing about patients.")
        return
    run, accelerator = open_run(options.target), evaluate_run(options)
    if not accelerator.is_main_process:
        return
    if not run.predictions.is_file():
        logger.info("%s has no predictions of its own: report its models.", run.path)
        return
    write_report(Order(run.predictions, folder, str(run.path), questions, options.against))


def evaluate_run(options: EvaluateConfig) -> Accelerator:
    """Evaluate a run again, from its best model and its manifest."""
    run = open_run(options.target)
    is_bags = read_task(run) == "bags"
    config: Any = read_bags_config(run) if is_bags else read_config(run)
    if is_bags and options.views > 1:
        raise InputError(f"--views {options.views} is for a run on images: {run.path} is on bags.")
    if not is_bags and config.folds > 1:
        _refuse_questions(run, options)
    changes: dict[str, Any] = {
        "device": options.device,
        "threads": options.threads,
        "precision": "no",  # evaluation is in full precision, on whatever machine
    }
    if options.batch_size is not None:
        changes["eval_batch_size"] = options.batch_size
    if options.workers is not None:
        changes["data.workers"] = options.workers
    config = updated(config, changes)
    if is_bags:
        check_bags(config)
    else:
        check(config)
    accelerator = make_accelerator(config)
    if is_bags:
        judge_again(run, accelerator, config)
    else:
        judge_members(run, accelerator, config, partial(judge, views=options.views))
    return accelerator


def _evaluate_endpoint(options: EvaluateConfig, url: str) -> None:
    """Judge what a served model says of the cases."""
    usual = EvaluateConfig(options.target)
    asked = [f"--{name}" for name in LOCAL if getattr(options, name) != getattr(usual, name)]
    if asked:
        raise InputError("An endpoint computes by itself, leave these out:", asked)
    questions = Questions(options.threshold, options.sensitivities, options.prevalence)
    asked_of = Asked(options.target, questions, options.requests, options.out, options.against)
    judge_endpoint(Endpoint(url), asked_of)


def _refuse_questions(run: RunFolder, options: EvaluateConfig) -> None:
    """Raise InputError where a run of folds is asked for what only a report answers."""
    usual = EvaluateConfig(options.target)
    asked = [f"--{name}" for name in REPORTED if getattr(options, name) != getattr(usual, name)]
    if asked:
        raise InputError(
            f"{run.path} is of folds, which have no report in common: evaluate one of them, such "
            f"as {run.path / 'fold-0'}, or {run.path / OUT_OF_FOLD} with --threshold, for:",
            asked,
        )


def judge(
    run: RunFolder, accelerator: Accelerator, config: TrainConfig, *, views: int = 1
) -> dict[str, Any] | None:
    """Write `predictions.csv` and `metrics.json`, and log what they say.

    The threshold is locked on validation; test is only judged by it.

    Args:
        run: with a model.
        accelerator: see `make_accelerator`.
        config: of the run.
        views: of each image, see `with_views`.

    Returns:
        The content of `metrics.json`; None in all processes but the main one.
    """
    (manifest,) = broadcast_object_list([read_cases(run) if accelerator.is_main_process else None])
    table = _predict(run, accelerator, config, manifest, views)
    if not accelerator.is_main_process:
        return None
    metrics = evaluate_predictions(table)
    if views > 1:
        metrics["views"] = views
    if config.data.source == "sample":
        assert config.data.root is not None  # filled in by the command that made the run
        metrics["synthetic"] = True
        metrics["sample"] = sample_reference(config.data.root, manifest)
    with atomic_path(run.predictions) as temporary:
        table.to_csv(temporary, index=False)
    write_json(run.evaluation, metrics)
    logger.info("%s", summary(metrics))
    if "sample" in metrics:
        logger.info(
            "SYNTHETIC sample: its ceiling is AUC %.3f (the latent score itself), its floor %.3f "
            "(colour histogram and lesion area).",
            metrics["sample"]["ceiling"],
            metrics["sample"]["floor"],
        )
    logger.info("Written: %s, %s", run.predictions, run.evaluation)
    return metrics


def _predict(
    run: RunFolder,
    accelerator: Accelerator,
    config: TrainConfig,
    manifest: pd.DataFrame,
    views: int,
) -> pd.DataFrame:
    """Return the prediction table of validation and test."""
    model: Any = load_model_everywhere(run, accelerator).to(accelerator.device)
    rows = np.flatnonzero(manifest["split"].isin(["val", "test"]))
    if not len(rows):
        raise InputError(f"{run.manifest} has neither validation nor test rows.")
    dataset = ImageDataset(
        manifest.iloc[rows].drop(columns="mask", errors="ignore").reset_index(drop=True),
        model.preprocess,
        cache=open_cache(config.data),
    )
    workers = loader_workers(config.data.workers, accelerator)
    loader = judging_loader(config, accelerator, dataset, workers)
    found = evaluate(with_views(model, views), loader, accelerator, "evaluate")
    return prediction_table(manifest, found.renumbered(rows))
