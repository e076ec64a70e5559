import json
import math
from typing import ClassVar

import pytest
import torch

from attnvgg.errors import InputError
from attnvgg.models.pool import Pool
from attnvgg.models.pooling import POOLS, ScoredPool

LENGTHS = (3, 1, 5, 2)
FEATURES = 6


def bags(features=FEATURES, dtype=torch.double):
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(sum(LENGTHS), features, dtype=dtype, generator=generator)
    return rows, torch.tensor([0, *LENGTHS]).cumsum(0)


def pad(rows, filler):
    mask = torch.arange(7) < torch.tensor(LENGTHS)[:, None]
    # Real instances need not come first.
    mask = mask[:, torch.randperm(7, generator=torch.Generator().manual_seed(2))]
    padded = torch.full((len(LENGTHS), 7, rows.shape[1]), filler, dtype=rows.dtype)
    padded[mask] = rows
    return padded, mask


class PoolContract:
    """What holds for any pool; a subclass names it and defines `expected(pool, bag)`."""

    name: str
    arguments: ClassVar[dict] = {}
    branches = 0  # columns of weights

    def build(self, **arguments):
        torch.manual_seed(0)
        pool = POOLS[self.name](FEATURES, **{**self.arguments, **arguments})
        for parameter in pool.parameters():
            parameter.detach().add_(torch.randn_like(parameter), alpha=0.1)
        return pool.double()

    def expected(self, pool, bag):
        """The pooled vector and the weights of one bag (N, D), in plain words."""
        raise NotImplementedError

    @pytest.fixture
    def pool(self):
        return self.build()

    def test_every_bag_equals_its_definition(self, pool):
        rows, offsets = bags()
        pooled, weights = pool(rows, offsets=offsets)
        assert pooled.shape == (len(LENGTHS), pool.out_features)
        assert (weights is not None) == pool.has_weights == bool(self.branches)
        for index, bag in enumerate(rows.split(LENGTHS)):
            vector, shares = self.expected(pool, bag)
            torch.testing.assert_close(pooled[index], vector)
            if self.branches:
                assert weights.shape == (len(rows), self.branches)
                torch.testing.assert_close(weights.split(LENGTHS)[index], shares)

    def test_order_changes_nothing(self, pool):
        rows, offsets = bags()
        order = torch.cat(
            [start + torch.randperm(n) for start, n in zip(offsets, LENGTHS, strict=False)]
        )
        pooled, weights = pool(rows, offsets=offsets)
        other, moved = pool(rows[order], offsets=offsets)
        torch.testing.assert_close(other, pooled)
        if weights is not None:
            torch.testing.assert_close(moved, weights[order])

    @pytest.mark.parametrize("filler", [0.0, 1e30, float("nan"), float("inf")])
    def test_padding_changes_nothing(self, pool, filler):
        rows, offsets = bags()
        padded, mask = pad(rows, filler)
        padded.requires_grad_()
        pooled, weights = pool(rows, offsets=offsets)
        other, padded_weights = pool(padded, mask)
        torch.testing.assert_close(other, pooled)
        if weights is not None:
            assert padded_weights.shape == (*mask.shape, self.branches)
            torch.testing.assert_close(padded_weights[mask], weights)
            assert not padded_weights[~mask].any()
        other.square().sum().backward()
        assert padded.grad.isfinite().all()
        assert not padded.grad[~mask].any()
        assert all(parameter.grad.isfinite().all() for parameter in pool.parameters())

    def test_a_batch_equals_its_bags_alone(self, pool):
        rows, offsets = bags()
        pooled, weights = pool(rows, offsets=offsets)
        for index, bag in enumerate(rows.split(LENGTHS)):
            alone, its_weights = pool(bag[None])
            torch.testing.assert_close(alone[0], pooled[index])
            if weights is not None:
                torch.testing.assert_close(its_weights[0], weights.split(LENGTHS)[index])

    def test_gradients_are_right_to_instances_and_parameters(self, pool):
        rows, offsets = bags()
        leaves = [rows.requires_grad_(), *pool.parameters()]

        def run(*_):
            pooled, weights = pool(rows, offsets=offsets)
            return pooled if weights is None else (pooled, weights)

        assert torch.autograd.gradcheck(run, leaves)
        pooled, _ = pool(rows, offsets=offsets)
        pull = torch.linspace(-1, 1, pooled.numel(), dtype=torch.double).view_as(pooled)
        for gradient in torch.autograd.grad((pooled * pull).sum(), leaves):
            assert gradient.abs().max() > 1e-6

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    @pytest.mark.parametrize("autocast", [False, True])
    def test_half_precision_is_close(self, pool, dtype, autocast):
        rows, offsets = bags()
        full, full_weights = pool(rows, offsets=offsets)
        if autocast:
            pool, rows = pool.float(), rows.float()
        else:
            pool, rows = pool.to(dtype), rows.to(dtype)
        with torch.autocast("cpu", dtype, enabled=autocast):
            pooled, weights = pool(rows, offsets=offsets)
        assert pooled.dtype == rows.dtype
        torch.testing.assert_close(pooled.double(), full, rtol=0.05, atol=0.05)
        if weights is not None:
            assert weights.dtype == torch.float32
            torch.testing.assert_close(weights.double(), full_weights, rtol=0.05, atol=0.02)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_a_big_bag_of_equals_in_half_precision(self, dtype):
        # Sums of 5,000 numbers of half precision would be several per cent off, or infinite.
        rows = torch.full((5_000, FEATURES), 1.5, dtype=dtype)
        pool = self.build().to(dtype)
        pooled, _ = pool(rows[None])
        alone, _ = pool(rows[None, :1])
        torch.testing.assert_close(pooled, alone, rtol=0.01, atol=0.01)

    def test_empty_bags_are_named(self, pool):
        rows, _ = bags()
        with pytest.raises(InputError, match="without instances") as caught:
            pool(rows, offsets=torch.tensor([0, 4, 4, 11]))
        assert caught.value.offenders == ["bag 1"]
        padded, mask = pad(rows, 0.0)
        mask[2] = False
        with pytest.raises(InputError) as caught:
            pool(padded, mask)
        assert caught.value.offenders == ["bag 2"]

    def test_specification_builds_the_same_pool(self, pool):
        spec = json.loads(json.dumps(pool.spec))
        twin = Pool.build(POOLS, spec).double()
        assert type(twin) is type(pool)
        assert twin.spec == pool.spec
        twin.load_state_dict(pool.state_dict())
        rows, offsets = bags()
        assert torch.equal(twin(rows, offsets=offsets)[0], pool(rows, offsets=offsets)[0])

    def test_wrong_input_is_refused(self, pool):
        rows, offsets = bags()
        with pytest.raises(InputError, match="instances of 6 features"):
            pool(rows[:, :5], offsets=offsets)
        with pytest.raises(InputError, match="instances of 6 features"):
            pool(rows[None], offsets=offsets)
        with pytest.raises(InputError, match="not both"):
            pool(rows, torch.ones(1, 11).bool(), offsets)
        with pytest.raises(InputError, match="Offsets"):
            pool(rows, offsets=offsets + 1)
        with pytest.raises(InputError, match="in_features of a pool must be above 0"):
            POOLS[self.name](0)


