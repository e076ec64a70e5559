"""To the hub and back: the same bits, the card with them, and no token anywhere."""

import json
import shutil
from pathlib import Path

import huggingface_hub
import pytest
import torch
import yaml

from attnvgg.deploy.predictor import Predictor
from attnvgg.errors import InputError
from attnvgg.models import AttnVGG, BagClassifier, load_pretrained
from attnvgg.models.hub import push
from attnvgg.training.checkpoint import load_model
from tests.contract import assert_same_state

SECRET = "hf_" + "A1b2C3d4" * 4
PREPROCESS = {"size": 32, "resize": 32}


class Hub:
    """Repositories as folders, asked as the real one is."""

    def __init__(self, root):
        self.root, self.made, self.tokens, self.fails = root, {}, [], None

    def snapshot_download(self, name, *, revision=None, allow_patterns=None):
        target = self.root / "cache" / name
        target.mkdir(parents=True, exist_ok=True)
        for pattern in allow_patterns:
            for path in (self.root / name).glob(pattern):
                shutil.copy(path, target)
        return str(target)

    def api(self, token, library_name):
        self.tokens.append(token)
        return self

    def create_repo(self, name, *, private, exist_ok):
        if self.fails:
            raise self.fails
        assert exist_ok
        self.made[name] = private
        return f"https://huggingface.co/{name}"

    def upload_folder(self, *, repo_id, folder_path, commit_message):
        shutil.copytree(folder_path, self.root / repo_id)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    found = Hub(tmp_path / "hub")
    monkeypatch.setattr(huggingface_hub, "HfApi", found.api)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", found.snapshot_download)
    monkeypatch.setenv("HF_TOKEN", SECRET)
    return found


@pytest.fixture
def saved(thin_vgg, tmp_path):
    torch.manual_seed(0)
    model = AttnVGG(1, normalize_attn=True, backbone="vgg11_bn")
    extra = {"preprocess": PREPROCESS, "classes": ["benign", "malignant"], "threshold": 0.4}
    model.save_pretrained(tmp_path / "best", **extra)
    return tmp_path / "best"


def test_pushed_and_loaded_is_the_same_model_with_its_card(hub, saved):
    model = load_pretrained(saved)
    address = model.push_to_hub("some-one/a.model", license="mit", data={"source": "csv"})
    assert address == "https://huggingface.co/some-one/a.model"
    assert hub.made == {"some-one/a.model": True}
    assert hub.tokens == [SECRET]
    files = {path.name for path in (hub.root / "some-one/a.model").iterdir()}
    assert files == {"README.md", "config.json", "model.safetensors"}
    back = AttnVGG.from_pretrained("some-one/a.model")
    assert_same_state(model.state_dict(), back.state_dict())
    assert back.config == model.config
    for name in ("config.json", "model.safetensors"):
        pushed = hub.root / "some-one/a.model" / name
        assert pushed.read_bytes() == (saved / name).read_bytes()
    digest = json.loads((saved / "config.json").read_text())["digest"]
    card = (hub.root / "some-one/a.model/README.md").read_text()
    head = yaml.safe_load(card.split("---\n")[1])
    assert head["library_name"] == "attnvgg"
    assert head["license"] == "mit"
    assert digest in card
    assert "Not a medical device" in card
    assert "Source: csv" in card
    for path in hub.root.rglob("*"):
        assert path.is_dir() or SECRET.encode() not in path.read_bytes()


def test_models_are_used_by_hub_id(hub, saved):
    load_pretrained(saved).push_to_hub("me/images", private=False)
    assert hub.made == {"me/images": False}
    assert load_model("me/images").preprocess.size == 32
    image = torch.full((40, 40, 3), 9, dtype=torch.uint8).numpy()
    (here,), (there,) = (Predictor(p, "eager")([image]) for p in (saved, "me/images"))
    assert here.logits.tobytes() == there.logits.tobytes()


