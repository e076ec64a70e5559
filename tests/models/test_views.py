"""Eight views: the maps turn with the image, the probabilities stay."""

import pytest
import torch

from attnvgg.errors import InputError
from attnvgg.models import VGGGAP, AttnVGG
from attnvgg.models.views import VIEWS, EightViews, with_views

SIDES = (32, 64)  # not square, so that a map turned the wrong way does not fit


@pytest.fixture(scope="module", params=[1, 3])
def model(request):
    """A model in eval mode, which itself knows no symmetry."""
    torch.manual_seed(0)
    return AttnVGG(request.param, request.param == 1, backbone="vgg11_bn").eval()


@pytest.fixture(scope="module")
def image():
    return torch.rand(1, 3, *SIDES, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def plain(model, image):
    """What eight views of the image say."""
    with torch.inference_mode():
        return EightViews(model)(image)


@pytest.fixture(scope="module")
def each(model, image):
    """What the model says of each view."""
    with torch.inference_mode():
        return {view: model(view.of(image)) for view in VIEWS}


def probabilities(logits):
    return logits.sigmoid() if logits.shape[1] == 1 else logits.softmax(1)


def test_there_are_eight_views_and_each_can_be_undone(image):
    seen = [view.of(image) for view in VIEWS]
    assert len({tuple(one.flatten().tolist()) for one in seen}) == 8
    for view, one in zip(VIEWS, seen, strict=True):
        assert torch.equal(view.undone(one), image)


@pytest.mark.parametrize("view", VIEWS, ids=str)
def test_equivariance(model, image, plain, each, view):
    """However the picture is turned, the maps turn with it, and the verdict stays."""
    with torch.inference_mode():
        turned = EightViews(model)(view.of(image))
    torch.testing.assert_close(turned.logits, plain.logits, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(turned.attn1, view.of(plain.attn1), atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(turned.attn2, view.of(plain.attn2), atol=1e-6, rtol=1e-4)
    if view != VIEWS[0]:
        assert not torch.allclose(
            each[view].attn1, view.of(each[VIEWS[0]].attn1), atol=1e-6, rtol=1e-4
        )


def test_probabilities_and_maps_are_means(model, plain, each):
    mean = torch.stack([probabilities(one.logits) for one in each.values()]).mean(0)
    torch.testing.assert_close(probabilities(plain.logits), mean)
    maps = [view.undone(one.attn2) for view, one in each.items()]
    torch.testing.assert_close(plain.attn2, torch.stack(maps).mean(0))
    if model.config["arguments"]["normalize_attn"]:
        torch.testing.assert_close(plain.attn1.sum(dim=(2, 3)), torch.ones(1, 1))


def test_certainty_stays_finite():
    class Sure(torch.nn.Module):
        def forward(self, image):
            return torch.full((len(image), 1), 200.0), None, None

    found = EightViews(Sure())(torch.zeros(1, 3, 32, 32))
    assert found.logits.item() == pytest.approx(200)


def test_models_without_maps_and_what_else_a_model_has(image):
    alone = VGGGAP(2, backbone="vgg11_bn").eval()
    model = with_views(alone, 8)
    with torch.inference_mode():
        found = model(image)
    assert found.attn1 is None
    assert found.attn2 is None
    assert model.config is alone.config
    assert with_views(alone, 1) is alone
    with pytest.raises(InputError, match="1 or 8 views"):
        with_views(alone, 4)
