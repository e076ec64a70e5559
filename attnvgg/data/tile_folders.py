"""Slides cut once into a few tiles each: a folder of PNG files a slide, a bag of pictures.

Beside its tiles a folder has `coords.csv` (file, x, y, side: each tile in level-0 pixels; label
where `regions/<slide>.png` beside the folder of the slides says where the finding is) and
`slide.json`, which says what it was cut from and how. It appears whole or not at all, so cutting
goes on where it was stopped.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from tqdm import tqdm

from attnvgg.data.cores import available_cores
from attnvgg.data.decoding import read_mask
from attnvgg.data.listing import is_image
from attnvgg.data.regions import region_file, square_means
from attnvgg.data.slides import Slide
from attnvgg.data.tiles import panda_tiles, read_tile
from attnvgg.errors import InputError
from attnvgg.files import atomic_folder, cache_folder

# Of recipe G: tiles a slide, pixels a side, at the level nearest to this downsample.
COUNT, SIZE, DOWNSAMPLE = 16, 128, 4.0
VERSION = 2  # raise it when the same slide would give other tiles
SHARE = 0.1  # of a tile that must lie in a region for the tile to be positive
ABOUT, COORDS = "slide.json", "coords.csv"
FLAT = re.compile(r"(.+)_[0-9]{1,9}")  # <slide>_<number of the tile>


def tiles_home(root: Path) -> Path:
    """Return the folder in the user's cache for the tiles of the slides in a folder."""
    place = os.path.abspath(root)
    digest = hashlib.blake2b(os.fsencode(place), digest_size=6).hexdigest()
    return cache_folder() / "tiles" / f"{os.path.basename(place)}-{digest}"


def cut_slides(slides: Sequence[Path], folder: Path, workers: int | None = None) -> list[Path]:
    """Cut slides into tiles, unless that is done already.

    Args:
        slides: whose names without suffix differ.
        folder: gets a folder of tiles a slide, of that name.
        workers: threads; None for one a core.

    Returns:
        The folder of each slide.

    Raises:
        InputError: one for all slides that could not be cut; the others are kept.
        OSError: the disk is full or cannot be written; finished slides are kept.
    """
    targets = [folder / slide.stem for slide in slides]
    jobs = [pair for pair in zip(slides, targets, strict=True) if not _is_cut(*pair)]
    pool = ThreadPoolExecutor(workers or available_cores())  # OpenSlide and OpenCV free the lock
    try:
        found = pool.map(_problem, jobs)
        problems = list(tqdm(found, "cutting slides", len(jobs), unit="slide", disable=None))
    finally:
        pool.shutdown(cancel_futures=True)
    problems = [problem for problem in problems if problem]
    if problems:
        raise InputError(
            f"{len(problems)} of {len(slides)} slides cannot be cut into tiles, so mend them or "
            "take them out of the table (what was cut is kept):",
            problems,
        )
    return targets


def link_tiles(tiles: Mapping[str, Sequence[Path]], folder: Path) -> dict[str, Path]:
    """Give each slide a folder of links to its tiles, where those of all slides lie in one.

    Args:
        tiles: of each slide, by its name.
        folder: gets a folder a slide, of that name.

    Returns:
        The folder of each slide, by its name.
    """
    made = {}
    for name, files in tiles.items():
        target = made[name] = folder / name
        wanted = {file.name: os.path.abspath(file) for file in files}
        is_linked = partial(_holds_links, target, wanted)
        if not is_linked():
            with _made_anew(target, is_linked) as temporary:
                for link, file in wanted.items():
                    (temporary / link).symlink_to(file)
    return made


def tile_labels(folder: Path, files: Sequence[str]) -> np.ndarray | None:
    """Return 1 for the tiles that a known region covers a tenth of, else 0; None if unknown.

    Args:
        folder: of the tiles of a slide.
        files: the tiles, in their order.
    """
    if not (folder / ABOUT).is_file() or not (folder / COORDS).is_file():
        return None  # it was not cut here
    table = pd.read_csv(folder / COORDS).set_index("file")
    if "label" not in table:
        return None
    return table["label"].reindex([os.path.basename(file) for file in files]).to_numpy(np.float32)


