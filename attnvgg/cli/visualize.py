"""`attnvgg visualize`: images with their attention maps, on a scale that does not flatter."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from attnvgg.cli.common import run_command
from attnvgg.data.decoding import read_mask
from attnvgg.data.images import read_image
from attnvgg.data.listing import is_image, list_files
from attnvgg.data.manifest import read_manifest
from attnvgg.errors import InputError
from attnvgg.explain import Case, Kind, save_grid, save_single
from attnvgg.training.checkpoint import load_model
from attnvgg.training.predictions import to_probabilities
from attnvgg.training.run import RunFolder, newest_run, open_run

logger = logging.getLogger(__name__)

TARGETS = {"nargs": "*", "type": Path, "help": "a run folder, or image files or folders of them"}


@dataclass(frozen=True)
class VisualizeConfig:
    """Draw image | pool-3 | pool-4 for cases of a run, or for images of one's own."""

    targets: list[Path] = field(metadata={"positional": TARGETS})
    model: str | None = None
    """Run folder, best/ folder or hub repository for images of one's own; null: newest run."""
    out: Path = Path("runs")
    """Folder in which the newest run is looked for."""
    output: Path | None = None
    """Picture to write; null: attention.png in the run folder, or here for images of one's own."""
    split: Literal["test", "val", "train"] = "test"
    """Which cases of the run (test falls back to val where the run has no test set)."""
    count: int = 8
    """Number of cases, drawn at random, in equal parts from each class."""
    seed: int = 0
    """Of the draw."""
    scale: Literal["fixed", "per-image"] = "fixed"
    """per-image stretches each map to its own range: labelled, and not comparable."""
    each: bool = False
    """Also write one picture a case, in a folder named after the output."""
    convert: bool = False
    """Accept 16-bit, CMYK, grey, palette, transparent and EXIF-rotated files, converted."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return run_command(visualize, VisualizeConfig, argv, "visualize")


def visualize(config: VisualizeConfig) -> None:
    """Draw the pictures, and say where they are."""
    if config.count < 1:
        raise InputError(f"--count {config.count}: at least one case is needed")
    run, files = _targets(config)
    model: Any = load_model(run.path if run else str(config.model))
    if files:
        rows = pd.DataFrame({"image": [str(path) for path in files]})
        output, title = config.output or Path("attention.png"), None
    else:
        assert run is not None  # without files there is a run
        rows, title = _draw_cases(run, config)
        output = config.output or run.path / "attention.png"
    bar = tqdm(rows.iterrows(), "maps", len(rows), unit="image", leave=False, disable=None)
    cases = [make_case(model, row, convert=config.convert) for _, row in bar]
    cases.sort(key=lambda case: -case.probability)
    options = {
        "kind": _kind(model, config.scale),
        "threshold": model.config.get("threshold"),
        "caption": _caption(model),
    }
    save_grid(output, cases, title=title, **options)
    logger.info("Written: %s", output)
    if config.each:
        folder = output.with_suffix("")
        for number, case in enumerate(cases):
            save_single(folder / f"{number:03d}-{Path(case.name).stem}.png", case, **options)
        logger.info("Written: %s/, %d pictures", folder, len(cases))


def make_case(model: Any, row: pd.Series[Any], *, convert: bool = False) -> Case:
    """Run the model on one image and put together what is drawn of it.

    Args:
        model: from `load_model`.
        row: `image`, and where known `label` and `mask`.
        convert: accept formats that have to be converted.

    Raises:
        InputError: the image cannot be read, or the model has no attention.
    """
    preprocess = model.preprocess
    if convert:
        preprocess = replace(preprocess, convert=True)
    with torch.inference_mode():
        logits, attn1, attn2 = model(preprocess(row["image"])[None])
    if attn1 is None or attn2 is None:
        raise InputError("this model was trained without attention: it has no maps to draw")
    image = read_image(row["image"], convert=preprocess.convert)
    probabilities = to_probabilities(logits.numpy())[0]
    classes, predicted, scored = _decision(model.config, probabilities)
    label, mask = row.get("label"), row.get("mask")
    return Case(
        image=image,
        attn1=attn1[0, 0].numpy(),
        attn2=attn2[0, 0].numpy(),
        probability=float(probabilities[scored if len(probabilities) > 1 else 0]),
        predicted=classes[predicted],
        label=None if label is None else classes[int(label)],
        scored=classes[scored],
        name=Path(row["image"]).name,
        region=preprocess.region(*image.shape[:2]),
        mask=read_mask(mask) if isinstance(mask, str) else None,
        input_size=preprocess.size,
    )


def _targets(config: VisualizeConfig) -> tuple[RunFolder | None, list[Path]]:
    """Tell runs from images: return the run whose model is used, if it is one, and the images."""
    missing = [path for path in config.targets if not path.exists()]
    if missing:
        raise InputError("these do not exist (give a run folder, images, or nothing):", missing)
    runs = [path for path in config.targets if (path / "config.yaml").is_file()]
    files = [path for path in config.targets if path not in runs]
    if len(runs) > 1 or (runs and files):
        raise InputError("give one run folder, or images of your own with --model RUN, not both")
    if runs:
        return open_run(runs[0]), []
    images = [path for target in files for path in _images(target)]
    run = newest_run(config.out) if config.model is None else None
    if not images and run is None:
        return open_run(Path(str(config.model))), []
    return run, images


def _images(target: Path) -> list[Path]:
    if target.is_file():
        return [target]
    found = [path for path in list_files(target) if is_image(path)]
    if not found:
        raise InputError(f"{target} is neither a run folder nor a folder with images")
    return found


def _draw_cases(run: RunFolder, config: VisualizeConfig) -> tuple[pd.DataFrame, str]:
    """Draw cases of a split at random, the same number from each class, and say so."""
    manifest = read_manifest(run.manifest)
    present = set(manifest["split"])
    split = "val" if config.split == "test" and "test" not in present else config.split
    cases = manifest[manifest["split"] == split]
    if cases.empty:
        raise InputError(f"{run.path} has no {split} cases")
    generator = np.random.default_rng(config.seed)
    shuffled = cases.iloc[generator.permutation(len(cases))]
    turn = shuffled.groupby("label").cumcount()  # the n-th of its class
    rows = shuffled.assign(turn=turn).sort_values(["turn", "label"]).head(config.count)
    name = {"test": "test", "val": "validation", "train": "training"}[split]
    title = f"{run.path.name}: {len(rows)} {name} images, drawn at random from each class"
    return rows, title


def _decision(config: dict[str, Any], probabilities: np.ndarray) -> tuple[list[str], int, int]:
    """Return the names of the classes, the one that is called, and the one to quote."""
    count = max(2, len(probabilities))
    classes = [str(name) for name in config.get("classes") or range(count)]
    if count > 2:
        called = int(probabilities.argmax())
        return classes, called, called
    threshold = config.get("threshold")
    called = int(probabilities[-1] >= (0.5 if threshold is None else threshold))
    return classes, called, 1


def _kind(model: Any, scale: str) -> Kind:
    if scale == "per-image":
        return "per-image"
    return "softmax" if model.config["arguments"].get("normalize_attn") else "sigmoid"


def _caption(model: Any) -> str | None:
    if model.config.get("synthetic"):
        return "SYNTHETIC data: the model was trained on drawn pictures, not on photographs."
    return None
