"""The images on which maps are judged, the maps of them, and the model as a plain function."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from attnvgg.data.inspection import image_size, refusal
from attnvgg.evaluation.bootstrap import Bootstrapped, group_bootstrap, share_interval
from attnvgg.evaluation.intervals import group_codes
from attnvgg.evaluation.probabilities import class_names
from attnvgg.explain.faithfulness import Probabilities
from attnvgg.explain.grad_cam import grad_cam
from attnvgg.models import Pretrained
from attnvgg.training.checkpoint import preprocess_of

BATCH = 64
GRAD_CAM = "Grad-CAM"
CURVE_RESAMPLES = 1000


@dataclass(frozen=True, eq=False)
class MapSample:
    """Images as the model sees them, and what is known of each."""

    pixels: np.ndarray
    """RGB (n, side, side, 3)."""
    images: Tensor
    """The same normalised, (n, 3, side, side)."""
    masks: np.ndarray
    """Of the lesions, (n, side, side); nothing where there is none."""
    has_mask: np.ndarray
    labels: np.ndarray
    groups: np.ndarray | None
    classes: list[str]
    called: np.ndarray
    """Class that the model calls, of each image; all curves and Grad-CAM are about it."""

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def patients(self) -> int:
        """Count the groups."""
        return len(self) if self.groups is None else len(set(self.codes.tolist()))

    @property
    def codes(self) -> np.ndarray:
        """Return a number for the group of each image."""
        codes: np.ndarray = np.arange(len(self))
        return codes if self.groups is None else group_codes(self.groups, len(self))

    def mean(self, values: Any, resamples: int = 2000) -> dict[str, Any]:
        """Return the mean of a figure, its 95 % interval over patients, and how many it is of.

        Args:
            values: (n,); NaN where undefined: such images do not count.
            resamples: of the patients.
        """
        values = np.asarray(values, np.float64)
        kept = np.isfinite(values)
        count, groups = int(kept.sum()), self.codes[kept]
        if not count:
            return self._empty()
        both = np.stack([values[kept], np.ones(count)], axis=1)
        positive = self.labels[kept] > 0
        found = group_bootstrap(
            both, positive, lambda sums: sums[:, 0] / sums[:, 1], groups, resamples=resamples
        )
        return {**asdict(found), "count": count}

    def share(self, hits: Any) -> dict[str, Any]:
        """Return the same for a share, see `share_interval`.

        Args:
            hits: from 0 to 1, (n,); NaN where undefined.
        """
        hits = np.asarray(hits, np.float64)
        kept = np.isfinite(hits)
        if not kept.any():
            return self._empty()
        found = share_interval(hits[kept], self.labels[kept] > 0, self.codes[kept])
        return {**found, "count": int(kept.sum())}

    def _empty(self) -> dict[str, Any]:
        return {**asdict(Bootstrapped(None, None, None, "no image has one")), "count": 0}

    def band(self, curves: np.ndarray) -> dict[str, list[float | None]]:
        """Return the means of curves (n, steps + 1) and their intervals, point by point."""
        points = [self.mean(values, CURVE_RESAMPLES) for values in curves.T]
        return {key: [point[key] for point in points] for key in ("value", "lower", "upper")}


def read_sample(model: Pretrained, rows: pd.DataFrame, device: torch.device) -> MapSample:
    """Read images and masks, and ask the model what it calls the images.

    Raises:
        InputError: a file cannot be read, or a mask has another size than its image.
    """
    preprocess = preprocess_of(model, convert=False)
    pixels = np.stack([preprocess.centre(preprocess.load(path)) for path in rows["image"]])
    masks = np.zeros(pixels.shape[:3], bool)
    known = rows["mask"].notna().to_numpy() if "mask" in rows else np.zeros(len(rows), bool)
    for row in np.flatnonzero(known):
        path, image = rows["mask"].iloc[row], rows["image"].iloc[row]
        size, wanted = image_size(path), image_size(image)
        if size != wanted:
            raise refusal(path, f"has {size} rows and columns of pixels, its image {wanted}")
        masks[row] = preprocess.centre(preprocess.load_mask(path)) >= 128
    images = torch.stack([preprocess.normalise(one) for one in pixels]).to(device)
    probabilities = batched(probabilities_of(model), images).cpu().numpy()
    threshold = model.config.get("threshold")
    if probabilities.shape[1] == 2 and threshold is not None:
        called = (probabilities[:, 1] >= threshold).astype(int)
    else:
        called = probabilities.argmax(axis=1)
    return MapSample(
        pixels=pixels,
        images=images,
        masks=masks,
        has_mask=known,
        labels=rows["label"].to_numpy(),
        groups=rows["group"].to_numpy() if "group" in rows else None,
        classes=class_names(model.config, probabilities.shape[1]),
        called=called,
    )


def probabilities_of(model: nn.Module) -> Probabilities:
    """Return the model as a function from images (B, 3, H, W) to probabilities (B, 2 or more)."""

    def probabilities(images: Tensor) -> Tensor:
        with torch.inference_mode():
            logits: Tensor = model(images).logits.double()
        if logits.shape[1] > 1:
            return logits.softmax(1)
        return torch.cat([(-logits).sigmoid(), logits.sigmoid()], dim=1)

    return probabilities


def batched(function: Probabilities, images: Tensor) -> Tensor:
    """Return what a function says of many images, computed in parts."""
    return torch.cat([function(images[i : i + BATCH]) for i in range(0, len(images), BATCH)])


def maps_of(model: nn.Module, images: Tensor, classes: Sequence[int]) -> dict[str, np.ndarray]:
    """Return the maps that a model offers, (n, h, w) each, by name.

    Args:
        model: with or without attention.
        images: (n, 3, side, side).
        classes: that Grad-CAM is of, one an image.
    """
    found: dict[str, list[Tensor]] = {"pool-3": [], "pool-4": []}
    with torch.inference_mode():
        for first in range(0, len(images), BATCH):
            _, *both = model(images[first : first + BATCH])
            for parts, attention in zip(found.values(), both, strict=True):
                if attention is not None:
                    parts.append(attention[:, 0].cpu())
    maps = {name: torch.cat(parts).numpy() for name, parts in found.items() if parts}
    return {**maps, GRAD_CAM: grad_cam(model, images, classes)}


def untrained(model: Pretrained, seed: int) -> Pretrained:
    """Return a model of the same kind that has learned nothing, where the model is."""
    device = next(model.parameters()).device
    state = torch.random.get_rng_state()
    torch.manual_seed(seed)
    try:
        fresh = type(model)(**deepcopy(model.config["arguments"]))
    finally:
        torch.random.set_rng_state(state)
    return fresh.to(device).eval()
