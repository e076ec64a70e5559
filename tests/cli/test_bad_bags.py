"""Wrong bags: one sentence that names them, exit code 2, and no run left behind."""

import shutil

import h5py
import numpy as np
import pandas as pd
import pytest
import torch

from attnvgg.cli.evaluate import main as evaluate
from attnvgg.cli.train_bags import main
from attnvgg.cli.visualize import main as draw


def sentence(message):
    """Return the one sentence of a message, without the list of offenders below it."""
    assert message.startswith("error: ")
    assert "Traceback" not in message
    first, *offenders = message.rstrip("\n").split("\n")
    assert first.endswith((".", ":") if offenders else "."), message
    assert all(line.startswith("  ") for line in offenders), message
    return first


@pytest.fixture
def table(make_features, tmp_path):
    """A private table of 36 bags of features, to spoil: s00.npy, s01.h5, s02.pt, ..."""
    return make_features(tmp_path / "mine")


@pytest.fixture
def bags(table):
    return table.parent / "bags"


@pytest.fixture
def refused(bag_options, tmp_path, capsys):
    """Return the message of a refused training run; `SEEDS` and `POOLS` begin in other places."""

    def attempt(*options, by_parser=False):
        out = tmp_path / "runs"
        code = main([*bag_options, f"--out={out}", "--name=a", *map(str, options)])
        message = capsys.readouterr().err
        assert code == 2, message
        assert by_parser or sentence(message)
        assert "Traceback" not in message
        assert not out.exists() or not list(out.iterdir())
        return message

    return attempt


KINDS = pytest.mark.parametrize(
    "kind", [[], ["--seeds=2"], ["--pools=[mean,attention]"]], ids=["plain", "seeds", "pools"]
)
IDENTITY = "--model.encoder=identity"


def edit(path, change):
    labels = pd.read_csv(path, dtype=str)
    changed = change(labels)
    (labels if changed is None else changed).to_csv(path, index=False)


# ---------------------------------------------------------------- labels and bags


def test_bags_without_a_label(refused, table, from_table):
    edit(table, lambda labels: labels.drop(index=[4, 9]))
    message = refused(*from_table(table), IDENTITY)
    assert "s04.h5" in message
    assert "s09.npy" in message
    assert "without a label" in sentence(message)


def test_a_label_left_empty(refused, table, from_table):
    def forget(labels):
        labels.loc[4, "label"] = ""

    edit(table, forget)
    message = refused(*from_table(table), IDENTITY)
    assert "without a label" in sentence(message)
    assert "s04" in message
    assert "s05" not in message


def test_labels_without_a_bag(refused, table, bags, from_table):
    (bags / "s07.h5").unlink()
    message = refused(*from_table(table), IDENTITY)
    assert "s07" in message
    assert "s08" not in message


@pytest.mark.parametrize("source", ["csv", "folders"])
def test_a_source_that_is_not_there(refused, tmp_path, source):
    assert "nowhere" in refused(f"--data.source={source}", f"--data.root={tmp_path / 'nowhere'}")


def test_one_class_only(refused, table, from_table):
    edit(table, lambda labels: labels.assign(label="0"))
    assert "two classes" in sentence(refused(*from_table(table), IDENTITY))


def test_one_class_on_a_side(refused, digits):
    """A side of one bag has one class; it is named."""
    message = refused("--data.counts=[40,20,1]")
    assert "split test has only one class" in sentence(message)


def test_a_class_that_one_seed_lacks(refused, digits):
    """Seed 0 has both classes everywhere, a later draw has not; nothing is trained before."""
    message = refused("--data.counts=[40,8,8]", "--seeds=9", "--data.redraw=true")
    assert "has only one class" in sentence(message)


def test_patients_on_two_sides(refused, table, from_table):
    def publish(labels):
        labels["split"] = np.resize(["train", "val", "test"], len(labels))

    edit(table, publish)
    assert "p00" in refused(*from_table(table), IDENTITY)


# ---------------------------------------------------------------- what is in the bags


