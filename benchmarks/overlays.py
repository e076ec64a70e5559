"""Overlays of both maps at 224 px on one core: ours against the tutorial's.

Both start from the picture, in the form that each works on, and the two maps, and end with two RGB
overlays; undoing the normalisation and drawing figures is left out of both. The results differ on
purpose: the tutorial stretches each map to its own range, ours stays on a fixed scale.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torchvision.utils import make_grid

from attnvgg.explain.overlays import overlay

SIZE, IMAGES, ROUNDS, TARGET = 224, 40, 7, 100
Maps = tuple[Tensor, Tensor]


def tutorial(picture: np.ndarray, maps: Maps) -> list[np.ndarray]:
    """Return the overlays as the tutorial makes them: grids, min-max stretch, float blending.

    Args:
        picture: floats in [0, 1], (H, W, 3).
        maps: softmax weights (1, h, w) of pool-3 and pool-4.
    """
    overlays = []
    for attention in maps:
        factor = SIZE // attention.shape[-1]
        large = functional.interpolate(
            attention[None], scale_factor=factor, mode="bilinear", align_corners=False
        )
        stretched = make_grid(large, normalize=True, scale_each=True)
        levels = stretched.permute(1, 2, 0).mul(255).byte().numpy()
        colours = cv2.cvtColor(cv2.applyColorMap(levels, cv2.COLORMAP_JET), cv2.COLOR_BGR2RGB)
        overlays.append(0.6 * picture + 0.4 * (np.float32(colours) / 255))
    return overlays


def ours(picture: np.ndarray, maps: Maps) -> list[np.ndarray]:
    """Return our overlays.

    Args:
        picture: bytes (H, W, 3).
        maps: as above.
    """
    return [overlay(picture, attention[0].numpy()) for attention in maps]


def softmax_map(side: int, generator: torch.Generator) -> Tensor:
    """Return random weights (1, side, side) that sum to 1."""
    return torch.randn(side * side, generator=generator).softmax(0).view(1, side, side)


def rate(make: Callable[[], object]) -> float:
    """Return images a second."""
    start = time.perf_counter()
    for _ in range(IMAGES):
        make()
    return IMAGES / (time.perf_counter() - start)


def main() -> None:
    """Print images a second of both, and their ratio."""
    torch_threads, cv2_threads = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    try:
        _measure()
    finally:
        torch.set_num_threads(torch_threads)
        cv2.setNumThreads(cv2_threads)


def _measure() -> None:
    generator = torch.Generator().manual_seed(0)
    picture = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    scaled = picture.astype(np.float32) / 255
    maps = (softmax_map(SIZE // 8, generator), softmax_map(SIZE // 16, generator))
    ways: dict[str, Callable[[], object]] = {
        "tutorial": lambda: tutorial(scaled, maps),
        "ours": lambda: ours(picture, maps),
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS + 1):
        for name, make in ways.items():
            rates[name].append(rate(make))
    typical = {name: statistics.median(values[1:]) for name, values in rates.items()}
    ratios = [a / b for a, b in zip(rates["ours"][1:], rates["tutorial"][1:], strict=True)]
    print(f"overlays: pool-3 and pool-4 over one image, {SIZE} px, one core")
    for name, value in typical.items():
        print(f"  {name:<9} {value:6.0f} images/s")
    met = "met" if typical["ours"] >= TARGET else "MISSED"
    print(f"  speed     {statistics.median(ratios):.2f}x the tutorial")
    print(f"  target    at least {TARGET} images/s: {met}")


if __name__ == "__main__":
    main()
