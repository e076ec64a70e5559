"""What every engine is, and what one is made of."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from attnvgg.errors import InputError

Images = NDArray[np.float32]
Outputs = tuple[NDArray[np.float32], ...]


class Refused(InputError):
    """An engine whose answers are too far from those of PyTorch."""


class Engine(ABC):
    """A network that is ready to compute; may be called by several threads at once.

    Attributes:
        name: one of `ENGINES`.
        words: what it computes with, for people.
        agreement: what its comparison with PyTorch gave when it was built; None: not compared.
    """

    name: str
    words: str
    agreement: dict[str, Any] | None = None

    @abstractmethod
    def __call__(self, images: Images) -> Outputs:
        """Return what the network makes of images (B, 3, H, W): its outputs that are not None."""


@dataclass(frozen=True, eq=False)
class Source:
    """A network as engines are made of it.

    Attributes:
        network: in eval mode, on the CPU; from (B, channels, H, W) to a tensor or a tuple of
            tensors and None.
        identity: what decides the computation beside the weights, such as class and arguments.
        side: of the images that it is meant for, in pixels.
        any_size: whether it takes images of other sides as well.
        calibration: for 8 bits: images (B, 3, side, side), of what the network was trained on.
        calibration_name: says which they are; another name is another engine.
        verify: compares an engine that was built from files with PyTorch, once; returns what is
            to be remembered of that, or raises `Refused`.
        channels: of the images.
        weights: digest of the network's, if it is known already.
    """

    network: nn.Module
    identity: str
    side: int
    any_size: bool = True
    calibration: Sequence[Images] | Callable[[], Sequence[Images]] | None = None
    calibration_name: str = ""
    verify: Callable[[Engine], dict[str, Any]] | None = None
    channels: int = 3
    weights: str | None = None