def is_cut_from(folder: Path, slide: Path) -> bool:
    """Return whether tiles are of that very file, by its size and time, as far as they tell."""
    try:
        said, state = json.loads((folder / ABOUT).read_text(encoding="utf-8")), slide.stat()
        return (said["bytes"], said["ns"]) == (state.st_size, state.st_mtime_ns)
    except (OSError, ValueError):
        return True


def flat_tiles(files: Iterable[Path]) -> dict[str, list[Path]]:
    """Return the pictures called <slide>_<number> by their slide."""
    found: dict[str, list[Path]] = {}
    for file in files:
        if is_image(file) and (match := FLAT.fullmatch(file.stem)):
            found.setdefault(match[1], []).append(file)
    return found


def _problem(job: tuple[Path, Path]) -> str | None:
    """Cut a slide; return what is wrong with it, if anything."""
    slide, target = job
    if _is_cut(slide, target):  # by another process, since the jobs were dealt
        return None
    if target.exists() and not (target / ABOUT).is_file():
        return f"{slide}: {target} is in the way, and no folder of tiles that was made here"
    try:
        _cut(slide, target)
    except InputError as error:
        return str(error)
    return None


def _cut(path: Path, target: Path) -> None:
    """Write the folder of a slide."""
    about = _about(path)  # before it is read: it may change meanwhile
    with _made_anew(target, partial(_is_cut, path, target)) as folder, Slide(path) as slide:
        tiles = panda_tiles(slide, COUNT, SIZE, DOWNSAMPLE)
        rows = []
        for number, (x, y) in enumerate(tiles.coords.tolist()):
            rgb = read_tile(slide, tiles, number)
            # a fast setting: the files are a tenth larger, and written in a third of the time
            options = [cv2.IMWRITE_PNG_COMPRESSION, 1]
            data = cv2.imencode(".png", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), options)[1]
            rows.append({"file": f"{number:02d}.png", "x": x, "y": y, "side": tiles.side})
            (folder / rows[-1]["file"]).write_bytes(data)
        table = pd.DataFrame(rows)
        if (region := region_file(path)).is_file():
            mask = read_mask(region) > 127
            shares = square_means(mask, tiles.coords, tiles.side, slide.width, slide.height)
            table["label"] = (shares >= SHARE).astype(int)
        table.to_csv(folder / COORDS, index=False)
        (folder / ABOUT).write_text(about, encoding="utf-8")


def _about(slide: Path) -> str:
    """Return what tells whether tiles are those of a slide as it is now."""
    state, region = slide.stat(), region_file(slide)
    about = {"slide": slide.name, "bytes": state.st_size, "ns": state.st_mtime_ns}
    about |= {"version": VERSION, "count": COUNT, "size": SIZE, "downsample": DOWNSAMPLE}
    if region.is_file():
        about |= {"region_ns": region.stat().st_mtime_ns}
    return json.dumps(about)


def _is_cut(slide: Path, target: Path) -> bool:
    try:
        return (target / ABOUT).read_text(encoding="utf-8") == _about(slide)
    except (OSError, UnicodeDecodeError):
        return False


def _holds_links(target: Path, wanted: Mapping[str, str]) -> bool:
    if not target.is_dir():
        return False
    return {
        link.name: os.readlink(link) for link in target.iterdir() if link.is_symlink()
    } == wanted


@contextmanager
def _made_anew(target: Path, is_made: Callable[[], bool]) -> Iterator[Path]:
    """Yield a folder that takes the place of `target`, unless another process was faster."""
    try:
        with atomic_folder(target) as folder:
            yield folder
            if not is_made():  # else it may be in use already
                shutil.rmtree(target, ignore_errors=True)
    except OSError:
        if not is_made():
            raise