def spoil_values(value):
    def spoil(folder):
        values = np.load(folder / "s03.npy")
        values[1, 2] = value
        np.save(folder / "s03.npy", values)

    return spoil


def no_instances(folder):
    np.save(folder / "s03.npy", np.zeros((0, 6), np.float32))


def other_width(folder):
    np.save(folder / "s03.npy", np.zeros((4, 5), np.float32))


def one_axis(folder):
    np.save(folder / "s03.npy", np.zeros(6, np.float32))


def text(folder):
    (folder / "s03.npy").write_text("no features")


def objects(folder):
    np.save(folder / "s03.npy", np.array([{"a": 1}]), allow_pickle=True)


SPOILT = {
    "NaN": (spoil_values(np.nan), "NaN"),
    "infinite": (spoil_values(-np.inf), "infinite"),
    "no instances": (no_instances, "no instances"),
    "other D": (other_width, "(5,)"),
    "one axis": (one_axis, "shape (6,)"),
    "text": (text, "broken"),
    "pickle": (objects, "broken"),
}


@KINDS
@pytest.mark.parametrize("fault", SPOILT)
def test_a_bag_that_cannot_be_used_is_named(refused, table, bags, from_table, fault, kind):
    spoil, said = SPOILT[fault]
    spoil(bags)
    message = refused(*from_table(table), IDENTITY, *kind)
    assert message.count("\n") == 2, "the sentence and one bag"
    assert "s03.npy" in message
    assert said in message


def test_all_faults_are_listed_at_once(refused, table, bags, from_table):
    with h5py.File(bags / "s07.h5", "w") as file:
        file["feats"] = np.zeros((3, 6), np.float32)
    torch.save(torch.zeros(3, 9), bags / "s02.pt")
    text(bags)
    (bags / "s00.npy").write_text("the first of all")
    message = refused(*from_table(table), IDENTITY)
    assert all(name in message for name in ("s00.npy", "s03.npy", "s07.h5", "s02.pt"))
    assert "4 faults" in sentence(message)


def test_a_picture_that_cannot_be_read(refused, photo_options, photo_bags, tmp_path):
    mine = tmp_path / "photos"
    shutil.copytree(photo_bags, mine)
    (mine / "sick" / "patient-05" / "1.png").write_bytes(b"\x89PNG")
    (mine / "sick" / "patient-07" / "0.png").unlink()
    (mine / "sick" / "patient-07" / "1.png").unlink()
    assert "patient-07" in refused(*photo_options, f"--data.root={mine}")
    shutil.rmtree(mine / "sick" / "patient-07")
    message = refused(*photo_options, f"--data.root={mine}")
    assert "patient-05" in message
    assert "1.png" in message


# ---------------------------------------------------------------- models that do not fit


@KINDS
def test_an_encoder_for_other_instances(refused, table, from_table, kind):
    message = refused(*from_table(table), "--model.encoder=lenet", *kind)
    assert "(1, 28, 28)" in sentence(message)
    assert "(6,)" in sentence(message)


@KINDS
def test_fewer_bags_than_a_batch(refused, table, from_table, kind):
    message = refused(*from_table(table), IDENTITY, "--batch_size=64", *kind)
    assert "--batch_size" in sentence(message)


def test_fewer_digits_than_a_batch_of_the_first_stage(refused, digits):
    options = ["--stage_one.share=0.02", "--stage_one.batch_size=512"]
    assert "batch_size" in refused("--data.counts=[40,20,30]", *options)


def test_a_network_that_is_not_named(refused, photo_options):
    assert "--model.backbone" in refused(
        *photo_options, "--model.encoder=timm", "--model.backbone=null"
    )


