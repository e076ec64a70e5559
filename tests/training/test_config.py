"""The configuration: one tree, no open ends, no unknown keys."""

from dataclasses import FrozenInstanceError, fields, is_dataclass
from pathlib import Path

import pytest
import yaml

from attnvgg.cli.common import parse_config
from attnvgg.training.config import CHANGEABLE, TrainConfig, as_plain, flatten, resolve, updated

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
def test_every_recipe_parses(path):
    config = parse_config(TrainConfig, ["--config", str(path)], "train")
    assert config != TrainConfig() or path.stem == "tutorial"


def test_every_option_is_explained():
    def check(tree):
        source = Path(__import__(tree.__module__, fromlist=["x"]).__file__).read_text()
        for item in fields(tree):
            default = getattr(tree(), item.name)
            start = source.index(f"    {item.name}: ", source.index(f"class {tree.__name__}"))
            assert source[start:].split("\n", 2)[1].lstrip().startswith('"""'), item.name
            if is_dataclass(default):
                check(type(default))

    check(TrainConfig)


def test_recipes_exist():
    assert {path.stem for path in CONFIGS} >= {"tutorial", "isic2016", "isic2017"}
