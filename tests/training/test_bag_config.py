"""The options of bags: recipe K by default, no open ends, nothing that cannot be."""

from pathlib import Path

import pytest
import yaml

from attnvgg.cli.common import parse_config
from attnvgg.errors import InputError
from attnvgg.models import ENCODERS, POOLS
from attnvgg.training.bag_config import (
    RESOLVED,
    BagModelConfig,
    TrainBagsConfig,
    candidates,
    check,
    is_plain,
    resolve,
    settle,
)
from attnvgg.training.run_config import CHANGEABLE, as_plain, flatten, require_resolved, updated

CONFIGS = Path(__file__).parent.parent.parent / "configs"


def recipe(name):
    words = ["--config", str(CONFIGS / f"{name}.yaml")]
    return resolve(parse_config(TrainBagsConfig, words, "train_bags"))


def changed(**changes):
    return updated(
        TrainBagsConfig(), {key.replace("__", "."): value for key, value in changes.items()}
    )


def refusal(config):
    with pytest.raises(InputError) as caught:
        check(config)
    return "\n".join(caught.value.offenders)


def test_recipe_k_is_the_default():
    default = settle(resolve(TrainBagsConfig()), ("a", "b"), (1, 28, 28))
    assert settle(recipe("bags_keras"), ("a", "b"), (1, 28, 28)) == default


def test_recipe_k_figure_by_figure():
    """SPEC 2; the example of Keras but for the size of the steps."""
    found = flatten(recipe("bags_keras"))
    wanted = {
        "data.target": 1, "data.lengths": "fixed", "data.size": (3.0, 3.0), "model.encoder": "mlp",
        "model.pool": "gated_attention", "model.width": 256, "model.bias": False,
        "model.init": "glorot", "model.num_classes": 2, "loss.alpha": "balanced",
        "loss.attention_decay": 0.01, "loss.gamma": 0.0, "patience": 10, "monitor": "loss",
        "data.counts": (1000, 300, 1000), "optim.name": "adam",
    }  # fmt: skip
    assert found.items() >= wanted.items()


def test_recipe_i_figure_by_figure():
    found = flatten(recipe("bags_ilse"))
    wanted = {
        "data.target": 9, "data.lengths": "normal", "data.size": (10.0, 2.0),
        "data.grey_mean": 0.1307, "data.grey_std": 0.3081, "model.encoder": "lenet",
        "model.width": 128, "model.bias": True, "model.num_classes": 1, "optim.name": "adam",
        "optim.weight_decay": 1e-4, "loss.attention_decay": 0.0, "loss.elastic_net": 0.0,
    }  # fmt: skip
    assert found.items() >= wanted.items()


def test_recipe_m_figure_by_figure():
    config = recipe("bags_two_stage")
    wanted = {
        "model.encoder": "digit_resnet18", "data.lengths": "uniform", "data.size": (3.0, 7.0),
        "batch_size": 32, "loss.elastic_net": 0.005, "loss.elastic_mix": 0.5, "optim.name": "sgd",
        "optim.momentum": 0.9,
    }  # fmt: skip
    assert flatten(config).items() >= wanted.items()
    assert config.stage_one.share > 0
    assert not is_plain(config)
    assert len(candidates(config)) == len(config.pools) * len(config.rates)


def test_recipe_g_figure_by_figure():
    """SPEC 2; the learning rate and the decay are the published ones, as is one bag a step."""
    config = settle(recipe("panda"), ("benign", "malignant"), (3, 128, 128))
    wanted = {
        "data.source": "panda", "data.labels": "binary", "data.image_size": 128,
        "model.encoder": "panda", "model.width": 128, "model.num_classes": 1, "epochs": 10,
        "batch_size": 1, "optim.name": "adam", "optim.lr": 1e-4, "optim.weight_decay": 5e-4,
        "loss.gamma": 0.0, "loss.attention_decay": 0.0,
    }  # fmt: skip
    assert flatten(config).items() >= wanted.items()


def test_panda_needs_no_more_than_its_name():
    config = resolve(changed(data__source="panda"))
    assert (config.data.image_size, config.data.resize) == (128, 128)
    assert config.data.fractions == (0.7, 0.1, 0.2)
    assert settle(config, tuple("012345"), (3, 128, 128)).model.num_classes == 6


def test_what_may_change_in_a_continuation_exists():
    assert set(flatten(TrainBagsConfig())) >= CHANGEABLE | set(RESOLVED)


@pytest.mark.parametrize(
    ("source", "fractions"), [("digits", (0.68, 0.12, 0.2)), ("csv", (0.7, 0.1, 0.2))]
)
def test_resolve_fills_what_was_left_open(source, fractions):
    root = None if source == "digits" else Path("x")
    config = resolve(changed(data__source=source, data__root=root, optim__lr=None))
    assert config.data.fractions == fractions
    assert config.data.image_size == config.data.resize == 224
    assert config.optim.lr == 3e-3
    require_resolved(settle(config, ("a", "b"), (5,)), RESOLVED, Path("config.yaml"))


def test_resolve_keeps_what_was_said():
    said = {"data.image_size": 64, "data.fractions": (0.5, 0.25, 0.25), "optim.lr": 0.1}
    found = flatten(resolve(updated(TrainBagsConfig(), said)))
    assert found.items() >= said.items()
    assert found["data.resize"] == 64