@pytest.mark.parametrize(
    "option",
    [
        "--seeds=0", "--seed=-1", "--batch_size=0", "--epochs=0", "--pools=[]", "--rates=[]",
        "--pools=[mean,mean]", "--pools=[median]", "--rates=[0.1,0.1]", "--rates=[0]",
        "--rates=[.inf]", "--rates=[-1]", "--model.pool=median", "--model.encoder=alexnet",
        "--model.width=0", "--model.branches=0", "--model.chunk_size=0", "--model.dropout=1",
        "--model.num_classes=3",
        "--stage_one.share=1", "--stage_one.share=-0.1", "--stage_one.lr=-1",
        "--stage_one.epochs=0", "--loss.elastic_net=-1", "--loss.elastic_mix=2",
        "--loss.attention_decay=-1", "--loss.alpha=[1,2,3]", "--optim.lr=.inf", "--optim.average=1",
        "--data.bags=x", "--data.classes=[one]", "--data.classes=[a,a]", "--data.grey_std=0",
        "--data.target=10", "--data.size=[0,0]", "--data.size=[2.5,3]", 
        "--data.counts=[-4,20,30]", "--data.counts=[0,20,30]",
        "--data.counts=[40,0,30]", "--data.fractions=[1,0,0]",
        "--data.fractions=[0.5,0.2,0.2]", "--data.split_seed=-1",
        "--data.source=csv", "--data.source=folders", "--name=../x",
    ],
)  # fmt: skip
def test_options_that_cannot_be(refused, digits, option):
    message = refused("--data.counts=[40,20,30]", option)
    name = option[2:].split("=")[0]
    in_words = {
        "data.target": "target", "data.size": "size", "data.fractions": "fractions",
        "data.counts": ("counted", "split"), "loss.alpha": "alpha",
    }  # fmt: skip
    words = in_words.get(name, f"--{name}")
    assert any(word in message for word in ([words] if isinstance(words, str) else words)), message


@pytest.mark.parametrize(
    "option",
    [
        "--model.head=deep", "--model.level=bag", "--model.init=zero", "--data.size=[3]",
        "--data.counts=[1,2]", "--data.lengths=long", "--data.redraw=perhaps",
        "--data.source=letters", "--monitor=accuracy", "--unknown=1", "--task=images",
        "--pools=mean", "--seeds=many",
    ],
)  # fmt: skip
def test_values_of_the_wrong_kind(refused, option):
    assert option[2:].split("=")[0] in refused(option, by_parser=True)


def test_bags_larger_than_the_digits_of_their_side(refused, digits):
    message = refused("--data.counts=[40,20,30]", "--data.size=[700,700]")
    assert "val-0000" in message, "the bag is named, and what there is"
    assert "600" in message


def test_digits_that_are_not_on_the_disk(refused, digits, tmp_path):
    message = refused("--data.source=mnist", f"--data.root={tmp_path}")
    assert "MNIST" in sentence(message)


def test_recipes_of_images_are_no_recipes_of_bags(refused, tmp_path):
    (tmp_path / "a.yaml").write_text("data:\n  positive_repeats: 4\n")
    options = [f"--config={tmp_path / 'a.yaml'}"]
    assert "positive_repeats" in refused(*options, by_parser=True)


def test_an_existing_run_is_not_overwritten(trained_bags, digit_options, capsys):
    before = (trained_bags / "config.yaml").read_bytes()
    out = [f"--out={trained_bags.parent}", f"--name={trained_bags.name}"]
    assert main([*digit_options, *out]) == 2
    assert "--resume" in sentence(capsys.readouterr().err)
    assert (trained_bags / "config.yaml").read_bytes() == before


# ---------------------------------------------------------------- runs that are there


@pytest.fixture
def run(trained_bags, tmp_path):
    shutil.copytree(trained_bags, tmp_path / "run")
    return tmp_path / "run"


