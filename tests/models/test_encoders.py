import json
import sys

import pytest
import torch
from torch import nn
from torchvision.models import get_model, resnet18

from attnvgg.errors import InputError
from attnvgg.models import ENCODERS, AttnVGG, Encoder, WeightsUnavailable
from tests.contract import assert_same_state, randomise_batch_norm

# specification, shape of an instance, features
CASES = [
    ({"name": "mlp"}, (1, 28, 28), 64),
    ({"name": "mlp", "in_features": 6, "hidden": [5]}, (2, 3), 5),
    ({"name": "lenet"}, (1, 28, 28), 500),
    ({"name": "lenet"}, (28, 28), 500),
    ({"name": "digit_resnet18"}, (1, 28, 28), 512),
    ({"name": "digit_resnet18"}, (28, 28), 512),
    ({"name": "identity", "in_features": 7}, (7,), 7),
    ({"name": "standardized", "in_features": 7, "hidden": [5]}, (7,), 5),
    ({"name": "panda", "size": 32}, (3, 32, 32), 512),
    ({"name": "attnvgg", "backbone": "vgg11"}, (3, 32, 40), 1280),
    ({"name": "attnvgg", "backbone": "vgg11_bn", "attention": False}, (3, 33, 32), 1280),
    ({"name": "torchvision"}, (3, 32, 32), 512),
    ({"name": "torchvision", "model": "mobilenet_v3_small"}, (3, 33, 48), 1024),
    ({"name": "torchvision", "model": "efficientnet_b0"}, (3, 32, 32), 1280),
    ({"name": "timm", "model": "resnet18"}, (3, 32, 32), 512),
    ({"name": "timm", "model": "mobilenetv3_small_050"}, (3, 32, 40), 1024),
]


def test_every_encoder_is_tested():
    assert {spec["name"] for spec, _, _ in CASES} == set(ENCODERS)


def build(spec):
    if spec["name"] == "timm":
        pytest.importorskip("timm")
    torch.manual_seed(0)
    return randomise_batch_norm(Encoder.build(ENCODERS, spec)).eval()


@pytest.mark.parametrize(("spec", "shape", "features"), CASES)
class TestEncoder:
    def test_every_instance_becomes_a_vector_on_its_own(self, spec, shape, features):
        encoder = build(spec)
        assert encoder.out_features == features
        instances = torch.randn(3, *shape, generator=torch.Generator().manual_seed(1))
        with torch.inference_mode():
            vectors = encoder(instances)
            assert vectors.shape == (3, features)
            assert vectors.std(dim=0).max() > 0
            for instance, vector in zip(instances, vectors, strict=True):
                torch.testing.assert_close(encoder(instance[None])[0], vector, rtol=1e-4, atol=1e-5)

    def test_specification_builds_the_same_encoder(self, spec, shape, features):
        encoder = build(spec)
        assert "weights" not in encoder.spec
        again = build(json.loads(json.dumps(encoder.spec)))
        assert type(again) is type(encoder)
        assert again.spec == encoder.spec
        assert spec.items() <= encoder.spec.items()
        assert_same_state(encoder.state_dict(), again.state_dict())

    def test_instances_of_another_shape_are_refused(self, spec, shape, features):
        encoder = build(spec)
        if encoder.instance_shape is not None:
            encoder(torch.zeros(1, *encoder.instance_shape))
        with pytest.raises(InputError, match="must be"):
            encoder(torch.zeros(2, *shape[:-1], 5, 6, 7))
        with pytest.raises(InputError, match="must be"):
            encoder(torch.zeros(2, 11, *shape[1:]))

    def test_gradients_reach_every_parameter(self, spec, shape, features):
        encoder = build(spec)
        vectors = encoder(torch.randn(3, *shape, generator=torch.Generator().manual_seed(1)))
        if spec["name"] != "identity":
            vectors.square().sum().backward()
        for name, parameter in encoder.named_parameters():
            assert parameter.grad is not None, name


def test_dense_layers_are_those_of_keras():
    torch.manual_seed(0)
    encoder = ENCODERS["mlp"]()
    assert sum(parameter.numel() for parameter in encoder.parameters()) == 784 * 128 + 192 + 8192
    for layer, fans in ((encoder.layers[0], 784 + 128), (encoder.layers[2], 128 + 64)):
        assert layer.weight.abs().max().item() == pytest.approx((6 / fans) ** 0.5, rel=0.01)
        assert not layer.bias.any()
    images = torch.randn(2, 28, 28)
    hidden = (images.flatten(1) @ encoder.layers[0].weight.T).relu()
    torch.testing.assert_close(encoder(images), (hidden @ encoder.layers[2].weight.T).relu())


def test_standardized_features():
    """Those of mean 3 and deviation 4 come to 0 and 1; one that never changes comes to 0."""
    encoder = ENCODERS["standardized"](in_features=2, hidden=())
    encoder.fit(torch.tensor([3.0, 5.0]), torch.tensor([4.0, 0.0]))
    found = encoder(torch.tensor([[7.0, 5.0], [-1.0, 5.0]]))
    torch.testing.assert_close(found, torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))
    again = Encoder.build(ENCODERS, encoder.spec)
    again.load_state_dict(encoder.state_dict())
    torch.testing.assert_close(again(torch.ones(1, 2)), encoder(torch.ones(1, 2)))


def test_parameters_of_recipe_g():
    """SPEC 2: the first dense layer; the published one, of all 16 tiles, has 353,894,912."""
    encoder = ENCODERS["panda"]()
    counts = [sum(p.numel() for p in layer.parameters()) for layer in encoder.layers]
    convolutions = [3 * 36 * 16 + 36, 36 * 48 * 9 + 48]
    assert [count for count in counts if count] == [*convolutions, 22_118_912, 512 * 512 + 512]


