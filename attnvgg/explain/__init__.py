"""Maps to pictures, on a scale that does not flatter."""

from attnvgg.explain.figures import Case, save_grid, save_single
from attnvgg.explain.overlays import (
    Kind,
    Region,
    ScaledMap,
    overlay,
    scale_map,
    upsample,
)

__all__ = [
    "Case",
    "Kind",
    "Region",
    "ScaledMap",
    "overlay",
    "save_grid",
    "save_single",
    "scale_map",
    "upsample",
]
