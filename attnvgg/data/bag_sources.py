"""Where bags on the disk come from: a table of labels, or one folder a class.

A bag is a feature file (see `features.py`) or a folder of images.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pandas as pd

from attnvgg.data.bag_manifest import check_bags
from attnvgg.data.listing import (
    FEATURE_SUFFIXES,
    find_bag,
    is_features,
    is_file_or_gone,
    is_hidden,
    is_image,
    list_files,
    require_folder,
    require_utf8,
)
from attnvgg.data.sources import (
    CSV_GROUPS,
    CSV_NAMES,
    class_folders,
    known_columns,
    numbered_classes,
)
from attnvgg.data.tables import located, read_table
from attnvgg.errors import InputError

logger = logging.getLogger(__name__)

BAG_NAMES = ("bag", "bag_id", "slide", "slide_id")
CSV_BAGS = {"image": (*BAG_NAMES, *CSV_NAMES["image"])} | {
    name: CSV_NAMES[name] for name in ("label", "split", "weight", "sex", "age", "site", "source")
}
BAG_GROUPS = (*CSV_GROUPS, "case_id", "case")  # CLAM's tables call the patient a case

BAGS_LAYOUT = "one bag a slide or case: a feature file (.h5, .npy, .pt) or a folder of images"
FOLDERS_LAYOUT = (
    "one folder a class, or train/, val/ and test/ with such folders in each, and in a class "
    "feature files (.h5, .npy, .pt) or folders of images, a bag each"
)


def load_bags(name: str, root: str | Path, bags: str | Path | None = None) -> pd.DataFrame:
    """Read the bags of a source into a checked manifest.

    Args:
        name: `csv` or `folders`.
        root: the file or folder of the source.
        bags: for `csv` the folder of the bags, all of which must have a label then; absent: bags
            are looked for from the table's folder, and there may be others.

    Returns:
        The manifest; for `folders`, `.attrs["classes"]` holds the names of the classes.

    Raises:
        InputError: the source is unknown; labels without a bag, bags without a label; the table is
            not a manifest.
    """
    root = Path(root)
    require_utf8([root.absolute()], "The path of the source")
    if name == "csv":
        folder = Path(bags) if bags is not None else None
        table = check_bags(read_csv(root, folder), str(root))
        if folder is not None:
            _refuse_unlabelled(table, root, folder)
        return table
    if name != "folders":
        raise InputError(f"There is no source {name!r} of bags; there are: csv, folders.")
    if bags is not None:
        raise InputError(f"The source folders has its bags in {root}: give no folder of bags.")
    return check_bags(read_folders(root), str(root))


def read_csv(path: Path, bags: Path | None = None) -> pd.DataFrame:
    """Any CSV with a column for the bag (`bag`, `slide_id`, ...) and one for its label.

    A bag is a path or a name, relative to `bags`, else to the file's folder, and may lack its
    suffix or have that of its slide. Rows that share a `group`, `patient_id`, `case_id`, ... form
    one group.
    """
    table = known_columns(read_table(path), path, CSV_BAGS, BAG_GROUPS)
    unlabelled = table["label"].map(str.strip) == ""
    if unlabelled.any():
        raise InputError(f"{path} has bags without a label:", table["image"][unlabelled])
    if bags is not None:
        require_folder(bags, BAGS_LAYOUT)
    folder = bags if bags is not None else path.parent
    table["image"] = located(table["image"], folder, find_bag)
    return table


def read_folders(root: Path) -> pd.DataFrame:
    """One folder a class, with a feature file or a folder of images a bag.

    They may lie in `train`, `val` and `test`. Classes are numbered as those of images.
    """
    rows = []
    for split, folder in class_folders(root, FOLDERS_LAYOUT):
        for bag in _bags_in(folder):
            rows.append({"image": str(bag), "class": folder.name, "split": split})
    if not rows:
        raise InputError(f"{root} holds no bags: expected {FOLDERS_LAYOUT}.")
    return numbered_classes(pd.DataFrame(rows), root, "bags")


def _bags_in(folder: Path) -> list[Path]:
    """Return the bags directly in a folder, of several files of one bag the preferred format."""
    children = sorted(path for path in folder.iterdir() if not is_hidden(path))
    loose = [path for path in children if is_file_or_gone(path) and is_image(path)]
    if loose:
        raise InputError("Images of a bag must lie in a folder of their own, not so:", loose)
    files = [path for path in children if is_file_or_gone(path) and is_features(path)]
    files.sort(key=lambda path: FEATURE_SUFFIXES.index(path.suffix.lower()), reverse=True)
    chosen = {path.stem: path for path in files}
    folders = [path for path in children if path.is_dir()]
    ignored = len(children) - len(chosen) - len(folders)
    if ignored:
        logger.info("Ignored %d files in %s: no bags, or other formats of one.", ignored, folder)
    return sorted([*chosen.values(), *folders])


def _refuse_unlabelled(table: pd.DataFrame, path: Path, folder: Path) -> None:
    """Raise InputError when there are bags in the folder that the table does not name."""
    labelled = {_key(Path(bag)) for bag in table["image"]}
    strays = []
    for file in list_files(Path(os.path.abspath(folder))):
        if is_features(file) or is_image(file):
            bag = file if is_features(file) else file.parent
            if not labelled & {_key(bag), *bag.parents}:
                strays.append(bag)
    if strays:
        raise InputError(
            f"{folder} holds bags without a label in {path}; give each a row or move it away:",
            dict.fromkeys(strays),
        )


def _key(bag: Path) -> Path:
    """Return what the files of one bag in several formats have in common."""
    return bag.with_suffix("") if is_features(bag) else bag
