import hashlib
from urllib.error import HTTPError, URLError

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn
from torchvision.models import VGG11_BN_Weights, VGG11_Weights, WeightsEnum

from attnvgg.errors import InputError
from attnvgg.models import BACKBONES, VGGGAP, AttnVGG, VGGDense, WeightsUnavailable
from attnvgg.models.backbone import vgg_stages


@pytest.fixture(scope="module")
def torchvision_vgg11():
    torch.manual_seed(3)
    with torch.device("meta"):
        model = torchvision.models.vgg11_bn()
    # A narrower classifier keeps the file small; the stages never look at it.
    model.classifier = nn.Sequential(nn.Linear(4, 4))
    return model.to_empty(device="cpu").apply(_fill).eval()


def _fill(layer):
    for parameter in layer.parameters(recurse=False):
        nn.init.normal_(parameter, std=0.05)
    if isinstance(layer, nn.BatchNorm2d):
        layer.reset_running_stats()


@pytest.mark.parametrize("backbone", BACKBONES)
def test_stages_are_torchvisions_features_cut_after_the_poolings(backbone):
    with torch.device("meta"):
        stages = vgg_stages(backbone)
        whole = torchvision.models.get_model(backbone).features
    layers = [layer for stage in stages for layer in stage]
    assert [repr(layer) for layer in layers] == [repr(layer) for layer in whole]
    assert len(stages) == 5
    assert all(isinstance(stage[-1], nn.MaxPool2d) for stage in stages)


def test_stages_return_the_five_pooled_maps():
    stages = vgg_stages("vgg13")
    maps = stages(torch.randn(1, 3, 64, 96))
    shapes = [(64, 32, 48), (128, 16, 24), (256, 8, 12), (512, 4, 6), (512, 2, 3)]
    assert [tuple(map_.shape[1:]) for map_ in maps] == shapes
    for stage, before, after in zip(stages[1:], maps[:-1], maps[1:], strict=True):
        assert torch.equal(stage(before), after)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_local_file_gives_torchvisions_maps(torchvision_vgg11, tmp_path, suffix):
    path = tmp_path / f"weights{suffix}"
    state = torchvision_vgg11.state_dict()
    torch.save(state, path) if suffix == ".pth" else save_file(state, path)
    model = AttnVGG(1, backbone="vgg11_bn", weights=path).eval()
    image = torch.randn(2, 3, 64, 32)
    with torch.inference_mode():
        torch.testing.assert_close(model.stages(image)[-1], torchvision_vgg11.features(image))


def test_weights_from_before_batches_were_counted_fit(torchvision_vgg11, tmp_path):
    state = torchvision_vgg11.state_dict()
    old = {name: tensor for name, tensor in state.items() if "num_batches" not in name}
    assert len(old) < len(state)
    torch.save(old, tmp_path / "old.pth")
    VGGGAP(1, backbone="vgg11_bn", weights=str(tmp_path / "old.pth"))


def test_weights_of_another_backbone_are_named(torchvision_vgg11, tmp_path):
    torch.save(torchvision_vgg11.state_dict(), tmp_path / "vgg11_bn.pth")
    with pytest.raises(InputError, match="do not fit") as caught:
        AttnVGG(1, backbone="vgg13_bn", weights=tmp_path / "vgg11_bn.pth")
    assert any(line.startswith("missing: 28.weight") for line in caught.value.offenders)
    assert any(line.startswith("wrong shape: 4.") for line in caught.value.offenders)


def test_dense_layers_take_their_weights_too(tmp_path):
    state = {f"features.{n}": t for n, t in torchvision_features("vgg11").items()}
    dense = {"0.weight": (6, 25088), "0.bias": (6,), "3.weight": (6, 6), "3.bias": (6,)}
    state |= {f"classifier.{name}": torch.rand(shape) for name, shape in dense.items()}
    state |= {"classifier.6.weight": torch.rand(1000, 6), "classifier.6.bias": torch.rand(1000)}
    torch.save(state, tmp_path / "vgg.pth")
    model = VGGDense(1, dense_features=6, backbone="vgg11", weights=tmp_path / "vgg.pth")
    for name, tensor in model.dense.state_dict().items():
        assert torch.equal(tensor, state[f"classifier.{name}"])


