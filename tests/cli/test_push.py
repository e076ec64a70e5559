"""The command to the hub: it tells before it does, and does what it told."""

import json

import huggingface_hub
import pytest
from huggingface_hub import ModelCard

from attnvgg.cli import push as module
from attnvgg.cli.export import main as export
from attnvgg.cli.main import COMMANDS
from attnvgg.cli.predict import main as predict
from attnvgg.cli.push import main
from attnvgg.cli.visualize import main as visualize
from attnvgg.deploy.tile_encoders import EncoderChoice, open_encoder
from attnvgg.training.checkpoint import load_model


@pytest.fixture
def card(tmp_path):
    return tmp_path / "card.md"


def test_dry_run_tells_files_and_writes_the_card(trained, card, capsys, monkeypatch):
    monkeypatch.setattr(module, "push", lambda *_, **__: pytest.fail("uploaded"))
    before = sorted(trained.rglob("*"))
    options = ["me/mine", "--license=mit", f"--card={card}"]
    assert main([str(trained), *options]) == 0
    told = capsys.readouterr().out
    size = (trained / "best" / "model.safetensors").stat().st_size
    assert f"model.safetensors  {size:>12,} bytes" in told
    assert "README.md" in told
    assert str(card) in told
    assert "private" in told
    assert "dry run" in told
    found = ModelCard.load(card)
    assert found.data.license == "mit"
    assert found.data.model_name == "me/mine"
    assert "Source: csv" in found.text
    assert sorted(trained.rglob("*")) == before


def test_run_uploads_what_was_told(trained, card, capsys, monkeypatch):
    asked = []

    def push(model, repository, text, *, private):
        asked.append((model, repository, text, private))
        return "https://hub/me/mine"

    monkeypatch.setattr(module, "push", push)
    assert main([str(trained), "me/mine", "--private", "false", f"--card={card}", "--run"]) == 0
    ((model, repository, text, private),) = asked
    assert (repository, private) == ("me/mine", False)
    assert text == card.read_text()
    assert model.config == load_model(trained).config
    told = capsys.readouterr().out
    assert "Uploaded: https://hub/me/mine" in told
    assert "public" in told


def test_saved_models_and_files_go_too(trained, card):
    for place in (trained / "best", trained / "best" / "model.safetensors"):
        assert main([str(place), "me/mine", f"--card={card}"]) == 0
        assert "Source: csv" in card.read_text()


def test_wrong_input_is_one_sentence(trained, card, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    exported = tmp_path / "exported"
    exported.mkdir()
    (exported / "engine.json").write_text("{}")
    for words, told in (
        ([str(trained), "mine"], "give owner/name"),
        ([str(trained), "me/mine", "--card=card.txt"], "must be a file that ends with .md"),
        ([str(exported), "me/mine"], "give the run that it is of"),
        ([str(tmp_path), "me/mine"], "not a saved model"),
        ([str(trained), "me/mine", "--run"], "Set the variable HF_TOKEN"),
    ):
        assert main([f"--card={card}", *words]) == 2
        error = capsys.readouterr().err
        assert told in error
        assert "Traceback" not in error


def test_the_command_is_listed():
    assert {"push", "drift"} <= set(COMMANDS)


@pytest.fixture
def places(trained, tmp_path, monkeypatch):
    """The same model as a folder, as a file alone, and as a repository on the hub."""
    alone = tmp_path / "lesions.safetensors"
    alone.symlink_to(trained / "best" / "model.safetensors")
    download = lambda name, **_: str(trained / "best")  # noqa: E731
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    return [str(trained / "best"), str(alone), "me/lesions"]


def test_commands_take_a_folder_a_file_or_a_hub_id(places, pictures, tmp_path):
    image, written = str(pictures.parent / "00.png"), {}
    for number, place in enumerate(places):
        out = tmp_path / f"{number}.csv"
        assert predict([place, image, "--engine=eager", "-o", str(out)]) == 0
        figure = tmp_path / f"{number}.png"
        assert visualize([image, f"--model={place}", f"--output={figure}"]) == 0
        encoder = open_encoder(EncoderChoice("attnvgg", None, None, place)).name
        written[place] = (out.read_bytes(), figure.read_bytes(), encoder)
    assert len(set(written.values())) == 1


def test_export_takes_them_too(places, pictures, tmp_path):
    kept = []
    for number, place in enumerate(places):
        folder = tmp_path / f"export-{number}"
        words = [place, "--to=torch", f"--images={pictures.parent}", "-o", str(folder)]
        assert export(words) == 0
        kept.append(json.loads((folder / "engine.json").read_text())["model"])
    assert kept[0] == kept[1] == kept[2]
