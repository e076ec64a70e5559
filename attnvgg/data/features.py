"""Feature files: the instances of one bag as vectors, in HDF5, NumPy's or PyTorch's format.

HDF5 holds `features` (N, D) and perhaps `coords` (N, 2), as CLAM and TRIDENT write it, and
`instance_labels` (N,); PyTorch a tensor or a dict of the same; NumPy the features alone. A leading
axis of length 1, (1, N, D), is dropped.
"""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from attnvgg.data.feature_files import read_attributes, read_datasets
from attnvgg.errors import InputError

KEYS = ("features", "coords", "instance_labels")
MADE = {
    "encoder": "the encoder {!r}",
    "patch_size": "tiles of {} px",
    "mpp": "{} microns per pixel",
    "target_magnification": "{}-fold magnification",
}
MAPPED_BYTES = 1 << 20  # smaller files are read faster than mapped; an empty one cannot be mapped


def read_features(path: str | os.PathLike[str]) -> dict[str, torch.Tensor]:
    """Return `instances` float32 (N, ...), and where the file has them the other two, int64.

    `instance_labels` that are not all known are float32, with NaN for the unknown.

    Features of float32 in NumPy's or PyTorch's format are not copied but mapped: they come from
    the disk when they are used, and may be larger than the memory. No handle stays open, so loader
    processes share none.

    Raises:
        InputError: the file cannot be read, or does not hold what it should.
    """
    readers = {".npy": _read_numpy, ".pt": _read_torch}
    reader = readers.get(Path(path).suffix.lower(), _read_hdf5)
    with _told(path):
        return _bag(reader(path), path)


def feature_attributes(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return what an HDF5 file says of its features: encoder, tile size, mpp, ...

    The names are those of CLAM, TRIDENT and `feature_files`; files of NumPy and PyTorch say
    nothing.

    Raises:
        InputError: the file cannot be read.
    """
    if Path(path).suffix.lower() in (".npy", ".pt"):
        return {}
    with _told(path):
        return read_attributes(path)


def made_of(said: Mapping[str, Any]) -> dict[str, str]:
    """Return by what and of what tiles features were made, in words, as far as a file says so.

    Args:
        said: see `feature_attributes`.
    """
    return {key: words.format(said[key]) for key, words in MADE.items() if key in said}


def unusable(path: str | os.PathLike[str], problem: str) -> InputError:
    """Return the error that names one bag; `prepare_bags` gathers many of them into one."""
    return InputError("A bag cannot be used:", [f"{os.fspath(path)}: {problem}"])


@contextmanager
def _told(path: str | os.PathLike[str]) -> Iterator[None]:
    """Say of a file that cannot be read what is wrong with it."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # broken files make these libraries fail in every way there is
        raise unusable(path, _describe(error)) from error


def _read_hdf5(path: str | os.PathLike[str]) -> dict[str, Any]:
    return read_datasets(path, KEYS)


def _read_numpy(path: str | os.PathLike[str]) -> dict[str, Any]:
    large = os.path.getsize(path) > MAPPED_BYTES
    # copy on write: PyTorch wants memory that may be written, the file must not be
    return {"features": np.load(path, mmap_mode="c" if large else None, allow_pickle=False)}


def _read_torch(path: str | os.PathLike[str]) -> dict[str, Any]:
    mapped = zipfile.is_zipfile(path)  # the format of old releases cannot be mapped
    found = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    return dict(found) if isinstance(found, Mapping) else {"features": found}


def _bag(found: Mapping[str, Any], path: str | os.PathLike[str]) -> dict[str, torch.Tensor]:
    """Return the arrays of a file as checked tensors."""
    if found.get("features") is None:
        names = ", ".join(map(str, found)) or "nothing"
        raise unusable(path, f"has no `features`, but {names}")
    instances = _tensor(found["features"], "features", path).float()
    if instances.ndim < 2:
        raise unusable(path, f"has features of shape {tuple(instances.shape)}, not (N, D)")
    if not instances.numel():
        raise unusable(path, "has no instances")
    bag = {"instances": instances}
    for key in KEYS[1:]:
        if found.get(key) is None:
            continue
        values = _tensor(found[key], key, path)
        if key == "instance_labels" and not (values.isnan() | (values == 0) | (values == 1)).all():
            raise unusable(path, "has instance_labels other than 0, 1 and NaN (not known)")
        unknown = values.is_floating_point() and bool(values.isnan().any())
        bag[key] = values = values.float() if unknown else values.long()
        wanted = (len(instances), 2) if key == "coords" else (len(instances),)
        if values.shape != wanted:
            raise unusable(path, f"has {key} of shape {tuple(values.shape)}, not {wanted}")
    return bag


def _tensor(values: Any, key: str, path: str | os.PathLike[str]) -> torch.Tensor:
    if isinstance(values, np.ndarray) and values.dtype.kind in "fiu":
        # no copy unless the bytes are in the order of another kind of machine
        values = torch.from_numpy(values.astype(values.dtype.newbyteorder("="), copy=False))
    if not isinstance(values, torch.Tensor) or values.is_complex() or values.is_sparse:
        raise unusable(path, f"has {key} that are not an array of numbers")
    lone = len(values) == 1 if values.ndim else False
    matrix = 1 if key == "instance_labels" else 2
    return values[0] if lone and values.ndim == matrix + 1 else values


def _describe(error: Exception) -> str:
    if isinstance(error, pickle.UnpicklingError):
        return "is not a feature file, or holds more than tensors, which is not loaded"
    if isinstance(error, FileNotFoundError):
        return "is missing"
    if isinstance(error, OSError) and error.errno is not None and error.strerror:
        return f"cannot be read: {error.strerror}"
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return f"is not a feature file, or a broken one: {reason[:200].rstrip('.')}"
