"""The encoders of tiles: names that tell them apart, and the way back from a feature file."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torchvision.models import get_model

from attnvgg.data.feature_files import write_features
from attnvgg.data.transforms import Preprocess
from attnvgg.deploy.tile_encoders import EncoderChoice, encoder_of, open_encoder, recipe
from attnvgg.errors import InputError
from attnvgg.models import VGGGAP, AttnVGG, BagClassifier

SMALL = "shufflenet_v2_x0_5"
OF_OURS = Preprocess(48, 52, 0.9, mean=(0.7, 0.5, 0.6)).to_dict()


@pytest.fixture(scope="module")
def random():
    return open_encoder(EncoderChoice(backbone=SMALL, weights="random", image_size=64))


@pytest.fixture
def save_model(tmp_path):
    """Return a function that saves a model with its preprocessing, and returns the folder."""

    def save(model, preprocess=OF_OURS):
        model.save_pretrained(tmp_path / "best", preprocess=preprocess)
        return str(tmp_path / "best")

    return save


def write(path, encoder):
    attributes = {"encoder": encoder.name, "encoder_recipe": recipe(encoder)}
    write_features(path, np.zeros((1, 2), np.float32), np.zeros((1, 2), np.int64), attributes)
    return path


def test_random_weights_are_always_the_same(random):
    torch.manual_seed(99)
    before = torch.random.get_rng_state()
    again = open_encoder(random.choice)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert again.name == random.name
    image = torch.rand(2, 3, 64, 64)
    assert torch.equal(again.network(image), random.network(image))
    assert not random.network.training


def test_names_tell_network_weights_and_preprocessing_apart(random, tmp_path):
    state = get_model(SMALL).state_dict()
    save_file(state, tmp_path / "a.safetensors")
    state["conv1.0.weight"] += 1e-6
    save_file(state, tmp_path / "b.safetensors")
    choices = [
        EncoderChoice(backbone=SMALL, weights=str(tmp_path / "a.safetensors"), image_size=64),
        EncoderChoice(backbone=SMALL, weights=str(tmp_path / "b.safetensors"), image_size=64),
        EncoderChoice(backbone=SMALL, weights="random", image_size=96),
        EncoderChoice(backbone="mobilenet_v3_small", weights="random", image_size=64),
    ]
    names = [random.name, *(open_encoder(choice).name for choice in choices)]
    assert len(set(names)) == 5
    assert random.name.startswith(f"torchvision:{SMALL}@")
    assert ";64px@" in random.name


def test_an_attnvgg_of_ours_encodes_with_its_own_preprocessing(save_model):
    model = AttnVGG(3, dropout=0.5, normalize_attn=True, backbone="vgg11").eval()
    encoder = open_encoder(EncoderChoice(model=save_model(model)))
    assert encoder.preprocess.to_dict() == OF_OURS
    assert encoder.name.startswith("attnvgg:vgg11@")
    image = torch.rand(2, 3, 48, 48)
    with torch.inference_mode():
        features = encoder.network(image)  # (2, 1280)
        torch.testing.assert_close(model.classifier(features), model(image).logits)


def test_a_model_of_bags_of_images_encodes(save_model):
    model = BagClassifier({"name": "torchvision", "model": SMALL}, "mean").eval()
    encoder = open_encoder(EncoderChoice(model=save_model(model)))
    image = torch.rand(2, 3, 48, 48)
    assert torch.equal(encoder.network(image), model.encoder(image))


def test_models_that_encode_no_tiles(save_model):
    of_vectors = BagClassifier({"name": "identity", "in_features": 4}, "mean")
    vectors = {"kind": "features", "features": 4}
    for model, way in ((VGGGAP(1, backbone="vgg11"), OF_OURS), (of_vectors, vectors)):
        folder = save_model(model, way)
        with pytest.raises(InputError, match="tiles are encoded by an AttnVGG"):
            open_encoder(EncoderChoice(model=folder))


def test_timm_says_its_own_mean_and_size():
    pytest.importorskip("timm")
    choice = EncoderChoice("timm", "test_vit", weights="random")
    encoder = open_encoder(choice)
    about = encoder.network.network.pretrained_cfg
    assert encoder.preprocess.mean == about["mean"] != Preprocess().mean
    assert encoder.preprocess.size == about["input_size"][-1]


@pytest.mark.parametrize(
    ("choice", "told"),
    [
        (EncoderChoice("keras"), "known are torchvision, timm, attnvgg"),
        (EncoderChoice(backbone="resnet19", weights=None), "no classifier 'resnet19'"),
        (EncoderChoice("torchvision", "densenet121", "random", None, 16), "does not run on"),
        (EncoderChoice("attnvgg", "vgg11", "random", image_size=16), "at least 32 pixels"),
        (EncoderChoice(model="/nowhere/at-all"), "nowhere"),
    ],
)
def test_encoders_that_cannot_be(choice, told):
    with pytest.raises(InputError, match=told):
        open_encoder(choice)


def test_the_way_back_from_a_feature_file(random, tmp_path):
    found = encoder_of(write(tmp_path / "a.h5", random))
    assert (found.name, found.choice) == (random.name, random.choice)


def test_an_encoder_that_has_changed_is_refused(save_model, tmp_path):
    model = BagClassifier({"name": "torchvision", "model": SMALL}, "mean")
    path = write(tmp_path / "a.h5", open_encoder(EncoderChoice(model=save_model(model))))
    encoder_of(path)
    with torch.no_grad():
        next(model.encoder.parameters()).add_(1e-6)
    save_model(model)
    with pytest.raises(InputError, match="extract the features again"):
        encoder_of(path)


def test_a_file_that_names_no_encoder(tmp_path):
    write_features(tmp_path / "a.h5", np.zeros((1, 2)), np.zeros((1, 2)), {"encoder": "uni_v1"})
    with pytest.raises(InputError, match="does not say how its encoder can be opened"):
        encoder_of(tmp_path / "a.h5")
