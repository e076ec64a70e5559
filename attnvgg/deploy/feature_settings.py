"""What features depend on beside slide and encoder, and how a feature file tells it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from attnvgg.data.features import feature_attributes
from attnvgg.data.slides import Slide
from attnvgg.data.tiles import Tiles
from attnvgg.deploy.tile_calibration import Calibration, TileSettings, origin_of
from attnvgg.deploy.tile_encoders import TileEncoder, choice_of, recipe
from attnvgg.errors import InputError

Precision = Literal["no", "bf16", "fp16", "int8"]

POWER, POWER_MPP = 40, 0.25  # a nominal magnification, and the microns per pixel it stands for


@dataclass(frozen=True)
class FeatureSettings(TileSettings):
    """Which tiles of a slide, and how exactly they are computed."""

    precision: Precision = "no"
    """Of the encoder's arithmetic; int8 is for CPUs, and calibrated on tiles of slides."""

    @property
    def tiles(self) -> TileSettings:
        """Return which tiles these are."""
        return TileSettings(**{key.name: getattr(self, key.name) for key in fields(TileSettings)})


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


def kept_calibration(out: Path, settings: FeatureSettings) -> Calibration | None:
    """Return what the 8-bit features of such tiles in a folder were calibrated on, if any.

    Features that are added must be of the same engine.
    """
    for path in sorted(out.glob("*.h5")):
        try:
            kept = choice_of(path).calibration
        except InputError:
            continue  # not ours, or damaged: whoever wants its features will say so
        if kept is not None and kept.settings == settings.tiles:
            return kept
    return None


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
    calibration = encoder.choice.calibration
    return {
        "encoder": encoder.name,
        "mpp": settings.mpp,
        "tile": settings.tile,
        "overlap": settings.overlap,
        "tissue": settings.tissue,
        "stated_mpp": settings.slide_mpp,
        "precision": settings.precision,
        "calibration": calibration and calibration.words,
    }


def _power(mpp: float) -> float:
    """Return the nominal magnification, such as 40 or 20, that is nearest to so many microns."""
    return POWER / 2 ** round(math.log2(mpp / POWER_MPP))
