"""Grad-CAM of the library against its definition, and without traces in the model."""

import sys

import numpy as np
import pytest
import torch
from torch import nn

from attnvgg import AttnVGG
from attnvgg.errors import InputError
from attnvgg.explain.grad_cam import grad_cam, last_convolution
from attnvgg.models import VGGGAP, ImageOutput


@pytest.fixture(scope="module", params=["vgg11", "vgg11_bn"])
def model(request):
    torch.manual_seed(0)
    return AttnVGG(3, backbone=request.param).eval()


@pytest.fixture
def images():
    return torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def by_definition(model, images, classes):
    """ReLU(sum of channels x mean gradient) of the last rectified map (Selvaraju et al.)."""
    kept = []
    hook = last_convolution(model).register_forward_hook(lambda *args: kept.append(args[2]))
    logits = model(images).logits
    hook.remove()
    chosen = logits[torch.arange(len(images)), torch.tensor(classes)].sum()
    (gradient,) = torch.autograd.grad(chosen, kept)
    weighted = (gradient.mean(dim=(2, 3), keepdim=True) * kept[0]).sum(dim=1).relu()
    low = weighted.amin(dim=(1, 2), keepdim=True)
    high = weighted.amax(dim=(1, 2), keepdim=True)
    return ((weighted - low) / (high - low + 1e-7)).detach().numpy()


def test_it_is_its_definition(model, images):
    classes = [0, 2, 1]
    found = grad_cam(model, images, classes)
    assert found.shape == (3, 4, 4)
    np.testing.assert_allclose(found, by_definition(model, images, classes), atol=1e-3)


def test_it_depends_on_the_class(model, images):
    assert not np.allclose(grad_cam(model, images, [0] * 3), grad_cam(model, images, [1] * 3))


def test_nothing_is_left_in_the_model(model, images):
    flags = [weight.requires_grad for weight in model.parameters()]
    model.train()
    model.classifier.eval()
    modes = [module.training for module in model.modules()]
    state = {name: value.clone() for name, value in model.state_dict().items()}
    grad_cam(model, images, [0, 1, 2])
    assert [weight.requires_grad for weight in model.parameters()] == flags
    assert all(weight.grad is None for weight in model.parameters())
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())
    model.eval()


def test_it_works_within_inference_mode(model, images):
    with torch.inference_mode():
        found = grad_cam(model, images, [0, 1, 2])
    np.testing.assert_array_equal(found, grad_cam(model, images, [0, 1, 2]))


def test_of_one_logit_the_two_classes_speak_against_each_other():
    """Where the last map is one channel, its evidence is for one class or for the other."""

    class OneChannel(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.Sequential(nn.Conv2d(3, 1, 3, padding=1), nn.ReLU())

        def forward(self, images):
            return ImageOutput(self.layers(images).mean(dim=(2, 3)), None, None)

    torch.manual_seed(0)
    images = torch.randn(2, 3, 8, 8)
    model = OneChannel().eval()
    assert grad_cam(model, images, [1, 1]).max() == pytest.approx(1, abs=1e-4)
    assert grad_cam(model, images, [0, 0]).max() == 0


def test_the_layer_is_the_last_before_the_last_pooling():
    model = VGGGAP(2, backbone="vgg11_bn")
    assert last_convolution(model) is model.stages[-1][-2]


def test_a_model_without_convolutions():
    with pytest.raises(InputError, match="convolutions"):
        last_convolution(nn.Linear(2, 2))


def test_a_class_an_image(model, images):
    with pytest.raises(InputError, match="3 images"):
        grad_cam(model, images, [0])


def test_without_the_library(model, images, monkeypatch):
    monkeypatch.setitem(sys.modules, "pytorch_grad_cam", None)
    with pytest.raises(InputError, match=r"attnvgg\[explain\]"):
        grad_cam(model, images, [0, 1, 2])
