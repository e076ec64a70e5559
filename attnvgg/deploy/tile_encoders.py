"""What turns the tiles of a slide into vectors, and the name by which its features are known."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from attnvgg.data.features import feature_attributes
from attnvgg.data.transforms import Preprocess
from attnvgg.deploy.encoder_engines import EngineEncoder, encoder_source
from attnvgg.deploy.engines import open_engine
from attnvgg.deploy.tile_calibration import Calibration
from attnvgg.errors import InputError
from attnvgg.models import AttnVGG, BagClassifier
from attnvgg.models.encoders import AttnVGGEncoder, TimmEncoder, TorchvisionEncoder
from attnvgg.models.feature_encoders import Encoder
from attnvgg.models.weights import digest, load_state
from attnvgg.training.checkpoint import load_model

KINDS = ("torchvision", "timm", "attnvgg")
BACKBONES = {"torchvision": "resnet18", "timm": "resnet18", "attnvgg": "vgg16_bn"}
SEED = 0  # of random weights: the same ones on every machine
INPUT = 224  # pixels a side


@dataclass(frozen=True)
class EncoderChoice:
    """Which encoder; what a feature file says of it as `encoder_recipe`."""

    encoder: str = "torchvision"
    """torchvision, timm or attnvgg."""
    backbone: str | None = None
    """Its network; None: resnet18, of attnvgg vgg16_bn."""
    weights: str | None = "imagenet"
    """imagenet, random (the same ones every time) or a file."""
    model: str | None = None
    """A trained model of ours in place of the three above: a run folder or a hub repository."""
    image_size: int | None = None
    """Side to which tiles are resized in pixels; None: 224, or what the network asks for."""
    calibration: Calibration | None = None
    """Compute in 8 bits, calibrated on tiles of these slides; None: in 32."""


@dataclass(frozen=True, eq=False)
class TileEncoder:
    """An encoder in eval mode, with the way from a tile to its input.

    Attributes:
        network: (n, 3, size, size) to (n, D).
        preprocess: of one tile.
        name: architecture, digest of the weights, input and digest of preprocessing and arguments,
            as in `torchvision:resnet18@1f2e3d4c5b6a;224px@9c8d7e6f`; in 8 bits also the name of
            the calibration, `;int8@5a6b7c8d`. Equal names mean equal features.
        choice: how it is opened again.
    """

    network: nn.Module
    preprocess: Preprocess
    name: str
    choice: EncoderChoice


def open_encoder(choice: EncoderChoice) -> TileEncoder:
    """Return the chosen encoder.

    Raises:
        InputError: there is no such network or model, or its weights do not fit.
        WeightsUnavailable: the weights could not be fetched.
    """
    if choice.model is not None:
        architecture, network, preprocess = _of_model(choice)
    else:
        architecture, network, preprocess = _of_library(choice)
    network.eval().requires_grad_(False)
    _rehearse(network, preprocess.size, architecture)
    state = {name: tensor.cpu() for name, tensor in network.state_dict().items()}
    spec = getattr(network, "spec", None)  # arguments that leave no trace in the weights
    way = json.dumps([preprocess.to_dict(), spec], sort_keys=True).encode()
    name = (
        f"{architecture}@{digest(state)[:12]};"
        f"{preprocess.size}px@{hashlib.sha256(way).hexdigest()[:8]}"
    )
    if choice.calibration is not None:
        name += f";int8@{choice.calibration.name}"
        network = _quantised(network, preprocess, choice.calibration)
    return TileEncoder(network, preprocess, name, choice)


def _quantised(
    network: nn.Module, preprocess: Preprocess, calibration: Calibration
) -> EngineEncoder:
    """Return an encoder in 8 bits: built once, then kept.

    It computes on one core, for several threads at once: `extraction` gives each a batch.
    """
    shape = (3, preprocess.size, preprocess.size)
    source = encoder_source(network, shape, calibration.images(preprocess))
    return EngineEncoder(open_engine("openvino-int8", source, threads=1))


def encoder_of(path: str | os.PathLike[str]) -> TileEncoder:
    """Return the encoder that made a feature file of ours, from where it was then.

    Raises:
        InputError: the file does not say which it was, or another is there by now.
    """
    choice, attributes = choice_of(path), feature_attributes(path)
    encoder = open_encoder(choice)
    if encoder.name != attributes["encoder"]:
        raise InputError(
            f"The features of {path} are those of {attributes['encoder']}, but where that was "
            f"found is {encoder.name} now: extract the features again."
        )
    return encoder


def choice_of(path: str | os.PathLike[str]) -> EncoderChoice:
    """Return which encoder made a feature file of ours.

    Raises:
        InputError: the file cannot be read, or does not say which it was.
    """
    attributes = feature_attributes(path)
    if "encoder_recipe" not in attributes or "encoder" not in attributes:
        raise InputError(
            f"{path} does not say how its encoder can be opened: it was not written by "
            "extract_features."
        )
    try:
        said = json.loads(attributes["encoder_recipe"])
        if said.get("calibration") is not None:
            said["calibration"] = Calibration.from_dict(said["calibration"])
        return EncoderChoice(**said)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise InputError(f"The encoder_recipe of {path} is damaged: {error}.") from error


def recipe(encoder: TileEncoder) -> str:
    """Return what `encoder_of` opens the encoder by, as JSON."""
    return json.dumps(asdict(encoder.choice), sort_keys=True)


def _of_library(choice: EncoderChoice) -> tuple[str, Encoder, Preprocess]:
    """Return a network by name: what it is called, itself, its preprocessing."""
    if choice.encoder not in KINDS:
        raise InputError(f"--encoder {choice.encoder}: known are {', '.join(KINDS)}.")
    backbone = choice.backbone or BACKBONES[choice.encoder]
    weights = None if choice.weights == "random" else choice.weights
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        network: Encoder
        if choice.encoder == "attnvgg":
            network = AttnVGGEncoder(backbone=backbone, weights=weights)
        elif choice.encoder == "timm":
            network = TimmEncoder(backbone, weights=weights)
        else:
            network = TorchvisionEncoder(backbone, weights=weights)
    values: dict[str, Any] = {}
    wanted = getattr(getattr(network, "network", None), "image_size", None)  # torchvision's ViT
    if choice.encoder == "timm":
        about: dict[str, Any] = network.network.pretrained_cfg  # type: ignore[assignment]
        values = {key: tuple(about[key]) for key in ("mean", "std") if key in about}
        wanted = about["input_size"][-1] if about.get("fixed_input_size") else None
    size = choice.image_size or wanted or INPUT
    return f"{choice.encoder}:{backbone}", network, Preprocess(size, size, **values)


def _of_model(choice: EncoderChoice) -> tuple[str, nn.Module, Preprocess]:
    """Return the part of a trained model in front of its last layer, with its preprocessing."""
    assert choice.model is not None
    model = load_model(choice.model)
    preprocess = getattr(model, "preprocess", None)
    if isinstance(model, AttnVGG):
        arguments = {k: v for k, v in model.config["arguments"].items() if k != "num_classes"}
        network: nn.Module = AttnVGGEncoder(**arguments)
        state = {k: v for k, v in model.state_dict().items() if not k.startswith("classifier.")}
        load_state(network.network, state, choice.model)  # type: ignore[arg-type]
        architecture = f"attnvgg:{arguments['backbone']}"
    elif isinstance(model, BagClassifier):
        network, architecture = model.encoder, f"bags:{model.encoder.spec['name']}"  # type: ignore[index]
    else:
        network, architecture = model, ""
    if not architecture or not isinstance(preprocess, Preprocess):
        raise InputError(
            f"--model {choice.model} is a {type(model).__name__}: tiles are encoded by an AttnVGG "
            "or by a model of bags of images, saved with its preprocessing."
        )
    return architecture, network, preprocess


def _rehearse(network: nn.Module, size: int, architecture: str) -> None:
    """Encode an empty tile, so that a network that cannot is found before slides are read."""
    try:
        with torch.inference_mode():
            shape = tuple(network(torch.zeros(1, 3, size, size)).shape)
    except (RuntimeError, ValueError, AssertionError, TypeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise InputError(
            f"{architecture} does not run on tiles of {size} pixels: {reason}."
        ) from error
    if len(shape) != 2:
        raise InputError(f"{architecture} makes {shape} of a tile, which is no vector.")
