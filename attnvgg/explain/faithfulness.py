"""Whether the model needs what a map marks: deletion and insertion (Petsiuk et al., BMVC 2018).

Deletion blurs the marked places first, and a faithful map makes the probability fall at once: a
low area under the curve is good. Insertion starts from the blurred picture and brings the marked
places back first: a high area is good. Both areas depend on the model and on the picture, so they
mean something only beside those of random maps on the same pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur
from tqdm import tqdm

from attnvgg.errors import InputError
from attnvgg.explain.localisation import enlarge

Values = NDArray[np.float64]
Places = NDArray[np.int64]
Probabilities = Callable[[Tensor], Tensor]
"""A model: from images (B, 3, H, W) to probabilities (B, K)."""

STEPS = 50
BLUR = 10 / 224  # standard deviation as a share of the side (Fong and Vedaldi, ICCV 2017)
BATCH = 64


class Curves(NamedTuple):
    """Probability of each image's class along the way, (n, steps + 1) each."""

    deletion: Values
    insertion: Values

    @property
    def areas(self) -> tuple[Values, Values]:
        """Return the areas under both curves, (n,) each, by the trapezoid rule."""
        return area(self.deletion), area(self.insertion)


def area(curves: Values) -> Values:
    """Return the area under curves (n, steps + 1) over the share of pixels from 0 to 1, (n,)."""
    found: Values = np.trapezoid(curves, dx=1 / (curves.shape[1] - 1), axis=1)
    return found


def blurred(images: Tensor, share: float = BLUR) -> Tensor:
    """Return images (B, 3, H, W) without their details.

    Args:
        images: normalised or not.
        share: standard deviation of the Gaussian, as a share of the shorter side.
    """
    sigma = share * min(images.shape[2:])
    reach = max(1, min(round(3 * sigma), min(images.shape[2:]) - 1))  # what reflection allows
    return gaussian_blur(images, [2 * reach + 1, 2 * reach + 1], [sigma, sigma])


def random_map(random: np.random.Generator, height: int, width: int) -> Values:
    """Return a map without a message, (height, width) in [0, 1]; enlarged it is smooth."""
    return random.random((height, width))


def centred_gaussian(height: int, width: int) -> Values:
    """Return a map that only knows where lesions tend to be; its deviation is 1/4 of a side."""
    rows, columns = (((np.arange(n) + 0.5) / n - 0.5) / 0.25 for n in (height, width))
    gaussian: Values = np.exp(-(rows[:, None] ** 2 + columns[None, :] ** 2) / 2)
    return gaussian


def rank_pixels(attention: Values, side: int, random: np.random.Generator) -> Places:
    """Return the turn of each pixel of the input, (side, side): 0 for the highest weight.

    Places that the map does not tell apart come in the order of a random map of its own grid: a
    flat map is then exactly one draw of the null.
    """
    ties = enlarge(random_map(random, *attention.shape), side)
    order = np.lexsort((ties.ravel(), -enlarge(attention, side).ravel()))
    turns = np.empty(side * side, np.int64)
    turns[order] = np.arange(side * side)
    return turns.reshape(side, side)


def replacing_curve(
    probabilities: Probabilities,
    start: Tensor,
    end: Tensor,
    turns: Places,
    which: int,
    steps: int = STEPS,
) -> Values:
    """Return a probability while one image becomes another, (steps + 1,).

    Args:
        probabilities: the model.
        start: image (3, H, W).
        end: image (3, H, W) that replaces it pixel by pixel.
        turns: of the pixels, (H, W).
        which: class whose probability is followed.
        steps: parts of equally many pixels, up to one.
    """
    place = torch.from_numpy(turns).to(start.device)
    limits = np.rint(np.linspace(0, turns.size, steps + 1)).astype(int).tolist()
    found = []
    for first in range(0, len(limits), BATCH):
        replaced = torch.stack([place < limit for limit in limits[first : first + BATCH]])
        found.append(probabilities(torch.where(replaced[:, None], end, start))[:, which].cpu())
    return torch.cat(found).double().numpy()


def follow(
    probabilities: Probabilities,
    images: Tensor,
    maps: Mapping[str, Sequence[Values] | Values],
    classes: Sequence[int],
    *,
    steps: int = STEPS,
    draws: int = 3,
    seed: int = 0,
) -> dict[str, Curves]:
    """Return the curves of maps, and of random maps on each of their grids.

    The null is the mean of several draws an image, named as by `null_name`. A random order read
    backwards is a random order, and insertion in an order is deletion in the reverse one, read
    from the end: the draws are therefore evaluated once and serve both.

    Args:
        probabilities: the model.
        images: normalised squares (n, 3, side, side).
        maps: by name, weights (n, h, w).
        classes: whose probability is followed, one an image.
        steps: parts of equally many pixels.
        draws: of random maps an image and grid.
        seed: of the draws.

    Raises:
        InputError: not a square, not a map and a class an image, or no steps or draws.
    """
    count, _, side, width = images.shape
    if side != width or any(len(found) != count for found in (classes, *maps.values())):
        raise InputError("Squares (n, 3, side, side) need a map and a class each.")
    if steps < 1 or draws < 1:
        raise InputError("Deletion and insertion need at least one step and one draw.")
    grids = {np.shape(found)[1:] for found in maps.values()}
    names = [*maps, *(null_name(grid) for grid in sorted(grids))]
    curves = {name: Curves(*np.empty((2, count, steps + 1))) for name in names}
    baselines = blurred(images)
    for row in tqdm(range(count), "deletion, insertion", unit="image", leave=False, disable=None):
        random = np.random.default_rng((seed, row))
        ways = (images[row], baselines[row]), (baselines[row], images[row])
        for name, found in maps.items():
            turns = rank_pixels(np.asarray(found[row]), side, random)
            for way, into in zip(ways, curves[name], strict=True):
                into[row] = replacing_curve(probabilities, *way, turns, classes[row], steps)
        for grid in grids:
            null = [
                replacing_curve(
                    probabilities,
                    *ways[0],
                    rank_pixels(random_map(random, *grid), side, random),
                    classes[row],
                    steps,
                )
                for _ in range(draws)
            ]
            deletion, insertion = curves[null_name(grid)]
            deletion[row] = np.mean(null, axis=0)
            insertion[row] = deletion[row][::-1]
    return curves


def null_name(grid: Sequence[int]) -> str:
    """Return the name of the random maps of a grid (h, w)."""
    return f"random {grid[0]}x{grid[1]}"
