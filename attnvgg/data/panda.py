"""The PANDA challenge: slides of prostate biopsies with their ISUP grade, or tiles of them.

A folder holds `train.csv` (image_id, isup_grade; data_provider and patient_id where known) and

- `train_images/<image_id>.tiff` or `train_images/*/<image_id>.tiff`, slides, which are cut into 16
  tiles each; or
- `train_tiles/<image_id>/*.png` or `train_tiles/<image_id>_<n>.png`, tiles cut before.

Or it holds `training` and `testing` (or `train` and `test`), each with slides or tiles; the table
is in the folder, or each of the two has its own. `regions/<image_id>.png`, white where the finding
is, is optional: which tiles are positive is then known, to judge attention by, never to train.
"""

from __future__ import annotations

import logging
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Literal

import pandas as pd

from attnvgg.data.bag_manifest import check_bags
from attnvgg.data.groups import linked_groups
from attnvgg.data.listing import (
    SLIDE_SUFFIXES,
    find_bag,
    is_hidden,
    is_image,
    require_folder,
    require_utf8,
)
from attnvgg.data.slide_listing import refuse_namesakes, slide_name
from attnvgg.data.slides import opens_as_slide
from attnvgg.data.sources import CSV_GROUPS
from attnvgg.data.tables import read_table, require_columns
from attnvgg.data.tile_folders import cut_slides, flat_tiles, link_tiles, tiles_home
from attnvgg.errors import InputError

logger = logging.getLogger(__name__)

Labels = Literal["binary", "isup"]
HOMES = ("train_tiles", "train_images")  # the preferred one first
CHANNELS = {"training": "train", "train": "train", "testing": "test", "test": "test"}
LAYOUT = (
    "train.csv with train_images/<image_id>.tiff or train_tiles/<image_id>/*.png, or the folders "
    "training and testing"
)
CLASSES = {
    "binary": ("benign", "malignant"),
    "isup": tuple(f"ISUP {grade}" for grade in range(6)),
}


def load_panda(
    root: str | Path,
    labels: Labels = "binary",
    tiles: str | Path | None = None,
    workers: int | None = None,
    features: str | Path | None = None,
) -> pd.DataFrame:
    """Read a folder of PANDA into a checked manifest of folders of tiles; slides are cut first.

    Args:
        root: the folder.
        labels: binary: 1 for an ISUP grade of 1 or more; isup: the grade.
        tiles: where folders of tiles are kept; absent: `tiles_home`.
        workers: threads that cut; None for one a core.
        features: folder of feature files, one a slide, which then are the bags: all tiles, uncut.

    Returns:
        The manifest, with the provider as `source`, the patient as `group` and the channel as
        `split`, where known; `.attrs["classes"]` holds the names of the classes.

    Raises:
        InputError: no table, a grade that is none, rows without slide or tiles, slides that
            cannot be cut.
    """
    root = Path(root)
    require_utf8([root.absolute()], "The path of the source")
    require_folder(root, LAYOUT)
    channels = _channels(root)
    places = channels or {"": root}
    table, origin = _read_grades(root, list(places.values()))
    label = _labels(table["isup_grade"], labels, origin)
    found = _find_bags(places)
    if features is not None:
        bags = _feature_bags(table["image_id"], Path(features), origin)
    else:
        _refuse_missing(table["image_id"], found, root, origin)
        if len(found) > len(table):
            logger.info("Left out: slides in %s that %s has no grade of.", root, origin)
        files = {name: found[name][1] for name in table["image_id"]}
        bags = _as_folders(files, Path(tiles) if tiles is not None else tiles_home(root), workers)
    manifest = pd.DataFrame(
        {
            "image": table["image_id"].map(lambda name: str(bags[name].absolute())),
            "label": label,
            "group": linked_groups(table, CSV_GROUPS),
            "split": [found.get(name, ("", []))[0] for name in table["image_id"]],
            "source": table.get("data_provider", ""),
        }
    )
    manifest.attrs["classes"] = CLASSES[labels]
    return check_bags(manifest, origin)


def _channels(root: Path) -> dict[str, Path]:
    """Return the folder of each split, where the folder has such."""
    found: dict[str, Path] = {}
    for name, split in CHANNELS.items():
        if (root / name).is_dir():
            if split in found:
                raise InputError(f"{root} holds {found[split].name} and {name}: leave one of them.")
            found[split] = root / name
    return found


