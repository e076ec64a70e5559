"""Tiles of slides that 8 bits are calibrated on: drawn once, and known by name ever after."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attnvgg.data.slides import Slide
from attnvgg.data.tiles import Tiles, plan_tiles, read_tile
from attnvgg.data.transforms import Preprocess
from attnvgg.deploy.encoder_engines import EncoderImages
from attnvgg.deploy.engines.interface import Images
from attnvgg.errors import InputError

SLIDES = 4  # taken where none are named
CALIBRATED, COMPARED = 128, 64  # tiles, of all slides together
FEWEST = 24  # tiles: to calibrate on, and to compare on
BATCH = 8


def origin_of(slide: Path) -> str:
    """Return what tells a slide from another of its name: its bytes, and a digest of the first."""
    with slide.open("rb") as stream:
        digest = hashlib.sha256(stream.read(2**20)).hexdigest()[:12]
    return f"{slide.stat().st_size} bytes, {digest}"


@dataclass(frozen=True)
class TileSettings:
    """Which tiles of a slide."""

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


@dataclass(frozen=True)
class Calibration:
    """The slides whose tiles the ranges of 8-bit numbers were seen on; part of features' identity.

    Attributes:
        slides: their files, as absolute paths.
        origins: see `origin_of`, of each.
        settings: which tiles of them.
    """

    slides: tuple[str, ...]
    origins: tuple[str, ...]
    settings: TileSettings

    @classmethod
    def of(cls, slides: Sequence[Path], settings: TileSettings) -> Calibration:
        """Return the calibration on slides that are there."""
        paths = tuple(str(path.absolute()) for path in slides)
        return cls(paths, tuple(origin_of(path) for path in slides), settings)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Calibration:
        """Return what `dataclasses.asdict` and JSON have made of one.

        Raises:
            TypeError, KeyError: it is damaged.
        """
        slides, origins = (tuple(map(str, values[key])) for key in ("slides", "origins"))
        return cls(slides, origins, TileSettings(**values["settings"]))

    @property
    def name(self) -> str:
        """Return what tells it from others: content of the slides, not where they are."""
        parts = [self.origins, asdict(self.settings), CALIBRATED, COMPARED]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:8]

    @property
    def words(self) -> str:
        """Return the name, and which slides these are."""
        return f"{self.name}, tiles of {', '.join(Path(path).name for path in self.slides)}"

    def images(self, preprocess: Preprocess) -> EncoderImages:
        """Return tiles to calibrate with and others to compare on, drawn with a fixed seed."""
        drawn = cache(lambda: self._draw(preprocess))
        return EncoderImages(self.name, lambda: drawn()[0], lambda: drawn()[1])

    def _draw(self, preprocess: Preprocess) -> tuple[list[Images], list[Images]]:
        with ExitStack() as stack:
            slides = [stack.enter_context(slide) for slide in self._open()]
            plans = [plan(slide, self.settings) for slide in slides]
            places = [(s, n) for s, tiles in enumerate(plans) for n in range(len(tiles.coords))]
            if len(places) < FEWEST:
                raise InputError(
                    f"8 bits are calibrated on {FEWEST} tiles or more, and there are {len(places)} "
                    "of these slides: name more of them with --calibration.",
                    self.slides,
                )
            order = np.random.default_rng(0).permutation(len(places))
            held = min(COMPARED, len(places) // 3)
            compared, calibrated = order[:held], order[held : held + CALIBRATED]

            def read(rows: NDArray[np.int64]) -> list[Images]:
                tiles = [read_tile(slides[s], plans[s], n) for s, n in (places[r] for r in rows)]
                inputs = np.stack([preprocess(tile).numpy() for tile in tiles])
                return [inputs[start : start + BATCH] for start in range(0, len(inputs), BATCH)]

            return read(calibrated), read(compared)

    def _open(self) -> Iterator[Slide]:
        for path, origin in zip(self.slides, self.origins, strict=True):
            if not Path(path).is_file() or origin_of(Path(path)) != origin:
                raise InputError(
                    f"8 bits were calibrated on {path}, which is gone or has changed, and the "
                    "engine is not kept here any more: put the slide back, or extract the features "
                    "again."
                )
            yield Slide(path, self.settings.slide_mpp)


def first_readable(slides: Sequence[Path], settings: TileSettings) -> list[Path]:
    """Return the first of these slides that have such tiles, up to `SLIDES`.

    Raises:
        InputError: none has.
    """
    found = []
    for path in slides:
        try:
            with Slide(path, settings.slide_mpp) as slide:
                plan(slide, settings)
        except InputError:
            continue  # whoever extracts its features will say so
        found.append(path)
        if len(found) == SLIDES:
            break
    if not found:
        raise InputError("8 bits are calibrated on tiles, and these slides have none:", slides)
    return found


def plan(slide: Slide, settings: TileSettings) -> Tiles:
    """Return the tiles of a slide."""
    return plan_tiles(slide, settings.mpp, settings.tile, settings.overlap, settings.tissue)
