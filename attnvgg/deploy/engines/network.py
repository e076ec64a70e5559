"""A network prepared for computing only: folded, traced."""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.nn.utils.fusion import fuse_conv_bn_eval

from attnvgg.deploy.engines.interface import Source


class Outputs(nn.Module):
    """A network whose outputs are a tuple of tensors: those that are not None.

    Args:
        network: returns a tensor, or a tuple of tensors and None.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Pass images (B, 3, H, W) through."""
        found = self.network(images)
        parts = (found,) if isinstance(found, Tensor) else found
        return tuple(part for part in parts if part is not None)


def folded(network: nn.Module) -> nn.Module:
    """Return a copy in eval mode in which a convolution does its batch normalisation as well.

    Only a normalisation that follows its convolution within one `nn.Sequential` can be known to
    see nothing else.
    """
    found = copy.deepcopy(network).eval().requires_grad_(False)
    for module in found.modules():
        if isinstance(module, nn.Sequential):
            _fold(module)
    return found


def _fold(layers: nn.Sequential) -> None:
    # not named_children, which leaves out a layer that occurs a second time
    for (name, layer), (next_name, following) in pairwise(list(layers._modules.items())):
        if isinstance(layer, nn.Conv2d) and isinstance(following, nn.BatchNorm2d):
            setattr(layers, name, fuse_conv_bn_eval(layer, following))
            setattr(layers, next_name, nn.Identity())


def traced(source: Source) -> ExportedProgram:
    """Return the network as a graph, for batches of any number and, if it can, images of any size.

    The example is no square, or height and width would be taken for the same.
    """
    side = source.side
    example = torch.zeros(2, source.channels, side, side)
    dynamic: dict[int, Any] = {0: Dim.DYNAMIC}
    if source.any_size:
        example = torch.zeros(2, source.channels, max(side, 64), max(side, 64) + 32)
        dynamic |= {2: Dim.DYNAMIC, 3: Dim.DYNAMIC}
    with torch.no_grad():
        return torch.export.export(
            Outputs(folded(source.network)), (example,), dynamic_shapes={"images": dynamic}
        )
