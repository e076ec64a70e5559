"""What a slide says about the size of its pixels, and whether it can be believed."""

from __future__ import annotations

import math
from collections.abc import Mapping

TOLERANCE = 1.05  # two resolutions are the same when neither is finer than this
# Microns of a pixel. Programs that know nothing write 72 dots an inch into TIFFs, 353 microns.
LEAST, MOST = 0.01, 20.0


def stated_mpp(properties: Mapping[str, str]) -> tuple[float | None, str]:
    """Return the microns per pixel that a file states, or None and what is wrong.

    OpenSlide takes them from what each scanner writes, and from the resolution of plain TIFFs.
    """
    found = (positive(properties.get(f"openslide.mpp-{axis}")) for axis in "xy")
    known = [value for value in found if value is not None]
    if not known:
        return None, "does not say how many microns a pixel is"
    if not same_mpp(known[0], known[-1]):
        return None, f"has pixels that are not square, {known[0]:.4g} x {known[-1]:.4g} microns"
    mpp = sum(known) / len(known)
    if not LEAST <= mpp <= MOST:
        return None, f"says that a pixel is {mpp:.4g} microns wide, which no scan has"
    return mpp, ""


def positive(text: str | None) -> float | None:
    """Return a property as a positive number, or None."""
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) and value > 0 else None


def same_mpp(one: float, other: float) -> bool:
    """Whether two resolutions are within 5 % of each other."""
    return max(one, other) <= TOLERANCE * min(one, other)
