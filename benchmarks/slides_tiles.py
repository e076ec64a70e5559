"""Tiles of slides: the rate of reading them against bare OpenSlide, and the plan of a huge slide.

Ours and bare reads of the same pixels take turns in one process, counted in seconds of the core, as
both decode and wait for nothing; each has a cache of its own. The plan runs in a fresh process, of
which the memory that it took before, with all that is imported here, is not counted.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import openslide
import tifffile
from skimage.data import immunohistochemistry

from attnvgg.data.slide_writer import write_slide
from attnvgg.data.slides import Slide
from attnvgg.data.tiles import Tiles, plan_tiles, read_tile
from benchmarks.bags_memory import afresh, resident, tell

MPP, SIZE = 0.25, 256
# wanted microns per pixel, and how its tiles lie in a slide of downsamples 1, 4, 16
CASES = {
    0.25: "as they are",
    0.3: "a sixth smaller",
    0.5: "halved",
    0.54: "2.2 times smaller",
    1.0: "a coarser level",
}
REPEATS = 8  # of a picture of 512 px, along a side of the slide that is read
BLOCK, LEAST, ROUNDS = 16, 4, 240  # tiles a turn; turns; tiles of a case
HUGE, FILLED = 100_000, 40  # px; of so many squares of 16 x 16 file tiles one has tissue


def turns(slide: Slide, bare: Any, tiles: Tiles) -> tuple[float, float, float]:
    """Return tiles a second of bare reads and of ours, and the median of the paired ratios."""
    wide = round(tiles.side / slide.downsamples[tiles.level])
    order = np.resize(np.arange(len(tiles)), max(ROUNDS, BLOCK * LEAST))

    def read_bare(number: int) -> None:
        x, y = map(int, tiles.coords[number])
        bare.read_region((x, y), tiles.level, (wide, wide))

    def read_ours(number: int) -> None:
        read_tile(slide, tiles, number)

    ways: list[Callable[[int], None]] = [read_bare, read_ours]
    spent: list[list[float]] = [[], []]
    for turn, start in enumerate(range(0, len(order), BLOCK)):
        block = order[start : start + BLOCK]
        for way in (0, 1) if turn % 2 else (1, 0):
            begin = time.thread_time()
            for number in block:
                ways[way](number)
            spent[way].append((time.thread_time() - begin) / len(block))
    ratio = statistics.median(a / b for a, b in zip(*spent, strict=True))
    return 1 / statistics.median(spent[0]), 1 / statistics.median(spent[1]), ratio


def reading(folder: Path) -> None:
    """Print the rates of a slide of real tissue."""
    path = folder / "tissue.tiff"
    write_slide(path, np.tile(immunohistochemistry(), (REPEATS, REPEATS, 1)), MPP)
    print(f"slides: tiles of {SIZE} px of a slide of {MPP} microns, downsamples 1, 4, 16, one core")
    for mpp, words in CASES.items():
        with Slide(path) as slide, openslide.OpenSlide(path) as bare:
            tiles = plan_tiles(slide, mpp, SIZE, share=0)
            slow, fast, ratio = turns(slide, bare, tiles)
        what = (
            f"{words}, {mpp} microns: bare {slow:4.0f}/s, ours {fast:4.0f}/s, {ratio:.0%} of bare"
        )
        tell("tiles", what, "85%", ratio >= 0.85)


def file_tiles(across: int, scale: int, tissue: bytes) -> Iterator[bytes]:
    """Yield the tiles of a level: islands of tissue, and nothing where the scanner saw none."""
    for row in range(across):
        for column in range(across):
            island = row * scale // 16 * 31 + column * scale // 16
            yield tissue if island % FILLED == 0 else b""


def write_huge(path: Path) -> None:
    """Write a slide of 100,000 x 100,000 px, most of it left out."""
    picture = immunohistochemistry()[:256, :256]
    tissue = imagecodecs.jpeg_encode(picture, 80, colorspace="RGB", outcolorspace="YCbCr")
    with tifffile.TiffWriter(path, bigtiff=True) as writer:
        for scale in (1, 4, 16):
            side = HUGE // scale
            writer.write(
                file_tiles(-(-side // 256), scale, bytes(tissue)),
                shape=(side, side, 3),
                dtype=np.uint8,
                tile=(256, 256),
                compression="jpeg",
                photometric="rgb",
                subfiletype=int(scale > 1),
                metadata=None,
                resolution=(1e4 / (MPP * scale),) * 2,
                resolutionunit="CENTIMETER",
            )


def plan(path: Path) -> tuple[float, float, float, float, int]:
    """Return seconds by the clock and of the core, MiB before and at most, and the tiles."""
    before = resident("VmRSS")
    wall, core = time.perf_counter(), time.process_time()
    with Slide(path) as slide:
        tiles = plan_tiles(slide, 0.5, SIZE)
    spent = time.perf_counter() - wall, time.process_time() - core
    return *spent, before, resident("VmHWM"), len(tiles)


def planning(folder: Path) -> None:
    """Print time and memory of the plan of the huge slide."""
    path = folder / "huge.tiff"
    write_huge(path)
    wall, core, before, peak, count = afresh(plan, path)
    print(f"slides: plan of {HUGE:,} x {HUGE:,} px at 0.5 microns, {count:,} tiles with tissue")
    tell("time", f"{wall:.1f} s by the clock, {core:.1f} s of the core", "10 s", wall < 10)
    more = peak - before
    tell("memory", f"{more:.0f} MiB more than {before:.0f} before", "1 GB", more < 953)


def main() -> None:
    """Print both."""
    with tempfile.TemporaryDirectory() as name:
        reading(Path(name))
        planning(Path(name))


if __name__ == "__main__":
    main()
