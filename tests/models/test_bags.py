import copy
import itertools
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from attnvgg.errors import InputError
from attnvgg.models import (
    ENCODERS,
    HEADS,
    POOLS,
    BagClassifier,
    Encoder,
    load_pretrained,
)
from tests.contract import BagModelContract, assert_same_output, assert_same_state

POOL_SPECS = [
    {"name": "attention", "width": 8},
    {"name": "gated_attention", "width": 8},
    {"name": "gated_attention", "width": 8, "bias": False, "init": "glorot"},
    {"name": "multi_branch", "width": 8, "branches": 3},
    {"name": "leaky_attention", "width": 8},
    {"name": "softmax_mean", "width": 8},
    {"name": "noisy_and"},
    *({"name": name} for name in ("mean", "max", "log_sum_exp")),
    *({"name": name, "level": "instance"} for name in ("mean", "max", "log_sum_exp")),
]
ENCODER_SPECS = [
    ({"name": "identity", "in_features": 6}, (6,)),
    ({"name": "mlp", "in_features": 12, "hidden": [10, 7]}, (3, 4)),
]


def test_every_pool_is_tested():
    assert {spec["name"] for spec in POOL_SPECS} == set(POOLS)


class TestBagClassifier(BagModelContract):
    @pytest.fixture(
        autouse=True,
        params=itertools.product(ENCODER_SPECS, POOL_SPECS),
        ids=lambda parts: "-".join(map(str, (parts[0][0]["name"], *parts[1].values()))),
    )
    def parts(self, request):
        (self.encoder, self.instance_shape), self.pool = request.param


@pytest.fixture
def model():
    torch.manual_seed(0)
    return BagClassifier({"name": "mlp", "in_features": 4, "hidden": [6]}).eval()


@pytest.fixture
def bags():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(9, 4, generator=generator), torch.tensor([0, 2, 9])


class Tanh(Encoder):
    """An encoder of somebody else."""

    name = "tanh"

    def __init__(self, in_features=4, out_features=3):
        super().__init__(in_features=in_features, out_features=out_features)
        self.out_features = out_features
        self.layer = nn.Linear(in_features, out_features)

    def forward(self, instances):
        return self.layer(instances).tanh()


class Normed(nn.Sequential):
    """A module that is no part, with batch norm."""

    out_features = 5

    def __init__(self):
        super().__init__(nn.Linear(4, 5), nn.BatchNorm1d(5))


def test_parameters_of_the_example_of_keras():
    pool = {"name": "gated_attention", "width": 256, "bias": False, "init": "glorot"}
    head = {"name": "linear", "num_classes": 2, "init": "glorot"}
    model = BagClassifier("mlp", pool, head)
    assert sum(parameter.numel() for parameter in model.parameters()) == 141_890


def test_attention_by_hand(model, bags):
    rows, offsets = bags
    with torch.no_grad():
        logits, attention = model(rows, offsets)
        pool, classifier = model.pool, model.head.classifier
        for bag, (start, stop) in enumerate(itertools.pairwise(offsets.tolist())):
            layer = model.encoder.layers[0]
            vectors = (rows[start:stop] @ layer.weight.T + layer.bias).relu()
            powers = pool.scores(vectors).exp()
            weights = powers / powers.sum()
            expected = (weights * vectors).sum(dim=0) @ classifier.weight.T + classifier.bias
            torch.testing.assert_close(attention[start:stop], weights)
            torch.testing.assert_close(logits[bag], expected)


def test_the_level_of_the_pool_decides_what_the_head_sees(bags):
    rows, _ = bags
    head = {"name": "mlp", "num_classes": 2, "hidden": 16}
    for level in ("embedding", "instance"):
        pool = {"name": "mean", "level": level}
        model = BagClassifier({"name": "identity", "in_features": 4}, pool, head).eval()
        with torch.no_grad():
            of_mean, mean_of = model.head(rows.mean(0, keepdim=True)), model.head(rows).mean(0)
            expected, other = (of_mean[0], mean_of) if level == "embedding" else (mean_of, of_mean)
            logits = model(rows[None]).logits[0]
            torch.testing.assert_close(logits, expected)
            assert (logits - other).abs().max() > 1e-4


