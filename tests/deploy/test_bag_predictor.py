"""A model of bags in use: what it says of bags of any size, by which engine, what is refused."""

import cv2
import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from attnvgg.data.transforms import Preprocess
from attnvgg.deploy import bag_predictor as module
from attnvgg.deploy.bag_images import images_of_run
from attnvgg.deploy.bag_predictor import BagPredictor
from attnvgg.deploy.encoder_engines import EngineEncoder, similarity
from attnvgg.deploy.engines import Engine, choice
from attnvgg.errors import InputError
from attnvgg.models import AttnVGG, BagClassifier

FEATURES = {"kind": "features", "features": 6}
GATED = {"name": "gated_attention", "width": 8}
SIZE = 16


def save(folder, model, preprocess=None, **extra):
    kept = {} if preprocess is None else {"preprocess": preprocess}
    model.eval().save_pretrained(folder, **kept, **extra)
    return folder


def bags_of(*lengths, shape=(6,)):
    rng = np.random.default_rng(0)
    return [rng.normal(size=(n, *shape)).astype(np.float32) for n in lengths]


def assert_same(found, wanted, tolerance=1e-5):
    for one, other in zip(found, wanted, strict=True):
        assert one.called == other.called
        for mine, theirs in zip(one[:2] + one[3:], other[:2] + other[3:], strict=True):
            assert (mine is None) == (theirs is None)
            if mine is not None:
                np.testing.assert_allclose(mine, theirs, atol=tolerance)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """What a run on folders of tiles leaves behind, as far as predicting needs it."""
    folder, rng = tmp_path_factory.mktemp("run"), np.random.default_rng(0)
    rows = []
    for number in range(6):
        bag = folder / "tiles" / f"bag{number}"
        bag.mkdir(parents=True)
        for tile in range(8):
            small = rng.integers(0, 256, (4, 4, 3), np.uint8)
            cv2.imwrite(str(bag / f"{tile}.png"), cv2.resize(small, (SIZE, SIZE)))
        split = "val" if number < 2 else "train"
        rows.append({"image": str(bag), "label": number % 2, "split": split})
    pd.DataFrame(rows).to_csv(folder / "manifest.csv", index=False)
    torch.manual_seed(0)
    model = BagClassifier({"name": "panda", "size": SIZE}, GATED)
    save(folder / "best", model, Preprocess(SIZE, SIZE).to_dict(), threshold=0.4)
    return folder


@pytest.fixture(scope="module")
def tiles(run):
    """The bags of that run, preprocessed."""
    images = Preprocess(SIZE, SIZE)
    folders = sorted((run / "tiles").iterdir())
    bags = [np.stack([images(path).numpy() for path in sorted(one.iterdir())]) for one in folders]
    return [bag[:length] for bag, length in zip(bags, (8, 1, 5, 8, 2, 7), strict=True)]


@pytest.mark.parametrize("pool", ["gated_attention", "multi_branch", "noisy_and", "max"])
@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize("instances", [4, 17, None])
def test_packed_is_as_one_bag_at_a_time(tmp_path, pool, classes, instances):
    """Bags of 12 and more are streamed in parts of 4; the references are the model's own words."""
    torch.manual_seed(0)
    head = {"name": "linear", "num_classes": classes}
    model = BagClassifier({"name": "standardized", "in_features": 6, "hidden": [5]}, pool, head)
    found = BagPredictor(save(tmp_path, model, FEATURES, threshold=0.2))
    bags = bags_of(3, 1, 12, 2, 9, 1, 1, 30)
    said = list(found(bags, instances=instances))
    assert_same(said, [next(found([bag])) for bag in bags])
    for bag, one in zip(bags, said, strict=True):
        with torch.inference_mode():
            logits, attention = model(torch.from_numpy(bag), torch.tensor([0, len(bag)]))
            np.testing.assert_allclose(one.logits, logits[0], atol=1e-5)
            assert (one.attention is None) == (attention is None)
            if attention is not None:
                np.testing.assert_allclose(one.attention, attention, atol=1e-5)
            if pool == "noisy_and":
                values = model.instance_logits(torch.from_numpy(bag))
                wanted = values.sigmoid() if classes == 1 else values.softmax(1)
                np.testing.assert_allclose(one.instance_probabilities, wanted, atol=1e-5)
            else:
                assert one.instance_probabilities is None
        if classes == 1:
            assert one.called == int(one.probabilities[0] >= 0.2)
        else:
            assert one.called == one.probabilities.argmax()


def test_batches_hold_so_many_instances_at_most(tmp_path):
    model = BagClassifier({"name": "identity", "in_features": 6}, GATED)
    found = BagPredictor(save(tmp_path, model, FEATURES))
    seen = []
    found.model.encoder.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    assert len(list(found(bags_of(3, 4, 2, 5, 25, 1), instances=10))) == 6
    assert seen == [9, 5, 10, 10, 5, 1]