def _read_grades(root: Path, folders: Sequence[Path]) -> tuple[pd.DataFrame, str]:
    """Return the table of the root, or else those of its channels as one, and where it is from."""
    own = [path for place in folders for path in _tables_in(place)]
    paths = _tables_in(root) or (own if len(own) == len(folders) else [])
    if not paths:
        raise InputError(f"{root} has no train.csv, the table of the grades: expected {LAYOUT}.")
    tables = []
    for path in paths:
        table = read_table(path)
        require_columns(table, ("image_id", "isup_grade"), str(path))
        table["image_id"] = table["image_id"].str.strip()
        grades = table["isup_grade"].str.strip()
        wrong = ~grades.isin(list("012345"))
        if wrong.any():
            raise InputError(
                f"Grades in {path} must be from 0 to 5, not so:",
                table["image_id"][wrong] + ": " + grades[wrong].map(repr),
            )
        tables.append(table.assign(isup_grade=grades.astype("int64")))
    origin = str(paths[0] if len(paths) == 1 else root)
    return pd.concat(tables, ignore_index=len(tables) > 1), origin


def _tables_in(folder: Path) -> list[Path]:
    """Return the table in a folder, train.csv or else the only one; none if there is none."""
    tables = [path for path in sorted(folder.glob("*.csv")) if not is_hidden(path)]
    return [path for path in tables if path.name == "train.csv" or len(tables) == 1]


def _labels(grades: pd.Series[int], labels: Labels, origin: str) -> pd.Series[int]:
    """Return the label of each slide."""
    label = grades if labels == "isup" else (grades >= 1).astype("int64")
    absent = [name for k, name in enumerate(CLASSES[labels]) if k not in set(label)]
    if absent:
        needed = "all six grades" if labels == "isup" else "two classes"
        raise InputError(f"{origin} has no slides of {', '.join(absent)}: {needed} are needed.")
    return label


def _find_bags(places: Mapping[str, Path]) -> dict[str, tuple[str, list[Path]]]:
    """Return split and files of each slide: a folder of tiles, tiles, or the slide itself."""
    found: dict[str, tuple[str, list[Path]]] = {}
    twice = []
    for split, place in places.items():
        home = next((place / name for name in HOMES if (place / name).is_dir()), place)
        children = sorted(path for path in home.iterdir() if not is_hidden(path))
        slides = [path for path in children if _is_slide(path)]
        tiles = flat_tiles(path for path in children if not _is_slide(path))
        # a slide of MIRAX has a folder of its name, with its pixels
        parts = {path.stem for path in slides if path.suffix.lower() == ".mrxs"}
        folders = [path for path in children if path.is_dir() and path.name not in parts]
        whole = slides + [_slide_in(folder) or folder for folder in folders]
        refuse_namesakes(whole)
        alone = {slide_name(path): [path] for path in whole}
        here = {name: (split, files) for name, files in (tiles | alone).items()}
        twice += sorted(found.keys() & here.keys())
        found |= here
    if twice:
        raise InputError("Slides are in training and in testing at once:", twice)
    return found


def _slide_in(folder: Path) -> Path | None:
    """Return the slide that a folder holds; None if what it holds are plain pictures, its tiles."""
    files = sorted(path for path in folder.iterdir() if _is_slide(path) and not is_hidden(path))
    if not files or (is_image(files[0]) and not opens_as_slide(files[0])):
        return None
    if len(files) > 1:
        raise InputError(f"{folder} must hold one slide or plain pictures of tiles, not:", files)
    return files[0]


def _feature_bags(names: pd.Series, folder: Path, origin: str) -> dict[str, Path]:
    """Return the feature file of each slide."""
    require_folder(folder, "a feature file a slide (scripts/extract_features.py writes them)")
    found = {name: Path(find_bag(name, folder)) for name in names}
    _refuse_missing(names, {name for name, path in found.items() if path.exists()}, folder, origin)
    return found


def _refuse_missing(names: pd.Series, found: Container[str], folder: Path, origin: str) -> None:
    missing = [name for name in names if name not in found]
    if missing:
        raise InputError(f"{origin} names slides that are not in {folder}:", missing)


def _as_folders(bags: Mapping[str, list[Path]], home: Path, workers: int | None) -> dict[str, Path]:
    """Return a folder of tiles for each slide, cutting and linking where there is none yet."""
    slides = [files[0] for files in bags.values() if _is_slide(files[0])]
    folders = {path.name: path for path in cut_slides(slides, home, workers)}
    tiles = {name: files for name, files in bags.items() if name not in folders}
    ready = {name: files[0] for name, files in tiles.items() if files[0].is_dir()}
    loose = {name: files for name, files in tiles.items() if name not in ready}
    return folders | ready | link_tiles(loose, home)


def _is_slide(path: Path) -> bool:
    return path.suffix.lower() in SLIDE_SUFFIXES and path.is_file()
