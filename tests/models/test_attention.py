import pytest
import torch
import torch.nn.functional as F

from attnvgg.errors import InputError
from attnvgg.models import AttentionBlock, attend

LENGTHS = (3, 1, 5, 2)


def naive(values, scores, normalize):
    """One bag (N, D), (N, M), in plain words: an explicit loop over branches and instances."""
    count, branches = scores.shape
    pooled = torch.zeros(branches, values.shape[1], dtype=values.dtype)
    weights = torch.zeros_like(scores)
    for branch in range(branches):
        powers = [torch.exp(score) for score in scores[:, branch]]
        for i in range(count):
            if normalize == "softmax":
                weights[i, branch] = powers[i] / sum(powers)
                pooled[branch] += weights[i, branch] * values[i]
            else:
                weights[i, branch] = 1 / (1 + 1 / powers[i])
                pooled[branch] += weights[i, branch] * values[i] / count
    return pooled, weights


@pytest.fixture
def ragged():
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(sum(LENGTHS), 4, dtype=torch.double, generator=generator)
    scores = torch.randn(sum(LENGTHS), 2, dtype=torch.double, generator=generator)
    offsets = torch.tensor([0, *LENGTHS]).cumsum(0)
    return values, scores, offsets


def pad(rows, filler):
    padded = torch.full((len(LENGTHS), max(LENGTHS) + 2, rows.shape[1]), filler, dtype=rows.dtype)
    for bag, part in enumerate(rows.split(LENGTHS)):
        padded[bag, : len(part)] = part
    mask = torch.arange(max(LENGTHS) + 2) < torch.tensor(LENGTHS)[:, None]
    return padded, mask


@pytest.mark.parametrize("normalize", ["softmax", "sigmoid"])
class TestAttend:
    def test_every_layout_equals_the_loop(self, ragged, normalize):
        values, scores, offsets = ragged
        pooled, weights = attend(values, scores, offsets=offsets, normalize=normalize)
        assert pooled.shape == (len(LENGTHS), 2, 4)
        assert weights.shape == scores.shape
        parts = zip(values.split(LENGTHS), scores.split(LENGTHS), strict=True)
        for bag, (value, score) in enumerate(parts):
            expected, expected_weights = naive(value, score, normalize)
            torch.testing.assert_close(pooled[bag], expected)
            torch.testing.assert_close(weights.split(LENGTHS)[bag], expected_weights)
            dense, dense_weights = attend(value[None], score[None], normalize=normalize)
            torch.testing.assert_close(dense[0], expected)
            torch.testing.assert_close(dense_weights[0], expected_weights)

    @pytest.mark.parametrize("filler", [0.0, 1e30, float("nan"), float("inf")])
    def test_padding_changes_nothing(self, ragged, normalize, filler):
        values, scores, offsets = ragged
        values.requires_grad_()
        scores.requires_grad_()
        packed, packed_weights = attend(values, scores, offsets=offsets, normalize=normalize)
        packed_gradients = torch.autograd.grad(packed.square().sum(), (values, scores))

        padded_values, mask = pad(values, filler)
        padded_scores, _ = pad(scores, filler)
        pooled, weights = attend(padded_values, padded_scores, mask, normalize=normalize)
        gradients = torch.autograd.grad(pooled.square().sum(), (values, scores))
        torch.testing.assert_close(pooled, packed)
        torch.testing.assert_close(weights[mask], packed_weights)
        assert not weights[~mask].any()
        for one, other in zip(gradients, packed_gradients, strict=True):
            torch.testing.assert_close(one, other)

    def test_order_changes_nothing(self, ragged, normalize):
        values, scores, _ = ragged
        order = torch.randperm(len(values), generator=torch.Generator().manual_seed(1))
        one, weights = attend(values[None], scores[None], normalize=normalize)
        other, moved = attend(values[order][None], scores[order][None], normalize=normalize)
        torch.testing.assert_close(one, other)
        torch.testing.assert_close(weights[:, order], moved)

    def test_gradients_are_right(self, ragged, normalize):
        values, scores, offsets = (tensor.clone() for tensor in ragged)
        values.requires_grad_()
        scores.requires_grad_()
        assert torch.autograd.gradcheck(
            lambda v, s: attend(v, s, offsets=offsets, normalize=normalize), (values, scores)
        )
        padded_values, mask = pad(values.detach(), 0.0)
        padded_scores, _ = pad(scores.detach(), 0.0)
        assert torch.autograd.gradcheck(
            lambda v, s: attend(v, s, mask, normalize=normalize),
            (padded_values.requires_grad_(), padded_scores.requires_grad_()),
        )

    def test_weights_are_weights(self, ragged, normalize):
        values, scores, offsets = ragged
        _, weights = attend(values, scores, offsets=offsets, normalize=normalize)
        if normalize == "softmax":
            for part in weights.split(LENGTHS):
                torch.testing.assert_close(part.sum(0), torch.ones(2, dtype=torch.double))
        else:
            assert ((weights > 0) & (weights < 1)).all()

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_half_precision_of_a_big_bag(self, normalize, dtype):
        # Each weight of 1/65281 rounded to bfloat16 is 0.4 % off, and so would be their sum.
        count = 65_281
        values = torch.full((1, count, 2), 3.0, dtype=dtype)
        scores = torch.zeros(1, count, 1, dtype=dtype)
        expected = 3.0 if normalize == "softmax" else 1.5
        offsets = torch.tensor([0, count])
        for autocast in (False, True):
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                dense, weights = attend(values, scores, normalize=normalize)
                packed, _ = attend(values[0], scores[0], offsets=offsets, normalize=normalize)
            assert dense.dtype == packed.dtype == dtype
            assert weights.dtype == torch.float32
            torch.testing.assert_close(dense, torch.full_like(dense, expected), rtol=1e-3, atol=0)
            torch.testing.assert_close(packed, torch.full_like(packed, expected), rtol=1e-3, atol=0)

    def test_scores_of_any_size_stay_finite(self, normalize):
        values = torch.ones(6, 1)
        scores = torch.tensor([[-1e4], [1e4], [0.0], [1e30], [-1e30], [-1e30]])
        offsets = torch.tensor([0, 2, 4, 6])
        for pooled, weights in (
            attend(values, scores, offsets=offsets, normalize=normalize),
            attend(values.view(3, 2, 1), scores.view(3, 2, 1), normalize=normalize),
        ):
            assert pooled.isfinite().all()
            assert weights.isfinite().all()

    def test_empty_bags_are_named(self, normalize):
        values, scores = torch.ones(3, 4, 2), torch.ones(3, 4, 1)
        mask = torch.tensor([[1, 0, 1, 0], [0, 0, 0, 0], [1, 1, 1, 1]]).bool()
        with pytest.raises(InputError) as caught:
            attend(values, scores, mask, normalize=normalize)
        assert caught.value.offenders == ["bag 1"]
        with pytest.raises(InputError) as caught:
            attend(values[0], scores[0], offsets=torch.tensor([0, 2, 2, 4, 4]), normalize=normalize)
        assert caught.value.offenders == ["bag 1", "bag 3"]
        with pytest.raises(InputError, match="without instances"):
            attend(values[:, :0], scores[:, :0], normalize=normalize)


