"""From options to models and trainers of bags."""

import numpy as np
import pandas as pd
import pytest
import torch

from attnvgg.data.bags import ArrayBags
from attnvgg.errors import InputError
from attnvgg.models import ENCODERS, POOLS, BagClassifier, elastic_net, kernel_decay
from attnvgg.training.bag_config import BagModelConfig, TrainBagsConfig, resolve, settle
from attnvgg.training.build_bags import (
    bag_workers,
    build_bag_model,
    encoder_arguments,
    make_bag_trainer,
    pool_spec,
    standardize,
)
from attnvgg.training.checkpoint import Progress
from attnvgg.training.engine import make_accelerator
from attnvgg.training.run_config import updated
from attnvgg.training.steps import train_step

DIGIT = (1, 28, 28)


def options(**changes):
    """Return settled options; `model__pool` is `model.pool`."""
    small = {"batch_size": 4, "device": "cpu", "model.encoder": "identity", "model.width": 8}
    small |= {key.replace("__", "."): value for key, value in changes.items()}
    return settle(resolve(updated(TrainBagsConfig(), small)), ("a", "b"), (5,))


@pytest.fixture
def bags():
    """Twelve bags of two features of width 5."""
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "image": [f"bag-{n}" for n in range(12)],
            "label": np.arange(12) % 2,
            "instances": [f"{2 * n} {2 * n + 1}" for n in range(12)],
        }
    )
    return table, ArrayBags(table, torch.from_numpy(rng.normal(size=(24, 5))))


@pytest.fixture
def trainer_of(bags):
    def make(config, model=None):
        table, dataset = bags
        model = model or build_bag_model(config, dataset.instance_shape)
        return make_bag_trainer(config, make_accelerator(config), model, table, dataset)

    return make


@pytest.mark.parametrize("pool", POOLS)
def test_every_pool_gets_what_was_asked_for(pool):
    config = BagModelConfig(pool=pool, width=24, branches=3, bias=True, init="default")
    spec = pool_spec(config)
    model = BagClassifier({"name": "identity", "in_features": 5}, spec)
    assert model.pool.spec["name"] == pool
    wanted = {"width": 24, "branches": 3, "bias": True, "init": "default"}
    assert all(model.pool.spec[key] == value for key, value in wanted.items() if key in spec)
    assert {key for key in wanted if key in model.pool.spec} == {
        key for key in wanted if key in spec
    }


@pytest.mark.parametrize("pool", ["mean", "max", "log_sum_exp"])
@pytest.mark.parametrize("level", ["embedding", "instance"])
def test_the_level_reaches_the_pool(pool, level):
    config = options(model__pool=pool, model__level=level)
    assert build_bag_model(config, (5,)).pool.level == level


@pytest.mark.parametrize("encoder", ["mlp", "lenet", "digit_resnet18"])
def test_encoders_of_digits(encoder):
    model = build_bag_model(options(model__encoder=encoder), DIGIT).eval()
    assert isinstance(model.encoder, ENCODERS[encoder])
    assert model(torch.zeros(2, 3, *DIGIT)).logits.shape == (2, 2)


def test_what_encoders_are_called_with():
    def arguments(resumed=False, **fields):
        return encoder_arguments(BagModelConfig(**fields), (3, 4), resumed)

    assert arguments(encoder="identity") == arguments(encoder="mlp") == {"in_features": 12}
    assert arguments(encoder="lenet") == {}
    vgg = {"encoder": "attnvgg", "backbone": "vgg11", "weights": "imagenet"}
    assert arguments(**vgg) == {"weights": "imagenet", "backbone": "vgg11"}
    assert arguments(resumed=True, **vgg)["weights"] is None
    other = {"encoder": "torchvision", "backbone": "resnet34"}
    assert arguments(**other) == {"weights": None, "model": "resnet34"}
    with pytest.raises(InputError, match=r"--model\.backbone"):
        arguments(encoder="timm")


def test_heads():
    config = options(model__head="mlp", model__dropout=0.3)
    head = build_bag_model(config, (5,)).head
    assert (head.spec["name"], head.spec["dropout"]) == ("mlp", 0.3)
    for init in ("default", "glorot"):
        config = options(model__head="linear", model__init=init)
        assert build_bag_model(config, (5,)).head.spec["init"] == init


