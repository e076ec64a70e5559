"""Every engine says what PyTorch says, is kept on disk, and is made anew when it is damaged."""

import json
import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import nn

from attnvgg.deploy.engines import (
    ENGINES,
    Engine,
    Source,
    choice,
    choose,
    kinds,
    open_engine,
    open_folder,
    openvino_engine,
    store,
)
from attnvgg.deploy.engines.interface import Refused
from attnvgg.deploy.engines.kinds import Files
from attnvgg.deploy.engines.network import Outputs, folded
from attnvgg.errors import InputError
from attnvgg.models import VGGGAP, AttnVGG, VGGDense

SHAPES = [(1, 64, 64), (3, 64, 64), (2, 96, 64), (1, 70, 133), (2, 32, 32)]


def noise(batch, height, width, seed=0):
    return np.random.default_rng(seed).normal(size=(batch, 3, height, width)).astype(np.float32)


def used(model):
    """Give the normalisations statistics that are not those of a new model."""
    torch.manual_seed(1)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_(std=0.1)
            layer.running_var.uniform_(0.5, 1.5)
    return model.eval()


@pytest.fixture(scope="module")
def source(thin_vgg):
    torch.manual_seed(0)
    model = used(AttnVGG(2, normalize_attn=True, backbone="vgg11_bn"))
    return Source(model, "AttnVGG", 64, calibration=[noise(8, 64, 64), noise(8, 64, 64, 1)])


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("engines")


@pytest.fixture(scope="module")
def engines(source, cache):
    """All engines but the compiled one, which takes long to compile and has a test of its own."""
    names = [name for name in ENGINES if name != "compiled"]
    return {name: open_engine(name, source, cache=cache) for name in names}


def reference(source, images):
    with torch.inference_mode():
        return [
            part.numpy() for part in source.network(torch.from_numpy(images)) if part is not None
        ]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", ["eager", "onnx", "openvino"])
def test_the_answers_are_those_of_the_model(engines, source, name, shape):
    images = noise(*shape)
    for found, wanted in zip(engines[name](images), reference(source, images), strict=True):
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_eight_bits_come_near(engines, source, shape):
    images = noise(*shape)
    logits, *maps = engines["openvino-int8"](images)
    wanted, *wanted_maps = reference(source, images)
    assert np.abs(logits - wanted).max() < 0.3 * np.abs(wanted).max()
    assert np.abs(logits - wanted).max() > 0  # or it would not be of 8 bits
    for found, other in zip(maps, wanted_maps, strict=True):
        assert found.shape == other.shape
        np.testing.assert_allclose(found.sum((2, 3)), 1, rtol=1e-4)
        for one, exact in zip(found, other, strict=True):
            if exact.size >= 16:
                assert spearmanr(one.ravel(), exact.ravel()).statistic > 0.9


def test_compiled_code_gives_the_same():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2))
    source = Source(used(network), "small", 16)
    engine = open_engine("compiled", source)
    for shape in ((2, 16, 16), (3, 20, 18)):
        images = noise(*shape)
        np.testing.assert_allclose(engine(images)[0], reference_of(network, images), atol=1e-5)


def reference_of(network, images):
    with torch.inference_mode():
        return network(torch.from_numpy(images)).numpy()


def test_an_answer_is_the_callers_own(engines):
    """The next call does not write over it."""
    for engine in engines.values():
        first = engine(noise(2, 64, 64))
        copies = [part.copy() for part in first]
        engine(noise(2, 64, 64, seed=5))
        assert all(np.array_equal(a, b) for a, b in zip(first, copies, strict=True))


def test_folding_leaves_the_model_as_it_is(source):
    before = {name: tensor.clone() for name, tensor in source.network.state_dict().items()}
    found = folded(source.network)
    assert not [m for m in found.modules() if isinstance(m, nn.BatchNorm2d)]
    after = source.network.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert [m for m in source.network.modules() if isinstance(m, nn.BatchNorm2d)]


def test_a_layer_that_occurs_twice_is_not_looked_over():
    relu = nn.ReLU()
    network = nn.Sequential(nn.Conv2d(3, 4, 3), relu, nn.Conv2d(4, 4, 3), relu, nn.BatchNorm2d(4))
    images = torch.from_numpy(noise(2, 8, 8))
    torch.testing.assert_close(folded(used(network))(images), network(images))


def test_what_follows_no_convolution_is_not_folded():
    network = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3), nn.ReLU(), nn.BatchNorm2d(4))
    images = torch.from_numpy(noise(2, 8, 8))
    found = folded(used(network))
    torch.testing.assert_close(found(images), network(images))
    assert sum(isinstance(m, nn.BatchNorm2d) for m in found.modules()) == 2


def test_controls_without_maps(thin_vgg, cache):
    model = used(VGGGAP(1, backbone="vgg11_bn"))
    (logits,) = open_engine("openvino", Source(model, "VGGGAP", 64), cache=cache)(noise(2, 64, 64))
    with torch.inference_mode():
        wanted = model(torch.from_numpy(noise(2, 64, 64))).logits.numpy()
    np.testing.assert_allclose(logits, wanted, atol=1e-5)


