"""What an encoder is, and those of features that were computed before."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from attnvgg.errors import InputError
from attnvgg.models.parts import Part


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
        check_sizes(in_features)
        self.out_features = in_features
        self.instance_shape = (in_features,)

    def forward(self, instances: Tensor) -> Tensor:
        """Return the features (n, D) themselves."""
        return checked(instances, self.out_features)


class MLPEncoder(Encoder):
    """Dense layers with ReLU over the flattened instance; the example of Keras has 128 and 64.

    Args:
        in_features: values of an instance.
        hidden: width of each layer.
    """

    name = "mlp"

    def __init__(self, in_features: int = 784, hidden: Sequence[int] = (128, 64)) -> None:
        super().__init__(in_features=in_features, hidden=list(hidden))
        check_sizes(in_features, *hidden)
        self.in_features = in_features
        self.out_features = (in_features, *hidden)[-1]
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise((in_features, *hidden)):
            layers += [nn.Linear(inputs, outputs), nn.ReLU()]
        self.layers = nn.Sequential(*layers).apply(glorot)

    def forward(self, instances: Tensor) -> Tensor:
        """Encode instances of any shape, (n, ...), that hold `in_features` values each."""
        return self.layers(checked(instances.flatten(1), self.in_features))  # (n, D)


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
        values = checked(instances, len(self.mean))
        return self.dense((values - self.mean) / self.deviation)  # (n, D)


def glorot(layer: nn.Module) -> None:
    """Initialise a linear layer as Keras does: Glorot-uniform weights, biases 0."""
    if isinstance(layer, nn.Linear):
        nn.init.xavier_uniform_(layer.weight)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


def checked(instances: Tensor, *shape: int | str) -> Tensor:
    """Refuse instances of another shape; a letter stands for any number."""
    sizes = zip(shape, instances.shape[1:], strict=False)
    if instances.ndim != len(shape) + 1 or any(
        isinstance(wanted, int) and wanted != size for wanted, size in sizes
    ):
        wanted = ", ".join(map(str, shape))
        raise InputError(f"Instances must be (n, {wanted}), not {tuple(instances.shape)}.")
    return instances


def check_sizes(*sizes: int) -> None:
    if min(sizes) < 1:
        raise InputError(f"A layer needs at least one feature, not {min(sizes)}.")
