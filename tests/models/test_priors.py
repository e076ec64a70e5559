"""The prior on attention, against the formula written out image by image."""

import numpy as np
import pytest
import torch

from attnvgg.errors import InputError
from attnvgg.models import AttentionPrior, AttnVGG
from attnvgg.models.priors import dice_distance

SIDE = 32


def batch(count=4, seed=0):
    """Return maps of pool-3 and pool-4, masks, and that all images have one."""
    random = torch.Generator().manual_seed(seed)
    attn1 = torch.rand(count, 1, SIDE // 8, SIDE // 8, generator=random)
    attn2 = torch.rand(count, 1, SIDE // 16, SIDE // 16, generator=random)
    mask = (torch.rand(count, 1, SIDE, SIDE, generator=random) > 0.6).float()
    return attn1, attn2, mask, torch.ones(count, dtype=torch.bool)


def by_hand(attention, mask):
    """Return the Dice distance of one image, with plain means over blocks."""
    a, m = attention[0].double().numpy(), mask[0].double().numpy()
    block = m.shape[0] // a.shape[0]
    m = m.reshape(a.shape[0], block, a.shape[1], block).mean(axis=(1, 3))
    return 1 - 2 * (a * m).sum() / (a.sum() + m.sum())


def test_each_image_counts_alike_as_in_the_paper():
    attn1, attn2, mask, known = batch()
    mask[0, :, 4:] = 0  # a small lesion: one Dice over the whole batch would hardly see it
    total, images = AttentionPrior((0.5, 0.25), rescale=False)(attn1, attn2, mask, known)
    expected = sum(
        0.5 * by_hand(attn1[i], mask[i]) + 0.25 * by_hand(attn2[i], mask[i]) for i in range(4)
    )
    assert images == 4
    assert float(total) == pytest.approx(expected, rel=1e-5)


def test_dice_of_equal_and_of_disjoint_maps():
    left = torch.zeros(1, 1, 4, 4)
    left[..., :2] = 1
    assert dice_distance(left, left).item() == 0
    assert dice_distance(left, 1 - left).item() == 1
    assert dice_distance(0 * left, 0 * left).item() == 1, "and no division by zero"


def test_images_without_a_mask_and_with_an_empty_one_ask_for_nothing():
    attn1, attn2, mask, known = batch()
    known[1], mask[2] = False, 0
    attn1.requires_grad_()
    prior = AttentionPrior(rescale=False)
    total, images = prior(attn1, attn2, mask, known)
    total.backward()
    assert images == 2
    assert (attn1.grad.abs().sum(dim=(1, 2, 3)) > 0).tolist() == [True, False, False, True]
    alone = [prior(*(part[[i]] for part in (attn1, attn2, mask, known))).total for i in (0, 3)]
    torch.testing.assert_close(total, sum(alone))


@pytest.mark.parametrize("background", [False, True])
def test_what_is_no_mask_may_be_anything(background):
    attn1, attn2, mask, known = batch()
    known[1], mask[1] = False, float("nan")
    attn1.requires_grad_()
    total, images = AttentionPrior(rescale=True, background=background)(attn1, attn2, mask, known)
    total.backward()
    assert images == 3
    assert total.isfinite()
    assert attn1.grad.isfinite().all()
    assert not attn1.grad[1].any()


def test_the_background_is_the_rest_of_the_mask():
    attn1, attn2, mask, known = batch()
    control = AttentionPrior(rescale=False, background=True)
    plain = AttentionPrior(rescale=False)
    torch.testing.assert_close(
        control(attn1, attn2, mask, known).total, plain(attn1, attn2, 1 - mask, known).total
    )
    mask[0], mask[1] = 0, 1  # an empty mask is no background, and a full one leaves none
    assert control(attn1, attn2, mask, known).images == 2


def test_no_image_with_a_mask_is_no_prior():
    attn1, attn2, mask, known = batch()
    attn1.requires_grad_()
    total, images = AttentionPrior(rescale=True)(attn1, attn2, 0 * mask, known)
    total.backward()
    assert (total.item(), images) == (0, 0)
    assert not attn1.grad.any()


def test_softmax_maps_are_rescaled():
    """Their sum is 1 whatever they show: only the shape may count."""
    attn1, attn2, mask, known = batch()
    prior = AttentionPrior(rescale=True)
    found = prior(attn1 / attn1.sum(), attn2 / attn2.sum(), mask, known).total
    torch.testing.assert_close(found, prior(attn1, attn2, mask, known).total)
    perfect = torch.nn.functional.avg_pool2d(mask, 8)
    scaled = perfect / perfect.amax(dim=(2, 3), keepdim=True)
    only3 = AttentionPrior((1.0, 0.0), rescale=True)(perfect / 16, attn2, mask, known).total
    expected = sum(by_hand(scaled[i], mask[i]) for i in range(4))
    assert float(only3) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("softmax", [True, False])
def test_its_gradient_leads_into_the_mask(softmax):
    """Scores of an `AttentionBlock` that follow it end where the mask is, in either mode."""
    mask = torch.zeros(1, 1, SIDE, SIDE)
    mask[..., 8:16, 8:24] = 1
    prior, known = AttentionPrior((1.0, 1.0), rescale=softmax), torch.ones(1, dtype=torch.bool)
    scores = [torch.zeros(1, 1, side, side, requires_grad=True) for side in (4, 2)]
    optimizer = torch.optim.Adam(scores, lr=0.3)
    for _ in range(60):
        flat = [s.flatten(1).softmax(1).view_as(s) if softmax else s.sigmoid() for s in scores]
        optimizer.zero_grad()
        prior(*flat, mask, known).total.backward()
        optimizer.step()
    inside = torch.nn.functional.avg_pool2d(mask, 8) > 0
    assert scores[0][inside].min() > scores[0][~inside].max() + 1


def test_a_model_follows_it():
    """Gradients reach both attention blocks, and the stages before them."""
    model = AttnVGG(1, True, backbone="vgg11_bn")
    _, _, mask, known = batch()
    output = model(torch.rand(4, 3, SIDE, SIDE))
    AttentionPrior(rescale=True)(output.attn1, output.attn2, mask, known).total.backward()
    for part in (model.attn1, model.attn2, model.stages[2]):
        assert any(p.grad.abs().sum() > 0 for p in part.parameters() if p.grad is not None)


def test_maps_in_half_precision_are_summed_in_full():
    attn1, attn2, mask, known = batch()
    low = AttentionPrior(rescale=True)(attn1.bfloat16(), attn2.bfloat16(), mask, known).total
    full = AttentionPrior(rescale=True)(attn1, attn2, mask, known).total
    assert low.dtype == torch.float32
    np.testing.assert_allclose(low, full, rtol=1e-2)


@pytest.mark.parametrize("weights", [(-1.0, 0.1), (float("nan"), 0.1), (0.1,)])
def test_impossible_weights(weights):
    with pytest.raises(InputError, match="two weights"):
        AttentionPrior(weights, rescale=True)
