"""One slide with what a model of bags attended to: a figure, a map, polygons, its top tiles."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from attnvgg.cli.bag_runs import read_bag_manifest
from attnvgg.cli.slide_tiles import bag_of, open_tiles
from attnvgg.cli.slide_verdict import (
    Verdict,
    average,
    judge,
    load_models,
    read_slide_config,
    read_threshold,
)
from attnvgg.cli.visualize_bags import decide
from attnvgg.data.decoding import read_mask
from attnvgg.data.slides import Slide
from attnvgg.data.tiles import Tiles, read_tile
from attnvgg.errors import InputError
from attnvgg.explain import (
    BagCase,
    SlideCase,
    found_shares,
    save_slide,
    write_map,
    write_polygons,
)
from attnvgg.files import atomic_path
from attnvgg.training.bag_config import TrainBagsConfig
from attnvgg.training.run import RunFolder

logger = logging.getLogger(__name__)

USUAL = 2**24  # pixels of a map where no level is asked for, at most
SPLITS = {"train": "TRAINED on", "val": "validated on", "test": "tested on"}


@dataclass(frozen=True)
class SlideOptions:
    """What to draw; see `VisualizeConfig`."""

    slide: Path
    features: Path | None = None
    level: int | None = None
    top_k: int = 8
    slide_mpp: float | None = None
    mask: Path | None = None
    output: Path | None = None


def visualize_slide(run: RunFolder, options: SlideOptions) -> None:
    """Write `slides/<slide>/` in the run, and say what the model says.

    There are `map.png`, `map.tiff`, `map.geojson` and `tiles/`, the tiles of most weight.

    Args:
        run: of bags that are slides.
        options: which slide, and how.

    Raises:
        InputError: the run is not one of slides, or slide, features and model do not fit.
    """
    config = read_slide_config(run)
    manifest = read_bag_manifest(run)
    assert manifest is not None  # a run that has a configuration
    folder = options.output or run.path / "slides" / options.slide.stem
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file: --output of a slide must be a folder.")
    models = load_models(run, config)
    with Slide(options.slide, options.slide_mpp) as slide:
        mask = None if options.mask is None else _read_mask(options.mask, slide)
        bag = bag_of(options.slide, manifest)
        downsample = _downsample(slide, options.level)
        tiles, instances = open_tiles(slide, run, config, manifest, models[0], options.features)
        verdict = average([judge(model, instances) for model in models], run)
        threshold = read_threshold(run, bag, verdict.row())
        shown = _bag_case(slide, tiles, verdict, config, bag, threshold)
        case = SlideCase(
            shown, tiles.side, slide.width, slide.height, slide.overview(), slide.mpp, mask
        )
        save_slide(
            folder / "map.png",
            case,
            top=options.top_k,
            threshold=threshold,
            title=f"{run.path.name}: {slide.path.stem}",
            caption=_caption(slide.path.name, config, bag, verdict),
        )
        write_map(folder / "map.tiff", case, downsample)
        write_polygons(folder / "map.geojson", case, options.top_k)
        _write_tiles(folder / "tiles", case, options.top_k)
    _tell(case, bag)
    logger.info("Written: %s/: map.png, map.tiff, map.geojson, tiles/", folder)


def _bag_case(
    slide: Slide,
    tiles: Tiles,
    verdict: Verdict,
    config: TrainBagsConfig,
    bag: pd.Series[Any] | None,
    threshold: float | None,
) -> BagCase:
    """Put together what is drawn of the tiles."""
    classes = config.data.classes
    assert classes is not None  # filled in by `settle`
    probability, called, scored = decide(verdict.row(), classes, threshold)
    weights = verdict.weights
    if not verdict.is_attention:  # of the class whose probability is quoted for the slide
        weights = weights[:, classes.index(scored) if weights.shape[1] > 1 else 0]
    return BagCase(
        name=slide.path.name,
        probability=probability,
        predicted=called,
        label=None if bag is None else classes[int(bag["label"])],
        scored=scored,
        weights=weights,
        instances=_Pictures(slide, tiles),
        coords=tiles.coords,
        score_name="attention" if verdict.is_attention else f"probability of {scored}",
    )


def _read_mask(path: Path, slide: Slide) -> NDArray[np.bool_]:
    """Return the region of a mask (h, w), which must have the slide's shape to the pixel."""
    mask = read_mask(path) > 127
    high, wide = mask.shape
    # some downsample brings both sides of the slide within one pixel of those of the mask
    if abs(wide * slide.height - high * slide.width) > slide.width + slide.height:
        raise InputError(
            f"{path} is {wide} x {high} px, which is not the shape of {slide.path}, "
            f"{slide.width} x {slide.height}: give a mask of the whole slide."
        )
    return mask


def _downsample(slide: Slide, level: int | None) -> int:
    """Return the downsample of the map, a whole number: of a level, or of the finest that fits."""
    known = slide.downsamples
    if level is not None:
        if not 0 <= level < len(known):
            raise InputError(f"{slide.path} has the levels 0 to {len(known) - 1}, not {level}.")
        return round(known[level])
    least = math.sqrt(slide.width * slide.height / USUAL)
    return round(min((d for d in known if d >= least), default=math.ceil(least)))


def _caption(
    name: str, config: TrainBagsConfig, bag: pd.Series[Any] | None, verdict: Verdict
) -> str:
    """Return what else a reader has to know."""
    sentences = []
    if bag is not None:
        sentences.append(f"The model was {SPLITS[bag['split']]} this slide.")
    if config.seeds > 1:
        sentences.append("An average of several models.")
    classes = len(verdict.probabilities)
    if classes > 2 and verdict.is_attention:
        sentences.append(
            f"The model has one attention for all {classes} classes: it tells where it looked, not "
            "for which class."
        )
    if "SYNTHETIC" in name:  # as all slides of the sample are called
        sentences.append("SYNTHETIC slide: composed by a program, not scanned.")
    return " ".join(sentences)


def _write_tiles(folder: Path, case: SlideCase, top: int) -> None:
    """Write the top tiles by rank and place, in place of those of an earlier call."""
    written = set()
    for rank, number in enumerate(case.order[:top].tolist(), 1):
        x, y = case.coords[number]
        path = folder / f"{rank:02d}_x{x}_y{y}.png"
        with atomic_path(path) as temporary:
            Image.fromarray(case.bag.picture(number)).save(temporary, "PNG")
        written.add(path)
    for path in set(folder.glob("*.png")) - written:
        path.unlink()


def _tell(case: SlideCase, bag: pd.Series[Any] | None) -> None:
    """Log what the model says, and whether it looked where it should."""
    shown = case.bag
    truth = "not in the run, so its truth is unknown" if bag is None else f"truth: {shown.label}"
    logger.info(
        "%s: p(%s) = %.4f, called %s (%s).",
        shown.name, shown.scored, shown.probability, shown.predicted, truth,
    )  # fmt: skip
    shares = found_shares(case)
    if case.mask is not None and not case.mask.any():
        logger.info("The region of --mask is empty, so no tile lies in it.")
    elif shares is not None:
        share = 100 * shares[case.order[0]]
        logger.info("Of the tile of most weight %.0f %% lie in the region of --mask.", share)


class _Pictures(Sequence[Any]):
    """Tiles that are read from the slide when they are drawn."""

    def __init__(self, slide: Slide, tiles: Tiles) -> None:
        self.slide, self.tiles = slide, tiles

    def __len__(self) -> int:
        return len(self.tiles.coords)

    def __getitem__(self, number: Any) -> Any:
        return read_tile(self.slide, self.tiles, number)
