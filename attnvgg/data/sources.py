"""Where cases come from: each source is a function from a place on the disk to a manifest.

To add one, write such a function (the columns are described in `manifest.py`; whether labels and
files are right is checked after it) and enter it in `SOURCES`.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import pandas as pd

from attnvgg.data.groups import linked_groups
from attnvgg.data.isic import MaskKind, read_archive, read_isic2016, read_isic2017
from attnvgg.data.listing import (
    KAGGLE_IMAGES,
    image_by_id,
    images_by_id,
    is_image,
    list_files,
    require_folder,
    require_utf8,
    subfolders,
)
from attnvgg.data.manifest import SPLITS, check_manifest
from attnvgg.data.tables import located, read_table, require_columns
from attnvgg.errors import InputError

logger = logging.getLogger(__name__)

KAGGLE_LAYOUT = f"marking.csv and the images in {KAGGLE_IMAGES}/<image_id>.jpg"
KAGGLE_COLUMNS = {
    "sex": "sex",
    "age_approx": "age",
    "anatom_site_general_challenge": "site",
    "source": "source",
}
CHALLENGES = ("isic2016", "isic2017")
SAMPLE_MARKS = ("SAMPLE.txt", "sample.json")

# Names that the columns of a CSV may have, the preferred one first.
CSV_NAMES = {
    "image": ("image", "path", "filename", "file", "image_id", "image_name"),
    "label": ("label", "target", "class"),
    "split": ("split",),
    "mask": ("mask",),
    "weight": ("weight",),
    "sex": ("sex",),
    "age": ("age", "age_approx"),
    "site": ("site", "anatom_site_general", "anatom_site_general_challenge"),
    "source": ("source",),
}
CSV_GROUPS = ("group", "patient_id", "patient", "lesion_id", "lesion")

FOLDERS_LAYOUT = "one folder of images a class, or train/, val/ and test/ with such folders in each"
# For a pair of classes: the finding asked about is class 1, whatever the alphabet says.
POSITIVE = {"malignant", "melanoma", "positive", "cancer", "tumor", "tumour", "disease"}
NEGATIVE = {"benign", "nevus", "negative", "normal", "healthy", "control", "other"}


def load_source(name: str, root: str | Path, *, mask: MaskKind = "lesion") -> pd.DataFrame:
    """Read the cases of a source into a checked manifest.

    Args:
        name: a key of `SOURCES`.
        root: its folder; for `csv` the file, for `isic-archive` either.
        mask: which masks of the ISIC challenges to take; other sources have one kind at most.

    Returns:
        The manifest; where the source names its classes, `.attrs["classes"]` holds the names.

    Raises:
        InputError: the source is unknown; something is missing; the table is not a manifest.
    """
    if name not in SOURCES:
        raise InputError(f"There is no source {name!r}; there are: {', '.join(SOURCES)}.")
    root = Path(root)
    require_utf8([root.absolute()], "The path of the source")
    options = {"mask": mask} if name in CHALLENGES else {}
    table = SOURCES[name](root, **options)
    origin = root / "marking.csv" if name == "kaggle" else root
    return check_manifest(table, str(origin))


def find_kaggle(data_dir: str | Path) -> Path | None:
    """Return the folder of the real Kaggle dataset in `data_dir` or up to two levels below.

    The built-in sample, which has the same layout, is never taken for it.
    """
    data_dir = Path(data_dir)
    for pattern in ("marking.csv", "*/marking.csv", "*/*/marking.csv"):
        for table in sorted(data_dir.glob(pattern)):
            unfinished = any(part.startswith(".") for part in table.relative_to(data_dir).parts)
            sample = any((table.parent / mark).exists() for mark in SAMPLE_MARKS)
            if not unfinished and not sample:
                return table.parent
    return None


def read_kaggle(root: Path) -> pd.DataFrame:
    """The Kaggle dataset `shonenkov/melanoma-merged-external-data-512x512-jpeg`, or the sample.

    Masks are taken from `masks/<image_id>.png` where they exist.
    """
    require_folder(root, KAGGLE_LAYOUT)
    path = root / "marking.csv"
    if not path.is_file():
        raise InputError(f"{root} has no marking.csv: expected {KAGGLE_LAYOUT}.")
    table = read_table(path)
    require_columns(table, ("image_id", "target"), str(path))
    nested = root / KAGGLE_IMAGES
    folder = nested if nested.is_dir() else nested.parent
    images, masks = images_by_id(folder), images_by_id(root / "masks")
    if not images:
        raise InputError(f"{folder} holds no images: expected {KAGGLE_LAYOUT}.")
    columns = {
        "image": [image_by_id(name, images, folder) for name in table["image_id"]],
        "label": table["target"],
        "group": table.get("patient_id", ""),
        "mask": [str(masks.get(name.strip(), "")) for name in table["image_id"]],
    }
    columns |= {ours: table[theirs] for theirs, ours in KAGGLE_COLUMNS.items() if theirs in table}
    manifest = pd.DataFrame(columns, index=table.index)
    manifest.attrs["classes"] = ("benign", "malignant")
    return manifest


def read_csv(path: Path) -> pd.DataFrame:
    """Any CSV with a column for the image and one for its label.

    The image is called `image`, `path`, `filename`, `file`, `image_id` or `image_name`, the label
    `label`, `target` or `class`: the first of each that is present is taken, in whatever case.
    Images are looked for from the file's folder and from `images` there, and may lack their
    suffix.
    Rows that share a `group`, `patient_id`, `patient`, `lesion_id` or `lesion` form one group.
    """
    columns = known_columns(read_table(path), path, CSV_NAMES, CSV_GROUPS)
    for name in {"image", "mask"} & set(columns):
        columns[name] = located(columns[name], path.parent)
    return columns


def known_columns(
    table: pd.DataFrame, path: Path, names: Mapping[str, Sequence[str]], groups: Sequence[str]
) -> pd.DataFrame:
    """Return the columns of a CSV under our names, with the `group` of linked rows.

    Args:
        table: what was read.
        path: from where.
        names: under which each of our columns may be found, in whatever case, the preferred first;
            the first two of ours are required.
        groups: names of columns whose equal values link rows.

    Raises:
        InputError: a required column is missing.
    """
    given = table.rename(columns=str.lower)
    given = given.loc[:, ~given.columns.duplicated()]
    required = list(names)[:2]
    columns = {}
    for ours, theirs in names.items():
        present = [name for name in theirs if name in given]
        if present:
            columns[ours] = given[present[0]]
        elif ours in required:
            found = ", ".join(table.columns)
            raise InputError(
                f"{path} lacks a column for the {theirs[0]}, expected one of {', '.join(theirs)}; "
                f"its columns are: {found}."
            )
    return pd.DataFrame({**columns, "group": linked_groups(given, groups)}, index=table.index)


def read_folders(root: Path) -> pd.DataFrame:
    """One folder of images a class: `<class>/...`, or `{train,val,test}/<class>/...`.

    Classes are numbered by the sorted names of their folders; of a pair, the finding is class 1
    (`melanoma` against `nevus`), see `POSITIVE` and `NEGATIVE`.
    """
    rows, ignored = [], 0
    for split, folder in class_folders(root, FOLDERS_LAYOUT):
        for path in list_files(folder):
            if is_image(path):
                rows.append({"image": str(path), "class": folder.name, "split": split})
            else:
                ignored += 1
    if ignored:
        logger.info("Ignored %d files in %s that are not images.", ignored, root)
    if not rows:
        raise InputError(f"{root} holds no images: expected {FOLDERS_LAYOUT}.")
    return numbered_classes(pd.DataFrame(rows), root)


def class_folders(root: Path, layout: str) -> list[tuple[str, Path]]:
    """Return the split, "" for none, and the folder of every class.

    Raises:
        InputError: the root is not a folder, or mixes splits with classes.
    """
    require_folder(root, layout)
    folders = subfolders(root)
    splits = [folder for folder in folders if folder.name.lower() in SPLITS]
    if splits and len(splits) < len(folders):
        strangers = [folder for folder in folders if folder not in splits]
        raise InputError(f"{root} mixes splits with other folders:", strangers)
    if not splits:
        return [("", folder) for folder in folders]
    return [(split.name, folder) for split in splits for folder in subfolders(split)]


def numbered_classes(table: pd.DataFrame, root: Path, what: str = "images") -> pd.DataFrame:
    """Return the table with a `label` for each `class`, whose names are in `.attrs["classes"]`.

    Raises:
        InputError: there is one class only.
    """
    names = _numbered(set(table["class"]))
    if len(names) < 2:
        raise InputError(f"{root} has {what} of one class only, {names[0]}: expected two or more.")
    logger.info("Classes: %s.", ", ".join(f"{label} = {name}" for label, name in enumerate(names)))
    table["label"] = table["class"].map(names.index)
    table.attrs["classes"] = tuple(names)
    return table


def _numbered(names: Iterable[str]) -> list[str]:
    """Return the names in the order of their labels.

    >>> _numbered({"nevus", "melanoma"}), _numbered({"10", "9", "8"})
    (['nevus', 'melanoma'], ['8', '9', '10'])
    """
    ordered = sorted(names, key=_natural)
    return sorted(ordered, key=_finding) if len(ordered) == 2 else ordered


def _natural(name: str) -> list[tuple[int, str]]:
    """Sort key by which 9 comes before 10."""
    parts = re.findall(r"\d+|\D+", name.casefold())
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]


def _finding(name: str) -> int:
    name = name.casefold()
    if name in NEGATIVE or name.startswith(("non", "not_", "not-", "no_", "no-")):
        return -1
    return int(name in POSITIVE)


SOURCES: dict[str, Callable[..., pd.DataFrame]] = {
    "kaggle": read_kaggle,
    "isic2016": read_isic2016,
    "isic2017": read_isic2017,
    "isic-archive": read_archive,
    "csv": read_csv,
    "folders": read_folders,
}