def test_whatever_holds_a_bag(tmp_path):
    model = BagClassifier({"name": "identity", "in_features": 6}, GATED)
    found = BagPredictor(save(tmp_path / "model", model, FEATURES))
    (bag,) = bags_of(9)
    np.save(tmp_path / "bag.npy", bag)
    locked = bag.copy()
    locked.setflags(write=False)
    mirrored = np.ascontiguousarray(bag[::-1])[::-1]
    with h5py.File(tmp_path / "bag.h5", "w") as file:
        kinds = [
            torch.from_numpy(bag), np.load(tmp_path / "bag.npy", mmap_mode="r"), bag.tolist(),
            file.create_dataset("features", data=bag), locked, bag.astype(">f4"),
            bag.astype(np.float64), mirrored,
        ]  # fmt: skip
        said = list(found(kinds))
        assert_same(said, [said[0]] * len(kinds))
        parts = list(found([kinds[0], kinds[1], kinds[3], kinds[4]], instances=4))
    assert_same(parts, [said[0]] * 4)


def test_small_digits_flat_or_not(tmp_path):
    model = BagClassifier({"name": "mlp", "in_features": 4, "hidden": [3]}, GATED)
    found = BagPredictor(save(tmp_path, model))
    (bag,) = bags_of(5, shape=(1, 2, 2))
    said = list(found([bag, bag.reshape(5, 4), bag[:2]]))
    assert_same(said[:2], [said[0]] * 2)
    assert "no encoder of images" in found.words


@pytest.mark.parametrize(
    ("bag", "told"),
    [
        (np.zeros((0, 6), np.float32), "has no instances"),
        (np.zeros((), np.float32), "has no instances"),
        ([], "has no instances"),
        (np.zeros((3, 5), np.float32), r"the shape \(5,\), but this model takes \(6,\)"),
        (np.zeros((3, 6), np.int64), "holds int64, not floating-point"),
        (torch.zeros(3, 6, dtype=torch.uint8), "not floating-point"),
        ([[1.0], [1.0, 2.0]], "is no array of numbers"),
        (["a"], "is no array of numbers"),
        (np.array([[1, 2, np.nan, 4, 5, 6]], np.float32), "NaN or infinite"),
        (np.array([[0.0] * 6] * 20 + [[np.inf] + [0.0] * 5], np.float32), "NaN or infinite"),
    ],
)
@pytest.mark.parametrize("instances", [10, 1000])
def test_a_bag_that_cannot_be_used_is_named(tmp_path, bag, told, instances):
    model = BagClassifier({"name": "identity", "in_features": 6}, GATED)
    found = BagPredictor(save(tmp_path, model, FEATURES))
    with pytest.raises(InputError, match=told) as error:
        list(found([*bags_of(3, 2), bag, *bags_of(4)], instances=instances))
    assert "Bag 2 (the first is 0)" in str(error.value)


def test_huge_values_are_finite(tmp_path):
    model = BagClassifier({"name": "identity", "in_features": 6}, "mean")
    found = BagPredictor(save(tmp_path, model, FEATURES))
    assert len(list(found([np.full((4, 6), 3e38, np.float32)]))) == 1


def test_mlp_of_another_width(tmp_path):
    model = BagClassifier({"name": "mlp", "in_features": 4}, GATED)
    with pytest.raises(InputError, match=r"Bag 0 .*must be \(n, 4\), not \(1, 5\)"):
        list(BagPredictor(save(tmp_path, model))(bags_of(2, shape=(5,))))


# --- images, by an engine