def test_features_are_passed_from_part_to_part():
    identity = {"name": "identity", "in_features": 6}
    branches = BagClassifier(identity, {"name": "multi_branch", "branches": 3})
    assert (branches.pool.in_features, branches.head.in_features) == (6, 18)
    head = {"name": "linear", "num_classes": 4}
    noisy = BagClassifier(identity, "noisy_and", head)
    assert (noisy.head.in_features, noisy.pool.in_features) == (6, 4)


def test_names_specifications_and_modules_are_the_same(bags):
    specs = (
        {"name": "identity", "in_features": 4},
        {"name": "gated_attention", "in_features": 4},
        {"name": "linear", "in_features": 4},
    )
    torch.manual_seed(0)
    built = BagClassifier(*specs)
    torch.manual_seed(0)
    named = BagClassifier(specs[0], "gated_attention", "linear")
    torch.manual_seed(0)
    registries = (ENCODERS, POOLS, HEADS)
    modules = [
        registry[spec["name"]](in_features=4)
        for registry, spec in zip(registries, specs, strict=True)
    ]
    given = BagClassifier(*modules)
    assert given.encoder is modules[0]
    for other in (named, given):
        assert other.config == built.config
        assert_same_output(other(*bags), built(*bags))


def test_a_loaded_model_is_built_in_a_fresh_process(model, bags, tmp_path):
    model.save_pretrained(tmp_path)
    with torch.no_grad():
        expected = model(*bags).logits.tolist()
    code = (
        "import sys, json, torch; torch.set_num_threads(1);"
        "from attnvgg import load_model; rows, offsets, expected = json.loads(sys.argv[2]);"
        "output = load_model(sys.argv[1])(torch.tensor(rows), torch.tensor(offsets));"
        "torch.testing.assert_close(output.logits, torch.tensor(expected))"
    )
    values = json.dumps([bags[0].tolist(), bags[1].tolist(), expected])
    command = [sys.executable, "-c", code, str(tmp_path), values]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_weights_of_the_encoder_are_neither_saved_nor_opened(tmp_path):
    torch.manual_seed(0)
    torch.save(BagClassifier(SMALL).encoder.network.state_dict(), tmp_path / "secret.pth")
    model = BagClassifier({**SMALL, "weights": str(tmp_path / "secret.pth")}, "mean")
    model.save_pretrained(tmp_path / "best")
    path = tmp_path / "best" / "config.json"
    assert "weights" not in path.read_text()
    assert "secret" not in path.read_text()
    config = json.loads(path.read_text())
    config["arguments"]["encoder"]["weights"] = "/absent/file.pth"
    path.write_text(json.dumps(config))
    loaded = load_pretrained(tmp_path / "best")
    assert "weights" not in loaded.config["arguments"]["encoder"]
    assert_same_state(loaded.state_dict(), model.state_dict())


SMALL = {"name": "torchvision", "model": "mobilenet_v3_small"}


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"encoder": None},
        {"encoder": 3},
        {"encoder": ["mlp"]},
        {"encoder": {"in_features": 4}},
        {"encoder": {"name": ["mlp"]}},
        {"encoder": {"name": "mlp", "in_features": "many"}},
        {"encoder": {"name": "mlp", "depth": 3}},
        {"encoder": "mlp", "pool": {"name": ["mean"]}},
        {"encoder": "mlp", "pool": {"name": "mean", "level": "slide"}},
        {"encoder": "mlp", "pool": {"name": "mean", "level": ["instance"]}},
        {"encoder": "mlp", "chunk_size": 3},
    ],
)
def test_damaged_configuration_is_refused(model, tmp_path, arguments):
    model.save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "arguments": arguments}))
    with pytest.raises(InputError, match="builds no model"):
        load_pretrained(tmp_path)


def test_a_module_of_your_own_encodes_but_cannot_be_saved(bags, tmp_path):
    model = BagClassifier(Normed(), "mean").eval()
    assert model(*bags).logits.shape == (2, 1)
    with pytest.raises(InputError, match="ENCODERS") as caught:
        model.save_pretrained(tmp_path / "best")
    assert caught.value.offenders == ["encoder: Normed"]
    assert not (tmp_path / "best").exists()
    with pytest.raises(InputError, match="out_features"):
        BagClassifier(nn.Sequential(nn.Linear(4, 5)))


