"""VGG as five stages, cut after its five poolings."""

import os
import pickle
from collections.abc import Iterator, Sequence
from http.client import HTTPException
from typing import TYPE_CHECKING, Any, Self, TypeAlias, Union

import torch
from torch import Tensor, nn

from attnvgg.errors import InputError
from attnvgg.models.weights import State, load_state, read_state

if TYPE_CHECKING:  # importing it takes a third of a new process's time to its first answer
    from torchvision.models import WeightsEnum

Weights: TypeAlias = Union[str, os.PathLike[str], "WeightsEnum", None]
Image: TypeAlias = Tensor | Sequence[Tensor | None]  # pixels, or maps of the first stages

CONVOLUTIONS = {11: (1, 1, 2, 2, 2), 13: (2,) * 5, 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
"""Of each stage, by the depth; Simonyan and Zisserman, Very deep convolutional networks for
large-scale image recognition (ICLR 2015), table 1."""

BACKBONES = tuple(f"vgg{depth}{norm}" for depth in CONVOLUTIONS for norm in ("", "_bn"))
CHANNELS = (64, 128, 256, 512, 512)  # of the five pooled maps, the same in every VGG
SMALLEST = 32  # pixels a side: below it, five halvings leave nothing

# Whatever a proxy, a firewall, a full disk or a cut download raises on the way.
UNAVAILABLE = (OSError, HTTPException, RuntimeError, EOFError, pickle.UnpicklingError)


class WeightsUnavailable(InputError):
    """ImageNet weights could not be fetched; the message says the ways out."""


class VGGStages(nn.Sequential):
    """The convolutional part of VGG, one stage a pooling, each halving the image.

    Attributes:
        frozen: so many stages, from the first on, are not trained.
    """

    frozen: int = 0

    def freeze(self, count: int) -> None:
        """Keep the first stages as they are: weights, and the statistics of batch norm.

        Call it before an optimiser, or what shares the model among processes, is made.
        """
        self.frozen = count
        self.requires_grad_(True)
        for stage in self[:count]:
            stage.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Set the mode; frozen stages stay in eval mode."""
        super().train(mode)
        for stage in self[: self.frozen]:
            stage.eval()
        return self

    def forward(self, image: Image) -> tuple[Tensor, ...]:
        """Return the pooled map of each stage, (B, 64, H/2, W/2) to (B, 512, H/32, W/32).

        Args:
            image: (B, 3, H, W), normalised, at least 32 pixels a side, square or not; or the maps
                of the first stages, computed before, None for those that nobody asks for: the
                stages after them go on from the last.

        Raises:
            InputError: another shape.
        """
        maps: list[Any] = [] if isinstance(image, Tensor) else list(image)
        newest: Tensor = maps[-1] if maps else _checked(image)
        for number in range(len(maps), len(self)):
            with torch.set_grad_enabled(torch.is_grad_enabled() and number >= self.frozen):
                newest = self[number](newest)  # (B, C, H / 2**i, W / 2**i)
            maps.append(newest)
        return tuple(maps)


class Trunk(nn.Module):
    """The first stages alone, as a network that returns what the rest of a model reads.

    Args:
        stages: of the model.
        count: how many of them.
        reads: numbers of the stages, from 1 on, whose maps the model reads.
    """

    def __init__(self, stages: VGGStages, count: int, reads: Sequence[int]) -> None:
        super().__init__()
        self.stages = stages[:count]
        self.kept = tuple(sorted({count} | {number for number in reads if number <= count}))

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Return the maps of the stages `kept`."""
        maps = self.stages(image)
        return tuple(maps[number - 1] for number in self.kept)


def _checked(image: Image) -> Tensor:
    assert isinstance(image, Tensor)
    if image.ndim != 4 or image.shape[1] != 3:
        raise InputError(f"Images must be (B, 3, H, W), not {tuple(image.shape)}.")
    if min(image.shape[2:]) < SMALLEST:
        height, width = image.shape[2:]
        raise InputError(
            f"Images must be at least {SMALLEST} pixels a side, not {height} x {width}."
        )
    return image


def vgg_stages(backbone: str, state: State | None = None, origin: object = None) -> VGGStages:
    """Build the stages of a VGG, at random or from torchvision's weights.

    Args:
        backbone: one of `BACKBONES`.
        state: weights under torchvision's names; `classifier.*` is not looked at.
        origin: where they come from, for the message when they do not fit.
    """
    _check_backbone(backbone)
    depth, _, norm = backbone.removeprefix("vgg").partition("_")
    widths = (3, *CHANNELS)
    with torch.device("meta"):  # each value is drawn once, below
        stages = [
            nn.Sequential(*_stage(widths[number], widths[number + 1], repeats, bool(norm)))
            for number, repeats in enumerate(CONVOLUTIONS[int(depth)])
        ]
    features = nn.Sequential(*(layer for stage in stages for layer in stage))  # torchvision's names
    features.to_empty(device=torch.get_default_device()).apply(_initialise)
    if state is not None:
        load_state(features, select(state, "features."), origin)
    return VGGStages(*stages)


def _check_backbone(backbone: str) -> None:
    if backbone not in BACKBONES:
        raise InputError(f'There is no backbone "{backbone}"; choose from {", ".join(BACKBONES)}.')


def _initialise(layer: nn.Module) -> None:
    if isinstance(layer, nn.Conv2d):
        nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    elif isinstance(layer, nn.BatchNorm2d):
        layer.reset_parameters()


def _stage(channels: int, width: int, repeats: int, norm: bool) -> Iterator[nn.Module]:
    for _ in range(repeats):
        yield nn.Conv2d(channels, width, kernel_size=3, padding=1)
        if norm:
            yield nn.BatchNorm2d(width)
        yield nn.ReLU(inplace=True)
        channels = width
    yield nn.MaxPool2d(kernel_size=2, stride=2)  # halves the image


def select(state: State, prefix: str) -> dict[str, Tensor]:
    """Keep the weights whose names start with `prefix`, and drop it from their names."""
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in state.items()
        if name.startswith(prefix)
    }


def torchvision_state(backbone: str, weights: Weights) -> State | None:
    """Read or fetch weights of a VGG under torchvision's names.

    Args:
        backbone: one of `BACKBONES`.
        weights: "imagenet" or a member of torchvision's enum (fetched once, then cached), a local
            file (.safetensors or .pth), or none.

    Raises:
        InputError: unreadable file, or the enum of another network.
        WeightsUnavailable: the weights could not be fetched.
    """
    _check_backbone(backbone)
    if weights is None:
        return None
    from torchvision.models import WeightsEnum, get_model_weights

    known = get_model_weights(backbone)
    if is_imagenet(weights):
        weights = known["DEFAULT"]
    if not isinstance(weights, WeightsEnum):
        return read_state(weights)
    if not isinstance(weights, known):
        raise InputError(f"{weights} are not weights of {backbone}.")
    try:
        return weights.get_state_dict(progress=True, check_hash=True)
    except UNAVAILABLE as error:
        raise unavailable(backbone, error, f"a local copy of {weights.url}") from error


def is_imagenet(weights: object) -> bool:
    """Tell whether the weights are those that are fetched by name."""
    return isinstance(weights, str) and weights.lower() == "imagenet"


def unavailable(model: str, error: Exception, copy: str = "a local copy") -> WeightsUnavailable:
    """Return the error that says why ImageNet weights are not here, and what to do."""
    reason = str(error).partition("\n")[0]
    return WeightsUnavailable(
        f"The ImageNet weights of {model} could not be fetched ({reason}): connect to the "
        f"network, give the path of {copy}, or choose no weights."
    )
