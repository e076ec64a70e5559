import json
import os
import resource
import signal

import huggingface_hub
import pytest
import torch
from safetensors.torch import save_file

from attnvgg.errors import InputError
from attnvgg.models import VGGGAP, AttnVGG, load_pretrained
from tests.contract import assert_same_state


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return AttnVGG(1, backbone="vgg11")


@pytest.fixture
def folder(model, tmp_path):
    model.save_pretrained(tmp_path / "best", threshold=0.5)
    return tmp_path / "best"


def edit(folder, **entries):
    path = folder / "config.json"
    config = json.loads(path.read_text()) | entries
    path.write_text(json.dumps({name: e for name, e in config.items() if e is not None}))


def test_folder_holds_two_files(folder):
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]


def test_same_model_gives_the_same_bytes(model, folder, tmp_path):
    model.save_pretrained(tmp_path / "again", threshold=0.5)
    for name in ("config.json", "model.safetensors"):
        assert (folder / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_edited_configuration_is_read(folder):
    edit(folder, threshold=0.75)
    assert load_pretrained(folder).config["threshold"] == 0.75


def test_loaded_model_saves_what_it_was_saved_with(folder, tmp_path):
    load_pretrained(folder).save_pretrained(tmp_path / "copy", note="copied")
    config = load_pretrained(tmp_path / "copy").config
    assert config["threshold"] == 0.5
    assert config["note"] == "copied"


def test_channels_last_weights_are_saved(model, tmp_path):
    AttnVGG(1, backbone="vgg11").to(memory_format=torch.channels_last).save_pretrained(tmp_path)
    load_pretrained(tmp_path)


def test_a_save_cut_between_its_files_leaves_a_matching_pair(folder, monkeypatch):
    torch.manual_seed(1)
    newer = AttnVGG(1, normalize_attn=True, backbone="vgg11")
    replace = os.replace

    def cut(source, target):
        if str(target).endswith("config.json"):
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", cut)
    with pytest.raises(KeyboardInterrupt):
        newer.save_pretrained(folder, threshold=0.1)
    monkeypatch.undo()
    assert json.loads((folder / "config.json").read_text())["threshold"] == 0.5
    loaded = load_pretrained(folder)
    assert_same_state(newer.state_dict(), loaded.state_dict())
    assert loaded.config["threshold"] == 0.1
    assert loaded.config["arguments"]["normalize_attn"] is True


def test_full_disk_leaves_the_older_model(model, folder):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, limits[1]))  # the weights are larger
    try:
        with pytest.raises(OSError, match="File too large"):
            model.save_pretrained(folder, threshold=0.9)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_foreign_weights_are_refused(model, folder):
    save_file(dict(model.stages.state_dict()), folder / "model.safetensors")
    with pytest.raises(InputError, match="not those saved"):
        load_pretrained(folder)


@pytest.mark.parametrize(
    ("extra", "error"),
    [
        ({"digest": "x"}, ValueError),
        ({"arguments": {}}, ValueError),
        ({"auc": float("nan")}, ValueError),
        ({"model": object()}, TypeError),
    ],
)
def test_entries_that_cannot_be_saved_leave_the_folder_alone(model, folder, extra, error):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(error):
        model.save_pretrained(folder, **extra)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_another_class_is_named(folder):
    with pytest.raises(InputError, match="is AttnVGG, not VGGGAP"):
        VGGGAP.from_pretrained(folder)


def test_unknown_class_is_refused(folder):
    edit(folder, **{"class": "os.system"})
    with pytest.raises(InputError, match=r"known are AttnVGG"):
        load_pretrained(folder)


def test_other_arguments_do_not_fit_the_weights(folder):
    arguments = {"num_classes": 3, "backbone": "vgg11"}
    edit(folder, arguments=arguments)
    with pytest.raises(InputError) as caught:
        load_pretrained(folder)
    assert caught.value.offenders == [
        "wrong shape: classifier.weight is [1, 1280] in the file, [3, 1280] in ours",
        "wrong shape: classifier.bias is [1] in the file, [3] in ours",
    ]


def test_saved_arguments_cannot_ask_for_weights(folder):
    arguments = {"num_classes": 1, "backbone": "vgg11", "weights": "/absent/file.pth"}
    edit(folder, arguments=arguments)
    load_pretrained(folder)


@pytest.mark.parametrize(
    "entries",
    [
        {"arguments": {"num_classes": 1, "depth": 3}},
        {"arguments": {}},
        {"arguments": {"num_classes": 1, "backbone": "resnet"}},
        {"arguments": {"num_classes": "many"}},
        {"arguments": [1]},
        {"class": None},
        {"class": ["AttnVGG"]},
        {"digest": None},
        {"format": 2},
    ],
)
def test_wrong_configuration_is_refused(folder, entries):
    edit(folder, **entries)
    with pytest.raises(InputError):
        load_pretrained(folder)


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"\xff\xfe\x00", b"null"])
def test_corrupted_configuration_is_refused(folder, text):
    (folder / "config.json").write_bytes(text)
    with pytest.raises(InputError, match=r"config\.json"):
        load_pretrained(folder)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(InputError, match=name):
        load_pretrained(folder)


def test_truncated_weights_are_refused(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(InputError, match="corrupted"):
        load_pretrained(folder)


def test_a_flipped_bit_is_noticed(folder):
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1000] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match="corrupted"):
        load_pretrained(folder)


def test_missing_folder_asks_no_hub(tmp_path, monkeypatch):
    def snapshot_download(*_, **__):
        pytest.fail("the hub was asked")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "file").touch()
    for name in (tmp_path / "absent", "runs/absent", "absent", "file", "a/b/c", "../up", ""):
        with pytest.raises(InputError, match=r"no folder|is not a saved model"):
            load_pretrained(name)


def test_hub_name_is_fetched(model, folder, monkeypatch):
    asked = {}

    def snapshot_download(name, **options):
        asked.update(options, name=name)
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    loaded = AttnVGG.from_pretrained("someone/attnvgg-isic", revision="v1")
    assert_same_state(model.state_dict(), loaded.state_dict())
    assert asked == {
        "name": "someone/attnvgg-isic",
        "revision": "v1",
        "allow_patterns": ["config.json", "model.safetensors"],
    }


@pytest.mark.parametrize(
    "error", [ConnectionError("offline"), ValueError("bad name"), KeyError("anything")]
)
def test_hub_that_does_not_answer_is_one_sentence(monkeypatch, error):
    def snapshot_download(*_, **__):
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    with pytest.raises(InputError, match="someone/absent at v2 is neither") as caught:
        load_pretrained("someone/absent", revision="v2")
    assert "\n" not in str(caught.value)
