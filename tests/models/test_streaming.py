import h5py
import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from attnvgg.errors import InputError
from attnvgg.models import attend
from attnvgg.models.pooling import POOLS
from attnvgg.models.streaming import stream

OFFSETS = torch.tensor([0, 3, 4, 11, 30])


class Net(torch.nn.Module):
    """An encoder and a pool of two branches, as a bag model has them."""

    def __init__(self, dtype=torch.double):
        super().__init__()
        torch.manual_seed(0)
        self.encoder = torch.nn.Linear(5, 4, dtype=dtype)
        self.dropout = torch.nn.Dropout(0.0)
        self.pool = POOLS["multi_branch"](4, width=3, branches=2).to(dtype)
        self.seen = []

    def forward(self, instances):
        self.seen.append(len(instances))
        values = self.dropout(self.encoder(instances).tanh())
        return values, self.pool.scores(values)


@pytest.fixture
def instances():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(30, 5, dtype=torch.double, generator=generator)


@pytest.mark.parametrize("chunk_size", [1, 4, 7, 30, 100])
@pytest.mark.parametrize("offsets", [None, OFFSETS, OFFSETS.int()])
def test_any_chunk_equals_all_at_once(instances, chunk_size, offsets):
    net = Net()
    instances.requires_grad_()
    leaves = [instances, *net.parameters()]
    whole = OFFSETS[[0, -1]] if offsets is None else offsets
    expected, expected_weights = attend(*net(instances), offsets=whole)
    pooled, weights = stream(net, instances, offsets, chunk_size)
    torch.testing.assert_close(pooled, expected)
    torch.testing.assert_close(weights, expected_weights)

    # A loss on the vectors, one on the weights, and one on both.
    pulls = torch.randn_like(expected), torch.randn_like(weights)
    for vectors, shares in ((1, 0), (0, 1), (1, 1)):
        one = vectors * (expected * pulls[0]).sum() + shares * (expected_weights * pulls[1]).sum()
        other = vectors * (pooled * pulls[0]).sum() + shares * (weights * pulls[1]).sum()
        one = torch.autograd.grad(one, leaves, retain_graph=True, materialize_grads=True)
        other = torch.autograd.grad(other, leaves, retain_graph=True, materialize_grads=True)
        for right, mine in zip(one, other, strict=True):
            torch.testing.assert_close(mine, right)


def test_gradients_are_right(instances):
    net = Net()
    leaves = [instances[:9].requires_grad_(), *net.parameters()]
    offsets = torch.tensor([0, 1, 6, 9])
    assert torch.autograd.gradcheck(lambda *_: stream(net, leaves[0], offsets, 4), leaves)


