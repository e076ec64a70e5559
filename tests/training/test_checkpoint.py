"""The state to resume from, and the model to use."""

import shutil

import numpy as np
import pytest
import torch
from torch import nn

from attnvgg import AttnVGG, load_model
from attnvgg.errors import InputError
from attnvgg.training.checkpoint import Progress, load_state, save_state
from attnvgg.training.run import newest_run, open_run


def parts():
    model = nn.Linear(3, 2)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    return {"model": model, "optimizer": optimizer}


def test_state_round_trip(tmp_path):
    before, after = parts(), parts()
    seen = [(torch.tensor([1, 2]), torch.tensor([0, 1]), torch.randn(2, 1))]
    progress = Progress(epoch=2, batch=3, seen=seen, history=[{"epoch": 1}], best_score=0.5)
    save_state(tmp_path / "last" / "state.pt", progress, before)
    found = load_state(tmp_path / "last" / "state.pt", after)
    assert (found.epoch, found.batch, found.history) == (2, 3, [{"epoch": 1}])
    assert all(torch.equal(a, b) for a, b in zip(found.seen[0], seen[0], strict=True))
    assert torch.equal(before["model"].weight, after["model"].weight)
    moments = [part["optimizer"].state_dict()["state"][0]["exp_avg"] for part in (before, after)]
    assert torch.equal(*moments)


def test_a_pickle_from_a_stranger_is_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return (tmp_path.joinpath("owned").touch, ())

    torch.save({"format": 1, "states": Evil()}, tmp_path / "state.pt")
    with pytest.raises(InputError, match="damaged"):
        load_state(tmp_path / "state.pt", {})
    assert not (tmp_path / "owned").exists()


def test_load_model_takes_a_run_or_its_best_folder(trained):
    by_run, by_folder = load_model(trained), load_model(trained / "best")
    assert not by_run.training
    for a, b in zip(by_run.parameters(), by_folder.parameters(), strict=True):
        assert torch.equal(a, b)
    assert by_run.config["classes"] == ["negative", "positive"]
    assert 0 < by_run.config["threshold"] < 1
    assert by_run.preprocess(np.zeros((50, 70, 3), np.uint8)).shape == (3, 32, 32)


def test_load_model_of_a_run_without_an_epoch(trained, tmp_path):
    shutil.copy(trained / "config.yaml", tmp_path)
    with pytest.raises(InputError, match="no epoch"):
        load_model(tmp_path)


def test_a_model_saved_by_hand_needs_no_preprocessing(tmp_path):
    AttnVGG(1, backbone="vgg11").save_pretrained(tmp_path / "mine")
    assert load_model(tmp_path / "mine").config["arguments"]["backbone"] == "vgg11"


def test_newest_run(trained, tmp_path):
    with pytest.raises(InputError, match="train one first"):
        newest_run(tmp_path)
    assert newest_run(trained.parent).path == trained
    assert open_run(trained).best == trained / "best"
