import pytest
import torch
from torch import nn
from torchvision.models import vgg16

from attnvgg.errors import InputError
from attnvgg.models import VGGGAP, AttentionBlock, AttnVGG, VGGDense
from tests.contract import ImageModelContract


class TestSigmoidAttnVGG(ImageModelContract):
    attention = "sigmoid"

    def build(self, num_classes=2, **arguments):
        return AttnVGG(num_classes, backbone="vgg11_bn", **arguments)


class TestSoftmaxAttnVGG(ImageModelContract):
    attention = "softmax"
    # A constant added to every score leaves a softmax as it is.
    indifferent = ("attn1.score.bias", "attn2.score.bias")

    def build(self, num_classes=2, **arguments):
        return AttnVGG(num_classes, normalize_attn=True, dropout=0.2, backbone="vgg11", **arguments)


class TestAttnVGGWithoutAttention(ImageModelContract):
    def build(self, num_classes=2, **arguments):
        return AttnVGG(num_classes, attention=False, backbone="vgg11", **arguments)


class TestVGGGAP(ImageModelContract):
    def build(self, num_classes=2, **arguments):
        return VGGGAP(num_classes, backbone="vgg11_bn", **arguments)


class TestVGGDense(ImageModelContract):
    sizes = ((224, 224),)

    def build(self, num_classes=2, **arguments):
        return VGGDense(num_classes, dense_features=8, backbone="vgg11", **arguments)


def test_parameters_of_the_paper():
    assert sum(parameter.numel() for parameter in AttnVGG(1).parameters()) == 15_183_683


def test_dense_control_has_the_layers_of_vgg():
    with torch.device("meta"):
        ours = VGGDense(7, backbone="vgg16")
        theirs = vgg16(num_classes=7)
    shapes = [parameter.shape for parameter in ours.parameters()]
    assert shapes == [parameter.shape for parameter in theirs.parameters()]


def test_attention_is_asked_from_the_third_and_fourth_pooling():
    model = AttnVGG(1, backbone="vgg11").eval()
    image = torch.randn(1, 3, 64, 64)
    _, _, pool3, pool4, pool5 = model.stages(image)
    attn1, vector1 = model.attn1(pool3, pool5)
    attn2, vector2 = model.attn2(pool4, pool5)
    features = torch.cat([pool5.mean(dim=(2, 3)), vector1, vector2], dim=1)
    expected = features @ model.classifier.weight.T + model.classifier.bias
    output = model(image)
    torch.testing.assert_close(output.logits, expected)
    torch.testing.assert_close(output.attn1, attn1)
    torch.testing.assert_close(output.attn2, attn2)


def test_average_of_the_last_map_is_the_papers_pooling_at_224():
    model = VGGGAP(1, backbone="vgg11").eval()
    pool5 = torch.randn(2, 512, 7, 7)
    torch.testing.assert_close(pool5.mean(dim=(2, 3)), nn.AvgPool2d(7)(pool5).flatten(1))
    model.stages = nn.Sequential()
    model.stages.forward = lambda image: (pool5,)
    expected = model.classifier(nn.AvgPool2d(7)(pool5).flatten(1))
    torch.testing.assert_close(model(torch.zeros(2, 3, 224, 224)).logits, expected)


def test_initialisation_of_the_new_layers():
    torch.manual_seed(0)
    model = AttnVGG(4)
    block = model.attn2
    assert isinstance(block, AttentionBlock)
    for layer in (block.project_local, block.project_guide):
        assert layer.bias is None
        assert layer.weight.std().item() == pytest.approx((2 / 512) ** 0.5, rel=0.02)
    assert block.score.weight.std().item() == pytest.approx((2 / 256) ** 0.5, rel=0.2)
    assert model.classifier.weight.std().item() == pytest.approx(0.01, rel=0.05)
    assert not block.score.bias.any()
    assert not model.classifier.bias.any()


def test_dropout_acts_in_training_only():
    model = AttnVGG(1, dropout=0.5, backbone="vgg11")
    image = torch.randn(1, 3, 32, 32)
    with torch.inference_mode():
        assert not torch.equal(model.train()(image).logits, model(image).logits)
        assert torch.equal(model.eval()(image).logits, model(image).logits)


@pytest.mark.parametrize("dropout", [-0.1, 1.0, 1.5])
def test_impossible_dropout_is_refused(dropout):
    with pytest.raises(InputError, match="probability"):
        AttnVGG(1, dropout=dropout, backbone="vgg11")
