"""The International Skin Imaging Collaboration: its challenges of 2016 and 2017, its archive."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from attnvgg.data.groups import linked_groups
from attnvgg.data.listing import image_by_id, images_by_id, is_image, list_files, require_folder
from attnvgg.data.tables import read_table, require_columns, tidied
from attnvgg.errors import InputError

logger = logging.getLogger(__name__)

MaskKind = Literal["lesion", "dermoscopic"]

CLASSES_2016 = {"benign": 0, "malignant": 1}
CLASSES_2017 = {"melanoma": 1, "nevus": 0, "seborrheic_keratosis": 0}
SPLIT_FOLDERS = {"Train": "train", "Val": "val", "Test": "test"}
MASK_FOLDERS = {"lesion": "Lesion", "dermoscopic": "Dermo"}

# The columns of the archive that tell the malignancy, the present one first, and their words.
DIAGNOSES = ("diagnosis_1", "benign_malignant", "diagnosis")
BENIGN = {
    *("benign", "nevus", "seborrheic keratosis", "pigmented benign keratosis", "solar lentigo"),
    *("lentigo simplex", "lentigo nos", "lichenoid keratosis", "dermatofibroma", "angioma"),
    *("vascular lesion", "verruca", "acrochordon", "cafe-au-lait macule", "neurofibroma"),
}
MALIGNANT = {
    *("malignant", "melanoma", "melanoma metastasis", "basal cell carcinoma"),
    *("squamous cell carcinoma", "merkel cell carcinoma", "kaposi sarcoma"),
}


def read_isic2016(root: Path, mask: MaskKind = "lesion") -> pd.DataFrame:
    """ISIC 2016: `Train|Val|Test/{benign,malignant}`; Val may be absent."""
    return _read_challenge(root, CLASSES_2016, ("benign", "malignant"), mask)


def read_isic2017(root: Path, mask: MaskKind = "lesion") -> pd.DataFrame:
    """ISIC 2017: `Train|Val|Test/{melanoma,nevus,seborrheic_keratosis}`, melanoma against rest."""
    return _read_challenge(root, CLASSES_2017, ("other", "melanoma"), mask)


def read_archive(root: Path) -> pd.DataFrame:
    """The archive's metadata with its images, as `isic image download` leaves them.

    The malignancy is the first of `diagnosis_1`, `benign_malignant` and `diagnosis` that says
    something. Rows where that is indeterminate, missing or an unknown word are left out and
    counted. Images that share a patient or a lesion, also by way of others, form one group.

    Args:
        root: the metadata as CSV, or a folder with `metadata.csv`; images `<isic_id>.jpg` lie
            beside it or in `images`.
    """
    path = root / "metadata.csv" if root.is_dir() else root
    table = read_table(path)
    require_columns(table, ["isic_id"], str(path))
    malignancy = _malignancy(table, str(path))
    label = malignancy.map({**dict.fromkeys(BENIGN, 0), **dict.fromkeys(MALIGNANT, 1)})
    unclear = malignancy[label.isna()].fillna("missing").value_counts()
    if not unclear.empty:
        reasons = ", ".join(f"{count} {word}" for word, count in unclear.items())
        logger.info("Left out of %s for their diagnosis: %s.", path, reasons)
    table, label = table[label.notna()], label.dropna()
    if table.empty:
        raise InputError(f"{path} holds no image whose diagnosis is benign or malignant.")
    found = images_by_id(path.parent / "images") | images_by_id(path.parent)
    columns = {
        "image": [image_by_id(name, found, path.parent) for name in table["isic_id"]],
        "label": label.astype(int),
        "group": linked_groups(table, ("patient_id", "lesion_id")),
    }
    known = {"sex": "sex", "age_approx": "age", "anatom_site_general": "site"}
    columns |= {ours: table[theirs] for theirs, ours in known.items() if theirs in table}
    manifest = pd.DataFrame({**columns, "source": table.get("attribution", "")}, index=table.index)
    manifest.attrs["classes"] = ("benign", "malignant")
    return manifest


def _malignancy(table: pd.DataFrame, origin: str) -> pd.Series[Any]:
    """Return in lower case what the first telling column says; NaN where none does."""
    columns = [table[name].map(tidied) for name in DIAGNOSES if name in table]
    if not columns:
        found = ", ".join(table.columns)
        raise InputError(
            f"{origin} tells no malignancy: expected one of the columns {', '.join(DIAGNOSES)}; "
            f"its columns are: {found}."
        )
    said = columns[0].astype(object)
    for column in columns[1:]:
        said = said.where(said.notna(), column)
    return said.map(str.lower, na_action="ignore")


def _read_challenge(
    root: Path, classes: Mapping[str, int], names: tuple[str, ...], mask: MaskKind
) -> pd.DataFrame:
    layout = f"Train/, Test/ and perhaps Val/, each with {', '.join(classes)}"
    require_folder(root, layout)
    present = [name for name in SPLIT_FOLDERS if name != "Val" or (root / name).is_dir()]
    wanted = [root / split / name for split in present for name in classes]
    missing = [folder for folder in wanted if not folder.is_dir()]
    if missing:
        raise InputError(f"{root} lacks folders, expected {layout}:", missing)
    rows = [
        {"image": str(path), "label": label, "split": SPLIT_FOLDERS[split]}
        for split in present
        for name, label in classes.items()
        for path in list_files(root / split / name)
        # the superpixels of 2017 lie among the images, as PNG
        if path.suffix.lower() in (".jpg", ".jpeg")
    ]
    if not rows:
        raise InputError(f"{root} holds no JPEG images, expected {layout}.")
    table = pd.DataFrame(rows)
    key = table["image"].map(lambda image: image_id(Path(image)))
    repeated = key[key.duplicated(keep=False)].sort_values(kind="stable")
    if not repeated.empty:
        raise InputError(f"{root} holds images of the same id:", table["image"][repeated.index])
    masks = _masks(root, present, mask)
    if masks:
        table["mask"] = key.map(masks)
        paired = int(table["mask"].notna().sum())
        logger.info("Masks (%s): %d of %d images have one.", mask, paired, len(table))
        if not paired:
            raise InputError(f"None of the {len(masks)} masks in {root} bears the id of an image.")
    table.attrs["classes"] = names
    return table


def image_id(path: Path) -> str:
    """Return the id that an image shares with its masks.

    >>> image_id(Path("Train_Lesion/nevus/ISIC_0000003_segmentation.png"))
    'ISIC_0000003'
    """
    isic = re.match(r"ISIC_\d+", path.stem, re.IGNORECASE)
    if isic:
        return isic.group().upper()
    return re.sub(r"_(segmentation|lesion|dermo|mask)$", "", path.stem, flags=re.IGNORECASE)


def _masks(root: Path, splits: Iterable[str], kind: MaskKind) -> dict[str, str]:
    """Return the masks of one kind by image id, whatever class folder they lie in."""
    folders = [root / f"{split}_{MASK_FOLDERS[kind]}" for split in splits]
    present = [folder for folder in folders if folder.is_dir()]
    if not present and kind == "dermoscopic":  # asked for; those of the lesion are a bonus
        raise InputError(f"{root} has no dermoscopic masks: expected the folder {folders[0]}.")
    paths = [path for folder in present for path in list_files(folder) if is_image(path)]
    masks: dict[str, str] = {}
    for path in paths:
        if masks.setdefault(image_id(path), str(path)) != str(path):
            raise InputError(
                "An image has two masks, where one (the union of its structures) is expected:",
                [masks[image_id(path)], path],
            )
    return masks