def test_the_seed_decides_the_weights():
    first, again, other = (build_bag_model(options(seed=seed), (5,)) for seed in (0, 0, 1))
    flat = [torch.cat([p.flatten() for p in model.parameters()]) for model in (first, again, other)]
    assert torch.equal(flat[0], flat[1])
    assert not torch.equal(flat[0], flat[2])


def test_features_are_standardized_by_all_training_instances(bags, monkeypatch):
    monkeypatch.setattr("attnvgg.training.build_bags.PART", 1)  # parts of a bag are merged, too
    _, dataset = bags
    encoder = build_bag_model(options(model__encoder="standardized"), (5,)).encoder
    standardize(encoder, dataset)
    values = torch.cat([dataset.instances(row)["instances"] for row in range(len(dataset))])
    wanted = (values - values.mean(0)) / values.std(0, correction=0)
    torch.testing.assert_close((values - encoder.mean) / encoder.deviation, wanted)


def test_instances_that_the_encoder_cannot_take():
    with pytest.raises(InputError, match=r"lenet .* \(1, 28, 28\), but the bags have \(5,\)"):
        build_bag_model(options(model__encoder="lenet"), (5,))


# ---------------------------------------------------------------- trainers


def test_a_frozen_encoder_learns_nothing(trainer_of, bags):
    config = options(model__encoder="mlp", model__freeze=True)
    trainer = trainer_of(config)
    before = {name: value.clone() for name, value in trainer.module.state_dict().items()}
    trainer.batches.set_epoch(0)
    train_step(trainer, next(iter(trainer.loader)), Progress())
    for name, value in trainer.module.state_dict().items():
        assert torch.equal(value, before[name]) == name.startswith("encoder."), name


def test_the_chunk_size_reaches_the_model(trainer_of):
    assert trainer_of(options(model__chunk_size=7)).module.chunk_size == 7
    assert trainer_of(options(model__chunk_size=None)).module.chunk_size is None


def test_a_batch_norm_is_no_hindrance_to_chunks(bags, trainer_of):
    """The rehearsal has one instance and must neither stream nor train."""
    config = options(model__encoder="digit_resnet18", model__chunk_size=1)
    table, _ = bags
    digits = ArrayBags(table, torch.zeros(24, *DIGIT, dtype=torch.uint8))
    model = build_bag_model(config, DIGIT)
    mean = model.encoder.network.bn1.running_mean.clone()
    make_bag_trainer(config, make_accelerator(config), model, table, digits)
    assert torch.equal(model.encoder.network.bn1.running_mean, mean)


def test_penalties_are_those_of_the_options(trainer_of):
    config = options(loss__elastic_net=0.5, loss__elastic_mix=0.25, loss__attention_decay=0.125)
    trainer = trainer_of(config)
    module = trainer.module
    expected = (elastic_net(module, 0.5, 0.25) + kernel_decay(module.pool, 0.125)).detach()
    assert torch.equal(trainer.penalty(module).detach(), expected)
    values = torch.cat([p.detach().flatten() for p in module.parameters() if p.ndim >= 2])
    net = 0.5 * (0.75 * values.abs().mean() + 0.25 * values.square().mean())
    scorers = torch.cat([p.detach().flatten() for p in module.pool.parameters() if p.ndim >= 2])
    assert float(expected) == pytest.approx(float(net + 0.125 * scorers.square().sum()), rel=1e-5)


def test_no_penalty_is_no_work(trainer_of):
    assert trainer_of(options(loss__attention_decay=0.0)).penalty is None


def test_the_penalty_is_in_the_loss_of_a_step(trainer_of):
    losses = []
    for strength in (0.0, 2.0):
        trainer = trainer_of(options(loss__attention_decay=strength))
        trainer.batches.set_epoch(0)
        batch = next(iter(trainer.loader))
        penalty = trainer.penalty(trainer.module).item() if trainer.penalty else 0.0
        losses.append(train_step(trainer, batch, Progress())[0] - penalty)
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_bags_that_do_not_fill_a_batch(trainer_of):
    with pytest.raises(InputError, match="--batch_size"):
        trainer_of(options(batch_size=13))


def test_bags_in_memory_need_no_workers(bags):
    _, dataset = bags
    accelerator = make_accelerator(options())
    assert bag_workers(options(), accelerator, dataset) == 0
    assert bag_workers(options(data__workers=3), accelerator, dataset) == 3
