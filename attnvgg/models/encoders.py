"""Encoders: what turns every instance of a bag into a vector."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import resnet18

from attnvgg.errors import InputError
from attnvgg.models.attnvgg import AttnVGG
from attnvgg.models.backbone import Weights
from attnvgg.models.bodies import LocalWeights, cut, timm_body, torchvision_body
from attnvgg.models.parts import Part

DIGIT = (1, 28, 28)  # an image of MNIST


class Encoder(Part):
    """Turns instances (n, *instance_shape) into vectors (n, out_features).

    The instances of all bags come in one batch, so an encoder never sees a bag.

    Attributes:
        out_features: D.
        instance_shape: of one instance; None where more than one shape will do.
    """

    out_features: int
    instance_shape: tuple[int, ...] | None = None


class IdentityEncoder(Encoder):
    """Takes features that were computed before, (n, D), as they are.

    Args:
        in_features: D.
    """

    name = "identity"

    def __init__(self, in_features: int) -> None:
        super().__init__(in_features=in_features)
        _check_sizes(in_features)
        self.out_features = in_features
        self.instance_shape = (in_features,)

    def forward(self, instances: Tensor) -> Tensor:
        """Return the features (n, D) themselves."""
        return _checked(instances, self.out_features)


class MLPEncoder(Encoder):
    """Dense layers with ReLU over the flattened instance; the example of Keras has 128 and 64.

    Args:
        in_features: values of an instance.
        hidden: width of each layer.
    """

    name = "mlp"

    def __init__(self, in_features: int = 784, hidden: Sequence[int] = (128, 64)) -> None:
        super().__init__(in_features=in_features, hidden=list(hidden))
        _check_sizes(in_features, *hidden)
        self.in_features = in_features
        self.out_features = (in_features, *hidden)[-1]
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise((in_features, *hidden)):
            layers += [nn.Linear(inputs, outputs), nn.ReLU()]
        self.layers = nn.Sequential(*layers).apply(glorot)

    def forward(self, instances: Tensor) -> Tensor:
        """Encode instances of any shape, (n, ...), that hold `in_features` values each."""
        return self.layers(_checked(instances.flatten(1), self.in_features))  # (n, D)


class StandardizedEncoder(Encoder):
    """Brings features that were computed before to mean 0 and deviation 1, then dense ReLU layers.

    Features of a network that was made for other pictures differ little from each other beside
    what they have in common: as they are, attention hardly learns from them.

    Args:
        in_features: values of an instance.
        hidden: width of each layer; none leaves the standardised features.
    """

    name = "standardized"
    mean: Tensor
    deviation: Tensor

    def __init__(self, in_features: int, hidden: Sequence[int] = (256,)) -> None:
        super().__init__(in_features=in_features, hidden=list(hidden))
        self.in_features = in_features
        self.dense = MLPEncoder(in_features, hidden)
        self.out_features = self.dense.out_features
        self.instance_shape = (in_features,)
        self.register_buffer("mean", torch.zeros(in_features))
        self.register_buffer("deviation", torch.ones(in_features))

    def fit(self, mean: Tensor, deviation: Tensor) -> None:
        """Take over the statistics of the training instances, (D,) each.

        A feature that never changes is only centred.
        """
        self.mean.copy_(mean)
        self.deviation.copy_(torch.where(deviation > 0, deviation, 1))

    def forward(self, instances: Tensor) -> Tensor:
        """Encode features (n, in_features)."""
        values = _checked(instances, len(self.mean))
        return self.dense((values - self.mean) / self.deviation)  # (n, D)


class LeNet(Encoder):
    """The network for digits of Ilse et al. (ICML 2018): two convolutions and a dense layer."""

    name = "lenet"
    out_features = 500
    instance_shape = DIGIT

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 20, kernel_size=5),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(20, 50, kernel_size=5),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(50 * 4 * 4, self.out_features),
            nn.ReLU(),
        )

    def forward(self, instances: Tensor) -> Tensor:
        """Encode digits (n, 1, 28, 28) or (n, 28, 28)."""
        return self.layers(_digits(instances))  # (n, 500)


class DigitResNet18(Encoder):
    """ResNet-18 with a stem of one channel, without its last layer."""

    name = "digit_resnet18"
    out_features = 512
    instance_shape = DIGIT

    def __init__(self) -> None:
        super().__init__()
        self.network = resnet18(weights=None)
        self.network.conv1 = nn.Conv2d(1, 64, kernel_size=7, stride=2, padding=3, bias=False)
        nn.init.kaiming_normal_(self.network.conv1.weight, mode="fan_out", nonlinearity="relu")
        self.network.fc = nn.Identity()

    def forward(self, instances: Tensor) -> Tensor:
        """Encode digits (n, 1, 28, 28) or (n, 28, 28)."""
        return self.network(_digits(instances))  # (n, 512)


class PandaCNN(Encoder):
    """The network of recipe G for a tile of a slide: two convolutions and two dense layers.

    The published code flattens the 16 tiles of a slide into one vector in front of its first dense
    layer, which so has 353,894,912 parameters; a tile at a time it has 22,118,912.

    Args:
        size: side of a tile in pixels.
    """

    name = "panda"
    out_features = 512

    def __init__(self, size: int = 128) -> None:
        super().__init__(size=size)
        if size < 10:
            raise InputError(f"The encoder panda needs tiles of 10 pixels a side, not {size}.")
        self.instance_shape = (3, size, size)
        side = ((size - 3) // 2 - 2) // 2  # after two convolutions without padding, two pools
        self.layers = nn.Sequential(
            # the maximum of ReLUs is the ReLU of the maximum, which is of a quarter as many
            nn.Conv2d(3, 36, kernel_size=4),
            nn.MaxPool2d(2),
            nn.ReLU(),
            nn.Conv2d(36, 48, kernel_size=3),
            nn.MaxPool2d(2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(48 * side**2, 512),  # 43,200 values for 128 pixels
            nn.ReLU(),
            nn.Linear(512, self.out_features),
            nn.ReLU(),
        )

    def forward(self, instances: Tensor) -> Tensor:
        """Encode normalised tiles (n, 3, size, size)."""
        assert self.instance_shape is not None
        return self.layers(_checked(instances, *self.instance_shape))  # (n, 512)


class AttnVGGEncoder(Encoder):
    """The 1280 features in front of the last layer of `AttnVGG`.

    Args:
        arguments: of `AttnVGG`, without the number of classes.
    """

    name = "attnvgg"

    def __init__(self, *, weights: Weights = None, **arguments: Any) -> None:
        network = AttnVGG(1, weights=weights, **arguments)
        complete = dict(network.config["arguments"])
        del complete["num_classes"]
        super().__init__(**complete)
        self.out_features = network.classifier.in_features
        self.network = cut(network, "classifier")

    def forward(self, instances: Tensor) -> Tensor:
        """Encode normalised images (n, 3, H, W) of at least 32 pixels a side."""
        return self.network(instances).logits  # (n, 1280)


class TorchvisionEncoder(Encoder):
    """A classifier of torchvision without its last linear layer.

    Args:
        model: its name there.
        weights: "imagenet" (fetched once, then cached), a local file, or none.

    Raises:
        InputError: an unknown model, or one that does not end in a single linear layer.
        WeightsUnavailable: the weights could not be fetched.
    """

    name = "torchvision"

    def __init__(self, model: str = "resnet18", *, weights: LocalWeights = None) -> None:
        super().__init__(model=model)
        self.network, self.out_features = torchvision_body(model, weights)

    def forward(self, instances: Tensor) -> Tensor:
        """Encode normalised images (n, 3, H, W)."""
        return self.network(_checked(instances, 3, "H", "W"))  # (n, D)


class TimmEncoder(Encoder):
    """A network of timm (`pip install "attnvgg[models]"`) without its last layer.

    Args:
        model: its name there, with or without the tag of its weights.
        weights: "imagenet" for those of timm (fetched once, then cached), a local file, or none.

    Raises:
        InputError: timm is not installed, or has no such model.
        WeightsUnavailable: the weights could not be fetched.
    """

    name = "timm"

    def __init__(self, model: str, *, weights: LocalWeights = None) -> None:
        super().__init__(model=model)
        self.network, self.out_features = timm_body(model, weights)

    def forward(self, instances: Tensor) -> Tensor:
        """Encode normalised images (n, 3, H, W)."""
        return self.network(_checked(instances, 3, "H", "W"))  # (n, D)


ENCODERS: dict[str, type[Encoder]] = {
    encoder.name: encoder
    for encoder in (
        MLPEncoder,
        LeNet,
        DigitResNet18,
        IdentityEncoder,
        StandardizedEncoder,
        PandaCNN,
        AttnVGGEncoder,
        TorchvisionEncoder,
        TimmEncoder,
    )
}


def glorot(layer: nn.Module) -> None:
    """Initialise a linear layer as Keras does: Glorot-uniform weights, biases 0."""
    if isinstance(layer, nn.Linear):
        nn.init.xavier_uniform_(layer.weight)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


def _checked(instances: Tensor, *shape: int | str) -> Tensor:
    """Refuse instances of another shape; a letter stands for any number."""
    sizes = zip(shape, instances.shape[1:], strict=False)
    if instances.ndim != len(shape) + 1 or any(
        isinstance(wanted, int) and wanted != size for wanted, size in sizes
    ):
        wanted = ", ".join(map(str, shape))
        raise InputError(f"Instances must be (n, {wanted}), not {tuple(instances.shape)}.")
    return instances


def _digits(instances: Tensor) -> Tensor:
    return _checked(instances.unsqueeze(1) if instances.ndim == 3 else instances, *DIGIT)


def _check_sizes(*sizes: int) -> None:
    if min(sizes) < 1:
        raise InputError(f"A layer needs at least one feature, not {min(sizes)}.")
