"""The configuration: one tree, no open ends, no unknown keys."""

from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest
import yaml

from attnvgg.cli.common import parse_config
from attnvgg.training import bag_config
from attnvgg.training.config import CHANGEABLE, TrainConfig, resolve
from attnvgg.training.run_config import as_plain, flatten, updated

CONFIGS = sorted((Path(__file__).parent.parent.parent / "configs").glob("*.yaml"))


def test_flatten_and_updated_are_inverse():
    config = TrainConfig()
    changed = updated(config, {"data.image_size": 64, "epochs": 7})
    assert flatten(changed) == flatten(config) | {"data.image_size": 64, "epochs": 7}
    assert updated(changed, flatten(config)) == config


def test_the_tree_is_frozen():
    with pytest.raises(FrozenInstanceError):
        TrainConfig().epochs = 3


def test_what_may_change_exists():
    assert set(flatten(TrainConfig())) >= CHANGEABLE


@pytest.mark.parametrize(("source", "size", "batch"), [("sample", 96, 16), ("csv", 224, 100)])
def test_resolve_fills_what_was_left_open(source, size, batch):
    config = resolve(updated(TrainConfig(), {"data.source": source}))
    assert (config.data.image_size, config.data.resize, config.batch_size) == (size, size, batch)


def test_resolve_keeps_what_was_said():
    said = {"data.image_size": 128, "data.resize": 160, "batch_size": 4}
    assert flatten(resolve(updated(TrainConfig(), said))).items() >= said.items()


def test_round_trip_through_the_file(tmp_path):
    config = resolve(updated(TrainConfig(), {"data.root": Path("x"), "data.classes": ("a", "b")}))
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(as_plain(config)))
    assert parse_config(TrainConfig, ["--config", str(tmp_path / "config.yaml")], "train") == config


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_recipe_is_valid(path):
    words = ["--config", str(path)]
    if path.stem.startswith(("bags_", "panda", "slide_")):
        bag_config.resolve(parse_config(bag_config.TrainBagsConfig, words, "train_bags"))
    else:
        resolve(parse_config(TrainConfig, words, "train"))


@pytest.mark.parametrize(("year", "passes", "mean"), [("2016", 5, 0.7012), ("2017", 2, 0.6820)])
def test_the_recipe_of_the_paper(year, passes, mean):
    """Yan et al., IPMI 2019, section 3, figure by figure."""
    path = next(path for path in CONFIGS if path.stem == f"isic{year}")
    found = flatten(resolve(parse_config(TrainConfig, ["--config", str(path)], "train")))
    wanted = {
        "epochs": 50, "batch_size": 32, "data.source": f"isic{year}", "data.crop": 0.8,
        "data.resize": 256, "data.image_size": 224, "data.augmentation": "paper",
        "data.positive_repeats": 4, "data.passes": passes, "data.keep_negatives": None,
        "model.num_classes": 2, "model.normalize_attn": False, "loss.gamma": 2.0,
        "optim.name": "sgd", "optim.lr": 0.01, "optim.momentum": 0.9,
        "optim.weight_decay": 1e-4, "optim.schedule": "step", "optim.step_epochs": 10,
    }  # fmt: skip
    assert found.items() >= wanted.items()
    assert found["data.mean"][0] == mean


def test_the_recipe_of_the_tutorial_is_the_default():
    path = next(path for path in CONFIGS if path.stem == "tutorial")
    said = flatten(resolve(parse_config(TrainConfig, ["--config", str(path)], "train")))
    default = flatten(resolve(updated(TrainConfig(), {"data.source": "kaggle"})))
    assert said | {"optim.lr": None} == default


def test_every_option_is_explained(capsys):
    """`--help` says something of each option before its type."""
    with pytest.raises(SystemExit):
        parse_config(TrainConfig, ["--help"], "train")
    text = " ".join(capsys.readouterr().out.split())
    for name in flatten(TrainConfig()):
        after = text.rsplit(f" --{name} ", 1)[1]
        said = after[: after.index("(type:")]
        assert len(said.split()) >= 3, name


def test_recipes_exist():
    assert {path.stem for path in CONFIGS} >= {"tutorial", "isic2016", "isic2017"}