@pytest.mark.parametrize(
    ("source", "names", "asked", "logits"),
    [
        ("digits", ("a", "b"), None, 2),
        ("digits", ("a", "b"), 1, 1),
        ("csv", ("a", "b"), None, 1),
        ("csv", ("a", "b"), 2, 2),
        ("csv", ("a", "b", "c"), None, 3),
    ],
)
def test_settle_counts_logits_and_keeps_names(source, names, asked, logits):
    config = settle(changed(data__source=source, model__num_classes=asked), names, (5,))
    assert (config.model.num_classes, config.data.classes) == (logits, names)


@pytest.mark.parametrize(("asked", "names"), [(3, ("a", "b")), (1, ("a", "b", "c"))])
def test_logits_that_do_not_fit_the_labels(asked, names):
    with pytest.raises(InputError, match=f"--model.num_classes {asked}"):
        settle(changed(model__num_classes=asked), names, (5,))


@pytest.mark.parametrize(
    ("source", "shape", "encoder"),
    [
        ("digits", (1, 28, 28), "mlp"),
        ("mnist", (1, 28, 28), "mlp"),
        ("csv", (512,), "identity"),
        ("folders", (3, 224, 224), "torchvision"),
        ("panda", (3, 128, 128), "panda"),
        ("panda", (512,), "standardized"),
    ],
)
def test_the_encoder_follows_from_the_instances(source, shape, encoder):
    for asked, settled in ((None, encoder), ("lenet", "lenet")):
        config = changed(data__source=source, model__encoder=asked)
        assert settle(config, ("a", "b"), shape).model.encoder == settled


def test_round_trip_through_the_file(tmp_path):
    config = settle(resolve(changed(pools=("max", "mean"), rates=(0.1,))), ("a", "b"), (5,))
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(as_plain(config)))
    words = ["--config", str(tmp_path / "config.yaml")]
    assert parse_config(TrainBagsConfig, words, "train_bags") == config


def test_every_option_is_explained(capsys):
    """`--help` says something of each option before its type."""
    with pytest.raises(SystemExit):
        parse_config(TrainBagsConfig, ["--help"], "train_bags")
    text = " ".join(capsys.readouterr().out.split())
    for name in flatten(TrainBagsConfig()):
        after = text.rsplit(f" --{name} ", 1)[1]
        said = after[: after.index("(type:")]
        assert len(said.split()) >= 2, name


def test_the_help_names_every_part():
    """The docstrings that are the help of --model.encoder and --model.pool."""
    import inspect

    source = inspect.getsource(BagModelConfig)
    assert all(name in source for name in [*POOLS, *ENCODERS])


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("encoder", ENCODERS)
def test_all_parts_are_allowed(pool, encoder):
    check(changed(model__pool=pool, model__encoder=encoder))


def test_several_faults_are_told_at_once():
    said = refusal(changed(seeds=0, pools=("max", "median"), rates=(0.1, -1.0), epochs=0))
    assert all(word in said for word in ("--seeds 0", "--pools median", "--rates -1.0", "--epochs"))
    assert said.count("\n") == 3


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"stage_one__share": 0.2, "data__source": "csv", "data__root": Path("x")}, "share"),
        ({"data__source": "csv"}, "--data.root"),
        ({"data__root": Path("x")}, "say what is there by --data.source or --config"),
        ({"data__bags": Path("x")}, "--data.bags"),
        ({"data__labels": "isup"}, "--data.labels"),
        ({"data__tiles": Path("x")}, "--data.tiles"),
        ({"pools": ()}, "--pools"),
        ({"rates": ()}, "--rates"),
        ({"rates": (0.1, 0.1)}, "--rates"),
        ({"rates": (float("inf"),)}, "--rates"),
        ({"loss__elastic_mix": 1.01}, "elastic_mix"),
        ({"stage_one__share": 1.0}, "share"),
    ],
)
def test_what_does_not_go_together(changes, word):
    assert word in refusal(changed(**changes))


# ---------------------------------------------------------------- candidates


def test_one_model_is_plain():
    config = TrainBagsConfig()
    assert is_plain(config)
    assert not is_plain(changed(pools=("max",)))  # what it names must be trained
    assert not is_plain(changed(rates=(0.5,)))
    (only,) = candidates(changed(pools=("max",), rates=(0.5,))).values()
    assert (only.model.pool, only.optim.lr) == ("max", 0.5)
    assert (only.pools, only.rates) == (None, None)


def test_a_first_stage_or_a_choice_is_not():
    assert not is_plain(changed(stage_one__share=0.1))
    assert not is_plain(changed(pools=("max", "mean")))
    assert not is_plain(changed(rates=(0.1, 0.2)))


def test_candidates_are_all_pairs():
    found = candidates(changed(pools=("max", "mean"), rates=(0.1, 0.01)))
    pairs = {(config.model.pool, config.optim.lr) for config in found.values()}
    assert pairs == {("max", 0.1), ("max", 0.01), ("mean", 0.1), ("mean", 0.01)}
    assert next(iter(found)) == "max-lr0.1"
    assert all(is_plain(config) for config in found.values())


def test_rates_that_differ_little_are_two_candidates():
    assert len(candidates(changed(rates=(0.1234567, 0.1234568)))) == 2


def test_a_choice_of_rates_keeps_the_pool():
    found = candidates(changed(model__pool="max", rates=(0.1, 0.2)))
    assert {config.model.pool for config in found.values()} == {"max"}
