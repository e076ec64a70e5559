"""Maps to pictures, on a scale that does not flatter."""

from attnvgg.explain.bag_case import BagCase
from attnvgg.explain.bag_figures import save_bag_grid
from attnvgg.explain.case import Case
from attnvgg.explain.figures import LONGEST, save_grid, save_panels
from attnvgg.explain.overlays import (
    Interpolation,
    Kind,
    ScaledMap,
    overlay,
    scale_map,
    upsample,
)

__all__ = [
    "LONGEST",
    "BagCase",
    "Case",
    "Interpolation",
    "Kind",
    "ScaledMap",
    "overlay",
    "save_bag_grid",
    "save_grid",
    "save_panels",
    "scale_map",
    "upsample",
]
