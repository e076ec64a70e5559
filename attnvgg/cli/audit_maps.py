"""`attnvgg audit_maps`: how far the maps of a run can be trusted."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from attnvgg.cli.common import run_command
from attnvgg.cli.drawn_cases import Split, draw_cases
from attnvgg.cli.image_case import kind_of
from attnvgg.cli.maps_report import (
    device_of,
    judge_faithfulness,
    judge_localisation,
    judge_pasting,
    judge_sanity,
)
from attnvgg.cli.maps_sample import MapSample, maps_of, read_sample
from attnvgg.cli.maps_words import summarise
from attnvgg.errors import InputError
from attnvgg.explain.audit_figure import Example, save_audit
from attnvgg.files import atomic_path, write_json
from attnvgg.models import Pretrained
from attnvgg.training.checkpoint import load_model, preprocess_of
from attnvgg.training.run import open_run, read_task

logger = logging.getLogger(__name__)

EXAMPLES = 6


@dataclass(frozen=True)
class AuditMapsConfig:
    """Say how far the maps of a run can be trusted.

    Do they lie on the lesion, does the model need what they mark, do they depend on what it
    learned, and do things beside the lesion move it? Each with intervals, beside random maps, a
    centred Gaussian and Grad-CAM. Writes maps/maps.json, maps.png and maps.txt in the run folder.
    """

    run: Path = field(metadata={"positional": {"type": Path, "help": "run folder"}})
    split: Split = "test"
    """Which cases of the run (test falls back to val where the run has no test set)."""
    count: int = 64
    """Images, drawn at random, in equal parts from each class as far as there are so many."""
    steps: int = 50
    """Parts in which a picture is blurred away and brought back. The model is asked about 14 times
    count x steps: without a GPU take fewer of both for large pictures."""
    draws: int = 3
    """Random maps an image and grid, and untrained models."""
    seed: int = 0
    """Of all that is drawn."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto takes the GPU where there is one."""
    threads: int | None = None
    """CPU threads; null: PyTorch's choice."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return run_command(audit_maps, AuditMapsConfig, argv, "audit_maps")


def audit_maps(config: AuditMapsConfig) -> None:
    """Judge the maps, write what was found and log it."""
    if min(config.count, config.steps - 1, config.draws) < 1 or config.seed < 0:
        raise InputError(
            "--count and --draws must be at least 1, --steps at least 2, --seed at least 0."
        )
    if config.threads is not None:
        torch.set_num_threads(max(1, config.threads))
    run = open_run(config.run)
    if read_task(run) == "bags":
        raise InputError(f"{run.path} is a run on bags: this audit is about maps of images.")
    folder = run.path / "maps"
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file, but the audit is written there: move it away.")
    device = device_of(config.device)
    model = load_model(run.path).to(device).to(memory_format=torch.channels_last)
    rows, split = draw_cases(run, config.split, config.count, config.seed)
    sample = read_sample(model, rows, device)
    report: dict[str, Any] = {
        "run": run.path.name,
        "split": split,
        "images": len(sample),
        "groups": sample.patients,
        "seed": config.seed,
        "synthetic": bool(model.config.get("synthetic")),
        "classes": {n: int((sample.labels == k).sum()) for k, n in enumerate(sample.classes)},
        "called": {n: int((sample.called == k).sum()) for k, n in enumerate(sample.classes)},
    }
    maps = maps_of(model, sample.images, sample.called.tolist())
    report["grids"] = {name: list(found.shape[1:]) for name, found in maps.items()}
    report["localisation"] = judge_localisation(sample, maps, config.draws, config.seed)
    report["faithfulness"] = judge_faithfulness(
        sample, model, maps, config.steps, config.draws, config.seed
    )
    report["sanity"] = judge_sanity(sample, model, maps, config.draws, config.seed)
    report["pasting"], pasted = judge_pasting(
        sample, model, preprocess_of(model, convert=False), config.seed
    )
    words = summarise(report)
    write_json(folder / "maps.json", report)
    with atomic_path(folder / "maps.txt") as temporary:
        temporary.write_text(words + "\n", encoding="utf-8")
    examples = choose_examples(sample, model, maps)
    pictures = {name: one.image for name, one in pasted.items()}
    save_audit(folder / "maps.png", report, examples, pictures)
    logger.info("%s", words)
    logger.info("Written: %s/maps.json, maps.txt, maps.png", folder)


def choose_examples(
    sample: MapSample, model: Pretrained, maps: dict[str, np.ndarray]
) -> list[Example]:
    """Return the first of the drawn images, which were drawn at random, as examples."""
    return [
        Example(
            image=sample.pixels[row],
            mask=sample.masks[row],
            maps={name: found[row] for name, found in maps.items()},
            kind=kind_of(model, "fixed"),
            words=_words(sample, row),
        )
        for row in range(min(EXAMPLES, len(sample)))
    ]


def _words(sample: MapSample, row: int) -> str:
    truth, called = sample.classes[sample.labels[row]], sample.classes[sample.called[row]]
    return truth if truth == called else f"{truth}, called {called}"
