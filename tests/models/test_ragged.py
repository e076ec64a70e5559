import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from attnvgg.errors import InputError
from attnvgg.models import attend
from attnvgg.models.ragged import (
    bag_of_rows,
    lengths_of,
    logsumexp_bags,
    max_bags,
    mean_bags,
    pack,
    softmax_bags,
    sum_bags,
    unpack,
)

LENGTHS = (3, 1, 5, 2)
MASK = torch.tensor([[1, 0, 1, 1], [0, 1, 0, 0], [1, 1, 1, 1], [0, 0, 0, 1]]).bool()


class Largest(TorchDispatchMode):
    """Remembers the size of the largest tensor that was made inside."""

    elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        output = function(*args, **(kwargs or {}))
        given = {id(tensor) for tensor in args}
        for tensor in output if isinstance(output, tuple | list) else [output]:
            if (
                isinstance(tensor, torch.Tensor)
                and id(tensor) not in given
                and tensor._base is None
            ):
                self.elements = max(self.elements, tensor.numel())
        return output


def batch(lengths=LENGTHS, features=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(sum(lengths), features, dtype=torch.double, generator=generator)
    return rows, torch.tensor([0, *lengths]).cumsum(0)


class TestLayouts:
    def test_packed_rows_are_the_real_ones_in_order(self):
        values = torch.arange(32.0).view(4, 4, 2)
        rows, offsets = pack(values, MASK)
        assert offsets.tolist() == [0, 3, 4, 8, 9]
        expected = [values[b, i].tolist() for b in range(4) for i in range(4) if MASK[b, i]]
        assert rows.tolist() == expected

    @pytest.mark.parametrize("shape", [(2,), (1, 5, 6), ()])
    def test_round_trip_restores_all_but_the_padding(self, shape):
        values = torch.randn(4, 4, 3, *shape).masked_fill(
            ~MASK.view(4, 4, *[1] * (len(shape) + 1)), torch.nan
        )
        rows, _ = pack(values, MASK)
        assert rows.isfinite().all()
        restored = unpack(rows, MASK)
        assert torch.equal(restored[MASK], values[MASK])
        assert not restored[~MASK].any()

    def test_without_padding_nothing_is_copied(self):
        values = torch.randn(3, 2, 5)
        rows, offsets = pack(values)
        assert rows.data_ptr() == values.data_ptr()
        assert offsets.tolist() == [0, 2, 4, 6]
        assert torch.equal(unpack(rows, (3, 2)), values)

    def test_padding_gets_no_gradient(self):
        values = torch.randn(4, 4, 2, requires_grad=True)
        (gradient,) = torch.autograd.grad(unpack(pack(values, MASK)[0], MASK).sum(), values)
        assert torch.equal(gradient, MASK[..., None].expand(4, 4, 2).float())

    def test_empty_bags_are_named(self):
        mask = MASK.clone()
        mask[1] = mask[3] = False
        with pytest.raises(InputError, match="without instances") as caught:
            pack(torch.ones(4, 4, 2), mask)
        assert caught.value.offenders == ["bag 1", "bag 3"]
        with pytest.raises(InputError) as caught:
            pack(torch.ones(2, 0, 3))
        assert caught.value.offenders == ["bag 0", "bag 1"]

    @pytest.mark.parametrize("mask", [torch.ones(4, 4), torch.ones(4, 3).bool()])
    def test_a_mask_that_does_not_fit_is_refused(self, mask):
        with pytest.raises(InputError, match="The mask must be boolean"):
            pack(torch.ones(4, 4, 2), mask)

    def test_values_that_are_not_padded_are_refused(self):
        with pytest.raises(InputError, match=r"\(B, N, \.\.\.\)"):
            pack(torch.ones(4, 4))

    def test_lengths(self):
        offsets = torch.tensor([0, 2, 3, 9], dtype=torch.int32)
        assert lengths_of(offsets, 9).tolist() == [2, 1, 6]
        assert bag_of_rows(offsets, 9).tolist() == [0, 0, 1, 2, 2, 2, 2, 2, 2]
        with pytest.raises(InputError) as caught:
            lengths_of(torch.tensor([0, 0, 4, 4]), 4)
        assert caught.value.offenders == ["bag 0", "bag 2"]


REDUCTIONS = {
    "sum": (sum_bags, lambda bag: bag.sum(0)),
    "mean": (mean_bags, lambda bag: bag.mean(0)),
    "max": (max_bags, lambda bag: bag.amax(0)),
    "logsumexp": (logsumexp_bags, lambda bag: bag.exp().sum(0).log()),
}


@pytest.mark.parametrize("lengths", [LENGTHS, (7,), (1, 1), (2,) * 40])
class TestReductions:
    @pytest.mark.parametrize("name", REDUCTIONS)
    def test_every_reduction_equals_the_loop(self, name, lengths):
        rows, offsets = batch(lengths)
        reduce, alone = REDUCTIONS[name]
        expected = torch.stack([alone(bag) for bag in rows.split(lengths)])
        torch.testing.assert_close(reduce(rows, offsets), expected)
        torch.testing.assert_close(reduce(rows.t().contiguous().t(), offsets), expected)

    def test_softmax_equals_the_loop(self, lengths):
        rows, offsets = batch(lengths)
        expected = torch.cat([bag.softmax(0) for bag in rows.split(lengths)])
        torch.testing.assert_close(softmax_bags(rows, offsets), expected)

    @pytest.mark.parametrize("branches", [1, 3])
    def test_weighted_sum_equals_the_loop(self, branches, lengths):
        rows, offsets = batch(lengths)
        weights, _ = batch(lengths, branches, seed=1)
        pairs = zip(rows.split(lengths), weights.split(lengths), strict=True)
        expected = torch.stack([torch.einsum("nd,nm->md", *pair) for pair in pairs])
        torch.testing.assert_close(sum_bags(rows, offsets, weights), expected)

    def test_gradients_are_right(self, lengths):
        lengths = lengths[:6]
        rows, offsets = batch(lengths, 2)
        weights, _ = batch(lengths, 2, seed=1)
        rows.requires_grad_()
        weights.requires_grad_()
        for reduce, _ in REDUCTIONS.values():
            assert torch.autograd.gradcheck(lambda r, f=reduce: f(r, offsets), rows)
        assert torch.autograd.gradcheck(lambda r: softmax_bags(r, offsets), rows)
        assert torch.autograd.gradgradcheck(lambda r: softmax_bags(r, offsets), rows)
        assert torch.autograd.gradcheck(lambda r, w: sum_bags(r, offsets, w), (rows, weights))


def test_large_numbers_stay_finite():
    rows, offsets = torch.tensor([[1e30], [-1e30], [1e4], [1e4]]), torch.tensor([0, 2, 4])
    assert softmax_bags(rows, offsets).flatten().tolist() == [1.0, 0.0, 0.5, 0.5]
    assert logsumexp_bags(rows, offsets).isfinite().all()


def test_a_missing_number_is_not_hidden():
    rows, offsets = torch.tensor([[1.0], [torch.nan], [2.0], [3.0]]), torch.tensor([0, 3, 4])
    for reduce, _ in REDUCTIONS.values():
        assert reduce(rows, offsets).isnan().flatten().tolist() == [True, False]


@pytest.mark.parametrize("lengths", [(400,), (390, 3, 7), (4,) * 100])
@pytest.mark.parametrize("branches", [1, 4])
def test_attention_makes_nothing_larger_than_its_values(lengths, branches):
    values, offsets = batch(lengths, 16)
    scores, _ = batch(lengths, branches)
    values.requires_grad_()
    scores.requires_grad_()
    with Largest() as largest:
        pooled, _ = attend(values, scores, offsets=offsets)
        forward = largest.elements
        pooled.square().sum().backward()
    assert forward <= branches * (sum(lengths) + 16 * len(lengths))
    assert largest.elements <= values.numel()


def test_results_repeat_bit_for_bit():
    values, offsets = batch((3,) * 500 + (2000,), 8)
    scores, _ = batch((3,) * 500 + (2000,), 2, seed=1)

    def run():
        leaves = [values.float().requires_grad_(), scores.float().requires_grad_()]
        pooled, weights = attend(*leaves, offsets=offsets)
        return [pooled, weights, *torch.autograd.grad(pooled.square().sum(), leaves)]

    for one, other in zip(run(), run(), strict=True):
        assert torch.equal(one, other)
