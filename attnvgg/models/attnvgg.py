"""AttnVGG and the controls of its paper (Yan et al., IPMI 2019)."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from attnvgg.errors import InputError
from attnvgg.models.attention import AttentionBlock
from attnvgg.models.backbone import (
    CHANNELS,
    Image,
    Weights,
    select,
    torchvision_state,
    vgg_stages,
)
from attnvgg.models.pretrained import Pretrained
from attnvgg.models.weights import load_state

DENSE_SIDE = 224  # pixels: the only size that fits the dense layers of VGG


class ImageOutput(NamedTuple):
    """What every image model returns.

    Attributes:
        logits: (B, K).
        attn1: (B, 1, H/8, W/8), or None without attention.
        attn2: (B, 1, H/16, W/16), or None without attention.
    """

    logits: Tensor
    attn1: Tensor | None
    attn2: Tensor | None


class AveragePool(nn.Module):
    """The control in place of `AttentionBlock`: every position counts alike."""

    def forward(self, local: Tensor, guide: Tensor) -> tuple[None, Tensor]:
        """Return no map and the average vector (B, C); the guide is not asked."""
        return None, local.mean(dim=(2, 3))


class AttnVGG(Pretrained):
    """VGG that attends to positions of its third and fourth pooled maps, guided by the fifth.

    Args:
        num_classes: K; 1 for a binary task with one logit.
        normalize_attn: softmax over positions, else a sigmoid each.
        dropout: probability of dropping a feature before the last layer.
        attention: False gives the control with plain averages (Mel-CNN).
        backbone: one of `attnvgg.models.BACKBONES`.
        weights: of the backbone: "imagenet" or a torchvision enum, a local file, or none.

    Raises:
        InputError: impossible arguments, or weights that do not fit.
    """

    reads = (3, 4, 5)  # pooled maps

    def __init__(
        self,
        num_classes: int,
        normalize_attn: bool = False,
        dropout: float | None = None,
        *,
        attention: bool = True,
        backbone: str = "vgg16_bn",
        weights: Weights = None,
    ) -> None:
        super().__init__(
            num_classes=num_classes,
            normalize_attn=normalize_attn,
            dropout=dropout,
            attention=attention,
            backbone=backbone,
        )
        _, _, local3, local4, guide = CHANNELS
        self.stages = vgg_stages(backbone, torchvision_state(backbone, weights), weights)
        self.attn1: nn.Module = AveragePool()
        self.attn2: nn.Module = AveragePool()
        if attention:
            self.attn1 = AttentionBlock(local3, guide, normalize_attn=normalize_attn)
            self.attn2 = AttentionBlock(local4, guide, normalize_attn=normalize_attn)
        self.dropout = _dropout(dropout)
        self.classifier = _classifier(guide + local3 + local4, num_classes)

    def forward(self, image: Image) -> ImageOutput:
        """Classify normalised images (B, 3, H, W) of at least 32 pixels a side.

        In place of the images may stand the maps of the first stages, see `VGGStages`.
        """
        _, _, pool3, pool4, pool5 = self.stages(image)  # (B, C, H/8, W/8), H/16, H/32
        attn1, attended3 = self.attn1(pool3, pool5)  # (B, 1, H/8, W/8), (B, 256)
        attn2, attended4 = self.attn2(pool4, pool5)  # (B, 1, H/16, W/16), (B, 512)
        average = pool5.mean(dim=(2, 3))  # (B, 512)
        features = torch.cat([average, attended3, attended4], dim=1)  # (B, 1280)
        logits = self.classifier(self.dropout(features))  # (B, K)
        return ImageOutput(logits, attn1, attn2)


class VGGGAP(Pretrained):
    """The control that sees only the average of the last pooled map.

    Args:
        num_classes: K.
        dropout: probability of dropping a feature before the last layer.
        backbone: as for `AttnVGG`.
        weights: as for `AttnVGG`.
    """

    reads = (5,)

    def __init__(
        self,
        num_classes: int,
        dropout: float | None = None,
        *,
        backbone: str = "vgg16_bn",
        weights: Weights = None,
    ) -> None:
        super().__init__(num_classes=num_classes, dropout=dropout, backbone=backbone)
        self.stages = vgg_stages(backbone, torchvision_state(backbone, weights), weights)
        self.dropout = _dropout(dropout)
        self.classifier = _classifier(CHANNELS[-1], num_classes)

    def forward(self, image: Image) -> ImageOutput:
        """Classify normalised images (B, 3, H, W) of at least 32 pixels a side.

        In place of the images may stand the maps of the first stages, see `VGGStages`.
        """
        average = self.stages(image)[-1].mean(dim=(2, 3))  # (B, 512)
        logits = self.classifier(self.dropout(average))  # (B, K)
        return ImageOutput(logits, None, None)


class VGGDense(Pretrained):
    """The control with the dense layers of the original VGG, for images of 224 x 224 only.

    Args:
        num_classes: K.
        dropout: probability of dropping a feature after each dense layer.
        dense_features: width of the dense layers; weights of torchvision need 4096.
        backbone: as for `AttnVGG`.
        weights: as for `AttnVGG`; they serve the dense layers too.
    """

    def __init__(
        self,
        num_classes: int,
        dropout: float | None = 0.5,
        *,
        dense_features: int = 4096,
        backbone: str = "vgg16_bn",
        weights: Weights = None,
    ) -> None:
        super().__init__(
            num_classes=num_classes,
            dropout=dropout,
            dense_features=dense_features,
            backbone=backbone,
        )
        state = torchvision_state(backbone, weights)
        positions = (DENSE_SIDE // 32) ** 2
        self.stages = vgg_stages(backbone, state, weights)
        self.dense = nn.Sequential(
            _linear(CHANNELS[-1] * positions, dense_features),
            nn.ReLU(inplace=True),
            _dropout(dropout),
            _linear(dense_features, dense_features),
            nn.ReLU(inplace=True),
            _dropout(dropout),
        )
        if state is not None:
            dense = select(state, "classifier.")
            mine = {name: tensor for name, tensor in dense.items() if not name.startswith("6.")}
            load_state(self.dense, mine, weights)  # without its last layer: 1000 other classes
        self.classifier = _classifier(dense_features, num_classes)

    def forward(self, image: Tensor) -> ImageOutput:
        """Classify normalised images (B, 3, 224, 224).

        Raises:
            InputError: images of another size.
        """
        if image.shape[2:] != (DENSE_SIDE, DENSE_SIDE):
            size = " x ".join(str(side) for side in image.shape[2:])
            raise InputError(f"VGGDense takes images of {DENSE_SIDE} x {DENSE_SIDE}, not {size}.")
        pool5 = self.stages(image)[-1]  # (B, 512, 7, 7)
        features = self.dense(pool5.flatten(1))  # (B, 4096)
        logits = self.classifier(features)  # (B, K)
        return ImageOutput(logits, None, None)


def _dropout(probability: float | None) -> nn.Module:
    if probability is None:
        return nn.Identity()
    if not 0 <= probability < 1:
        raise InputError(f"Dropout is a probability of at least 0 and below 1, not {probability}.")
    return nn.Dropout(probability)


def _classifier(features: int, num_classes: int) -> nn.Linear:
    if num_classes < 1:
        raise InputError(f"A model needs at least one class, not {num_classes}.")
    return _linear(features, num_classes)


def _linear(features: int, outputs: int) -> nn.Linear:
    layer = nn.Linear(features, outputs)
    nn.init.normal_(layer.weight, std=0.01)
    nn.init.zeros_(layer.bias)
    return layer