def test_a_network_of_one_size(thin_vgg, cache):
    model = used(VGGDense(1, dense_features=8, backbone="vgg11_bn"))
    engine = open_engine("openvino", Source(model, "VGGDense", 224, any_size=False), cache=cache)
    images = noise(3, 224, 224)
    with torch.inference_mode():
        wanted = model(torch.from_numpy(images)).logits.numpy()
    np.testing.assert_allclose(engine(images)[0], wanted, atol=1e-5)


def test_outputs_of_any_form():
    images = torch.ones(1, 3, 4, 4)
    assert len(Outputs(nn.Identity())(images)) == 1

    class Several(nn.Module):
        def forward(self, images):
            return images, None, images + 1

    assert len(Outputs(Several())(images)) == 2


# --- kept on disk


@pytest.fixture
def builds(monkeypatch):
    """An engine of one small file in place of ONNX; the list grows with each that is built."""
    found = []

    def build(source, folder):
        (folder / "model.onnx").write_bytes(b"a model " * 40)
        found.append(source)

    class Opened(Engine):
        def __init__(self, folder, threads):
            self.content = (folder / "model.onnx").read_bytes()

        def __call__(self, images):
            return (images,)

    monkeypatch.setitem(kinds.FROM_FILES, "onnx", Files(build, Opened, ("onnx",), ("model.onnx",)))
    return found


@pytest.fixture
def small():
    return Source(nn.Linear(2, 2), "small", 64)


def test_an_engine_is_built_once(small, tmp_path, builds):
    assert open_engine("onnx", small, cache=tmp_path).content == b"a model " * 40
    open_engine("onnx", small, cache=tmp_path)
    open_engine("onnx", replace(small, side=32), cache=tmp_path)  # it takes any size
    assert len(builds) == 1


@pytest.mark.parametrize("change", ["weights", "identity", "version", "size"])
def test_another_model_is_another_engine(small, tmp_path, builds, monkeypatch, change):
    small = replace(small, any_size=False)
    open_engine("onnx", small, cache=tmp_path)
    if change == "version":
        monkeypatch.setattr(store, "version", lambda package: "0.0")
    other = {
        "weights": {"network": nn.Linear(2, 2)},
        "identity": {"identity": "another"},
        "size": {"side": 32},
    }.get(change, {})
    open_engine("onnx", replace(small, **other), cache=tmp_path)
    assert len(builds) == 2


def test_other_calibration_is_another_engine_of_8_bits_alone(small):
    other = replace(small, calibration_name="another")
    assert store.key_of(small, "openvino", ()) == store.key_of(other, "openvino", ())
    assert store.key_of(small, "openvino-int8", ()) != store.key_of(other, "openvino-int8", ())


@pytest.mark.parametrize("damage", ["cut", "gone", "about"])
def test_a_damaged_engine_is_built_again(small, tmp_path, builds, caplog, damage):
    open_engine("onnx", small, cache=tmp_path)
    (folder,) = tmp_path.glob("onnx-*")
    file = folder / "model.onnx"
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:-100])
    if damage == "gone":
        file.unlink()
    if damage == "about":
        (folder / "engine.json").write_text("{")
    assert open_engine("onnx", small, cache=tmp_path).content == b"a model " * 40
    assert "is damaged: it is built again" in caplog.text
    assert len(builds) == 2


def test_what_is_refused_is_not_kept(small, tmp_path, builds):
    def refuse(engine):
        raise InputError("Too far.")

    with pytest.raises(InputError, match="Too far"):
        open_engine("onnx", replace(small, verify=refuse), cache=tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.suffix != ".lock"]


def test_a_refusal_is_remembered(small, tmp_path, builds):
    def refuse(engine):
        raise Refused("Too far.")

    for _ in range(2):
        with pytest.raises(Refused, match="Too far"):
            open_engine("onnx", replace(small, verify=refuse), cache=tmp_path)
    assert len(builds) == 1


def test_an_engine_that_was_not_compared_is_compared_when_it_can_be(small, tmp_path, builds):
    open_engine("onnx", small, cache=tmp_path)
    checked = replace(small, verify=lambda engine: {"images": 3})
    assert open_engine("onnx", checked, cache=tmp_path).agreement == {"images": 3}
    assert open_engine("onnx", small, cache=tmp_path).agreement == {"images": 3}
    assert len(builds) == 1


def test_what_a_killed_process_left_is_removed(small, tmp_path, builds):
    open_engine("onnx", small, cache=tmp_path)
    (folder,) = tmp_path.glob("onnx-*")
    (tmp_path / f".{folder.name}-abc").mkdir()
    open_engine("onnx", small, cache=tmp_path)
    assert not list(tmp_path.glob(".*-abc"))