def torchvision_features(backbone):
    with torch.device("meta"):
        features = torchvision.models.get_model(backbone).features
    return features.to_empty(device="cpu").apply(_fill).state_dict()


def test_imagenet_is_torchvisions_default(torchvision_vgg11, monkeypatch):
    asked = []

    def get_state_dict(self, **options):
        asked.append((self, options))
        return torchvision_vgg11.state_dict()

    monkeypatch.setattr(WeightsEnum, "get_state_dict", get_state_dict)
    for weights in ("imagenet", VGG11_BN_Weights.IMAGENET1K_V1):
        model = VGGGAP(1, backbone="vgg11_bn", weights=weights)
        first = torchvision_vgg11.features[0].weight
        assert torch.equal(model.stages[0][0].weight, first)
    assert [member for member, _ in asked] == [VGG11_BN_Weights.DEFAULT] * 2
    assert all(options["check_hash"] for _, options in asked)


@pytest.mark.parametrize(
    "error",
    [
        URLError("no route"),
        HTTPError("http://nowhere", 403, "forbidden", None, None),
        OSError("disk full"),
        RuntimeError("invalid hash value"),
    ],
)
def test_weights_that_cannot_be_fetched_say_the_ways_out(monkeypatch, error):
    def get_state_dict(self, **options):
        raise error

    monkeypatch.setattr(WeightsEnum, "get_state_dict", get_state_dict)
    with pytest.raises(WeightsUnavailable) as caught:
        AttnVGG(1, weights="imagenet")
    message = str(caught.value)
    assert "network" in message
    assert "vgg16_bn-6c64b313.pth" in message
    assert "no weights" in message


def test_hash_of_a_download_is_checked(monkeypatch, tmp_path):
    """A file of the right name and the wrong content is not silently used."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    name = VGG11_Weights.DEFAULT.url.rpartition("/")[2]
    content = b"not the weights"
    assert hashlib.sha256(content).hexdigest()[:8] not in name
    cache = tmp_path / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    (cache / name).write_bytes(content)
    with pytest.raises(WeightsUnavailable):
        AttnVGG(1, backbone="vgg11", weights="imagenet")


def test_enum_of_another_network_is_refused():
    with pytest.raises(InputError, match="not weights of vgg16_bn"):
        AttnVGG(1, weights=VGG11_Weights.DEFAULT)


def test_unknown_backbone_is_refused():
    with pytest.raises(InputError, match="vgg16_bn"):
        AttnVGG(1, backbone="resnet18")


def test_missing_file_is_refused(tmp_path):
    with pytest.raises(InputError, match="no file of weights"):
        AttnVGG(1, weights=tmp_path / "absent.pth")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("content", [b"", b"nonsense", b"PK\x03\x04cut", b"\x80\x02}q\x00"])
def test_corrupted_file_is_refused(tmp_path, suffix, content):
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"cannot be read as weights|named tensors"):
        AttnVGG(1, backbone="vgg11", weights=path)


@pytest.mark.parametrize("content", [[1, 2], {}, {"epoch": 3}, {1: torch.zeros(1)}])
def test_file_without_named_tensors_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "weights.pth")
    with pytest.raises(InputError, match="named tensors"):
        AttnVGG(1, backbone="vgg11", weights=tmp_path / "weights.pth")


def test_code_in_a_file_is_not_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "trapped"), "w"))

    torch.save({"features.0.weight": Trap()}, tmp_path / "weights.pth")
    with pytest.raises(InputError, match="more than tensors"):
        AttnVGG(1, backbone="vgg11", weights=tmp_path / "weights.pth")
    assert not (tmp_path / "trapped").exists()
