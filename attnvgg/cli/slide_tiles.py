"""The tiles of one slide as the model of a run takes them: where they are, and what they hold."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from attnvgg.data.features import feature_attributes, made_of, read_features
from attnvgg.data.listing import FEATURE_SUFFIXES
from attnvgg.data.slides import Slide
from attnvgg.data.tile_folders import COUNT, DOWNSAMPLE, SIZE, is_cut_from
from attnvgg.data.tiles import Tiles, panda_tiles, plan_tiles, read_tile
from attnvgg.deploy.extraction import encode_tiles
from attnvgg.deploy.tile_calibration import origin_of
from attnvgg.deploy.tile_encoders import encoder_of
from attnvgg.errors import InputError
from attnvgg.models import Pretrained
from attnvgg.training.bag_config import TrainBagsConfig
from attnvgg.training.run import RunFolder

logger = logging.getLogger(__name__)

SHOWN = 256  # pixels of a tile whose file does not say how many it was read with


class SlideTiles(NamedTuple):
    """Tiles of a slide, and what the model takes of them."""

    tiles: Tiles
    instances: Tensor
    """(N, ...)."""


def open_tiles(
    slide: Slide,
    run: RunFolder,
    config: TrainBagsConfig,
    manifest: pd.DataFrame,
    model: Pretrained,
    features: Path | None,
) -> SlideTiles:
    """Return the tiles of a slide: cut as in training, or as in its feature file.

    A slide without feature file is encoded as those of the run were.

    Args:
        slide: open.
        run: of bags.
        config: of the run.
        manifest: of the run.
        model: of the run.
        features: feature file of the slide; None for that of the run, if it has one.

    Raises:
        InputError: bags whose places on a slide nobody knows; features of another slide or
            encoder; no features, and none can be made.
    """
    of_features = model.config.get("preprocess", {}).get("kind") == "features"
    if not of_features and config.data.source == "panda" and features is None:
        return _cut(slide, model)
    if not of_features:
        what = "does not take features" if features else "has pictures, not slides, as bags"
        raise InputError(f"{run.path} {what}: --slide is for runs on PANDA or on feature files.")
    known = [path for path in map(Path, manifest["image"]) if _is_features(path)]
    own = [path for path in known if path.stem == slide.path.stem]
    if features is None and own and not own[0].exists():
        raise InputError(f"{own[0]} is gone: put it back, or say where it is with --features.")
    if features is not None or own:
        return _read(slide, features or own[0], known, model)
    return _extract(slide, run, known)


def bag_of(slide: Path, manifest: pd.DataFrame) -> pd.Series[Any] | None:
    """Return the row of a slide in the manifest of a run, None where it is not in it.

    Of another file of its name, as far as the bag tells, nothing is known either: that is warned.

    Raises:
        InputError: several bags have its name.
    """
    paths = manifest["image"].map(Path)
    named = paths.map(
        lambda path: slide.stem in (path.name, path.stem if _is_features(path) else "")
    )
    if named.sum() > 1:
        raise InputError(f"{slide.stem} is the name of several bags:", manifest["image"][named])
    if not named.any():
        return None
    bag = Path(paths[named].iloc[0])
    if not (_is_made_from(bag, slide) if _is_features(bag) else is_cut_from(bag, slide)):
        logger.warning(
            "%s is not the file that %s was made from (other bytes, or another time), so its truth "
            "is not known.",
            slide, bag,
        )  # fmt: skip
        return None
    return manifest[named].iloc[0]


def _is_made_from(features: Path, slide: Path) -> bool:
    """Return whether features are of that very file, as far as they tell."""
    said = feature_attributes(features) if features.exists() else {}
    origin = origin_of(slide)
    return bool(said.get("slide_origin", origin) == origin)


def _is_features(path: Path) -> bool:
    return path.suffix.lower() in FEATURE_SUFFIXES


def _cut(slide: Slide, model: Pretrained) -> SlideTiles:
    """Cut the tiles that training has cut, and preprocess them as there."""
    tiles = panda_tiles(slide, COUNT, SIZE, DOWNSAMPLE)
    pictures = [read_tile(slide, tiles, number) for number in range(len(tiles.coords))]
    return SlideTiles(tiles, torch.stack([model.preprocess(picture) for picture in pictures]))


def _read(slide: Slide, path: Path, known: list[Path], model: Pretrained) -> SlideTiles:
    """Read a feature file, and make sure that it fits slide and model."""
    bag, said = read_features(path), feature_attributes(path)
    if "coords" not in bag:
        raise InputError(
            f"{path} has no coords: where its tiles are on the slide is not known; extract the "
            "features again with scripts/extract_features.py."
        )
    _check_slide(slide, path, said)
    _check_encoder(path, bag["instances"], said, known, model)
    coords = bag["coords"].numpy()
    side = _side(path, said, coords)
    size = int(said.get("patch_size", min(side, SHOWN)))
    level, unknown = slide.level_for(side, size), np.full(len(coords), np.nan)
    tiles = Tiles(coords, side, size, None, level, side, unknown)
    return SlideTiles(tiles, bag["instances"])


def _extract(slide: Slide, run: RunFolder, known: list[Path]) -> SlideTiles:
    """Encode the tiles of a slide as those of the run were encoded."""
    needed = ("encoder_recipe", "mpp", "tile", "overlap", "tissue")
    example = next((path for path in known if path.is_file()), None)
    said = feature_attributes(example) if example else {}
    if example is None or not all(key in said for key in needed):
        raise InputError(
            f"{run.path} has no features of {slide.path.stem}, and its own do not say how they "
            "were made: give its feature file with --features."
        )
    encoder = encoder_of(example)
    tiles = plan_tiles(slide, *(said[key] for key in needed[1:]))
    logger.info(
        "No features of %s in %s: encoding its %d tiles with %s.",
        slide.path.stem, run.path, len(tiles.coords), encoder.name,
    )  # fmt: skip
    device = "cuda" if torch.cuda.is_available() else "cpu"
    features = encode_tiles(
        encoder.network.to(device), encoder.preprocess, slide, tiles, device=device,
        precision=said.get("precision", "no"),
    )  # fmt: skip
    return SlideTiles(tiles, torch.from_numpy(features))


def _check_slide(slide: Slide, path: Path, said: dict[str, Any]) -> None:
    """Refuse features that say that they are of another slide."""
    name = str(said.get("name", slide.path.stem))
    if name != slide.path.stem:
        raise InputError(f"{path} holds the features of {name}, not of {slide.path.stem}.")
    if not _is_made_from(path, slide.path):
        raise InputError(f"{path} holds the features of another slide that is called {name}, too.")
    size = tuple(said.get(f"level0_{key}") for key in ("width", "height"))
    if None not in size and size != (slide.width, slide.height):
        raise InputError(
            f"{path} holds the features of a slide of {size[0]} x {size[1]} px, but {slide.path} "
            f"has {slide.width} x {slide.height}."
        )


def _check_encoder(
    path: Path, features: Tensor, said: dict[str, Any], known: list[Path], model: Pretrained
) -> None:
    """Refuse features of another encoder or other tiles than those of the run."""
    wanted, found = model.config["preprocess"]["features"], features.shape[-1]
    if found != wanted:
        raise InputError(
            f"{path} holds {found} features a tile, but the model takes {wanted}: they are of "
            "another encoder."
        )
    example = next((one for one in known if one.is_file()), path)
    usual, here = made_of(feature_attributes(example)), made_of(said)
    if any(usual[key] != here[key] for key in usual.keys() & here.keys()):
        raise InputError(
            f"{path} holds features of {', '.join(here.values())}, but those of the run are of "
            f"{', '.join(usual.values())}."
        )


def _side(path: Path, said: dict[str, Any], coords: NDArray[np.int64]) -> int:
    """Return the side of a tile in level-0 pixels: as the file says, or as the grid shows."""
    if "patch_size_level0" in said:
        return round(float(said["patch_size_level0"]))
    if "patch_size" in said and ("downsample" in said or said.get("patch_level") == 0):
        return round(float(said["patch_size"]) * float(np.mean(said.get("downsample", 1))))
    # Each piece of tissue may have a grid of its own, so neighbours are sought along a line.
    gaps = [_gaps(coords, 0), _gaps(coords, 1)]
    if not len(steps := np.concatenate(gaps)):
        raise InputError(f"{path} does not say how large its tiles are, and they form no grid.")
    values, counts = np.unique(steps, return_counts=True)
    side = int(values[counts.argmax()])
    logger.info(
        "%s does not say how large its tiles are: taken as %d px, the usual step between two.",
        path, side,
    )  # fmt: skip
    return side


def _gaps(coords: NDArray[np.int64], axis: int) -> NDArray[np.int64]:
    """Return the steps along an axis between tiles that lie on one line."""
    along, across = coords[:, axis], coords[:, 1 - axis]
    order = np.lexsort((along, across))
    steps, same = np.diff(along[order]), np.diff(across[order]) == 0
    return steps[same & (steps > 0)]