def test_what_was_compared_is_remembered(small, tmp_path, builds):
    checked = replace(small, verify=lambda engine: {"images": 3})
    assert open_engine("onnx", checked, cache=tmp_path).agreement == {"images": 3}
    assert open_engine("onnx", checked, cache=tmp_path).agreement == {"images": 3}
    assert len(builds) == 1


def test_a_cache_that_cannot_be_written(small, tmp_path, builds):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be kept in"):
        open_engine("onnx", small, cache=tmp_path / "file")


# --- bad input


def test_unknown_engines(source):
    with pytest.raises(InputError, match='no engine "tensorrt"; choose from eager'):
        open_engine("tensorrt", source)


def test_missing_packages(source, monkeypatch):
    monkeypatch.setattr(kinds, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r'needs openvino, nncf: pip install "attnvgg\[export\]"'):
        open_engine("openvino-int8", source)


def test_too_few_images_to_calibrate(source, tmp_path):
    few = replace(source, calibration=[noise(3, 64, 64)])
    with pytest.raises(InputError, match="3 are too few, give at least 16"):
        open_engine("openvino-int8", few, cache=tmp_path)
    with pytest.raises(InputError, match="0 are too few"):
        open_engine("openvino-int8", replace(source, calibration=None), cache=tmp_path)


def test_no_threads_and_no_gpu(source):
    for threads in (0, 100_000):
        with pytest.raises(InputError, match="from 1 to 1024"):
            open_engine("eager", source, threads=threads)
    with pytest.raises(InputError, match="computes on the CPU"):
        open_engine("onnx", source, device="cuda")


def test_threads_are_respected(source, cache):
    engine = open_engine("openvino", source, threads=1, cache=cache)
    assert engine.model.get_property("INFERENCE_NUM_THREADS") == 1
    session = open_engine("onnx", source, threads=1, cache=cache).session
    assert session.get_session_options().intra_op_num_threads == 1


def test_folders_that_are_no_engine(tmp_path, engines, cache):
    with pytest.raises(InputError, match="is no exported model"):
        open_folder(tmp_path)
    (tmp_path / "engine.json").write_text(json.dumps({"format": 99}))
    with pytest.raises(InputError, match="another version"):
        open_folder(tmp_path)
    (tmp_path / "engine.json").write_text(json.dumps({"format": store.FORMAT, "kind": "torch"}))
    with pytest.raises(InputError, match="torch"):
        open_folder(tmp_path)
    (tmp_path / "engine.json").write_text(
        json.dumps({"format": store.FORMAT, "kind": "onnx", "files": {}})
    )
    with pytest.raises(InputError, match="not those exported"):
        open_folder(tmp_path)
    (tmp_path / "model.onnx").symlink_to("/dev/zero")
    for name in ("/dev/zero", "../other", "model.onnx"):
        about = {"format": store.FORMAT, "kind": "onnx", "files": {name: "0"}}
        (tmp_path / "engine.json").write_text(json.dumps(about))
        with pytest.raises(InputError, match="not those exported"):
            open_folder(tmp_path)
    (tmp_path / "engine.json").write_text(json.dumps({"format": store.FORMAT, "kind": ["onnx"]}))
    with pytest.raises(InputError, match="another version"):
        open_folder(tmp_path)


# --- the choice


@pytest.mark.parametrize(
    ("flags", "device", "calibrated", "wanted"),
    [
        ("fpu avx512_vnni", "cpu", True, "openvino-int8"),
        ("fpu avx512_vnni", "cpu", False, "openvino"),
        ("fpu avx2", "cpu", True, "openvino"),
        ("fpu avx512_vnni", "cuda", True, "eager"),
    ],
)
def test_the_choice(tmp_path, monkeypatch, flags, device, calibrated, wanted):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"processor : 0\nmodel name : amx_int8\nflags\t\t: {flags}\n")
    monkeypatch.setattr(choice, "CPUINFO", cpuinfo)
    name, reason = choose(device, calibrated)
    assert name == wanted
    assert reason


def test_the_choice_without_packages(monkeypatch):
    monkeypatch.setattr(kinds, "find_spec", lambda name: None)
    assert choose("cpu", True) == ("eager", 'faster ones need pip install "attnvgg[export]"')


def test_nothing_is_reported_to_the_makers_of_an_engine(monkeypatch):
    monkeypatch.delenv("CI", raising=False)
    from openvino_telemetry.utils.opt_in_checker import ConsentCheckResult, OptInChecker

    def consent():
        return OptInChecker().check(enable_opt_in_dialog=False, disable_in_ci=True)

    monkeypatch.setattr(OptInChecker, "consent_file", lambda _: "/nowhere")
    assert consent() is not ConsentCheckResult.DECLINED  # they would, unasked
    with openvino_engine.unreported():
        assert consent() is ConsentCheckResult.DECLINED
    assert "CI" not in os.environ
    monkeypatch.setenv("CI", "1")
    with openvino_engine.unreported():
        assert os.environ["CI"] == "true"
    assert os.environ["CI"] == "1"