def test_fifty_thousand_instances_equal_dense():
    torch.manual_seed(0)
    pool = POOLS["gated_attention"](16)
    instances = torch.randn(50_000, 16)
    pull = torch.randn(1, 16)
    expected, expected_weights = pool(instances[None])
    pooled, weights = stream(lambda chunk: (chunk, pool.scores(chunk)), instances)
    torch.testing.assert_close(pooled.flatten(1), expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(weights, expected_weights[0], rtol=1e-5, atol=1e-9)
    one = torch.autograd.grad((expected * pull).sum(), list(pool.parameters()))
    other = torch.autograd.grad((pooled.flatten(1) * pull).sum(), list(pool.parameters()))
    for right, mine in zip(one, other, strict=True):
        torch.testing.assert_close(mine, right, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["array", "frozen array", "r", "c", "hdf5", "tensor"])
def test_every_source_gives_the_same(instances, tmp_path, kind):
    net = Net()
    array = instances.numpy().copy()
    if kind == "frozen array":
        array.flags.writeable = False
    elif kind in ("r", "c"):
        np.save(tmp_path / "bag.npy", array)
        array = np.load(tmp_path / "bag.npy", mmap_mode=kind)
    elif kind == "hdf5":
        with h5py.File(tmp_path / "bag.h5", "w") as file:
            file["features"] = array
        array = h5py.File(tmp_path / "bag.h5")["features"]
    elif kind == "tensor":
        array = instances
    expected, expected_weights = attend(*net(instances), offsets=OFFSETS)
    pooled, weights = stream(net, array, OFFSETS, chunk_size=7)
    torch.testing.assert_close(pooled, expected)
    torch.testing.assert_close(weights, expected_weights)
    one = torch.autograd.grad(expected.sum(), list(net.parameters()))
    other = torch.autograd.grad(pooled.sum(), list(net.parameters()))
    for right, mine in zip(one, other, strict=True):
        torch.testing.assert_close(mine, right)


def test_nothing_is_embedded_twice_without_gradients(instances):
    net = Net()
    with torch.inference_mode():
        pooled, _ = stream(net, instances, OFFSETS, chunk_size=12)
    assert net.seen == [12, 12, 6]
    assert not pooled.requires_grad


def test_backward_embeds_a_chunk_at_a_time(instances):
    net = Net()
    pooled, _ = stream(net, instances, chunk_size=12)
    pooled.sum().backward()
    assert max(net.seen) == 12
    assert sorted(net.seen) == [1, 6, 6, 12, 12, 12, 12]  # the 1 finds the parameters


class Largest(TorchDispatchMode):
    """Remembers the size of the largest tensor that an operation gave inside."""

    elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        output = function(*args, **(kwargs or {}))
        for tensor in output if isinstance(output, tuple | list) else [output]:
            if isinstance(tensor, torch.Tensor) and tensor.is_floating_point():
                self.elements = max(self.elements, tensor.numel())
        return output


def test_memory_does_not_grow_with_the_bag():
    pool = POOLS["gated_attention"](16, width=8)
    source = np.random.default_rng(0).standard_normal((4_000, 16), dtype=np.float32)
    with Largest() as largest:
        pooled, _ = stream(lambda chunk: (chunk, pool.scores(chunk)), source, chunk_size=100)
        pooled.sum().backward()
    assert largest.elements <= 4_000  # the weights; the values are 64,000


def test_dropout_is_the_same_in_backward(instances):
    net = Net()
    net.dropout.p = 0.5
    kept = []
    net.dropout.register_forward_hook(lambda *given: kept.append(given[2] != 0))
    torch.manual_seed(3)
    pooled, _ = stream(net, instances, chunk_size=10)
    after = torch.get_rng_state()
    torch.rand(7)
    state = torch.get_rng_state()
    pooled.sum().backward()
    assert torch.equal(torch.get_rng_state(), state)  # and backward draws nothing of its own
    assert len(kept) == 7
    for forward, backward in zip(kept[1:4], kept[4:], strict=True):
        assert torch.equal(forward, backward)
    torch.manual_seed(3)
    with torch.no_grad():
        stream(net, instances, chunk_size=10)
    assert torch.equal(torch.get_rng_state(), after)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("autocast", [False, True])
def test_half_precision_is_close(instances, dtype, autocast):
    net = Net(torch.float32 if autocast else dtype)
    instances = instances.to(torch.float32 if autocast else dtype)
    full = Net()
    net.load_state_dict(full.state_dict())
    expected, expected_weights = attend(*full(instances.double()), offsets=OFFSETS)
    with torch.autocast("cpu", dtype, enabled=autocast):
        values, _ = net(instances)
        pooled, weights = stream(net, instances, OFFSETS, chunk_size=7)
    assert pooled.dtype == values.dtype == dtype
    assert weights.dtype == torch.float32
    torch.testing.assert_close(pooled.double(), expected, rtol=0.05, atol=0.02)
    torch.testing.assert_close(weights.double(), expected_weights, rtol=0.05, atol=0.01)
    pooled.float().square().sum().backward()  # outside of autocast: it is entered again
    expected.square().sum().backward()
    for mine, right in zip(net.parameters(), full.parameters(), strict=True):
        torch.testing.assert_close(mine.grad.double(), right.grad, rtol=0.1, atol=0.05)


def test_scores_of_any_size_stay_finite():
    scores = torch.tensor([[-1e4], [1e4], [-1e30], [1e30], [0.0], [-1e30]])
    pooled, weights = stream(lambda chunk: (torch.ones_like(chunk), chunk), scores, chunk_size=2)
    assert pooled.item() == 1
    assert weights.flatten().tolist() == [0, 0, 0, 1, 0, 0]


def test_parts_without_gradient_get_none(instances):
    net = Net()
    net.encoder.requires_grad_(False)
    pooled, _ = stream(net, instances, chunk_size=8)
    pooled.sum().backward()
    assert net.encoder.weight.grad is None
    assert net.pool.scorer.score.weight.grad.abs().max() > 0
    net.requires_grad_(False)
    assert not stream(net, instances)[0].requires_grad


def test_a_second_derivative_is_refused_rather_than_wrong(instances):
    net = Net()
    pooled, _ = stream(net, instances)
    (gradient,) = torch.autograd.grad(pooled.square().sum(), net.encoder.weight, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def test_wrong_input_is_refused(instances):
    net = Net()
    with pytest.raises(InputError, match="at least one instance, not 0"):
        stream(net, instances, chunk_size=0)
    with pytest.raises(InputError, match="Offsets must run from 0"):
        stream(net, instances, torch.tensor([0, 29]))
    with pytest.raises(InputError) as caught:
        stream(net, instances, torch.tensor([0, 4, 4, 30]))
    assert caught.value.offenders == ["bag 1"]
    with pytest.raises(InputError) as caught:
        stream(net, instances[:0])
    assert caught.value.offenders == ["bag 0"]
