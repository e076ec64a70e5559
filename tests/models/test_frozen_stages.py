"""Stages that are not trained, and their maps in place of the images."""

import copy

import pytest
import torch
from torch import nn

from attnvgg.errors import InputError
from attnvgg.models import VGGGAP, AttnVGG
from attnvgg.models.backbone import Trunk

MODELS = {
    "attnvgg": lambda backbone: AttnVGG(1, True, backbone=backbone),
    "mel-cnn": lambda backbone: AttnVGG(1, attention=False, backbone=backbone),
    "gap": lambda backbone: VGGGAP(1, backbone=backbone),
}


@pytest.fixture
def images():
    return torch.randn(4, 3, 64, 96, generator=torch.Generator().manual_seed(0))


def build(name="attnvgg", backbone="vgg11_bn", frozen=0):
    torch.manual_seed(0)
    model = MODELS[name](backbone)
    for module in model.modules():  # statistics that are those of no batch
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    if frozen:
        model.stages.freeze(frozen)
    return model.train()


def stage_of(name):
    return int(name.split(".")[1]) + 1 if name.startswith("stages.") else 6


@pytest.mark.parametrize("frozen", [1, 4, 5])
def test_neither_gradients_nor_statistics_reach_frozen_stages(images, frozen):
    model = build(frozen=frozen)
    before = copy.deepcopy(dict(model.named_buffers()))
    model(images).logits.sum().backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == (stage_of(name) > frozen), name
    for name, buffer in model.named_buffers():
        assert torch.equal(buffer, before[name]) == (stage_of(name) <= frozen), name


def test_the_graph_ends_where_the_frozen_stages_do(images):
    model = build(frozen=4)
    maps = model.stages(images)
    assert [m.requires_grad for m in maps] == [False] * 4 + [True]


@pytest.mark.parametrize("backbone", ["vgg11", "vgg11_bn"])
def test_what_is_trained_gets_the_gradients_of_the_whole_model(images, backbone):
    """With the same statistics, leaving out the backward pass of the first stages changes none."""
    frozen, whole = build(backbone=backbone, frozen=3), build(backbone=backbone)
    for stage in list(whole.stages)[:3]:
        stage.eval()
    for model in (frozen, whole):
        model(images).logits.square().sum().backward()
    expected = dict(whole.named_parameters())
    for name, parameter in frozen.named_parameters():
        if stage_of(name) > 3:
            torch.testing.assert_close(parameter.grad, expected[name].grad)
    assert expected["stages.0.0.weight"].grad.abs().sum() > 0


def test_freezing_again_frees_the_others(images):
    model = build(frozen=5)
    model.stages.freeze(2)
    model(images).logits.sum().backward()
    assert model.stages[2][0].weight.grad is not None
    assert model.stages[1][0].weight.grad is None
    assert model.stages[2].training
    assert not model.stages[1].training
    assert not model.eval().stages[4].training


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("frozen", [1, 2, 3, 4, 5])
def test_maps_stand_for_the_images_they_are_of(images, name, frozen):
    model = build(name, frozen=frozen).eval()
    trunk = Trunk(model.stages, frozen, model.reads).eval()
    with torch.inference_mode():
        kept = dict(zip(trunk.kept, trunk(images), strict=True))
        found = model([kept.get(number) for number in range(1, frozen + 1)])
        expected = model(images)
    assert torch.equal(found.logits, expected.logits)
    if expected.attn1 is not None:
        assert torch.equal(found.attn1, expected.attn1)


def test_a_trunk_returns_what_the_rest_reads_and_no_more():
    model = build()
    assert [Trunk(model.stages, n, model.reads).kept for n in range(1, 6)] == [
        (1,), (2,), (3,), (3, 4), (3, 4, 5)
    ]  # fmt: skip
    assert Trunk(model.stages, 5, VGGGAP.reads).kept == (5,)


def test_no_images_at_all_are_refused():
    with pytest.raises(InputError, match="Images must be"):
        build().stages(torch.zeros(3, 64, 64))
