"""Bags the published way, written anew and not slowed down, for `benchmarks/bags.py`.

One bag a step in plain PyTorch, as the examples of Keras and of Ilse et al. (ICML 2018) have it.
Faster than these: the bags are tensors already, no loader stands in between, and no step computes
a figure for show. The example of Keras concatenates the weighted instances; here they are summed,
so that both ways have the same weights and loss.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnvgg.evaluation.metrics import roc_auc

Bag = tuple[Tensor, Tensor]  # instances (N, ...) and label (1,)


class PublishedAttention(nn.Module):
    """Gated attention over one bag (Ilse et al., equation 9)."""

    def __init__(self, features: int, width: int, bias: bool) -> None:
        super().__init__()
        self.V = nn.Linear(features, width, bias=bias)
        self.U = nn.Linear(features, width, bias=bias)
        self.w = nn.Linear(width, 1, bias=False)

    def forward(self, instances: Tensor) -> Tensor:
        """Pool instances (N, D) to (1, D)."""
        scores = self.w(torch.tanh(self.V(instances)) * torch.sigmoid(self.U(instances)))  # (N, 1)
        return F.softmax(scores.t(), dim=1) @ instances  # (1, D)


class PaddedAttention(PublishedAttention):
    """The same over padded bags, as it is usually batched."""

    def forward(self, instances: Tensor, mask: Tensor | None = None) -> Tensor:
        """Pool instances (B, N, D), real where the mask (B, N) is True, to (B, D)."""
        scores = self.w(torch.tanh(self.V(instances)) * torch.sigmoid(self.U(instances)))
        if mask is not None:
            scores = scores.masked_fill(~mask.unsqueeze(2), -torch.inf)  # (B, N, 1)
        return (F.softmax(scores, dim=1).transpose(1, 2) @ instances).squeeze(1)  # (B, D)


def attention_state(pool: nn.Module) -> dict[str, Tensor]:
    """Return the weights of our gated attention under the names of the above."""
    state = {"w.weight": pool.scorer.score.weight.detach()}
    for name, stacked in pool.scorer.project.named_parameters():
        state[f"V.{name}"], state[f"U.{name}"] = stacked.detach().chunk(2)
    return state


class Published(nn.Module):
    """Encoder, gated attention, last layer."""

    def __init__(
        self, encoder: nn.Module, features: int, width: int, bias: bool, logits: int
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.attention = PublishedAttention(features, width, bias)
        self.classifier = nn.Linear(features, logits)

    def forward(self, instances: Tensor) -> Tensor:
        """Classify one bag (N, 1, 28, 28), (1, logits)."""
        return self.classifier(self.attention(self.encoder(instances)))


def published_keras() -> Published:
    """Return the network of recipe K."""
    encoder = nn.Sequential(
        nn.Flatten(), nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU()
    )
    return Published(encoder, 64, width=256, bias=False, logits=2)


def published_ilse() -> Published:
    """Return the network of recipe I."""
    encoder = nn.Sequential(
        nn.Conv2d(1, 20, kernel_size=5), nn.ReLU(), nn.MaxPool2d(2, stride=2),
        nn.Conv2d(20, 50, kernel_size=5), nn.ReLU(), nn.MaxPool2d(2, stride=2),
        nn.Flatten(), nn.Linear(50 * 4 * 4, 500), nn.ReLU(),
    )  # fmt: skip
    return Published(encoder, 500, width=128, bias=True, logits=1)


@dataclass(frozen=True)
class Recipe:
    """How a published example trains.

    Attributes:
        network: makes it.
        rate: of Adam.
        weight_decay: of Adam.
        monitor: figure of the validation bags that counts, "loss" or "auc".
        patience: epochs without a better one that end it, None for never.
        l2: strength of the sum of squares of V, U and w in the loss.
        balanced: whether the loss of a bag is weighted by total / (2 bags of its class).
        epochs: at most.
    """

    network: Callable[[], Published]
    rate: float
    weight_decay: float
    monitor: str
    patience: int | None
    l2: float
    balanced: bool
    epochs: int = 20


KERAS = Recipe(published_keras, 1e-3, 0.0, "loss", patience=10, l2=0.01, balanced=True)
ILSE = Recipe(published_ilse, 5e-4, 1e-4, "auc", patience=None, l2=0.0, balanced=False)


@dataclass(frozen=True)
class Reached:
    """An epoch: its number, the validation figure at its end, and the seconds until then."""

    epoch: int
    figure: float
    seconds: float


def train_published(
    recipe: Recipe,
    model: Published,
    training: Sequence[Bag],
    validation: Sequence[Bag],
    seed: int,
) -> tuple[Reached, Reached]:
    """Train one bag a step; return the best epoch and the last."""
    optimizer = torch.optim.Adam(
        model.parameters(), lr=recipe.rate, weight_decay=recipe.weight_decay
    )
    chance = torch.Generator().manual_seed(seed)
    weights = _class_weights(training) if recipe.balanced else None
    best = last = Reached(0, float("inf") if recipe.monitor == "loss" else 0.0, 0.0)
    start = time.perf_counter()
    while last.epoch < recipe.epochs and last.epoch - best.epoch < (recipe.patience or 10**9):
        for number in torch.randperm(len(training), generator=chance).tolist():
            instances, label = training[number]
            optimizer.zero_grad()
            loss = _loss(model(instances), label, weights)
            if recipe.l2:
                kernels = [layer.weight for layer in model.attention.children()]
                loss = loss + recipe.l2 * sum(kernel.square().sum() for kernel in kernels)
            loss.backward()
            optimizer.step()
        figure = _judge(recipe, model, validation, weights)
        last = Reached(last.epoch + 1, figure, time.perf_counter() - start)
        if figure < best.figure if recipe.monitor == "loss" else figure > best.figure:
            best = last
    return best, last


def _judge(recipe: Recipe, model: Published, bags: Sequence[Bag], weights: Tensor | None) -> float:
    """Return the mean loss of bags, without what penalises the weights, or their AUC."""
    with torch.no_grad():
        logits = [model(instances) for instances, _ in bags]
    labels = [label for _, label in bags]
    if recipe.monitor == "loss":
        losses = [_loss(*pair, weights) for pair in zip(logits, labels, strict=True)]
        return float(torch.stack(losses).mean())
    return roc_auc(torch.cat(labels).numpy(), torch.cat(logits).flatten().numpy())


def _loss(logits: Tensor, label: Tensor, weights: Tensor | None) -> Tensor:
    """Return the loss of one bag, logits (1, K) and label (1,)."""
    if logits.shape[1] == 1:
        return F.binary_cross_entropy_with_logits(logits.flatten(), label.float())
    loss = F.cross_entropy(logits, label)
    return loss if weights is None else weights[label.item()] * loss


def _class_weights(bags: Sequence[Bag]) -> Tensor:
    counts = torch.bincount(torch.cat([label for _, label in bags]), minlength=2)
    return len(bags) / (2 * counts)
