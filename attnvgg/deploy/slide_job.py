"""A slide on its way through the stream of tiles."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from attnvgg.data.slides import Slide
from attnvgg.data.tiles import Tiles, plan_tiles, read_tile
from attnvgg.data.transforms import Preprocess
from attnvgg.deploy.feature_settings import FeatureSettings

LOOK = 0.5  # seconds between two looks whether to stop


class SlideJob:
    """A slide that is being opened, and what loads its tiles.

    Attributes:
        path: of the slide.
        opened: the slide and its tiles, once they are there.
        failed: whether the rest of its tiles is not wanted any more.
    """

    def __init__(self, path: Path, opened: Future[tuple[Slide, Tiles]]) -> None:
        self.path = path
        self.opened = opened
        self.failed = False

    def calls(
        self, preprocess: Preprocess, between: Callable[[], None] = lambda: None
    ) -> Iterator[tuple[SlideJob, Callable[[], Any]]]:
        """Yield what loads each tile; of a slide that did not open the call that says why.

        Args:
            preprocess: from a tile to the encoder's input.
            between: called again and again while the slide is being opened; may raise to stop.
        """
        while wait([self.opened], LOOK).not_done:
            between()
        if self.opened.exception() is not None:
            yield self, self.opened.result
            return
        for number in range(len(self.opened.result()[1].coords)):
            yield self, partial(self._load, preprocess, number)

    def _load(self, preprocess: Preprocess, number: int) -> Tensor | None:
        if self.failed:
            return None
        slide, tiles = self.opened.result()
        return preprocess(read_tile(slide, tiles, number))


def open_slide(path: Path, settings: FeatureSettings) -> tuple[Slide, Tiles]:
    """Return a slide that is open, and its tiles.

    Raises:
        InputError: it cannot be read, or has no such tiles.
    """
    slide = Slide(path, settings.slide_mpp)
    try:
        return slide, plan_tiles(
            slide, settings.mpp, settings.tile, settings.overlap, settings.tissue
        )
    except BaseException:
        slide.close()
        raise
