"""Grad-CAM (Selvaraju et al., ICCV 2017) by the library grad-cam: a map for one class at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from attnvgg.errors import InputError

BATCH = 32


class ClassLogits(nn.Module):
    """A model of ours as one that returns a logit for each class, (B, K), two of them for K=1."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits of images (B, 3, H, W); one logit z speaks for -z and z."""
        logits: Tensor = self.model(images).logits
        return torch.cat([-logits, logits], dim=1) if logits.shape[1] == 1 else logits


def grad_cam(
    model: nn.Module, images: Tensor, classes: Sequence[int], layer: nn.Module | None = None
) -> NDArray[np.float32]:
    """Return what speaks for a class in each image, (B, h, w), stretched to [0, 1] an image.

    Nothing is left behind: flags and gradients of the model are as they were.

    Args:
        model: in eval mode, with `logits` in what it returns.
        images: normalised, (B, 3, H, W), where the model is.
        classes: one an image.
        layer: whose output is weighted; absent: `last_convolution` of the model.

    Raises:
        InputError: the library is not installed, or there is not a class an image.
    """
    try:
        from pytorch_grad_cam import GradCAM
        from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
    except ImportError as error:
        raise InputError(
            'Grad-CAM needs the package grad-cam: pip install "attnvgg[explain]".'
        ) from error
    if len(classes) != len(images):
        raise InputError(f"{len(images)} images need a class each, not {len(classes)}.")

    class OnItsGrid(GradCAM):
        """The library enlarges to the input, and the grid of the map would be lost."""

        def get_target_width_height(self, input_tensor: Tensor) -> tuple[int, int]:
            height, width = self.activations_and_grads.activations[0].shape[2:]
            return width, height

    found = []
    targets = [ClassifierOutputTarget(int(which)) for which in classes]
    with (
        _without_gradients_of_weights(model),
        torch.inference_mode(False),
        torch.enable_grad(),
        OnItsGrid(ClassLogits(model), [layer or last_convolution(model)]) as method,
    ):
        for first in range(0, len(images), BATCH):
            part = slice(first, first + BATCH)
            batch = images[part].clone().requires_grad_()  # the library asks for gradients by it
            found.append(method(batch, targets[part]))
    return np.concatenate(found).astype(np.float32)


def last_convolution(model: nn.Module) -> nn.Module:
    """Return the layer behind which the last convolution's map, H/16 x W/16 in VGG, is whole.

    That is its rectifier, as in the paper: in VGG it works in place, so a convolution's own
    output does not survive it.

    Raises:
        InputError: the model has no convolution with a rectifier behind it.
    """
    behind, found = False, None
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module.kernel_size != (1, 1):  # not attention's own
            behind = True
        elif isinstance(module, nn.ReLU) and behind:
            behind, found = False, module
    if found is None:
        raise InputError("Grad-CAM needs a model with convolutions and rectifiers behind them.")
    return found


@contextmanager
def _without_gradients_of_weights(model: nn.Module) -> Iterator[None]:
    """Keep the backward pass from filling the weights' gradients, which nobody asked for."""
    wanted = [weight for weight in model.parameters() if weight.requires_grad]
    training = [module for module in model.modules() if module.training]
    for weight in wanted:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for weight in wanted:
            weight.requires_grad_(True)
        for module in training:  # the library sets eval mode
            module.training = True
