"""Room for the maps of frozen stages: they are large, and can be computed again."""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path

from filelock import Timeout

from attnvgg.data.frozen import MapStore
from attnvgg.errors import InputError
from attnvgg.files import lock_beside

logger = logging.getLogger(__name__)

ABOUT = "about.json"  # in each folder of maps; its time says when they were last wanted
RESERVE = 2**30  # bytes of the disk that are left free


def make_room(stores: Sequence[MapStore], home: Path, limit_bytes: int) -> None:
    """Remove what was not wanted for longest, until these stores fit.

    Raises:
        InputError: they do not fit.
    """
    total = sum(store.bytes for store in stores)
    what = " and ".join(
        f"{store.images} images in {store.views} view{'s' * (store.views > 1)}" for store in stores
    )
    needs = f"The maps of {what} take {total / 1e9:.2f} GB"
    if total > limit_bytes:
        raise InputError(
            f"{needs}, more than --frozen.cache_gib {limit_bytes / 2**30:.3g}: raise it, or lower "
            "--frozen.views."
        )
    mine = {store.folder for store in stores}
    others = sorted(
        (path.stat().st_mtime, path.parent)
        for path in home.glob(f"*/{ABOUT}")
        if path.parent not in mine and _is_ours(path)
    )
    used = {folder: _bytes(folder) for _, folder in others}
    for _, folder in others:
        if total + sum(used.values()) <= limit_bytes:
            break
        if _removed(folder):
            used.pop(folder)
    to_write = total - sum(_bytes(folder) for folder in mine)
    free = shutil.disk_usage(home).free - RESERVE
    if to_write > free:
        raise InputError(
            f"{needs}, and {home} has room for {max(0, free) / 1e9:.2f} GB: make room, lower "
            "--frozen.views, or choose another --frozen.cache."
        )
    if to_write > 0:
        logger.info("%s in %s, computed once.", needs, home)


def _is_ours(about: Path) -> bool:
    """Tell folders of maps from whatever else lies there."""
    try:
        found = json.loads(about.read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and {"format", "images", "views", "shapes"} <= set(found)


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.maps"))


def _removed(folder: Path) -> bool:
    """Remove maps, unless somebody computes them; who has opened them has them until the end."""
    try:
        with lock_beside(folder).acquire(timeout=0):
            for path in (folder / ABOUT, *folder.glob("*.maps")):
                path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                folder.rmdir()  # unless it holds something else
    except Timeout:
        return False
    return True