@pytest.mark.parametrize(
    ("name", "spoil"),
    [
        ("config.yaml", lambda text: "\x00\x01"),
        ("config.yaml", lambda text: text.replace("task: bags", "task: sounds")),
        ("config.yaml", lambda text: text.replace("num_classes: 2", "num_classes: null")),
        ("manifest.csv", lambda text: text.replace("split", "side")),
        ("manifest.csv", lambda text: text.replace("instances", "members")),
        ("manifest.csv", lambda text: text.rstrip() + "9999\n"),
        ("best/config.json", lambda text: text.replace('"mean": 0.0', '"mean": null')),
        ("best/config.json", lambda text: text[: len(text) // 2]),
        ("best/model.safetensors", lambda text: "weights"),
    ],
)
def test_a_damaged_run_is_told_in_a_sentence(run, capsys, name, spoil):
    text = (run / name).read_text(errors="replace")
    assert spoil(text) != text
    (run / name).write_text(spoil(text))
    assert evaluate([str(run)]) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ")
    assert "Traceback" not in message


def test_a_bag_that_has_gone(feature_options, make_features, from_table, run_of, tmp_path, capsys):
    table = make_features(tmp_path)
    run = run_of(*feature_options, *from_table(table), "--epochs=1")
    gone = pd.read_csv(run / "predictions.csv")["image"][3]
    (table.parent / "bags" / gone).unlink()
    assert evaluate([str(run)]) == 2
    message = capsys.readouterr().err
    assert sentence(message)
    assert gone in message


def test_pictures_of_a_pool_without_attention(run_of, digit_options, capsys):
    """The pool is named, also where it was chosen among several."""
    alone = run_of(*digit_options, "--epochs=1", "--model.pool=max")
    chosen = run_of(*digit_options, "--epochs=1", "--pools=[mean]", "--rates=[0.01,0.02]")
    seeds = run_of(*digit_options, "--epochs=1", "--model.pool=mean", "--seeds=2")
    for run, pool in ((alone, "max"), (chosen, "mean"), (seeds, "mean")):
        capsys.readouterr()
        assert draw([str(run)]) == 2
        message = sentence(capsys.readouterr().err)
        assert f"({pool})" in message
        assert "no attention" in message
        assert not (run / "attention.png").exists()


def test_pictures_of_a_run_that_is_not_finished(run, capsys):
    (run / "predictions.csv").unlink()
    assert draw([str(run)]) == 2
    assert "--resume" in sentence(capsys.readouterr().err)


def test_pictures_of_training_bags(run, capsys):
    assert draw([str(run), "--split=train"]) == 2
    assert "--split" in sentence(capsys.readouterr().err)


def test_bags_that_were_changed_after_training(run, capsys):
    """A cut or edited manifest must not be judged in silence."""
    before = (run / "predictions.csv").read_bytes()
    manifest = pd.read_csv(run / "manifest.csv")
    for changed in (manifest.head(70), manifest.assign(label=1 - manifest["label"])):
        changed.to_csv(run / "manifest.csv", index=False)
        assert evaluate([str(run)]) == 2
        assert "manifest.csv" in sentence(capsys.readouterr().err)
        assert (run / "predictions.csv").read_bytes() == before


@pytest.mark.parametrize("option", ["--batch_size=0", "--workers=-1", "--threads=0"])
def test_options_of_evaluation(run, option, capsys):
    assert evaluate([str(run), option]) == 2
    assert "must be at least" in capsys.readouterr().err


def test_pictures_from_a_damaged_table(run, capsys):
    for content in ("", "index,image\n1,a\n"):
        (run / "instances.csv").write_text(content)
        assert draw([str(run)]) == 2
        assert "instances.csv is damaged" in sentence(capsys.readouterr().err)
    (run / "instances.csv").unlink()
    assert draw([str(run)]) == 2
    assert "instances.csv is missing" in sentence(capsys.readouterr().err)


def test_truth_of_instances_is_0_or_1(refused, table, bags):
    with h5py.File(bags / "s01.h5", "a") as file:
        count = len(file["features"])
        if "instance_labels" in file:
            del file["instance_labels"]
        file["instance_labels"] = np.full(count, 7)
    message = refused("--data.source=csv", f"--data.root={table}", f"--data.bags={bags}")
    assert "s01.h5: has instance_labels other than 0, 1 and NaN" in message


def test_one_diverged_rate_is_left_out(run_of, digit_options):
    run = run_of(*digit_options, "--epochs=1", "--rates=[1e20,0.01]", "--optim.name=sgd")
    assert pd.read_csv(run / "pools.csv")["rate"].tolist() == [0.01]
