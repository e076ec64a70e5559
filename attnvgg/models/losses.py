"""Focal loss (Lin et al., ICCV 2017) and penalties on weights."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnvgg.errors import InputError


class FocalLoss(nn.Module):
    """FL = -alpha_t (1 - p_t)^gamma log p_t from logits, the plain mean over the batch.

    With gamma 0 and no alpha it is cross-entropy.

    Args:
        gamma: how much well-classified samples are played down.
        alpha: a weight a class; one number a weights the positive class, 1 - a the negative.

    Raises:
        InputError: a negative gamma or alpha.
    """

    alpha: Tensor | None

    def __init__(
        self, gamma: float = 2.0, alpha: float | Sequence[float] | Tensor | None = None
    ) -> None:
        super().__init__()
        if not gamma >= 0:
            raise InputError(f"The gamma of the focal loss must be at least 0, not {gamma}.")
        self.gamma = gamma
        self.register_buffer("alpha", None if alpha is None else _class_weights(alpha))

    def forward(self, logits: Tensor, labels: Tensor, weight: Tensor | None = None) -> Tensor:
        """Return the loss, a scalar.

        Args:
            logits: (B,) or (B, 1) for the positive class of two, or (B, K).
            labels: (B,) or (B, 1), integers from 0 to K - 1 (0 or 1 for one logit).
            weight: (B,), a factor for the loss of each sample.

        Raises:
            InputError: shapes that do not belong together, or labels that are no class.
        """
        log_right, log_wrong, labels = _log_probabilities(logits, labels)  # (B,) each
        # exp(gamma log(1 - p)) keeps a finite gradient where (1 - p)^gamma has none.
        losses = -torch.exp(self.gamma * log_wrong) * log_right
        if self.alpha is not None:
            classes = max(2, logits.shape[1] if logits.ndim == 2 else 1)
            if len(self.alpha) != classes:
                raise InputError(f"{len(self.alpha)} values of alpha for {classes} classes.")
            losses = losses * self.alpha.to(losses.dtype)[labels]
        if weight is not None:
            if weight.shape != losses.shape:
                raise InputError(f"{tuple(weight.shape)} weights for {len(losses)} samples.")
            losses = losses * weight
        return losses.mean()


def _class_weights(alpha: float | Sequence[float] | Tensor) -> Tensor:
    weights = torch.as_tensor(alpha, dtype=torch.float32).detach().clone()
    if weights.ndim == 0:
        weights = torch.stack([1 - weights, weights])
    if weights.ndim != 1 or not (weights >= 0).all():
        raise InputError(
            "Alpha is one number from 0 to 1, or a vector of numbers from 0, one a class."
        )
    return weights


def _log_probabilities(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return log p and log (1 - p) of the right class, and the labels as (B,) integers."""
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    binary = logits.ndim == 1 or (logits.ndim == 2 and logits.shape[1] == 1)
    labels = _check_labels(logits, labels, classes=2 if binary else logits.shape[-1])
    if binary:
        margin = logits.flatten() * (2 * labels - 1)
        return F.logsigmoid(margin), F.logsigmoid(-margin), labels
    log = F.log_softmax(logits, dim=1)  # (B, K)
    right = F.one_hot(labels, logits.shape[1]).bool()
    return log[right], log.masked_fill(right, -torch.inf).logsumexp(dim=1), labels


def _check_labels(logits: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Return the labels as (B,) integers; never let (B, 1) against (B,) spread to (B, B)."""
    if logits.ndim not in (1, 2) or labels.shape not in ((len(logits),), (len(logits), 1)):
        raise InputError(
            f"Logits {tuple(logits.shape)} and labels {tuple(labels.shape)} do not belong together."
        )
    whole = labels.flatten().long()
    if ((whole < 0) | (whole >= classes) | (whole != labels.flatten())).any():
        raise InputError(f"Labels must be integers from 0 to {classes - 1}.")
    return whole


def balanced_alpha(labels: Sequence[int] | Tensor, num_classes: int) -> Tensor:
    """Derive alpha from how often each class occurs in training.

    Args:
        labels: (N,), integers.
        num_classes: 1 for a binary task with one logit.

    Returns:
        For one logit the share of negatives, a scalar; else N / (K count) a class, (K,).

    Raises:
        InputError: labels outside the classes, or a class that does not occur.
    """
    classes = max(2, num_classes)
    labels = torch.as_tensor(labels).flatten()
    if labels.numel() == 0 or labels.min() < 0 or labels.max() >= classes:
        raise InputError(f"Labels must be integers from 0 to {classes - 1}.")
    counts = torch.bincount(labels.long(), minlength=classes)
    if (counts == 0).any():
        absent = (counts == 0).nonzero().flatten().tolist()
        raise InputError(
            "A class without a sample cannot be balanced.", (f"class {label}" for label in absent)
        )
    if num_classes == 1:
        return counts[0] / len(labels)
    return len(labels) / (classes * counts)


def elastic_net(module: nn.Module, strength: float = 0.005, mix: float = 0.5) -> Tensor:
    """Penalise weights: r ((1 - a) mean |W| + a mean W^2) over all entries of weight matrices.

    Biases and other vectors are left alone, and so are weights that are not trained.

    Args:
        module: a model, or a part of it.
        strength: r.
        mix: a, from 0 (absolute values alone) to 1 (squares alone).

    Returns:
        A scalar; 0 for a module without weight matrices.

    Raises:
        InputError: a negative strength, or a mix outside 0 to 1.
    """
    _check_strength(strength)
    if not 0 <= mix <= 1:
        raise InputError(f"The mix of the elastic net must be from 0 to 1, not {mix}.")
    matrices = _matrices(module)
    entries = max(1, sum(matrix.numel() for matrix in matrices))
    absolute = _total([matrix.abs().sum() for matrix in matrices]) / entries
    squared = _total([matrix.square().sum() for matrix in matrices]) / entries
    return strength * ((1 - mix) * absolute + mix * squared)


def kernel_decay(module: nn.Module, strength: float = 0.01) -> Tensor:
    """Penalise weights as Keras' L2 does: strength x sum W^2 over all weight matrices.

    Args:
        module: in the example of Keras the pool, whose V, U and w it penalises.
        strength: factor; that of the example is the default.

    Returns:
        A scalar; 0 for a module without weight matrices.

    Raises:
        InputError: a negative strength.
    """
    _check_strength(strength)
    return strength * _total([matrix.square().sum() for matrix in _matrices(module)])


def _matrices(module: nn.Module) -> list[Tensor]:
    """Return the kernels of all layers that are trained, at least float32: long sums stay exact."""
    return [
        parameter.to(torch.promote_types(parameter.dtype, torch.float32))
        for parameter in module.parameters()
        if parameter.ndim >= 2 and parameter.requires_grad
    ]


def _total(terms: list[Tensor]) -> Tensor:
    return torch.stack(terms).sum() if terms else torch.zeros(())


def _check_strength(strength: float) -> None:
    if not strength >= 0:
        raise InputError(f"The strength of a penalty must be at least 0, not {strength}.")
