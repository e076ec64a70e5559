"""Networks of torchvision and timm without their last layer."""

import os
from typing import Any, TypeAlias

from torch import nn

from attnvgg.errors import InputError
from attnvgg.models.backbone import UNAVAILABLE, is_imagenet, unavailable
from attnvgg.models.weights import load_state, read_state

LocalWeights: TypeAlias = str | os.PathLike[str] | None


def torchvision_body(model: str, weights: LocalWeights = None) -> tuple[nn.Module, int]:
    """Return a classifier of torchvision without its last linear layer, and its features.

    Args:
        model: its name there.
        weights: "imagenet", a local file, or none.

    Raises:
        InputError: an unknown model, or one that does not end in a single linear layer.
        WeightsUnavailable: the weights could not be fetched.
    """
    from torchvision import models  # slow to import

    # Its detectors and segmenters, not in this list, would fetch weights unasked.
    if model not in models.list_models(module=models):
        raise InputError(f"torchvision has no classifier {model!r}.")
    if model in ("googlenet", "inception_v3"):  # in training they return three outputs
        raise InputError(f"{model} of torchvision has more than one last layer.")
    fetch = is_imagenet(weights)
    try:
        network = models.get_model(model, weights="DEFAULT" if fetch else None)
    except UNAVAILABLE as error:
        raise unavailable(model, error) from error
    linear = [name for name, layer in network.named_modules() if type(layer) is nn.Linear]
    if not linear:
        raise InputError(f"{model} of torchvision does not end in a linear layer.")
    features = network.get_submodule(linear[-1]).in_features
    cut(network, linear[-1])
    if weights is not None and not fetch:
        _load_body(network, weights, (linear[-1],))
    return network, features


def timm_body(model: str, weights: LocalWeights = None) -> tuple[nn.Module, int]:
    """Return a network of timm without its last layer, and its features.

    Args:
        model: its name there.
        weights: "imagenet" for those of timm, a local file, or none.

    Raises:
        InputError: timm is not installed, has no such model or cannot build it.
        WeightsUnavailable: the weights could not be fetched.
    """
    try:
        import timm
    except ImportError:
        raise InputError('Networks of timm need timm: pip install "attnvgg[models]".') from None
    if not timm.is_model(model):  # a name such as hf-hub:owner/name would be fetched
        raise InputError(f"timm has no model {model!r}.")
    fetch = is_imagenet(weights)
    try:
        network: Any = timm.create_model(model, pretrained=fetch, num_classes=0)
    except Exception as error:  # what a download raises changes with the version
        if fetch:
            raise unavailable(model, error) from error
        raise InputError(f"timm cannot build {model}: {error}.") from error
    if weights is not None and not fetch:
        heads = network.pretrained_cfg.get("classifier") or ()
        heads = (heads,) if isinstance(heads, str) else tuple(heads)
        _load_body(network, weights, heads)
    return network, network.head_hidden_size


def cut(network: nn.Module, last: str) -> nn.Module:
    """Replace the last layer, so that the network returns what went into it."""
    network.set_submodule(last, nn.Identity())
    return network


def _load_body(network: nn.Module, path: str | os.PathLike[str], heads: tuple[str, ...]) -> None:
    """Load all weights of a file but those of the last layer, which was cut."""
    prefixes = tuple(f"{head}." for head in heads)
    state = read_state(path)
    body = {name: tensor for name, tensor in state.items() if not name.startswith(prefixes)}
    load_state(network, body, path)
