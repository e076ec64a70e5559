"""Feature files in HDF5: the layout of CLAM and TRIDENT, written and read.

`features` (N, D) float32 and `coords` (N, 2) int64, upper left corners of tiles in level-0 pixels.
What is known of them all stands at `coords`, where both programs keep it, and at the file itself;
`encoder` and `name` stand at `features` too, as TRIDENT has it.

| attribute | of | meaning |
| --- | --- | --- |
| `patch_size` | both | side of a tile as the encoder's input was cut, in pixels of the wanted mpp |
| `patch_size_level0` | TRIDENT | the same in level-0 pixels |
| `patch_level` | CLAM | level of the pyramid that was read |
| `downsample` | CLAM | level-0 pixels a pixel of a tile |
| `level0_magnification`, `target_magnification` | TRIDENT | nominal power, where mpp are known |
| `level0_width`, `level0_height` | TRIDENT | of the slide, in pixels |
| `overlap` | TRIDENT | pixels that neighbours share, of the wanted mpp |
| `name` | both | the slide's file name without suffix |

Neither program's paths (`save_path`, `savetodir`) are written: equal settings give equal bytes.
"""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attnvgg.errors import InputError
from attnvgg.files import atomic_path

AT_FEATURES = ("name", "encoder")


def write_features(
    path: str | os.PathLike[str],
    features: NDArray[np.float32],
    coords: NDArray[np.int64],
    attributes: Mapping[str, Any],
) -> None:
    """Write a feature file, whole or not at all; the same content gives the same bytes.

    Args:
        path: usually `<folder>/<slide>.h5`.
        features: (N, D).
        coords: (N, 2), level-0 pixels.
        attributes: texts and numbers, see above; None is left out.

    Raises:
        InputError: h5py is missing.
        OSError: the disk is full or cannot be written.
    """
    h5py = _h5py()
    known = {key: value for key, value in attributes.items() if value is not None}
    content = io.BytesIO()  # a full disk then is an OSError, not whatever HDF5 makes of it
    with h5py.File(content, "w") as file:
        of_features = file.create_dataset(
            "features", data=np.asarray(features, np.float32), track_times=False
        )
        of_coords = file.create_dataset(
            "coords", data=np.asarray(coords, np.int64), track_times=False
        )
        file.attrs.update(known)
        of_coords.attrs.update(known)
        of_features.attrs.update({key: known[key] for key in AT_FEATURES if key in known})
    with atomic_path(path) as temporary:
        temporary.write_bytes(content.getbuffer())


def read_datasets(path: str | os.PathLike[str], names: tuple[str, ...]) -> dict[str, Any]:
    """Return those of the named data sets that the file has.

    Returns:
        Arrays by name (a group where one has the name); of a file with none of them the names of
        all it holds, with None.

    Raises:
        InputError: h5py is missing.
        Exception: whatever h5py raises on a file that is none of HDF5, or broken.
    """
    h5py = _h5py()
    with h5py.File(path, "r") as file:
        found = {name: file[name] for name in names if name in file}
        read = {
            name: one[()] if isinstance(one, h5py.Dataset) else one for name, one in found.items()
        }
        return read or dict.fromkeys(file)


def read_attributes(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return what the file, its `coords` and its `features` say of themselves, as plain values.

    Of one name at several places the file's own counts, then that of `coords`: TRIDENT has the
    encoder at `features`.

    Raises:
        InputError: h5py is missing.
        Exception: whatever h5py raises on a file that is none of HDF5, or broken.
    """
    h5py = _h5py()
    with h5py.File(path, "r") as file:
        found: dict[str, Any] = {}
        for name in ("features", "coords"):
            if name in file:
                found |= file[name].attrs
        return {key: _plain(value) for key, value in (found | dict(file.attrs)).items()}


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _h5py() -> ModuleType:
    try:
        import h5py
    except ImportError:
        raise InputError('HDF5 files need h5py: pip install "attnvgg[bags]".') from None
    module: ModuleType = h5py
    return module