def test_bags_are_pushed_too(hub):
    torch.manual_seed(0)
    model = BagClassifier({"name": "identity", "in_features": 4}, "gated_attention")
    model.push_to_hub("me/bags")
    assert_same_state(model.state_dict(), load_pretrained("me/bags").state_dict())
    assert "multiple-instance-learning" in (hub.root / "me/bags/README.md").read_text()


def test_a_file_of_weights_is_a_model(saved, tmp_path):
    model = load_pretrained(saved)
    alone = tmp_path / "downloads" / "lesions.safetensors"
    alone.parent.mkdir()
    shutil.copy(saved / "model.safetensors", alone)
    for path in (alone, str(alone), saved / "model.safetensors"):
        found = load_model(path)
        assert_same_state(model.state_dict(), found.state_dict())
        assert found.config == model.config
    image = torch.full((40, 40, 3), 9, dtype=torch.uint8).numpy()
    (here,), (there,) = (Predictor(p, "eager")([image]) for p in (saved, alone))
    assert here.logits.tobytes() == there.logits.tobytes()


def test_a_file_beside_its_configuration_is_the_folder(saved):
    path = saved / "config.json"
    config = json.loads(path.read_text()) | {"threshold": 0.7}
    path.write_text(json.dumps(config))
    assert load_pretrained(saved / "model.safetensors").config["threshold"] == 0.7


def test_files_that_are_no_models_are_said(saved, tmp_path):
    from safetensors.torch import load_file, save_file

    state = load_file(saved / "model.safetensors")
    save_file(state, tmp_path / "plain.safetensors")
    with pytest.raises(InputError, match=r"weights, but no config\.json"):
        load_pretrained(tmp_path / "plain.safetensors")
    (tmp_path / "cut.safetensors").write_bytes((saved / "model.safetensors").read_bytes()[:999])
    with pytest.raises(InputError, match="corrupted"):
        load_pretrained(tmp_path / "cut.safetensors")
    with pytest.raises(InputError, match="no folder with a saved model"):
        load_pretrained(tmp_path / "none.safetensors")
    text = json.dumps(json.loads((saved / "config.json").read_text()))
    state["classifier.bias"] += 1
    save_file(state, tmp_path / "other.safetensors", metadata={"config": text})
    with pytest.raises(InputError, match="not those saved"):
        load_pretrained(tmp_path / "other.safetensors")


@pytest.mark.parametrize("name", ["model", "a/b/c", "../up", ""])
def test_a_name_that_is_none_is_refused_before_anything_is_sent(hub, saved, name):
    with pytest.raises(InputError, match="give owner/name"):
        load_pretrained(saved).push_to_hub(name)
    assert not hub.tokens


def test_without_a_token_nothing_is_sent(hub, saved, monkeypatch):
    for value in ("", None):
        monkeypatch.setenv("HF_TOKEN", value) if value is not None else monkeypatch.delenv(
            "HF_TOKEN"
        )
        with pytest.raises(InputError, match="Set the variable HF_TOKEN"):
            load_pretrained(saved).push_to_hub("me/mine")
    assert not hub.tokens


def test_a_hub_that_refuses_is_one_sentence_without_the_token(hub, saved):
    hub.fails = PermissionError(f"403 for Bearer {SECRET}, and hf_{'z' * 20}\nRequest: ...")
    with pytest.raises(InputError) as caught:
        load_pretrained(saved).push_to_hub("me/mine")
    assert str(caught.value) == (
        "me/mine could not be written on the hub: 403 for Bearer ***, and ***"
    )
    assert caught.value.__cause__ is None
    assert not (hub.root / "me").exists()


def test_offline_the_real_client_is_told_in_one_sentence(saved, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", SECRET)
    with pytest.raises(InputError, match="could not be written on the hub") as caught:
        push(load_pretrained(saved), "me/mine", "card")
    assert "\n" not in str(caught.value)
    assert SECRET not in str(caught.value)


def test_nothing_is_left_in_the_temporary_folder(hub, saved, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    Path(tmp_path / "temporary").mkdir()
    load_pretrained(saved).push_to_hub("me/mine")
    assert not list((tmp_path / "temporary").iterdir())
