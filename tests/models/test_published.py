import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models import vgg16_bn

from attnvgg.errors import InputError
from attnvgg.models import AttnVGG, load_published


def published_state(num_classes=2, attention=True):
    """A state dict named as the paper's: convolutions of each stage counted from 0, no poolings."""
    torch.manual_seed(5)
    with torch.device("meta"):
        features = vgg16_bn().features
    modules = nn.ModuleDict()
    layers, stage = iter(features), 1
    block = nn.Sequential()
    for layer in layers:
        if isinstance(layer, nn.MaxPool2d):
            modules[f"conv_block{stage}"] = block
            block, stage = nn.Sequential(), stage + 1
        else:
            block.append(layer)
    if attention:
        for name, width in (("attn1", 256), ("attn2", 512)):
            modules[name] = nn.ModuleDict(
                {
                    "W_l": nn.Conv2d(width, 256, 1, bias=False),
                    "W_g": nn.Conv2d(512, 256, 1, bias=False),
                    "phi": nn.Conv2d(256, 1, 1),
                }
            )
    modules["cls"] = nn.Linear(1280, num_classes)
    modules = modules.to_empty(device="cpu")
    for parameter in modules.parameters():
        nn.init.normal_(parameter, std=0.04)
    for layer in modules.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.reset_running_stats()
            nn.init.uniform_(layer.running_var, 0.5, 1.5)
    return modules.eval()


def published_forward(modules, image):
    """The published model in sigmoid mode, independent of ours."""
    maps = []
    for stage in range(1, 6):
        image = F.max_pool2d(modules[f"conv_block{stage}"](image), 2)
        maps.append(image)
    guide, vectors, attention = maps[4], [maps[4].mean((2, 3))], []
    for name, local in (("attn1", maps[2]), ("attn2", maps[3])):
        block = modules[name]
        up = F.interpolate(block["W_g"](guide), size=local.shape[2:], mode="bilinear")
        weights = block["phi"](F.relu(block["W_l"](local) + up)).sigmoid()
        attention.append(weights)
        vectors.append((weights * local).mean((2, 3)))
    return modules["cls"](torch.cat(vectors, dim=1)), *attention


@pytest.fixture(scope="module")
def published():
    return published_state()


@pytest.mark.parametrize("wrapping", ["bare", "prefixed", "inside", "legacy"])
def test_published_checkpoint_gives_the_published_outputs(published, tmp_path, wrapping):
    state = published.state_dict()
    path = tmp_path / "checkpoint.pth"
    if wrapping in ("prefixed", "inside"):
        state = {f"module.{name}": tensor for name, tensor in state.items()}
    if wrapping == "inside":
        state = {"epoch": 49, "state_dict": state}
    torch.save(state, path, _use_new_zipfile_serialization=wrapping != "legacy")
    model = load_published(path)
    assert not model.training
    assert model.config["arguments"]["num_classes"] == 2
    image = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        for ours, theirs in zip(model(image), published_forward(published, image), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_checkpoint_without_attention_gives_the_control(tmp_path):
    torch.save(published_state(3, attention=False).state_dict(), tmp_path / "checkpoint.pth")
    model = load_published(tmp_path / "checkpoint.pth")
    logits, attn1, attn2 = model(torch.randn(1, 3, 32, 32))
    assert logits.shape == (1, 3)
    assert attn1 is None
    assert attn2 is None


def test_arguments_reach_the_model(published, tmp_path):
    torch.save(published.state_dict(), tmp_path / "checkpoint.pth")
    model = load_published(tmp_path / "checkpoint.pth", 2, normalize_attn=True, dropout=0.3)
    assert isinstance(model, AttnVGG)
    assert model.config["arguments"]["dropout"] == 0.3
    attention = model(torch.randn(1, 3, 64, 64)).attn1
    assert attention.sum().item() == pytest.approx(1.0, abs=1e-5)


def test_keys_that_do_not_fit_are_named_as_in_the_file(published, tmp_path):
    state = dict(published.state_dict())
    del state["attn1.W_l.weight"]
    state["attn1.W_x.weight"] = torch.zeros(1)
    state["conv_block3.0.weight"] = torch.zeros(2, 2)
    torch.save(state, tmp_path / "checkpoint.pth")
    with pytest.raises(InputError, match="do not fit") as caught:
        load_published(tmp_path / "checkpoint.pth", num_classes=5)
    assert sorted(caught.value.offenders) == [
        "missing: attn1.W_l.weight",
        "unexpected: attn1.W_x.weight",
        "wrong shape: cls.bias is [2] in the file, [5] in ours",
        "wrong shape: cls.weight is [2, 1280] in the file, [5, 1280] in ours",
        "wrong shape: conv_block3.0.weight is [2, 2] in the file, [256, 128, 3, 3] in ours",
    ]


def test_truncated_checkpoint_is_refused(published, tmp_path):
    path = tmp_path / "checkpoint.pth"
    torch.save(published.state_dict(), path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match="corrupted"):
        load_published(path)
