"""Maps to pictures, on a scale that does not flatter."""

from attnvgg.explain.bag_case import BagCase
from attnvgg.explain.bag_figures import save_bag_grid
from attnvgg.explain.case import Case
from attnvgg.explain.figures import LONGEST, grid_png, save_grid, save_panels
from attnvgg.explain.overlays import (
    Interpolation,
    Kind,
    ScaledMap,
    map_kind,
    overlay,
    scale_map,
    upsample,
)
from attnvgg.explain.slide_figures import save_slide
from attnvgg.explain.slide_maps import SlideCase, found_shares, heat_map, write_map, write_polygons

__all__ = [
    "LONGEST",
    "BagCase",
    "Case",
    "Interpolation",
    "Kind",
    "ScaledMap",
    "SlideCase",
    "found_shares",
    "grid_png",
    "heat_map",
    "map_kind",
    "overlay",
    "save_bag_grid",
    "save_grid",
    "save_panels",
    "save_slide",
    "scale_map",
    "upsample",
    "write_map",
    "write_polygons",
]
