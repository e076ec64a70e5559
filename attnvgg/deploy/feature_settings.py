"""What features depend on beside slide and encoder, and how a feature file tells it."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from attnvgg.data.features import feature_attributes
from attnvgg.data.slides import Slide
from attnvgg.data.tiles import Tiles
from attnvgg.deploy.tile_encoders import TileEncoder, recipe
from attnvgg.errors import InputError

Precision = Literal["no", "bf16", "fp16"]

POWER, POWER_MPP = 40, 0.25  # a nominal magnification, and the microns per pixel it stands for


@dataclass(frozen=True)
class FeatureSettings:
    """Which tiles of a slide, and how exactly they are computed."""

    mpp: float = 0.5
    """Microns per pixel of the tiles."""
    tile: int = 256
    """Side of a tile in pixels of that size."""
    overlap: int = 0
    """Pixels that neighbouring tiles share."""
    tissue: float = 0.25
    """Least share of a tile that must be tissue."""
    slide_mpp: float | None = None
    """Microns per level-0 pixel; null: as the slides say."""
    precision: Precision = "no"
    """Of the encoder's arithmetic."""


def feature_path(out: Path, slide: Path) -> Path:
    """Return where the features of a slide lie."""
    return out / f"{slide.stem}.h5"


def attributes_of(
    slide: Slide, tiles: Tiles, settings: FeatureSettings, encoder: TileEncoder
) -> dict[str, Any]:
    """Return all that a feature file says of its features, see `data.feature_files`."""
    return {
        "name": slide.path.stem,
        "patch_size": tiles.size,
        "patch_size_level0": tiles.side,
        "patch_level": tiles.level,
        "downsample": tiles.side / tiles.size,
        "level0_magnification": slide.magnification or _power(slide.require_mpp()),
        "target_magnification": _power(settings.mpp),
        "level0_width": slide.width,
        "level0_height": slide.height,
        "tile_mpp": tiles.mpp,
        "slide_mpp": slide.require_mpp(),
        "encoder_recipe": recipe(encoder),
        "slide_origin": origin_of(slide.path),
        **_identity(settings, encoder),
    }


def origin_of(slide: Path) -> str:
    """Return what tells a slide from another of its name: its bytes, and a digest of the first."""
    with slide.open("rb") as stream:
        digest = hashlib.sha256(stream.read(2**20)).hexdigest()[:12]
    return f"{slide.stat().st_size} bytes, {digest}"


def unfinished(
    slides: Sequence[Path], out: Path, settings: FeatureSettings, encoder: TileEncoder
) -> list[Path]:
    """Return the slides without features; those that have some must have just the wanted ones.

    A slide that is gone is returned, too: whoever opens it will say so.

    Raises:
        InputError: feature files of other settings or another encoder, or none that can be read,
            are in the way.
    """
    wanted = _identity(settings, encoder)
    missing, others, broken = [], [], list[str]()
    for slide in slides:
        path = feature_path(out, slide)
        if not path.exists() or not slide.exists():
            missing.append(slide)
            continue
        try:
            found = feature_attributes(path)
        except InputError as error:
            broken += error.offenders or [str(error)]
            continue
        differences = [
            f"{key} is {found.get(key, 'not known')}, not {value}"
            for key, value in {**wanted, "slide_origin": origin_of(slide)}.items()
            if found.get(key) != value
        ]
        if differences:
            others.append(f"{path}: {'; '.join(differences)}")
    if broken:
        raise InputError(
            f"Features in {out} cannot be read; remove them to make them anew:", broken
        )
    if others:
        raise InputError(
            f"{len(others)} files in {out} hold other features than are asked for, and none is "
            "overwritten: choose another --out, or remove them.",
            others,
        )
    return missing


def _identity(settings: FeatureSettings, encoder: TileEncoder) -> dict[str, Any]:
    """Return the attributes that must be equal for features to be the same."""
    return {
        "encoder": encoder.name,
        "mpp": settings.mpp,
        "tile": settings.tile,
        "overlap": settings.overlap,
        "tissue": settings.tissue,
        "stated_mpp": settings.slide_mpp,
        "precision": settings.precision,
    }


def _power(mpp: float) -> float:
    """Return the nominal magnification, such as 40 or 20, that is nearest to so many microns."""
    return POWER / 2 ** round(math.log2(mpp / POWER_MPP))
