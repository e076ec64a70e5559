"""Heads: what turns the vector of a bag, or of an instance, into logits."""

from typing import Any, Literal

from torch import Tensor, nn

from attnvgg.errors import InputError
from attnvgg.models.feature_encoders import glorot
from attnvgg.models.parts import Part


class Head(Part):
    """Turns vectors (n, in_features) into logits (n, num_classes).

    Args:
        in_features: D.
        num_classes: K; 1 for a binary task with one logit.
        arguments: further ones of the head.

    Raises:
        InputError: no class.
    """

    def __init__(self, in_features: int, num_classes: int, **arguments: Any) -> None:
        super().__init__(in_features=in_features, num_classes=num_classes, **arguments)
        if num_classes < 1:
            raise InputError(f"A model needs at least one class, not {num_classes}.")
        self.in_features = in_features
        self.num_classes = num_classes


class LinearHead(Head):
    """Logistic regression.

    Args:
        in_features: D.
        num_classes: K.
        init: PyTorch's own, or that of Keras (Glorot-uniform weights, biases 0).
    """

    name = "linear"

    def __init__(
        self,
        in_features: int,
        num_classes: int = 1,
        init: Literal["default", "glorot"] = "default",
    ) -> None:
        super().__init__(in_features, num_classes, init=init)
        self.classifier = nn.Linear(in_features, num_classes)
        if init == "glorot":
            glorot(self.classifier)
        elif init != "default":
            raise InputError(f'The init of a head is "default" or "glorot", not "{init}".')

    def forward(self, vectors: Tensor) -> Tensor:
        """Return the logits of vectors (n, D)."""
        return self.classifier(vectors)  # (n, K)


class MLPHead(Head):
    """A wide layer with LeakyReLU and dropout in front of the last one.

    Args:
        in_features: D.
        num_classes: K.
        hidden: width of the layer.
        dropout: probability of dropping a feature behind it.

    Raises:
        InputError: no class, or a dropout that is no probability.
    """

    name = "mlp"

    def __init__(
        self, in_features: int, num_classes: int = 1, hidden: int = 1024, dropout: float = 0.1
    ) -> None:
        super().__init__(in_features, num_classes, hidden=hidden, dropout=dropout)
        if not 0 <= dropout < 1:
            raise InputError(f"Dropout is a probability of at least 0 and below 1, not {dropout}.")
        self.layers = nn.Sequential(
            nn.Linear(in_features, hidden),
            nn.LeakyReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, num_classes),
        )

    def forward(self, vectors: Tensor) -> Tensor:
        """Return the logits of vectors (n, D)."""
        return self.layers(vectors)  # (n, K)


HEADS: dict[str, type[Head]] = {head.name: head for head in (LinearHead, MLPHead)}
