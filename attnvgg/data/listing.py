"""Which images and bags lie where."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from attnvgg.errors import InputError

# Where the Kaggle dataset has its pictures, and the sample, which has its layout, too.
KAGGLE_IMAGES = "512x512-dataset-melanoma/512x512-dataset-melanoma"

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")

# Files of one bag; of several the earliest is taken.
FEATURE_SUFFIXES = (".h5", ".hdf5", ".npy", ".pt")
# Of OpenSlide's formats all but DICOM, where a slide is many files.
SLIDE_SUFFIXES = (
    ".svs", ".ndpi", ".mrxs", ".scn", ".vms", ".vmu", ".bif", ".svslide", ".czi", ".tif", ".tiff",
)  # fmt: skip
BAG_SUFFIXES = (*FEATURE_SUFFIXES, *SLIDE_SUFFIXES)


def require_folder(folder: Path, expected: str) -> None:
    """Raise InputError unless `folder` is one; `expected` says what should lie there."""
    if not folder.is_dir():
        problem = "is not a folder" if folder.exists() else "does not exist"
        raise InputError(f"{folder} {problem}: expected {expected}.")


def subfolders(folder: Path) -> list[Path]:
    """Return the visible folders directly in `folder`, sorted by name."""
    return sorted(child for child in folder.iterdir() if child.is_dir() and not is_hidden(child))


def list_files(folder: Path) -> list[Path]:
    """Return all visible files in `folder` and below, sorted by path.

    Links are followed, each folder is entered once. A link to nothing is listed, too: whoever
    opens it will say so.

    Raises:
        InputError: the name of an image is not UTF-8.
    """
    paths: list[Path] = []
    entered: set[str] = set()
    waiting = [folder]
    for top in waiting:  # which grows: what is linked comes last, so real paths are preferred
        for name, folders, files in os.walk(top):
            place = Path(name)
            folders[:] = [child for child in folders if not is_hidden(place / child)]
            if (real := os.path.realpath(place)) in entered:
                folders.clear()
                continue
            entered.add(real)
            waiting += [place / child for child in folders if (place / child).is_symlink()]
            visible = (place / file for file in files if not is_hidden(place / file))
            paths += filter(is_file_or_gone, visible)
    require_utf8((path for path in paths if is_image(path)), str(folder))
    return sorted(paths)


def is_file_or_gone(path: Path) -> bool:
    """Return whether it is a file, or a link to one that is not there."""
    return path.is_file() or not path.exists()


def find_bag(name: str, folder: Path) -> str:
    """Return the absolute path of a bag that a table names, relative to `folder`.

    A bag is a feature file or a folder of images. The name may lack the suffix of the file, or
    have that of the slide the features were taken from. What is not found is returned as named.
    """
    path = Path(os.path.abspath(folder / name))
    stems = [path, path.with_suffix("")] if path.suffix.lower() in BAG_SUFFIXES else [path]
    for stem in stems:
        for suffix in ("", *FEATURE_SUFFIXES):
            candidate = stem.with_name(stem.name + suffix)
            if candidate.exists():
                return str(candidate)
    return str(path)


def require_utf8(paths: Iterable[str | Path], origin: str) -> None:
    """Refuse names that no table can hold: those with bytes that Python shows as surrogates."""
    shown = {str(path): str(path).encode("utf-8", "backslashreplace").decode() for path in paths}
    odd = [text for path, text in shown.items() if text != path]
    if odd:
        origin = origin.encode("utf-8", "backslashreplace").decode()
        raise InputError(f"{origin} has names that are not UTF-8, so rename these:", odd)


def is_features(path: Path) -> bool:
    """Return whether the name, not yet the content, is that of a feature file."""
    return path.suffix.lower() in FEATURE_SUFFIXES


def is_image(path: Path) -> bool:
    """Return whether the name, not yet the content, is that of an image."""
    return path.suffix.lower() in IMAGE_SUFFIXES


def images_below(folder: Path) -> list[Path]:
    """Return the visible images in `folder` and below, sorted by path."""
    return [path for path in list_files(folder) if is_image(path)]


def images_by_id(folder: Path) -> dict[str, Path]:
    """Return the images directly in `folder` by their name without suffix.

    Of several formats of one image the earliest in `IMAGE_SUFFIXES` is taken. A folder that does
    not exist holds none.
    """
    if not folder.is_dir():
        return {}
    images = [path for path in folder.iterdir() if is_image(path) and not is_hidden(path)]
    images.sort(key=lambda path: (-IMAGE_SUFFIXES.index(path.suffix.lower()), path.name))
    return {path.stem: path for path in images}


def image_by_id(name: str, found: Mapping[str, Path], folder: Path) -> str:
    """Return the found image of that id, else where a JPEG of it should lie; "" for no id."""
    name = name.strip()
    return str(found.get(name, folder / f"{name}.jpg")) if name else ""


def find_image(name: str, folder: Path) -> str:
    """Return the absolute path of an image that a table in `folder` names.

    A relative name is looked for in the folder and in its `images`; a name without the suffix of
    an image (an image id) may lack it. What is not found is returned as if beside the table.
    """
    suffixes = ("",) if is_image(Path(name)) else ("", *IMAGE_SUFFIXES)
    for base in (folder, folder / "images"):
        for suffix in suffixes:
            candidate = os.path.abspath(base / f"{name}{suffix}")
            if os.path.isfile(candidate):
                return candidate
    return os.path.abspath(folder / name)


def is_hidden(path: Path) -> bool:
    """Whether the name is one of the droppings of systems: `.DS_Store`, `._photo.jpg`."""
    return path.name.startswith(".") or path.name == "__MACOSX"
