"""Encoders: what turns every instance of a bag into a vector."""

from typing import Any

from torch import Tensor, nn

from attnvgg.errors import InputError
from attnvgg.models.attnvgg import AttnVGG
from attnvgg.models.backbone import Weights
from attnvgg.models.bodies import LocalWeights, cut, timm_body, torchvision_body
from attnvgg.models.feature_encoders import (
    Encoder,
    IdentityEncoder,
    MLPEncoder,
    StandardizedEncoder,
    checked,
)

DIGIT = (1, 28, 28)  # an image of MNIST


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
        from torchvision.models import resnet18  # slow to import

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
        return self.layers(checked(instances, *self.instance_shape))  # (n, 512)


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
        return self.network(checked(instances, 3, "H", "W"))  # (n, D)


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
        return self.network(checked(instances, 3, "H", "W"))  # (n, D)


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


def _digits(instances: Tensor) -> Tensor:
    return checked(instances.unsqueeze(1) if instances.ndim == 3 else instances, *DIGIT)
