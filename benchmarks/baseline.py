"""The tutorial's own way, written anew and not slowed down: what the benchmarks compare with."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset
from torchvision import models, transforms
from torchvision.datasets.folder import default_loader

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class TutorialDataset(Dataset[Tensor]):
    """Decode in full with Pillow, rotate, flip, resize to 224, crop, to a normalised tensor."""

    def __init__(self, paths: Sequence[str]) -> None:
        self.paths = paths
        self.transform = transforms.Compose(
            [
                transforms.RandomRotation(10),
                transforms.RandomHorizontalFlip(),
                transforms.Resize(224),
                transforms.CenterCrop(224),
                transforms.ToTensor(),
                transforms.Normalize(MEAN, STD),
            ]
        )

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        tensor: Tensor = self.transform(default_loader(self.paths[index]))
        return tensor


class TutorialAttention(nn.Module):
    """Attention whose guide is upsampled by a factor, its weights spread over the channels."""

    def __init__(self, local: int, guide: int, width: int, factor: int, normalize: bool) -> None:
        super().__init__()
        self.factor, self.normalize = factor, normalize
        self.W_l = nn.Conv2d(local, width, 1, bias=False)
        self.W_g = nn.Conv2d(guide, width, 1, bias=False)
        self.phi = nn.Conv2d(width, 1, 1, bias=True)

    def forward(self, local: Tensor, guide: Tensor) -> tuple[Tensor, Tensor]:
        """Return the map and the attended vector."""
        count, channels, height, width = local.size()
        spread = F.interpolate(self.W_g(guide), scale_factor=self.factor, mode="bilinear")
        score = self.phi(F.relu(self.W_l(local) + spread))
        if self.normalize:
            weight = F.softmax(score.view(count, 1, -1), dim=2).view(count, 1, height, width)
        else:
            weight = torch.sigmoid(score)
        weighted = torch.mul(weight.expand_as(local), local)
        if self.normalize:
            return weight, weighted.view(count, channels, -1).sum(dim=2)
        return weight, F.adaptive_avg_pool2d(weighted, (1, 1)).view(count, channels)


class TutorialAttnVGG(nn.Module):
    """AttnVGG as the tutorial builds it: stages cut at indices, input fixed to 224 pixels."""

    def __init__(self, num_classes: int, normalize_attn: bool) -> None:
        super().__init__()
        layers = list(models.vgg16_bn(weights=None).features.children())
        self.conv_block1 = nn.Sequential(*layers[0:6])
        self.conv_block2 = nn.Sequential(*layers[7:13])
        self.conv_block3 = nn.Sequential(*layers[14:23])
        self.conv_block4 = nn.Sequential(*layers[24:33])
        self.conv_block5 = nn.Sequential(*layers[34:43])
        self.pool = nn.AvgPool2d(7, stride=1)
        self.cls = nn.Linear(512 + 512 + 256, num_classes)
        self.attn1 = TutorialAttention(256, 512, 256, 4, normalize_attn)
        self.attn2 = TutorialAttention(512, 512, 256, 2, normalize_attn)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return logits and both maps."""
        block1 = self.conv_block1(x)
        pool1 = F.max_pool2d(block1, 2, 2)
        block2 = self.conv_block2(pool1)
        pool2 = F.max_pool2d(block2, 2, 2)
        block3 = self.conv_block3(pool2)
        pool3 = F.max_pool2d(block3, 2, 2)
        block4 = self.conv_block4(pool3)
        pool4 = F.max_pool2d(block4, 2, 2)
        block5 = self.conv_block5(pool4)
        pool5 = F.max_pool2d(block5, 2, 2)
        count = pool5.size(0)
        average = self.pool(pool5).view(count, -1)
        map1, vector1 = self.attn1(pool3, pool5)
        map2, vector2 = self.attn2(pool4, pool5)
        logits = self.cls(torch.cat((average, vector1, vector2), dim=1))
        return [logits, map1, map2]


def tutorial_focal_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the focal loss as the tutorial has it: gamma 2, both classes times 0.25."""
    entropy = F.binary_cross_entropy_with_logits(
        logits, labels.float().unsqueeze(1), reduction="none"
    )
    right = torch.exp(-entropy)
    return (0.25 * (1 - right) ** 2 * entropy).mean()


class PublishedSlide(nn.Module):
    """The published network of PANDA: all 16 tiles of a slide flattened into a single instance.

    Its attention has one instance to look at, so that its weight is always 1.
    """

    def __init__(self, tiles: int = 16) -> None:
        super().__init__()
        self.tiles = tiles
        self.convolutions = nn.Sequential(
            nn.Conv2d(3, 36, kernel_size=4),
            nn.ReLU(),
            nn.MaxPool2d(2, stride=2),
            nn.Conv2d(36, 48, kernel_size=3),
            nn.ReLU(),
            nn.MaxPool2d(2, stride=2),
        )
        self.dense = nn.Sequential(
            nn.Linear(tiles * 48 * 30 * 30, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU()
        )
        self.attention = nn.Sequential(nn.Linear(512, 128), nn.Tanh(), nn.Linear(128, 1))
        self.classifier = nn.Linear(512, 1)

    def forward(self, tiles: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logit of a slide (1, 1) and its weight, from tiles (16, 3, 128, 128)."""
        vectors = self.dense(self.convolutions(tiles).view(-1, self.tiles * 48 * 30 * 30))
        weights = F.softmax(self.attention(vectors).T, dim=1)
        return self.classifier(weights @ vectors), weights
