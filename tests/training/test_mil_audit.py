"""The audit itself is audited: models whose answer is known by construction."""

import inspect
from typing import NamedTuple

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import nn

from attnvgg.data.mil_tests import FEATURES, draw_bags
from attnvgg.models.pooling import POOLS
from attnvgg.training.mil_audit import (
    LEARNED,
    MARGIN,
    Budget,
    Learned,
    audit_learning,
    audit_structure,
    builder,
    chance_error,
    judge,
    pool_variants,
    score,
)

SMALL = Budget(size=10_000, judged=300)


class Output(NamedTuple):
    logits: torch.Tensor


class Reduce(nn.Module):
    """Instances scored by one linear layer, each bag reduced by a function of its scores."""

    def __init__(self, seed, reduction):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(FEATURES, generator=torch.manual_seed(seed)))
        self.reduction = reduction

    def forward(self, values, offsets):
        parts = torch.tensor_split(values @ self.weight, offsets[1:-1])
        return Output(torch.stack([self.reduction(part) for part in parts])[:, None])


@pytest.mark.parametrize(
    ("reduction", "lowers", "exceeds"),
    [
        (torch.max, False, False),
        (torch.mean, True, False),
        (torch.sum, True, True),
        (lambda scores: scores.relu().sum(), False, True),
        (lambda scores: -(-scores).max(), True, False),  # the minimum
        (lambda scores: scores.logsumexp(0), False, True),
    ],
)
def test_structure_of_known_reductions(reduction, lowers, exceeds):
    found = audit_structure(lambda seed: Reduce(seed, reduction), seed=0, draws=4, size=20)
    assert (found.lowered > 0, found.exceeded > 0) == (lowers, exceeds)
    assert max(found) <= 1


# By mathematics, with a linear head: weighted means of the instances' own scores never exceed the
# highest, and only the maximum at the level of instances can never be lowered.
EXCEED = {"max (embedding)", "log_sum_exp (embedding)", "multi_branch"}


@pytest.mark.parametrize("name", pool_variants())
def test_structure_of_the_pools(name):
    found = audit_structure(builder(pool_variants()[name]), seed=0, draws=10, size=40)
    assert (found.lowered > 0) == (name != "max (instance)")
    assert (found.exceeded > 0) == (name in EXCEED)


def test_every_pool_has_a_row_and_those_with_a_level_one_for_each():
    variants = pool_variants()
    assert {spec["name"] for spec in variants.values()} == set(POOLS)
    levelled = {"mean", "max", "log_sum_exp"}
    assert len(variants) == len(POOLS) + len(levelled)
    for name in levelled:
        assert "level" in inspect.signature(POOLS[name]).parameters
        for level in ("embedding", "instance"):
            model = builder(variants[f"{name} ({level})"])(0)
            assert model.pool.level == level


@pytest.mark.parametrize("name", ["attention", "max (instance)", "noisy_and"])
def test_models_depend_on_their_seed_alone(name):
    build = builder(pool_variants()[name])
    state = torch.random.get_rng_state()
    one, same, other = build(1), build(1), build(2)
    assert torch.equal(torch.random.get_rng_state(), state)
    bags = draw_bags("single_concept", "train", 10, 0)
    scores = [score(model, bags.values, bags.offsets) for model in (one, same, other)]
    assert torch.equal(scores[0], scores[1])
    assert not torch.equal(scores[0], scores[2])


def test_the_maximum_of_instances_learns_the_concept():
    build = builder({"name": "max", "level": "instance"})
    result = audit_learning(build, "single_concept", 0, Budget(size=25_000, judged=300))
    assert result.train_auc > 0.9
    assert result.test_auc > 0.9
    assert result.flipped == 0  # no instance can lower a maximum


@pytest.mark.parametrize("name", ["attention", "mean (embedding)", "max (embedding)"])
def test_embedding_pools_learn_the_poison(name):
    result = audit_learning(builder(pool_variants()[name]), "single_concept", 0, SMALL)
    assert result.train_auc > 0.95
    assert result.test_auc < 0.5
    assert result.flipped > 0.5


def test_learning_is_repeatable_and_other_seeds_differ():
    build, budget = builder({"name": "mean"}), Budget(size=600, judged=100)
    one = audit_learning(build, "false_frequency", 0, budget)
    assert one == audit_learning(build, "false_frequency", 0, budget)
    assert one != audit_learning(build, "false_frequency", 1, budget)
    assert one.flipped is None  # a test without poison


class Known(nn.Module):
    """Says what a rule says of the values of each bag; the parameter keeps Adam busy."""

    def __init__(self, rule):
        super().__init__()
        self.rule, self.nothing = rule, nn.Parameter(torch.zeros(1))

    def forward(self, values, offsets):
        parts = torch.tensor_split(values, offsets[1:-1])
        scores = torch.tensor([float(self.rule(part)) for part in parts])
        return Output((scores + 0 * self.nothing)[:, None])


def test_a_model_that_looks_for_poison():
    model = Known(lambda part: 1.0 if part.mean(1).min() > -8 else -1.0)
    result = audit_learning(lambda seed: model, "single_concept", 0, Budget(200, 100))
    assert result == Learned(train_auc=1.0, test_auc=0.0, flipped=1.0)


def test_nothing_can_flip_where_no_positive_bag_is_found():
    model = Known(lambda part: part.mean() - 100)
    result = audit_learning(lambda seed: model, "single_concept", 0, Budget(200, 100))
    assert result.flipped is None


def results(*pairs):
    return [Learned(train, test, None) for train, test in pairs]


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        (results((1.0, 1.0)), "passes"),
        (results((0.95, 0.95 - MARGIN + 0.01)), "passes"),
        (results((0.95, 0.95 - MARGIN - 0.01)), "weakened"),
        (results((1.0, 0.2)), "fails"),
        (results((0.7, 0.2)), "fails"),
        (results((LEARNED - 0.01, 0.9)), "half learned"),
        (results((0.5, 0.2)), "not learned"),
        (results((1.0, 1.0), (1.0, 0.2), (1.0, 1.0)), "fails"),
        (results((1.0, 0.49)), "weakened"),  # indistinguishable from chance, not the wrong way
    ],
)
def test_verdicts(found, verdict):
    assert judge(found, judged=1000) == verdict


def test_error_of_a_random_ranking():
    generator = np.random.default_rng(0)
    labels = np.arange(41) % 2
    aucs = [roc_auc_score(labels, generator.random(41)) for _ in range(500)]
    assert chance_error(41) == pytest.approx(np.std(aucs), rel=0.1)
