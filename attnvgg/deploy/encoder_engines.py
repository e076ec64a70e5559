"""Encoders computed by an engine, and how close their features are to those of PyTorch."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from attnvgg.deploy.engines import Engine, Source, open_engine
from attnvgg.deploy.engines.interface import Images, Refused

logger = logging.getLogger(__name__)

# Least mean cosine similarity, of the features and of what tells images apart in them. Features
# that are nearly the same for all images have a high one whatever else is lost.
LEAST = {"openvino-int8": (0.99, 0.95)}
USUAL = (0.9999, 0.999)
FLAT = 1e-6  # features that differ by less, relatively, tell nothing apart


@dataclass(frozen=True)
class Similarity:
    """How close the features of an engine are to those of PyTorch.

    Attributes:
        images: how many were compared.
        cosine: mean cosine similarity of the two feature vectors of an image.
        centred: the same with the mean of PyTorch's features taken off both; None where those
            do not differ.
    """

    images: int
    cosine: float
    centred: float | None

    @property
    def words(self) -> str:
        """Return the figures in a line."""
        rest = "" if self.centred is None else f", {self.centred:.4f} without their mean"
        return f"mean cosine similarity of the features {self.cosine:.4f}{rest} ({self.images})"

    def require(self, kind: str) -> None:
        """Raise Refused if the features are further apart than is accepted of this engine."""
        cosine, centred = LEAST.get(kind, USUAL)
        if self.cosine < cosine or (self.centred is not None and self.centred < centred):
            raise Refused(
                f"The engine {kind} is refused: its features are too far from those of PyTorch "
                f"({self.words}; at least {cosine:g} and {centred:g} are needed). Take 32 bits."
            )


def similarity(engine: Engine, reference: Engine, batches: Iterable[Images]) -> Similarity:
    """Return how close the features of an engine are to those of another, on images (B, C, H, W).

    Images without any features (all of them 0) are not counted.
    """
    pairs = [(engine(batch)[0], reference(batch)[0]) for batch in batches]
    mine, theirs = (np.concatenate(side).astype(np.float64) for side in zip(*pairs, strict=True))
    mean = theirs.mean(axis=0)
    differ = np.abs(theirs - mean).max() > FLAT * np.abs(theirs).max()
    centred = _cosine(mine - mean, theirs - mean) if differ else None
    return Similarity(len(mine), _cosine(mine, theirs), centred)


def _cosine(mine: Any, theirs: Any) -> float:
    """Return the mean cosine of the rows (n, D) of two arrays; 1 where both are 0 throughout."""
    products = (mine * theirs).sum(axis=1)
    sizes = np.linalg.norm(mine, axis=1) * np.linalg.norm(theirs, axis=1)
    counted = (np.linalg.norm(mine, axis=1) > 0) | (np.linalg.norm(theirs, axis=1) > 0)
    cosines = np.divide(products, sizes, out=np.zeros_like(products), where=sizes > 0)[counted]
    return float(cosines.mean()) if len(cosines) else 1.0


@dataclass(frozen=True, eq=False)
class EncoderImages:
    """Images for an engine of an encoder.

    Attributes:
        name: tells the calibration from others.
        calibration: returns images to calibrate 8 bits with, (B, C, side, side) each.
        held_out: returns others, which a built engine is compared with PyTorch on.
    """

    name: str
    calibration: Callable[[], list[Images]]
    held_out: Callable[[], list[Images]]


def encoder_source(
    network: nn.Module, shape: tuple[int, ...], images: EncoderImages | None = None
) -> Source:
    """Return what engines of an encoder are built from.

    Args:
        network: in eval mode; from (n, C, side, side) to features (n, D).
        shape: (C, side, side).
        images: to calibrate with and to compare on; without, 32 bits are compared on noise.
    """
    channels, side, _ = shape

    def verify(engine: Engine) -> dict[str, Any]:
        reference = open_engine("eager", source)
        found = similarity(engine, reference, images.held_out() if images else _noise(shape))
        logger.info("%s compared with PyTorch: %s", engine.name, found.words)
        found.require(engine.name)
        return asdict(found)

    source = Source(
        network=network,
        identity=f"{type(network).__name__} {getattr(network, 'spec', None)}",
        side=side,
        any_size=False,  # faster, and the only size that some encoders take
        calibration=images.calibration if images else None,
        calibration_name=images.name if images else "",
        verify=verify,
        channels=channels,
    )
    return source


def _noise(shape: tuple[int, ...]) -> list[Images]:
    return [np.random.default_rng(0).normal(size=(8, *shape)).astype(np.float32)]


class EngineEncoder(nn.Module):
    """An encoder that an engine computes, in the place of its network.

    Args:
        engine: from (n, C, H, W) to features (n, D).
    """

    def __init__(self, engine: Engine) -> None:
        super().__init__()
        self.engine = engine

    def forward(self, images: Tensor) -> Tensor:
        """Encode images (n, C, H, W); the features are where the images are, (n, D)."""
        return torch.from_numpy(self.engine(images.cpu().numpy())[0]).to(images.device)
