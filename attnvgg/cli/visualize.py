"""`attnvgg visualize`: images with their attention maps, on a scale that does not flatter."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from tqdm import tqdm

from attnvgg.cli.common import run_command
from attnvgg.cli.drawn_cases import Split, draw_cases
from attnvgg.cli.image_case import (
    caption_of,
    kind_of,
    make_case,
    take_threshold,
)
from attnvgg.cli.visualize_bags import visualize_bags
from attnvgg.cli.visualize_slide import SlideOptions, visualize_slide
from attnvgg.data.inspection import inspect_image
from attnvgg.data.listing import is_image, list_files
from attnvgg.errors import InputError
from attnvgg.explain import LONGEST, Case, Interpolation, save_grid, save_panels
from attnvgg.explain.slide_figures import MOST
from attnvgg.models import Pretrained
from attnvgg.models.views import with_views
from attnvgg.training.checkpoint import load_model, preprocess_of
from attnvgg.training.run import RunFolder, newest_run, open_run, read_task

logger = logging.getLogger(__name__)

TARGETS = {"nargs": "*", "type": Path, "help": "a run folder, or image files or folders of them"}


@dataclass(frozen=True)
class VisualizeConfig:
    """Draw what a model attended to.

    Image | pool-3 | pool-4 for cases of a run or images of one's own; of a run on bags, the
    instances of each bag with their weights; with --slide, a map of one slide.
    """

    targets: list[Path] = field(metadata={"positional": TARGETS})
    model: str | None = None
    """Run folder, best/ folder or hub repository for images of one's own; null: newest run."""
    out: Path = Path("runs")
    """Folder in which the newest run is looked for."""
    output: Path | None = None
    """Picture to write; null: attention.png in the run folder, or here for images of one's own.
    Of a slide the folder; null: slides/<slide> in the run folder."""
    split: Split = "test"
    """Which cases of the run (test falls back to val where the run has no test set)."""
    count: int = 8
    """Number of cases of a run, drawn at random, in equal parts from each class; of one's own
    images all are shown, so many a page: attention.png, attention-2.png, ..."""
    seed: int = 0
    """Of the draw."""
    scale: Literal["fixed", "per-image"] = "fixed"
    """per-image stretches each map to its own range: labelled, and not comparable."""
    interpolation: Interpolation = "bilinear"
    """nearest gives each position of a map its own block of pixels."""
    each: bool = False
    """Also write image | pool-3 | pool-4 of each case as plain source pixels, without labels: a
    PNG a case, in a folder named after the output, numbered in the order in which they are read."""
    grad_cam: bool = False
    """Add a column for one class, that of the probability beside it: attention has none."""
    views: Literal[1, 8] = 1
    """8: the mean of what is said of all quarter turns and flips of an image, maps turned back."""
    convert: bool = False
    """Accept 16-bit, CMYK, grey, palette, transparent and EXIF-rotated files, converted."""
    slide: Path | None = None
    """Draw where on this slide a run on PANDA or on features of slides looked: map.png, map.tiff,
    map.geojson (drop it on the slide in QuPath) and the tiles of most weight."""
    features: Path | None = None
    """Feature file of the slide; null: that of the run, or else the slide is encoded as those."""
    level: int | None = None
    """Level of the slide whose pixels map.tiff has; null: the finest of at most 16 megapixels."""
    top_k: int = 8
    """Tiles of most weight that are shown, numbered and written."""
    slide_mpp: float | None = None
    """Microns per pixel of the slide; null: as it says itself."""
    mask: Path | None = None
    """Picture of the region that is to be found on the slide, at any size: white inside."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return run_command(visualize, VisualizeConfig, argv, "visualize")


def visualize(config: VisualizeConfig) -> None:
    """Draw the pictures, and say where they are."""
    if config.count < 1:
        raise InputError(f"--count {config.count}: at least one case is needed.")
    if not 1 <= config.top_k <= MOST:
        raise InputError(f"--top_k {config.top_k}: must be from 1 to {MOST}.")
    if config.grad_cam and config.views > 1:
        raise InputError("--grad_cam is of one look at an image: leave out --views.")
    run, files = _targets(config)
    slide = _slide_options(config, run, files)
    if slide is not None and run is not None:
        visualize_slide(run, slide)
        return
    if run is not None and not files and read_task(run) == "bags":
        visualize_bags(run, config.split, config.count, config.seed, config.output)
        return
    single = load_model(run.path if run else str(config.model))
    take_threshold(single, run, config.views)
    model: Any = with_views(single, config.views)
    options: dict[str, Any] = {
        "kind": kind_of(model, config.scale),
        "interpolation": config.interpolation,
        "caption": caption_of(model),
    }
    if files:
        rows, title = pd.DataFrame({"image": [str(path) for path in files]}), None
        output = config.output or Path("attention.png")
    else:
        assert run is not None  # without files there is a run
        rows, title = _draw_cases(run, config)
        output = config.output or run.path / "attention.png"
    _check_files(rows, preprocess_of(model, convert=config.convert).convert)
    cases = _make_cases(model, rows, config, output.with_suffix(""), options)
    for number in range(1, math.ceil(len(rows) / config.count) + 1):
        page = list(islice(cases, config.count))
        if not files:  # these are one page, and in no order of their own
            page.sort(key=lambda case: -case.probability)
        path = output if number == 1 else output.with_stem(f"{output.stem}-{number}")
        save_grid(path, page, title=title, threshold=model.config.get("threshold"), **options)
        logger.info("Written: %s", path)
    if config.each:
        logger.info("Written: %s/, %d pictures", output.with_suffix(""), len(rows))


def _make_cases(
    model: Pretrained,
    rows: pd.DataFrame,
    config: VisualizeConfig,
    folder: Path,
    options: dict[str, Any],
) -> Iterator[Case]:
    """Yield the cases one by one, as small as the figure allows: many photographs fill memory."""
    bar = tqdm(rows.to_dict("records"), "maps", unit="image", leave=False, disable=None)
    for number, row in enumerate(bar):
        case = make_case(model, row, convert=config.convert, with_class_map=config.grad_cam)
        if config.each:
            save_panels(folder / f"{number:03d}-{Path(case.name).stem}.png", case, **options)
        yield case.reduced(LONGEST)


def _targets(config: VisualizeConfig) -> tuple[RunFolder | None, list[Path]]:
    """Tell runs from images: return the run whose model is used, if it is one, and the images."""
    missing = [path for path in config.targets if not path.exists()]
    if missing:
        raise InputError("These do not exist (give a run folder, images, or nothing):", missing)
    runs = [path for path in config.targets if (path / "config.yaml").is_file()]
    files = [path for path in config.targets if path not in runs]
    if len(runs) > 1 or (runs and files):
        raise InputError("Give one run folder, or images of your own with --model RUN, not both.")
    if runs and config.model is not None:
        raise InputError(f"{runs[0]} is drawn with its own model: leave out --model.")
    if runs:
        return open_run(runs[0]), []
    images = [path for target in files for path in _images(target)]
    run = newest_run(config.out) if config.model is None else None
    if not images and run is None:
        return open_run(Path(str(config.model))), []
    return run, images


def _slide_options(
    config: VisualizeConfig, run: RunFolder | None, files: list[Path]
) -> SlideOptions | None:
    """Return what is said of a slide, None where there is none."""
    if config.slide is not None:
        if run is None or files:
            raise InputError("--slide is drawn with a run on bags: give its folder, and no images.")
        return SlideOptions(**{one.name: getattr(config, one.name) for one in fields(SlideOptions)})
    for name in ("features", "level", "slide_mpp", "mask"):
        if getattr(config, name) is not None:
            raise InputError(f"--{name} says something of a slide: give one with --slide.")
    return None


def _images(target: Path) -> list[Path]:
    if target.is_file():
        return [target]
    found = [path for path in list_files(target) if is_image(path)]
    if not found:
        raise InputError(f"{target} is neither a run folder nor a folder with images.")
    return found


def _draw_cases(run: RunFolder, config: VisualizeConfig) -> tuple[pd.DataFrame, str]:
    """Draw cases of a split at random, the same number from each class, and say so."""
    rows, name = draw_cases(run, config.split, config.count, config.seed)
    title = f"{run.path.name}: {len(rows)} {name} images, drawn at random from each class"
    return rows, title


def _check_files(rows: pd.DataFrame, convert: bool) -> None:
    """Refuse all images and masks at once whose headers are wrong, before the work."""
    problems = {path: inspect_image(path, convert) for path in rows["image"]}
    if "mask" in rows:
        problems |= {path: inspect_image(path, convert=True) for path in rows["mask"].dropna()}
    wrong = [f"{path}: {problem}" for path, problem in problems.items() if problem]
    if wrong:
        raise InputError("These files cannot be used:", wrong)