class ScoredContract(PoolContract):
    branches = 1

    def score(self, pool, bag):
        """Scores (N, M) of one bag, in plain words."""
        raise NotImplementedError

    def expected(self, pool, bag):
        powers = self.score(pool, bag).exp()
        shares = powers / powers.sum(0)
        return (shares.t() @ bag).flatten(), shares

    def test_scores_are_those_of_the_weights(self, pool):
        assert isinstance(pool, ScoredPool)
        assert pool.branches == self.branches
        assert pool.out_features == self.branches * FEATURES
        rows, offsets = bags()
        scores = pool.scores(rows)
        _, weights = pool(rows, offsets=offsets)
        for score, weight in zip(scores.split(LENGTHS), weights.split(LENGTHS), strict=True):
            torch.testing.assert_close(weight, score.softmax(0))


def tanh_scores(pool, bag, gated):
    parameters = dict(pool.scorer.named_parameters())
    weight, bias = parameters["project.weight"], parameters.get("project.bias", torch.zeros(1))
    hidden = torch.einsum("wd,nd->nw", weight, bag) + bias
    if gated:
        content, gate = hidden[:, : hidden.shape[1] // 2], hidden[:, hidden.shape[1] // 2 :]
        hidden = torch.tanh(content) / (1 + torch.exp(-gate))
    else:
        hidden = torch.tanh(hidden)
    return torch.einsum("mw,nw->nm", parameters["score.weight"], hidden)


class TestAttention(ScoredContract):
    name, arguments = "attention", {"width": 5}

    def score(self, pool, bag):
        return tanh_scores(pool, bag, gated=False)


class TestGatedAttention(ScoredContract):
    name, arguments = "gated_attention", {"width": 5, "bias": False, "init": "glorot"}

    def score(self, pool, bag):
        return tanh_scores(pool, bag, gated=True)

    def test_no_gradient_gives_the_same_scores(self, pool):
        rows, _ = bags()
        kept = rows.clone()
        scores = pool.scores(rows)
        with torch.no_grad():
            torch.testing.assert_close(pool.scores(rows), scores)
        assert torch.equal(rows, kept)

    def test_hand_computed(self):
        pool = POOLS["gated_attention"](1, width=1, bias=False)
        pool.scorer.project.weight.data = torch.tensor([[1.0], [2.0]])
        pool.scorer.score.weight.data = torch.tensor([[3.0]])
        score = 3 * math.tanh(1) / (1 + math.exp(-2))  # the other instance, 0, scores 0
        weight = math.exp(score) / (math.exp(score) + 1)
        pooled, weights = pool(torch.tensor([[[1.0], [0.0]]]))
        assert pooled.item() == pytest.approx(weight)
        assert weights.flatten().tolist() == pytest.approx([weight, 1 - weight])


class TestMultiBranch(ScoredContract):
    name, branches, arguments = "multi_branch", 3, {"width": 5, "branches": 3}

    def score(self, pool, bag):
        return tanh_scores(pool, bag, gated=True)


class TestMultiBranchWithoutGate(ScoredContract):
    name, branches, arguments = "multi_branch", 2, {"width": 5, "branches": 2, "gated": False}

    def score(self, pool, bag):
        return tanh_scores(pool, bag, gated=False)


def leaky(values):
    return torch.where(values > 0, values, 0.01 * values)


class TestLeakyAttention(ScoredContract):
    name, arguments = "leaky_attention", {"width": 5}

    def score(self, pool, bag):
        weight, bias, last = pool.parameters()
        return leaky(bag @ weight.t() + bias) @ last.t()


class TestSoftmaxMean(ScoredContract):
    name, arguments = "softmax_mean", {"width": 5}

    def score(self, pool, bag):
        weight1, bias1, weight2, bias2 = pool.parameters()
        hidden = leaky(leaky(bag @ weight1.t() + bias1) @ weight2.t() + bias2)
        return hidden.mean(1, keepdim=True)


class LeveledContract(PoolContract):
    def test_level_is_remembered(self):
        assert self.build().level == "embedding"
        pool = self.build(level="instance")
        assert pool.level == Pool.build(POOLS, pool.spec).level == "instance"
        with pytest.raises(InputError, match='level is "embedding" or "instance"'):
            self.build(level="bag")


class TestMean(LeveledContract):
    name = "mean"

    def expected(self, pool, bag):
        return sum(bag) / len(bag), None


class TestMax(LeveledContract):
    name = "max"

    def expected(self, pool, bag):
        return bag.amax(0), None


class TestLogSumExp(LeveledContract):
    name, arguments = "log_sum_exp", {"r": 2.5}

    def expected(self, pool, bag):
        return torch.log(torch.exp(2.5 * bag).mean(0)) / 2.5, None

    def test_sharpness_leads_from_the_mean_to_the_maximum(self):
        rows, _ = bags()
        near_mean, _ = self.build(r=1e-6)(rows[None])
        near_maximum, _ = self.build(r=1e4)(rows[None])
        torch.testing.assert_close(near_mean[0], rows.mean(0), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(near_maximum[0], rows.amax(0), rtol=1e-3, atol=1e-3)

    def test_hand_computed(self):
        pooled, _ = POOLS["log_sum_exp"](1)(torch.tensor([[[0.0], [math.log(3)]]]))
        assert pooled.item() == pytest.approx(math.log(2))  # log of the mean of 1 and 3


class TestNoisyAnd(PoolContract):
    name = "noisy_and"

    def expected(self, pool, bag):
        a, b = 10.0, 1 / (1 + torch.exp(-pool.threshold_logit))
        mean = (1 / (1 + torch.exp(-bag))).mean(0)
        lowest = 1 / (1 + torch.exp(a * b))
        highest = 1 / (1 + torch.exp(-a * (1 - b)))
        passed = 1 / (1 + torch.exp(-a * (mean - b)))
        probability = (passed - lowest) / (highest - lowest)
        return torch.log(probability / (1 - probability)), None

    def test_starts_in_the_middle_and_works_on_instances(self):
        pool = POOLS["noisy_and"](3)
        assert pool.level == "instance"
        assert pool.threshold.tolist() == [0.5, 0.5, 0.5]
        # Half of the instances positive is right at the threshold; a = 10, b = 1/2.
        pooled, _ = pool(torch.tensor([[[40.0] * 3, [-40.0] * 3]]))
        torch.testing.assert_close(pooled, torch.zeros(1, 3), atol=1e-5, rtol=0)

    def test_threshold_stays_between_0_and_1_and_certainty_is_finite(self):
        pool = POOLS["noisy_and"](1)
        for logit in (-1e3, 1e3):
            pooled, _ = pool(torch.full((1, 4, 1), logit))
            assert pooled.item() == pytest.approx(math.copysign(math.log(1e6), logit), abs=0.1)
        optimizer = torch.optim.SGD(pool.parameters(), lr=5.0)
        for _ in range(20):
            optimizer.zero_grad()
            pool(torch.full((1, 4, 1), 0.5))[0].sum().backward()
            optimizer.step()
        assert 0.5 < pool.threshold.item() < 1  # the bag is to be less positive

    def test_agrees_with_its_direction(self):
        pool = POOLS["noisy_and"](1)
        shares = [
            pool(torch.tensor([[5.0]] * n + [[-5.0]] * (10 - n))[None])[0].item() for n in range(11)
        ]
        assert shares == sorted(shares)


def test_every_pool_has_a_contract():
    tested = {
        test.name
        for test in globals().values()
        if isinstance(test, type) and issubclass(test, PoolContract) and hasattr(test, "name")
    }
    assert tested == set(POOLS)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"name": "attention", "in_features": 4, "width": 0}, "width of a pool must be above 0"),
        ({"name": "multi_branch", "in_features": 4, "branches": 0}, "branches of a pool"),
        ({"name": "log_sum_exp", "in_features": 4, "r": float("nan")}, "r of a pool"),
        ({"name": "noisy_and", "in_features": 4, "a": -1.0}, "a of a pool"),
        ({"name": "attention", "in_features": 4, "init": "he"}, 'init is "default" or "glorot"'),
        ({"name": "median", "in_features": 4}, "There is no pool 'median'"),
        ({"name": "mean", "in_features": 4, "width": 3}, "'mean' cannot be built"),
    ],
)
def test_impossible_specifications_are_refused(spec, message):
    with pytest.raises(InputError, match=message):
        Pool.build(POOLS, spec)


def test_glorot_draws_each_matrix_as_if_it_were_alone():
    torch.manual_seed(0)
    pool = POOLS["gated_attention"](100, width=50, init="glorot")
    bound = math.sqrt(6 / (100 + 50))
    for matrix in pool.scorer.project.weight.chunk(2):
        assert 0.95 * bound < matrix.abs().max().item() <= bound
    assert not pool.scorer.project.bias.any()
    assert pool.scorer.score.weight.abs().max() <= math.sqrt(6 / 51)


def test_parameters_are_those_of_the_recipe():
    pool = POOLS["gated_attention"](64, width=256, bias=False)
    assert sum(parameter.numel() for parameter in pool.parameters()) == 2 * 64 * 256 + 256
