"""Eight views of an image: what a model says of all quarter turns and flips, averaged."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnvgg.errors import InputError
from attnvgg.models.attnvgg import ImageOutput


class View(NamedTuple):
    """A symmetry of the square: a horizontal flip or none, then quarter turns."""

    flipped: bool
    turns: int

    def of(self, image: Tensor) -> Tensor:
        """Return images or maps (B, C, H, W) as this view shows them; odd turns swap H and W."""
        image = image.flip(3) if self.flipped else image
        return torch.rot90(image, self.turns, dims=(2, 3))

    def undone(self, image: Tensor) -> Tensor:
        """Return what was seen in this view as it lies in the original."""
        image = torch.rot90(image, -self.turns, dims=(2, 3))
        return image.flip(3) if self.flipped else image


VIEWS = tuple(View(flipped, turns) for flipped in (False, True) for turns in range(4))


class EightViews(nn.Module):
    """An image model that looks eight times, one view after the other.

    Probabilities are averaged, and the maps, each turned back before. So the maps turn with the
    image, and the probabilities stay the same, whatever the model itself does.

    Args:
        model: of images; what else it has (`config`, `preprocess`) is found here too.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        for name in ("config", "preprocess"):
            if hasattr(model, name):
                setattr(self, name, getattr(model, name))

    def forward(self, image: Tensor) -> ImageOutput:
        """Classify normalised images (B, 3, H, W).

        The logits (B, K) are those of the mean probabilities.
        """
        outputs = list(self._looks(image))
        logits = torch.stack([output.logits for output in outputs])  # (8, B, K)
        attn1 = _mean([output.attn1 for output in outputs])  # (B, 1, H/8, W/8)
        attn2 = _mean([output.attn2 for output in outputs])  # (B, 1, H/16, W/16)
        return ImageOutput(_logits_of_mean(logits), attn1, attn2)

    def _looks(self, image: Tensor) -> Iterator[ImageOutput]:
        for view in VIEWS:
            logits, *maps = self.model(view.of(image))
            attn1, attn2 = (None if found is None else view.undone(found) for found in maps)
            yield ImageOutput(logits, attn1, attn2)


def with_views(model: nn.Module, views: int) -> nn.Module:
    """Return the model itself for one view, or what averages eight of it.

    Raises:
        InputError: another number of views.
    """
    if views not in (1, len(VIEWS)):
        raise InputError(f"There are 1 or {len(VIEWS)} views of an image, not {views}.")
    return model if views == 1 else EightViews(model)


def _logits_of_mean(logits: Tensor) -> Tensor:
    """Return the logits (B, K) of the mean of the probabilities of (V, B, K)."""
    logits = logits.float()
    if logits.shape[2] > 1:
        return F.log_softmax(logits, dim=2).logsumexp(dim=0)  # less log V, for all classes alike
    return F.logsigmoid(logits).logsumexp(dim=0) - F.logsigmoid(-logits).logsumexp(dim=0)


def _mean(maps: list[Tensor | None]) -> Tensor | None:
    known = [found for found in maps if found is not None]
    return torch.stack(known).mean(dim=0) if known else None