def test_auto_takes_8_bits_calibrated_on_the_run(run, tiles, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(module, "choose", lambda device, can: ("openvino-int8", f"can {can}"))
    caplog.set_level("INFO", "attnvgg")
    found = BagPredictor(run, cache=tmp_path)
    assert found.words.endswith("8 bits): can True; pool and head by PyTorch")
    assert "mean cosine similarity of the features" in caplog.text
    assert found.engine.agreement["cosine"] > 0.99
    exact = BagPredictor(run, "eager")
    near, wanted = list(found(tiles)), list(exact(tiles))
    apart = [
        abs(a.probabilities[0] - b.probabilities[0]) for a, b in zip(near, wanted, strict=True)
    ]
    assert 0 < np.mean(apart) < 0.02
    assert_same(near, [next(found([bag])) for bag in tiles])
    assert_same(wanted, [next(exact([bag])) for bag in tiles])
    assert_same(exact(tiles, instances=3), wanted)
    assert wanted[0].attention.shape == (8, 1)


def test_the_encoder_by_pytorch_is_the_model(run, tiles):
    model = BagClassifier.from_pretrained(run / "best")
    with torch.inference_mode():
        wanted = [model(torch.from_numpy(bag), torch.tensor([0, len(bag)])) for bag in tiles]
    for one, other in zip(BagPredictor(run, "eager")(tiles), wanted, strict=True):
        np.testing.assert_allclose(one.logits, other.logits[0], atol=1e-5)
        assert one.called == int(one.probabilities[0] >= 0.4)


def test_digits_have_one_channel(tmp_path):
    """Traced and compared with PyTorch on noise when it is built."""
    torch.manual_seed(0)
    folder = save(tmp_path / "model", BagClassifier("lenet", GATED))
    found = BagPredictor(folder, "openvino", cache=tmp_path)
    bags = bags_of(3, 7, 1, shape=(1, 28, 28))
    assert found.engine.agreement["cosine"] > 0.9999
    assert_same(found(bags), BagPredictor(folder, "eager")(bags))


def test_auto_falls_back_where_an_engine_is_too_far(run, tiles, tmp_path, monkeypatch, caplog):
    def refuse(kind, source, **rest):
        if kind == "eager":
            return Doubled(1)
        raise InputError("It is too far.")

    monkeypatch.setattr(module, "choose", lambda device, can: ("openvino", ""))
    for place in (module, choice):
        monkeypatch.setattr(place, "open_engine", refuse)
    found = BagPredictor(run, cache=tmp_path)
    assert found.engine.name == "doubled"
    assert found.reason == "openvino could not be had"
    assert "It is too far. eager computes instead." in caplog.text
    with pytest.raises(InputError, match="too far"):
        BagPredictor(run, "openvino", cache=tmp_path)


def test_images_of_a_run(run, tmp_path):
    preprocess = Preprocess(SIZE, SIZE)
    found, again = images_of_run(run, preprocess), images_of_run(run / "best", preprocess)
    assert found.name == again.name
    assert sum(map(len, found.calibration())) == 32
    assert sum(map(len, found.held_out())) == 16
    assert images_of_run(tmp_path, preprocess) is None
    table = pd.read_csv(run / "manifest.csv")
    table["image"] = "gone/" + table["image"].map(lambda path: path[-4:])
    table.to_csv(tmp_path / "manifest.csv", index=False)
    assert images_of_run(tmp_path, preprocess) is None


def test_what_is_refused(tmp_path, thin_vgg):
    save(tmp_path / "images", AttnVGG(1, backbone="vgg11_bn"), Preprocess(32, 32).to_dict())
    with pytest.raises(InputError, match="is a model of images, not of bags: use Predictor"):
        BagPredictor(tmp_path / "images")
    model = BagClassifier({"name": "identity", "in_features": 6}, GATED)
    save(tmp_path / "bags", model, FEATURES)
    with pytest.raises(InputError, match="engine openvino computes encoders of images"):
        BagPredictor(tmp_path / "bags", "openvino")
    with pytest.raises(InputError, match="at least one instance, not 0"):
        next(BagPredictor(tmp_path / "bags")(bags_of(2), instances=0))
    with pytest.raises(InputError, match="no folder with a saved model"):
        BagPredictor(tmp_path / "none")
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="no GPU here"):
            BagPredictor(tmp_path / "bags", device="cuda")


# --- how close features are


class Doubled(Engine):
    name = "doubled"
    words = "twice, and a little more"

    def __init__(self, *shift):
        self.shift = np.float32(shift)

    def __call__(self, images):
        return (2 * images + self.shift,)


def test_similarity_in_numbers():
    images = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    same = similarity(Doubled(1, 2, 3), Doubled(1, 2, 3), [images[:20], images[20:]])
    assert (same.images, same.cosine, same.centred) == (50, pytest.approx(1), pytest.approx(1))
    # a large common part hides that all else is reversed
    large = similarity(Doubled(1000), Doubled(-1000), [images])
    assert large.cosine == pytest.approx(-1, abs=1e-3)
    hidden = similarity(Negative(1000), Doubled(1000), [images])
    assert hidden.cosine > 0.999
    assert hidden.centred < -0.8
    with pytest.raises(InputError, match="too far from those of PyTorch"):
        hidden.require("openvino-int8")
    flat = similarity(Doubled(1), Doubled(1), [np.ones((4, 3), np.float32)])
    assert flat.centred is None
    flat.require("onnx")


class Negative(Doubled):
    def __call__(self, images):
        return (self.shift - 2 * images,)


def test_an_engine_in_the_place_of_a_network():
    encoder = EngineEncoder(Doubled(1))
    assert isinstance(encoder, nn.Module)
    images = torch.rand(2, 3, 4, 4).to(memory_format=torch.channels_last)
    assert torch.equal(encoder(images), 2 * images + 1)
