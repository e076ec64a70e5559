"""Whether a bag model keeps to "a bag is positive iff one of its instances is".

Two kinds of evidence, because neither is enough. Learned tests (Raff and Holt, NeurIPS 2023; the
bags are those of `attnvgg.data.mil_tests`): does a model that could follow a wrong cue follow it?
And a search for counterexamples with random weights, because the assumption makes the score of a
bag the highest score of its instances alone, so that

- no instance, whatever it is, may lower the score of the bag that it joins, and
- no bag may score above each of its instances alone.

A pool for which random weights break one of them can learn to break it; one for which none is found
may still be broken by others, so a search that finds nothing is evidence and not proof.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnvgg.data.mil_tests import (
    FEATURES,
    POISONED,
    MilBags,
    add_instances,
    draw_bags,
    draw_poison,
)
from attnvgg.evaluation.metrics import roc_auc
from attnvgg.models.bags import BagClassifier
from attnvgg.models.pooling import POOLS
from attnvgg.models.ragged import max_bags

Build = Callable[[int], nn.Module]  # seed of the weights -> model

HIDDEN = (32, 32)  # of the encoder: the concepts are not linear in the features
LEVELS = ("embedding", "instance")
LEARNED = 0.9  # AUC on new bags of the training distribution that a model must reach to pass
MARGIN = 0.1  # AUC that may be lost when the cue turns round, and still pass
SIGMAS = 2.0  # standard errors from 0.5 within which an AUC counts as chance
TOLERANCE = 1e-4  # of scores in float32, relative to the highest
SCALES = (1.0, 4.0)  # of the random weights: as initialised, attention is nearly a mean


@dataclass(frozen=True)
class Budget:
    """How much a learned test may cost.

    Attributes:
        size: bags to learn from; each is seen once, so that nothing can be learned by heart.
        judged: bags of each side to be judged on.
        batch: bags a step.
        rate: of Adam.
    """

    size: int = 30_000
    judged: int = 1000
    batch: int = 100
    rate: float = 0.003


class Learned(NamedTuple):
    """What one learned test found with one seed.

    Attributes:
        train_auc: on new bags of the training distribution, where the cue helps.
        test_auc: on the test bags, where it misleads.
        flipped: of the positive bags that were called positive, the share that was called negative
            as soon as one poison instance was added; None where a test has no poison, or where no
            positive bag was called positive.
    """

    train_auc: float
    test_auc: float
    flipped: float | None


class Structure(NamedTuple):
    """Shares of random bags and weights that contradict the assumption.

    Attributes:
        lowered: an added instance lowered the score.
        exceeded: the bag scored above each of its instances alone.
    """

    lowered: float
    exceeded: float


def pool_variants() -> dict[str, dict[str, Any]]:
    """Return the spec of every pool, once a level where it has a choice: `max (instance)`."""
    variants: dict[str, dict[str, Any]] = {}
    for name, pool in POOLS.items():
        if "level" in inspect.signature(pool).parameters:
            variants |= {f"{name} ({level})": {"name": name, "level": level} for level in LEVELS}
        else:
            variants[name] = {"name": name}
    return variants


def builder(pool: Mapping[str, Any]) -> Build:
    """Return what builds a small model around a pool from the seed of its weights."""

    def build(seed: int) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            encoder = {"name": "mlp", "in_features": FEATURES, "hidden": list(HIDDEN)}
            return BagClassifier(encoder, dict(pool), {"name": "linear", "num_classes": 1})

    return build


def audit_learning(build: Build, test: str, seed: int, budget: Budget) -> Learned:
    """Train a model on the bags of one test, and judge it on new ones of both sides."""
    own, new = 2 * seed, 2 * seed + 1  # no bag that a model is judged on was seen by any
    model = _fit(build(seed), draw_bags(test, "train", budget.size, own), budget)
    known = draw_bags(test, "train", budget.judged, new)
    turned = draw_bags(test, "test", budget.judged, new)
    scores = score(model, known.values, known.offsets)
    flipped = _flipped(model, known, scores, seed) if test in POISONED else None
    return Learned(
        roc_auc(known.labels.numpy(), scores.numpy()),
        roc_auc(turned.labels.numpy(), score(model, turned.values, turned.offsets).numpy()),
        flipped,
    )


def audit_structure(build: Build, seed: int, draws: int = 30, size: int = 60) -> Structure:
    """Search for counterexamples among random weights and random bags.

    Args:
        build: of the model.
        seed: of the first weights and bags.
        draws: models to try, each with its own bags.
        size: bags for each of them.
    """
    lowered = exceeded = 0
    for number in range(seed * draws, (seed + 1) * draws):
        model = _scaled(build(number), SCALES[number % len(SCALES)])
        bags = draw_bags("single_concept", "train", size, number)
        generator = torch.Generator().manual_seed(number)
        added = 3 * torch.randn(size, FEATURES, generator=generator)
        before = score(model, bags.values, bags.offsets)  # (B), as the next two
        after = score(model, *add_instances(bags.values, bags.offsets, added))
        alone = score(model, bags.values, _singletons(bags.values))  # (sum N,)
        highest = max_bags(alone[:, None], bags.offsets)[:, 0]
        tolerance = TOLERANCE * float(before.abs().max())
        lowered += int((after < before - tolerance).sum())
        exceeded += int((before > highest + tolerance).sum())
    return Structure(lowered / (draws * size), exceeded / (draws * size))


def judge(results: Sequence[Learned], judged: int) -> str:
    """Return what one test says of a pool over all seeds: the worst seed decides.

    A ranking turned round, AUC below 0.5, is what the tests are built to show; how far below it
    must be, and what passes, are our choice.

    Args:
        results: a result a seed.
        judged: bags that each AUC was measured on.

    Returns:
        "not learned": the training bags are ranked by chance.
        "fails": they are not, and the test bags are ranked the wrong way round.
        "half learned": neither, but the training bags are not told apart well either, as befits a
        pool that cannot express the truth of the test.
        "weakened": learned, but turning the cue round cost more than MARGIN of AUC.
        "passes": none of these.
    """
    train = min(result.train_auc for result in results)
    test = min(result.test_auc for result in results)
    noise = SIGMAS * chance_error(judged)
    if train < 0.5 + noise:
        return "not learned"
    if test < 0.5 - noise:
        return "fails"
    if train < LEARNED:
        return "half learned"
    lost = max(result.train_auc - result.test_auc for result in results)
    return "weakened" if lost > MARGIN else "passes"


def chance_error(judged: int) -> float:
    """Return the standard error of the AUC of a random ranking (Mann and Whitney, 1947)."""
    negatives, positives = (judged + 1) // 2, judged // 2
    return math.sqrt((judged + 1) / (12 * negatives * positives))


@torch.inference_mode()
def score(model: nn.Module, values: Tensor, offsets: Tensor) -> Tensor:
    """Return the logit of each bag, (B), in eval mode."""
    logits: Tensor = model.eval()(values, offsets).logits
    return logits.squeeze(1)


def _fit(model: nn.Module, bags: MilBags, budget: Budget) -> nn.Module:
    optimizer = torch.optim.Adam(model.parameters(), lr=budget.rate)
    labels = bags.labels.float()
    model.train()
    for start in range(0, len(labels), budget.batch):
        offsets = bags.offsets[start : start + budget.batch + 1]  # (batch + 1)
        rows = bags.values[offsets[0] : offsets[-1]]  # (n, D)
        logits = model(rows, offsets - offsets[0]).logits.squeeze(1)  # (batch)
        loss = F.binary_cross_entropy_with_logits(logits, labels[start : start + budget.batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model


@torch.no_grad()
def _scaled(model: nn.Module, factor: float) -> nn.Module:
    for parameter in model.parameters():
        parameter.mul_(factor)
    return model


def _flipped(model: nn.Module, bags: MilBags, scores: Tensor, seed: int) -> float | None:
    called = (bags.labels == 1) & (scores > 0)
    if not called.any():
        return None
    poison = draw_poison(len(bags.labels), seed)
    poisoned = score(model, *add_instances(bags.values, bags.offsets, poison))
    return float((poisoned[called] <= 0).float().mean())


def _singletons(values: Tensor) -> Tensor:
    """Return the offsets of bags of one instance each."""
    return torch.arange(len(values) + 1)