def test_a_part_of_your_own_is_saved_once_it_is_registered(monkeypatch, bags, tmp_path):
    model = BagClassifier(Tanh()).eval()
    with pytest.raises(InputError, match="stand in no registry"):
        model.save_pretrained(tmp_path)
    monkeypatch.setitem(ENCODERS, "tanh", Tanh)
    model.save_pretrained(tmp_path)
    assert_same_output(load_pretrained(tmp_path)(*bags), model(*bags))


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (("alexnet",), "no encoder 'alexnet'; known are mlp"),
        (("mlp", "median"), "no pool 'median'"),
        (("mlp", "mean", "softmax"), "no head 'softmax'"),
        (("mlp", {"name": "mean", "in_features": 3}), "takes 3 features.* gives 64"),
        (("mlp", POOLS["mean"](3)), "takes 3 features.* gives 64"),
        (("mlp", "mean", HEADS["linear"](3)), "takes 3 features.* gives 64"),
        (("mlp", "noisy_and", HEADS["linear"](64, 2)), None),
        (("mlp", POOLS["noisy_and"](2), HEADS["linear"](64, 2)), None),
        (("mlp", POOLS["noisy_and"](3), HEADS["linear"](64, 2)), "takes 3 features.* gives 2"),
        (("mlp", nn.Identity()), "must be a Pool, not a Identity"),
        (("mlp", "mean", nn.Linear(64, 2)), "must be a Head, not a Linear"),
        (("mlp", "mean", {"name": "mlp", "dropout": 1.0}), "probability"),
        (("mlp", "mean", {"name": "linear", "init": "zeros"}), "init of a head"),
    ],
)
def test_parts_must_fit_each_other(parts, message):
    if message is None:
        BagClassifier(*parts)
        return
    with pytest.raises(InputError, match=message):
        BagClassifier(*parts)


def test_initialisation_of_keras():
    torch.manual_seed(0)
    layer = HEADS["linear"](600, 2, init="glorot").classifier
    bound = (6 / 602) ** 0.5
    assert layer.weight.abs().max().item() == pytest.approx(bound, rel=0.01)
    assert not layer.bias.any()


def test_dropout_of_the_head_acts_in_training_only(bags):
    head = {"name": "mlp", "dropout": 0.5}
    model = BagClassifier({"name": "identity", "in_features": 4}, "mean", head)
    with torch.inference_mode():
        assert not torch.equal(model(*bags).logits, model(*bags).logits)
        model.eval()
        assert torch.equal(model(*bags).logits, model(*bags).logits)


def test_padding_leaves_the_statistics_of_batch_norm_alone(bags):
    rows, offsets = bags
    padded = torch.full((2, 7, 4), 1e6)
    padded[0, :2], padded[1] = rows[:2], rows[2:]
    mask = padded[..., 0] < 1e6
    models = [BagClassifier(Normed(), "mean") for _ in range(2)]
    models[0](rows, offsets)
    models[1].load_state_dict({**models[0].state_dict(), **fresh_statistics()})
    models[1](padded, mask=mask)
    for name in ("running_mean", "running_var"):
        one, other = (getattr(model.encoder[1], name) for model in models)
        torch.testing.assert_close(one, other)


def fresh_statistics():
    state = nn.BatchNorm1d(5).state_dict()
    return {f"encoder.1.{name}": tensor for name, tensor in state.items()}


def test_instances_have_logits_where_the_pool_stands_behind_the_head(model, bags):
    rows, offsets = bags
    pool = {"name": "max", "level": "instance"}
    maximum = BagClassifier({"name": "identity", "in_features": 4}, pool)
    with torch.inference_mode():
        logits = maximum.instance_logits(rows)
        assert logits.shape == (9, 1)
        expected = torch.stack([part.amax(dim=0) for part in logits.split([2, 7])])
        assert torch.equal(maximum(rows, offsets).logits, expected)
    with pytest.raises(InputError, match="gated_attention pools embeddings"):
        model.instance_logits(rows)


