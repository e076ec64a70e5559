"""The tutorial's own way, written anew and not slowed down: what the benchmarks compare with."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.utils.data import Dataset
from torchvision import transforms
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