@pytest.mark.parametrize(
    "offsets",
    [
        torch.tensor([0, 3]),
        torch.tensor([1, 4]),
        torch.tensor([0, 3, 2, 4]),
        torch.tensor([4]),
        torch.tensor([0.0, 4.0]),
        torch.tensor([[0, 4]]),
    ],
)
def test_wrong_offsets_are_refused(offsets):
    with pytest.raises(InputError, match="Offsets"):
        attend(torch.ones(4, 2), torch.ones(4, 1), offsets=offsets)


@pytest.mark.parametrize(
    ("values", "scores", "options"),
    [
        (torch.ones(2, 4, 3), torch.ones(2, 5, 1), {}),
        (torch.ones(2, 4, 3), torch.ones(2, 4), {}),
        (torch.ones(4, 3), torch.ones(5, 1), {"offsets": torch.tensor([0, 4])}),
        (torch.ones(2, 4, 3), torch.ones(2, 4, 1), {"mask": torch.ones(2, 3).bool()}),
        (torch.ones(2, 4, 3), torch.ones(2, 4, 1), {"mask": torch.ones(2, 4)}),
        (
            torch.ones(4, 3),
            torch.ones(4, 1),
            {"mask": torch.ones(1, 4).bool(), "offsets": torch.tensor([0, 4])},
        ),
        (torch.ones(2, 4, 3), torch.ones(2, 4, 1), {"normalize": "maximum"}),
    ],
)
def test_what_does_not_belong_together_is_refused(values, scores, options):
    with pytest.raises(InputError):
        attend(values, scores, **options)


@pytest.mark.parametrize("normalize_attn", [True, False])
@pytest.mark.parametrize("guide_size", [(3, 2), (1, 1), (13, 9)])
def test_block_equals_its_equation(normalize_attn, guide_size):
    torch.manual_seed(0)
    block = AttentionBlock(5, 6, attn_features=7, normalize_attn=normalize_attn).double()
    local = torch.randn(2, 5, 8, 11, dtype=torch.double)
    guide = torch.randn(2, 6, *guide_size, dtype=torch.double)
    attention, vector = block(local, guide)

    # The guide is resized before its projection here: both are linear, so the order is free.
    resized = F.interpolate(guide, size=(8, 11), mode="bilinear", align_corners=False)
    hidden = torch.einsum("ac,bchw->bahw", block.project_local.weight[:, :, 0, 0], local)
    hidden = hidden + torch.einsum("ag,bghw->bahw", block.project_guide.weight[:, :, 0, 0], resized)
    scores = torch.einsum("a,bahw->bhw", block.score.weight[0, :, 0, 0], hidden.clamp(min=0))
    scores = scores + block.score.bias
    if normalize_attn:
        weights = scores.exp() / scores.exp().sum(dim=(1, 2), keepdim=True)
        expected = torch.einsum("bhw,bchw->bc", weights, local)
    else:
        weights = 1 / (1 + (-scores).exp())
        expected = torch.einsum("bhw,bchw->bc", weights, local) / (8 * 11)
    torch.testing.assert_close(attention, weights[:, None])
    torch.testing.assert_close(vector, expected)


def test_block_has_the_signature_of_the_tutorial():
    block = AttentionBlock(256, 512, 256, normalize_attn=True)
    assert {name: tuple(p.shape) for name, p in block.named_parameters()} == {
        "project_local.weight": (256, 256, 1, 1),
        "project_guide.weight": (256, 512, 1, 1),
        "score.weight": (1, 256, 1, 1),
        "score.bias": (1,),
    }