def test_wrong_input_is_refused_before_anything_is_computed(bags):
    rows, offsets = bags
    model = BagClassifier(Normed(), "mean")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    wrong = [
        ((rows, offsets, torch.ones(2, 5, dtype=torch.bool)), "not both"),
        ((rows, offsets[:-1]), "from 0 to the number of instances"),
        ((rows, torch.tensor([0, 9, 9])), "without instances"),
        ((rows[None].byte(),), "floating-point"),
        ((rows[None, :0],), "without instances"),
    ]
    for arguments, message in wrong:
        with pytest.raises(InputError, match=message):
            model(*arguments)
    assert_same_state(before, model.state_dict())


def test_features_in_half_precision_suit_a_model_in_full(model, bags):
    rows, offsets = bags
    half = rows.half()
    assert_same_output(model(half, offsets), model(half.float(), offsets))


@pytest.mark.parametrize("chunk_size", [None, 2])
@pytest.mark.parametrize("pool", ["gated_attention", "max"])
def test_a_bag_on_disk_is_a_bag(tmp_path, bags, chunk_size, pool):
    h5py = pytest.importorskip("h5py")
    rows, _ = bags
    model = BagClassifier({"name": "mlp", "in_features": 4, "hidden": [6]}, pool).eval()
    expected = model(rows.half()[None])
    np.save(tmp_path / "bag.npy", rows.half().numpy())
    with h5py.File(tmp_path / "bag.h5", "w") as file:
        file["features"] = rows.half().numpy()
        model.chunk_size = chunk_size
        for source in (np.load(tmp_path / "bag.npy", mmap_mode="r"), file["features"]):
            logits, attention = model(source)
            torch.testing.assert_close(logits, expected.logits)
            if pool != "max":
                torch.testing.assert_close(attention, expected.attention[0])


def test_the_size_of_a_chunk_is_not_saved(model, tmp_path):
    model.chunk_size = 2
    model.save_pretrained(tmp_path)
    assert load_pretrained(tmp_path).chunk_size is None


def test_streaming_holds_one_chunk_at_a_time(bags):
    rows, offsets = bags
    for pool in POOL_SPECS:
        model = BagClassifier(Tanh(), pool)
        seen = []
        model.encoder.register_forward_hook(lambda _m, inputs, _o, seen=seen: seen.append(inputs))
        model.chunk_size = 3
        model(rows, offsets)
        assert max(len(instances) for (instances,) in seen) <= 3
        model.chunk_size = 9  # the batch is not longer
        seen.clear()
        model(rows, offsets)
        assert [len(instances) for (instances,) in seen] == [9]


def test_batch_norm_in_training_cannot_be_streamed(bags):
    model = BagClassifier(Normed(), "attention")
    model.chunk_size = 2
    with pytest.raises(InputError, match="Batch norm in training mode"):
        model(*bags)
    model.encoder.eval()
    expected = model(*bags)
    model.chunk_size = None
    torch.testing.assert_close(model(*bags), expected)


class Noisy(nn.Sequential):
    """An encoder with all that eval mode is for."""

    out_features = 5

    def __init__(self):
        super().__init__(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Dropout(0.5))


def test_a_frozen_encoder_stays_in_eval_mode(bags):
    model = BagClassifier(Noisy(), "attention", {"name": "mlp", "dropout": 0.5})
    model.frozen = True
    before = copy.deepcopy(model.encoder.state_dict())
    assert model.train() is model
    assert not any(module.training for module in model.encoder.modules())
    assert model.pool.training
    assert all(module.training for module in model.head.modules())
    assert torch.equal(model.encoder(bags[0]), model.encoder(bags[0]))
    model(*bags)
    assert_same_state(before, model.encoder.state_dict())
    model.eval()
    assert not any(module.training for module in model.modules())


def test_an_encoder_that_is_not_frozen_trains(bags):
    model = BagClassifier(Noisy(), "attention").eval().train()
    assert all(module.training for module in model.modules())
    before = copy.deepcopy(model.encoder.state_dict())
    model(*bags)
    assert not torch.equal(before["1.running_mean"], model.encoder[1].running_mean)


def test_being_frozen_is_not_saved(model, tmp_path):
    model.frozen = True
    model.save_pretrained(tmp_path)
    assert load_pretrained(tmp_path).frozen is False