def test_recipe_g_is_the_published_order_of_layers():
    """ReLU, then pool, as published; ours pools first."""
    torch.manual_seed(0)
    encoder = ENCODERS["panda"](size=20)
    first, second, hidden, last = (layer for layer in encoder.layers if list(layer.parameters()))
    tiles = torch.randn(2, 3, 20, 20)
    found = nn.functional.max_pool2d(first(tiles).relu(), 2)
    found = nn.functional.max_pool2d(second(found).relu(), 2).flatten(1)
    torch.testing.assert_close(encoder(tiles), last(hidden(found).relu()).relu())


def test_tiles_that_are_too_small_for_recipe_g():
    ENCODERS["panda"](size=10)
    with pytest.raises(InputError, match="10 pixels"):
        ENCODERS["panda"](size=9)


def test_parameters_of_lenet():
    count = sum(parameter.numel() for parameter in ENCODERS["lenet"]().parameters())
    assert count == (25 * 20 + 20) + (25 * 20 * 50 + 50) + (800 * 500 + 500)


def test_digit_resnet_is_a_resnet_with_a_grey_stem():
    encoder = randomise_batch_norm(ENCODERS["digit_resnet18"]()).eval()
    whole = resnet18()
    whole.fc = nn.Identity()
    state = encoder.network.state_dict()
    grey = state["conv1.weight"]
    assert grey.shape == (64, 1, 7, 7)
    whole.load_state_dict({**state, "conv1.weight": grey.repeat(1, 3, 1, 1) / 3})
    digits = torch.rand(2, 1, 28, 28)
    expected = whole.eval()(digits.repeat(1, 3, 1, 1))
    torch.testing.assert_close(encoder(digits), expected, rtol=1e-4, atol=1e-5)


def test_attnvgg_features_are_those_in_front_of_its_last_layer():
    whole = AttnVGG(2, True, backbone="vgg11").eval()
    encoder = build({"name": "attnvgg", "normalize_attn": True, "backbone": "vgg11"})
    state = {name: t for name, t in whole.state_dict().items() if "classifier" not in name}
    encoder.network.load_state_dict(state)
    image = torch.randn(2, 3, 40, 32)
    torch.testing.assert_close(whole.classifier(encoder(image)), whole(image).logits)


@pytest.mark.parametrize("dropout", [None, 0.5])
def test_attnvgg_takes_the_arguments_of_attnvgg(dropout):
    arguments = {"normalize_attn": True, "dropout": dropout, "backbone": "vgg11"}
    encoder = ENCODERS["attnvgg"](**arguments)
    assert encoder.spec == {"name": "attnvgg", "attention": True, **arguments}
    with pytest.raises(InputError, match="cannot be built"):
        Encoder.build(ENCODERS, {"name": "attnvgg", "num_classes": 3})


@pytest.mark.parametrize("name", ["torchvision", "timm"])
@pytest.mark.parametrize("classes", [1000, 3])
def test_local_weights_are_loaded_but_for_the_last_layer(name, classes, tmp_path):
    torch.manual_seed(1)
    if name == "timm":
        whole = pytest.importorskip("timm").create_model("resnet18", num_classes=classes)
    else:
        whole = get_model("resnet18", num_classes=classes)
    torch.save(randomise_batch_norm(whole).state_dict(), tmp_path / "weights.pth")
    spec = {"name": name, "model": "resnet18", "weights": str(tmp_path / "weights.pth")}
    encoder = Encoder.build(ENCODERS, spec).eval()
    assert encoder.spec == {"name": name, "model": "resnet18"}
    image = torch.randn(2, 3, 32, 40)
    with torch.inference_mode():
        torch.testing.assert_close(whole.fc(encoder(image)), whole.eval()(image))
    with pytest.raises(InputError, match="do not fit"):
        Encoder.build(ENCODERS, {**spec, "model": "resnet34"})
    with pytest.raises(InputError, match="no file of weights"):
        Encoder.build(ENCODERS, {**spec, "weights": str(tmp_path / "absent.pth")})


@pytest.mark.parametrize("name", ["torchvision", "timm"])
def test_weights_that_cannot_be_fetched_are_one_sentence(name, tmp_path, monkeypatch):
    if name == "timm":
        pytest.importorskip("timm")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with pytest.raises(WeightsUnavailable, match="weights of resnet34 could not") as caught:
        ENCODERS[name]("resnet34", weights="imagenet")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"name": "torchvision", "model": "resnet1"}, "no classifier 'resnet1'"),
        ({"name": "torchvision", "model": "fasterrcnn_resnet50_fpn"}, "no classifier"),
        ({"name": "torchvision", "model": "inception_v3"}, "more than one last layer"),
        ({"name": "torchvision", "model": "squeezenet1_1"}, "does not end in a linear layer"),
        ({"name": "mlp", "hidden": [0]}, "at least one feature"),
        ({"name": "identity", "in_features": 0}, "at least one feature"),
        ({"name": "identity"}, "cannot be built"),
        ({"name": "attnvgg", "backbone": "resnet18"}, "no backbone"),
    ],
)
def test_impossible_encoders_are_refused(spec, message):
    with pytest.raises(InputError, match=message):
        Encoder.build(ENCODERS, spec)


def test_names_that_timm_would_fetch_are_refused():
    pytest.importorskip("timm")
    for model in ("hf-hub:someone/model", "hf_hub:someone/resnet18", "local-dir:/tmp", "resnet"):
        with pytest.raises(InputError, match="timm has no model"):
            ENCODERS["timm"](model)


def test_without_timm_its_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(InputError, match=r'pip install "attnvgg\[models\]"'):
        ENCODERS["timm"]("resnet18")
