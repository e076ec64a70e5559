"""Training on bags end to end: what it writes, that it is right, and that nothing is lost."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from safetensors.torch import load_file
from sklearn.metrics import roc_auc_score

from attnvgg import load_model
from attnvgg.cli.evaluate import main as evaluate
from attnvgg.cli.train_bags import main
from attnvgg.training import engine

ROOT = Path(__file__).parent.parent.parent
SCRIPT = [sys.executable, str(ROOT / "scripts" / "train_bags.py")]
# What differs between two equal runs: names and times of their own, and the log for TensorBoard.
NOT_COMPARED = ("tensorboard", "config.yaml", ".lock", "state.pt")


def contents(run):
    """Return what a run has written, by relative name."""
    return {
        path.relative_to(run).as_posix(): path.read_bytes()
        for path in run.rglob("*")
        if path.is_file() and not set(NOT_COMPARED) & set(path.relative_to(run).parts)
    }


def assert_same_run(a, b):
    first, second = contents(a), contents(b)
    assert first.keys() == second.keys()
    assert not [name for name in first if first[name] != second[name]]


def rows_of(text):
    return [int(row) for row in text.split()]


def read_json(path):
    return json.loads(path.read_text())


def by_hand(run, digits):
    """Return probabilities and attention of each judged bag, from raw digits, bag by bag."""
    model, manifest = load_model(run), pd.read_csv(run / "manifest.csv")
    found = {}
    for bag in manifest[manifest["split"] != "train"].itertuples():
        raw = [model.preprocess(digits.images[row]) for row in rows_of(bag.instances)]
        with torch.inference_mode():
            logits, attention = model(torch.stack(raw)[None])
        weights = None if attention is None else attention[0].numpy()
        found[bag.Index] = (logits.double().softmax(1)[0].numpy(), weights)
    return found


def assert_predictions_by_hand(run, digits):
    """The tables of a run say what its model says of raw digits."""
    table, expected = pd.read_csv(run / "predictions.csv"), by_hand(run, digits)
    assert table["index"].tolist() == list(expected)
    probabilities = table[["probability_0", "probability_1"]].to_numpy()
    np.testing.assert_allclose(
        probabilities, [found[0] for found in expected.values()], rtol=0, atol=1e-6
    )
    if (run / "instances.csv").is_file():
        instances = pd.read_csv(run / "instances.csv")
        weights = np.concatenate([found[1][:, 0] for found in expected.values()])
        np.testing.assert_allclose(instances["weight"], weights, rtol=0, atol=1e-6)
        assert instances["index"].tolist() == np.repeat(list(expected), 3).tolist()


# ---------------------------------------------------------------- one model


def test_the_run_folder_is_complete(trained_bags):
    found = {p.relative_to(trained_bags).as_posix() for p in trained_bags.rglob("*") if p.is_file()}
    events = {name for name in found if name.startswith("tensorboard/")}
    assert found - events - {".lock"} == {
        "config.yaml", "manifest.csv", "metrics.jsonl", "last/state.pt", "best/model.safetensors",
        "best/config.json", "predictions.csv", "instances.csv", "metrics.json",
    }  # fmt: skip
    assert events


def test_the_configuration_has_no_open_ends(trained_bags):
    config = yaml.safe_load((trained_bags / "config.yaml").read_text())
    assert config["task"] == "bags"
    assert config["model"]["num_classes"] == 2
    assert config["data"]["fractions"] == [0.68, 0.12, 0.2]
    assert config["data"]["classes"] == ["no 1", "holds a 1"]
    assert config["optim"]["lr"] == 3e-3


def test_the_manifest_is_of_the_bags_that_were_asked_for(trained_bags, digits):
    manifest = pd.read_csv(trained_bags / "manifest.csv")
    assert manifest["split"].value_counts().to_dict() == {"train": 40, "val": 20, "test": 30}
    members = manifest["instances"].map(rows_of)
    assert (members.map(len) == 3).all()
    ones = members.map(lambda rows: int((digits.labels[rows] == 1).any()))
    assert (ones == manifest["label"]).all()


def test_predictions_keep_the_contract(trained_bags):
    table = pd.read_csv(trained_bags / "predictions.csv")
    manifest = pd.read_csv(trained_bags / "manifest.csv")
    assert list(table) == [
        "index", "image", "label", "group", "split", "logit_0", "logit_1", "probability_0",
        "probability_1",
    ]  # fmt: skip
    assert table["index"].tolist() == np.flatnonzero(manifest["split"] != "train").tolist()
    for name in ("image", "label", "split"):
        assert (table[name].to_numpy() == manifest.loc[table["index"], name].to_numpy()).all()


def test_predictions_are_those_of_the_loaded_model(trained_bags, digits):
    assert_predictions_by_hand(trained_bags, digits)


def test_instances_keep_the_contract(trained_bags, digits):
    table = pd.read_csv(trained_bags / "instances.csv")
    manifest = pd.read_csv(trained_bags / "manifest.csv")
    assert list(table) == ["index", "image", "split", "instance", "weight", "label"]
    np.testing.assert_allclose(table.groupby("index")["weight"].sum(), 1, atol=1e-6)
    assert table["instance"].tolist() == [0, 1, 2] * 50
    assert (table["image"] == manifest.loc[table["index"], "image"].to_numpy()).all()
    rows = [
        rows_of(manifest.loc[i, "instances"])[n] for i, n in table[["index", "instance"]].values
    ]
    assert table["label"].tolist() == (digits.labels[rows] == 1).astype(int).tolist()


def test_the_figures_are_right(trained_bags):
    metrics = read_json(trained_bags / "metrics.json")
    table = pd.read_csv(trained_bags / "predictions.csv").query("split == 'test'")
    right = (table["probability_1"] >= 0.5) == table["label"]
    assert metrics["accuracy"]["value"] == pytest.approx(right.mean())
    assert metrics["accuracy"]["lower"] < right.mean() < metrics["accuracy"]["upper"]
    auc = roc_auc_score(table["label"], table["probability_1"])
    assert metrics["test"]["auc"]["value"] == pytest.approx(auc)
    assert auc > 0.8, "two epochs suffice to learn something"
    hits = [
        bag.loc[bag["weight"].idxmax(), "label"]
        for _, bag in pd.read_csv(trained_bags / "instances.csv")
        .query("split == 'test'")
        .groupby("index")
        if bag["label"].any()
    ]
    assert metrics["instances"]["bags"] == len(hits) == table["label"].sum()
    assert metrics["instances"]["top_positive"] == pytest.approx(np.mean(hits))


def test_the_model_takes_its_threshold_and_worth_along(trained_bags):
    metrics, saved = (read_json(trained_bags / n) for n in ("metrics.json", "best/config.json"))
    assert saved["threshold"] == metrics["threshold"]["value"]
    assert saved["metrics"] == metrics
    assert saved["classes"] == ["no 1", "holds a 1"]
    assert saved["preprocess"] == {"kind": "digits", "mean": 0.0, "std": 1.0}


def test_training_twice_gives_the_same_run(trained_bags, digit_options, run_of):
    assert_same_run(trained_bags, run_of(*digit_options))


def test_workers_change_nothing(trained_bags, digit_options, run_of):
    assert_same_run(trained_bags, run_of(*digit_options, "--data.workers=2"))


def test_the_seed_matters(trained_bags, digit_options, run_of):
    other = run_of(*digit_options, "--seed=1")
    first, second = contents(trained_bags), contents(other)
    assert first["manifest.csv"] == second["manifest.csv"], "the bags have a seed of their own"
    assert first["predictions.csv"] != second["predictions.csv"]


def test_a_recipe_from_the_command_line(tmp_path):
    """The script itself, with the digits that it reads itself."""
    options = ["--data.counts=[30,12,12]", "--epochs=1", "--threads=1", f"--out={tmp_path}"]
    command = [*SCRIPT, "--config", str(ROOT / "configs" / "bags_ilse.yaml"), *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, "--name=a", "--device=cpu"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    assert "AUC" in done.stdout
    assert len(pd.read_csv(tmp_path / "a" / "predictions.csv")) == 24
    lengths = pd.read_csv(tmp_path / "a" / "manifest.csv")["instances"].map(rows_of).map(len)
    assert lengths.nunique() > 3


# ---------------------------------------------------------------- stopping and going on


def test_resuming_a_shorter_run_equals_the_longer_one(trained_bags, digit_options, run_of):
    run = run_of(*digit_options, "--epochs=1")
    assert main(["--resume", str(run), "--epochs=2"]) == 0
    assert_same_run(trained_bags, run)


def test_resuming_a_finished_run_changes_nothing(seeded_bags, pooled_bags, tmp_path):
    for number, run in enumerate((seeded_bags, pooled_bags)):
        copy = tmp_path / str(number)
        shutil.copytree(run, copy)
        assert main(["--resume", str(copy)]) == 0
        assert_same_run(run, copy)


def test_resume_refuses_another_run(seeded_bags, capsys):
    assert main(["--resume", str(seeded_bags), "--seeds=3"]) == 2
    assert "--seeds" in capsys.readouterr().err


class Impatient(engine.StopRequest):
    def __bool__(self):
        return True


@pytest.mark.parametrize(
    ("extra", "stops"),
    [
        (["--epochs=2"], 6),
        (["--seeds=2"], 6),
        (["--seeds=2", "--data.redraw=true"], 6),
        (["--pools=[attention,noisy_and]"], 6),
        (["--stage_one.share=0.01", "--stage_one.epochs=1", "--stage_one.batch_size=16",
          "--pools=[attention,mean]"], 8),
    ],
    ids=["one model", "seeds", "seeds with bags of their own", "candidates", "two stages"],
)  # fmt: skip
def test_stop_after_every_batch_is_exact(
    digit_options, run_of, tmp_path, monkeypatch, extra, stops
):
    """Interrupted wherever it can be and resumed each time, a run ends with the same files."""
    options = [*digit_options, "--data.counts=[16,12,12]", "--epochs=1", *extra]
    straight = run_of(*options)
    with monkeypatch.context() as patch:
        patch.setattr(engine, "StopRequest", Impatient)
        codes = [main([*options, f"--out={tmp_path}", "--name=a"])]
        while codes[-1] == 143 and len(codes) < 40:
            codes.append(main(["--resume", str(tmp_path / "a")]))
    assert codes == [143] * (len(codes) - 1) + [0]
    assert len(codes) > stops
    assert_same_run(straight, tmp_path / "a")


def test_an_interrupted_seed_is_continued_by_the_run(digit_options, tmp_path, monkeypatch, capsys):
    """What is said to be continued is the run, not the folder of a seed in it."""
    monkeypatch.setattr(engine, "StopRequest", Impatient)
    options = [*digit_options, "--seeds=2", f"--out={tmp_path}", "--name=a"]
    assert main(options) == 143
    assert f"continue with --resume {tmp_path / 'a'}\n" in capsys.readouterr().err


def test_kill_and_resume_is_exact(feature_options, run_of, tmp_path):
    """A killed run goes on with the seed that was trained, wherever the kill struck."""
    options = [*feature_options, "--seeds=2", "--epochs=30", "--patience=null"]
    straight = run_of(*options)
    metrics = tmp_path / "a" / "seed-1" / "metrics.jsonl"
    command = [*SCRIPT, *options, f"--out={tmp_path}", "--name=a"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, start_new_session=True
    ) as process:
        deadline = time.monotonic() + 100
        while not metrics.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
        assert process.wait(timeout=60) == -signal.SIGKILL, "it was done before it was killed"
    assert len(metrics.read_text().splitlines()) < 30
    assert main(["--resume", str(tmp_path / "a")]) == 0
    assert_same_run(straight, tmp_path / "a")


@pytest.mark.parametrize("leftover", [[], ["manifest.csv"], ["manifest.csv", ".config-x.yaml"]])
def test_a_seed_that_was_hardly_begun_is_begun_anew(seeded_bags, tmp_path, leftover):
    """Killed between the folder and its config.yaml, a seed is no dead end."""
    run = tmp_path / "a"
    shutil.copytree(seeded_bags, run)
    shutil.rmtree(run / "seed-1")
    (run / "seed-1").mkdir()
    for name in leftover:
        (run / "seed-1" / name).write_text("half")
    assert main(["--resume", str(run)]) == 0
    assert_same_run(seeded_bags, run)


# ---------------------------------------------------------------- several seeds


def test_every_seed_is_a_run_of_its_own(seeded_bags, trained_bags, digit_options, run_of):
    assert_same_run(seeded_bags / "seed-0", trained_bags)
    assert_same_run(seeded_bags / "seed-1", run_of(*digit_options, "--seed=1"))


def test_the_average_of_the_seeds(seeded_bags):
    tables = [pd.read_csv(seeded_bags / f"seed-{n}" / "predictions.csv") for n in (0, 1)]
    average = pd.read_csv(seeded_bags / "predictions.csv")
    for name in ("probability_0", "probability_1"):
        mean = (tables[0][name] + tables[1][name]) / 2
        np.testing.assert_allclose(average[name], mean, rtol=1e-12)
        assert not np.allclose(tables[0][name], tables[1][name], atol=1e-3)
    logits = torch.tensor(average[["logit_0", "logit_1"]].to_numpy())
    np.testing.assert_allclose(logits.softmax(1)[:, 1], average["probability_1"], rtol=1e-6)
    unchanged = ["index", "image", "label", "split"]
    pd.testing.assert_frame_equal(average[unchanged], tables[0][unchanged])
    parts = [pd.read_csv(seeded_bags / f"seed-{n}" / "instances.csv") for n in (0, 1)]
    merged = pd.read_csv(seeded_bags / "instances.csv")
    mean = (parts[0]["weight"] + parts[1]["weight"]) / 2
    np.testing.assert_allclose(merged["weight"], mean, rtol=1e-12)
    assert list(merged) == list(parts[0])


def test_the_average_is_judged(seeded_bags):
    metrics = read_json(seeded_bags / "metrics.json")
    table = pd.read_csv(seeded_bags / "predictions.csv").query("split == 'test'")
    auc = roc_auc_score(table["label"], table["probability_1"])
    assert metrics["test"]["auc"]["value"] == pytest.approx(auc)


def test_the_summary_is_of_the_seeds(seeded_bags):
    summary = read_json(seeded_bags / "summary.json")
    single = [read_json(seeded_bags / f"seed-{n}" / "metrics.json") for n in (0, 1)]
    assert summary["seeds"] == ["seed-0", "seed-1"]
    wanted = {
        "accuracy": [one["accuracy"]["value"] for one in single],
        "auc": [one["test"]["auc"]["value"] for one in single],
        "top_positive": [one["instances"]["top_positive"] for one in single],
    }
    assert {key: found["values"] for key, found in summary["test"].items()} == wanted
    for key, values in wanted.items():
        assert summary["test"][key]["mean"] == pytest.approx(np.mean(values))
        assert summary["test"][key]["deviation"] == pytest.approx(np.std(values, ddof=1))


def test_redrawn_seeds_have_bags_of_their_own(digit_options, run_of, capsys):
    run = run_of(*digit_options, "--seeds=2", "--data.redraw=true", "--epochs=1")
    assert not (run / "predictions.csv").exists()
    assert "no average" in capsys.readouterr().out
    alone = run_of(*digit_options, "--seed=1", "--data.split_seed=1", "--epochs=1")
    assert_same_run(run / "seed-1", alone)
    first, second = (contents(run / f"seed-{n}") for n in (0, 1))
    assert first["manifest.csv"] != second["manifest.csv"]
    assert len(read_json(run / "summary.json")["test"]["auc"]["values"]) == 2


# ---------------------------------------------------------------- pools, rates, stages


def test_the_best_candidate_is_chosen_on_validation(pooled_bags):
    table = pd.read_csv(pooled_bags / "pools.csv").set_index("pool")
    losses = {}
    for folder in (pooled_bags / "candidates").iterdir():
        rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        losses[folder.name] = min(row["validation"]["loss"] for row in rows)
    assert set(losses) == {f"{p}-lr{r}" for p in ("mean", "attention") for r in (0.001, 0.01)}
    for pool, row in table.iterrows():
        mine = {name: loss for name, loss in losses.items() if name.startswith(f"{pool}-")}
        assert row["candidate"] == min(mine, key=mine.get)
        assert row["candidate"] == f"{pool}-lr{row['rate']}"
        assert row["validation_loss"] == pytest.approx(min(mine.values()))
        metrics = read_json(pooled_bags / "candidates" / row["candidate"] / "metrics.json")
        assert row["auc"] == metrics["test"]["auc"]["value"]
        assert row["accuracy"] == metrics["accuracy"]["value"]
    assert table["chosen"].sum() == 1
    assert table["chosen"].idxmax() == table["validation_loss"].idxmin()


def test_the_chosen_candidate_is_the_model_of_the_run(pooled_bags, digits):
    table = pd.read_csv(pooled_bags / "pools.csv")
    chosen = pooled_bags / "candidates" / table.loc[table["chosen"], "candidate"].item()
    for name in ("predictions.csv", "metrics.json", "metrics.jsonl"):
        assert (pooled_bags / name).read_bytes() == (chosen / name).read_bytes()
    before, after = (load_file(run / "best/model.safetensors") for run in (chosen, pooled_bags))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert_predictions_by_hand(pooled_bags, digits)


def test_two_stages_make_one_model_of_raw_digits(staged_bags, digits):
    """The encoder of the first stage and the pool of the second, in one file."""
    table = pd.read_csv(staged_bags / "pools.csv")
    chosen = staged_bags / "candidates" / table.loc[table["chosen"], "candidate"].item()
    assert_predictions_by_hand(staged_bags, digits)
    before, after = (pd.read_csv(folder / "predictions.csv") for folder in (chosen, staged_bags))
    np.testing.assert_allclose(before["probability_1"], after["probability_1"], atol=1e-5)
    first = load_file(staged_bags / "stage-1" / "best" / "model.safetensors")
    last = load_file(staged_bags / "best" / "model.safetensors")
    encoder = {name: value for name, value in first.items() if name.startswith("encoder.")}
    assert encoder
    assert all(torch.equal(value, last[name]) for name, value in encoder.items())


def test_digits_of_the_first_stage_are_in_no_bag(staged_bags):
    single = pd.read_csv(staged_bags / "stage-1" / "manifest.csv")["instances"]
    assert len(single) == 1000
    bags = pd.read_csv(staged_bags / "manifest.csv")["instances"].map(rows_of).explode()
    assert not set(single) & set(bags)


def test_the_first_stage_has_learned_digits(staged_bags):
    rows = (staged_bags / "stage-1" / "metrics.jsonl").read_text().splitlines()
    assert json.loads(rows[-1])["validation"]["auc"] > 0.9


# ---------------------------------------------------------------- bags on the disk


def test_bags_of_features(feature_options, run_of):
    """All three formats, found by name, with the patients kept together."""
    run = run_of(*feature_options, "--epochs=20", "--batch_size=4", "--optim.lr=0.01")
    manifest = pd.read_csv(run / "manifest.csv")
    assert (manifest.groupby("group")["split"].nunique() == 1).all()
    table, model = pd.read_csv(run / "predictions.csv"), load_model(run)
    instances = pd.read_csv(run / "instances.csv")
    known = instances.groupby("image")["label"].agg(lambda labels: labels.notna().all())
    assert known.any()
    assert not known.all(), "most files do not know their instances"
    assert {Path(path).suffix for path in table["image"]} == {".npy", ".h5", ".pt"}
    for row in table[table["image"].str.endswith(".npy")].to_dict("records"):
        features = model.preprocess(np.load(row["image"]))
        with torch.inference_mode():
            logits, attention = model(features[None])
        assert float(logits.sigmoid()) == pytest.approx(row["probability"], abs=1e-6)
        mine = instances[instances["index"] == row["index"]]
        np.testing.assert_allclose(mine["weight"], attention[0, :, 0], atol=1e-6)
    metrics = read_json(run / "metrics.json")
    assert metrics["test"]["auc"]["value"] > 0.9
    assert metrics["instances"] is None
    tested = table[table["split"] == "test"]
    assert tested["probability"].between(0.5, 0.9).any(), "or the next line says little"
    right = (tested["probability"] >= 0.5) == tested["label"]
    assert metrics["accuracy"]["value"] == pytest.approx(right.mean())


def test_files_that_know_their_instances(make_features, from_table, bag_options, run_of, tmp_path):
    table = make_features(tmp_path, suffixes=(".h5",))
    options = [*bag_options, *from_table(table), "--model.encoder=identity", "--batch_size=4"]
    run = run_of(*options, "--epochs=20", "--optim.lr=0.01")
    instances = pd.read_csv(run / "instances.csv")
    positive = instances.groupby("image")["label"].max()
    labels = pd.read_csv(run / "predictions.csv").set_index("image")["label"]
    assert (positive == labels[positive.index]).all()
    assert read_json(run / "metrics.json")["instances"]["top_positive"] == 1


def test_bags_of_some_that_know_their_instances(feature_options, run_of):
    """Which bags share a batch must not decide what the table says."""
    one = run_of(*feature_options, "--eval_batch_size=1")
    all_at_once = run_of(*feature_options)
    a, b = (pd.read_csv(run / "instances.csv") for run in (one, all_at_once))
    assert list(a) == list(b) == ["index", "image", "split", "instance", "weight", "label"]
    np.testing.assert_array_equal(a["label"], b["label"])
    np.testing.assert_allclose(a["weight"], b["weight"], atol=1e-6)


def test_long_bags_are_pooled_in_pieces(feature_options, run_of):
    """Every bag is longer than a piece of one instance; the figures are the same."""
    whole, pieces = (run_of(*feature_options, f"--model.chunk_size={n}") for n in (64, 1))
    for name, column in (("predictions.csv", "probability"), ("instances.csv", "weight")):
        a, b = (pd.read_csv(run / name)[column] for run in (whole, pieces))
        np.testing.assert_allclose(a, b, atol=1e-4)


@pytest.mark.parametrize("classes", [2, 3])
def test_folders_name_the_classes(make_features, bag_options, run_of, tmp_path, classes):
    """Also after a continuation, which knows the folder only from its manifest."""
    names = ["calm", "grim", "mild"][:classes]
    table = make_features(tmp_path, suffixes=(".npy",), classes=classes)
    for row in pd.read_csv(table).to_dict("records"):
        folder = tmp_path / "root" / names[row["label"]]
        folder.mkdir(parents=True, exist_ok=True)
        shutil.move(table.parent / "bags" / f"{row['slide_id']}.npy", folder)
    options = ["--data.source=folders", f"--data.root={tmp_path / 'root'}", "--data.workers=0"]
    options += [*bag_options, "--data.fractions=[0.5,0.25,0.25]", "--model.encoder=identity"]
    run = run_of(*options, "--epochs=1", "--seeds=2")
    assert main(["--resume", str(run), "--epochs=2"]) == 0
    for seed in (0, 1):
        assert read_json(run / f"seed-{seed}" / "best" / "config.json")["classes"] == names
    table = pd.read_csv(run / "predictions.csv")
    assert ("probability" in table) == (classes == 2)
    assert ("probability_2" in table) == (classes == 3)
    if classes == 3:
        total = table[["probability_0", "probability_1", "probability_2"]].sum(axis=1)
        np.testing.assert_allclose(total, 1, atol=1e-9)
    assert_same_run(run, run_of(*options, "--epochs=2", "--seeds=2"))


def test_bags_of_pictures(photo_options, run_of):
    run = run_of(*photo_options)
    saved = read_json(run / "best" / "config.json")
    assert saved["classes"] == ["healthy", "sick"]
    table, model = pd.read_csv(run / "predictions.csv"), load_model(run)
    instances = pd.read_csv(run / "instances.csv")
    row = table.iloc[0]
    files = sorted(Path(row["image"]).iterdir())
    pictures = torch.stack([model.preprocess(path) for path in files])
    with torch.inference_mode():
        logits, attention = model(pictures[None])
    assert float(logits.sigmoid()) == pytest.approx(row["probability"], abs=1e-6)
    mine = instances[instances["index"] == row["index"]]
    np.testing.assert_allclose(mine["weight"], attention[0, :, 0], atol=1e-6)
    assert_same_run(run, run_of(*photo_options, "--data.workers=2"))


def test_augmented_pictures_are_drawn_anew_and_resumed(photo_options, run_of):
    options = [*photo_options, "--data.augmentation=tutorial"]
    straight, shorter = run_of(*options), run_of(*options, "--epochs=1")
    assert main(["--resume", str(shorter), "--epochs=2"]) == 0
    assert_same_run(straight, shorter)
    rows = [json.loads(line) for line in (straight / "metrics.jsonl").read_text().splitlines()]
    plain = run_of(*photo_options)
    assert (
        rows[0]["train"]
        != json.loads((plain / "metrics.jsonl").read_text().splitlines()[0])["train"]
    )


def test_weights_of_bags_reach_the_loss(make_features, from_table, bag_options, run_of, tmp_path):
    """A bag of weight 0 is as good as absent from the gradient."""
    table, found = make_features(tmp_path), {}
    options = [*bag_options, "--model.encoder=identity", "--loss.attention_decay=0", "--epochs=1"]
    for weight in (0.0, 1.0):
        labels = pd.read_csv(table).assign(weight=weight)
        labels.to_csv(tmp_path / "labels.csv", index=False)
        run = run_of(*options, *from_table(table))
        found[weight] = torch.load(run / "last" / "state.pt", weights_only=True)["states"]["model"]
    fresh = run_of(*options, *from_table(table), "--optim.lr=0")
    start = torch.load(fresh / "last" / "state.pt", weights_only=True)["states"]["model"]
    assert all(torch.equal(start[name], value) for name, value in found[0.0].items())
    assert not all(torch.equal(start[name], value) for name, value in found[1.0].items())


# ---------------------------------------------------------------- judging again


@pytest.mark.parametrize("name", ["trained_bags", "seeded_bags", "pooled_bags", "staged_bags"])
def test_evaluating_again_gives_the_same_files(request, name, tmp_path):
    run = tmp_path / "a"
    shutil.copytree(request.getfixturevalue(name), run)
    names = [p.relative_to(run) for p in run.rglob("*") if p.is_file()]
    before = {name: (run / name).read_bytes() for name in names}
    for name in ("predictions.csv", "metrics.json", "instances.csv", "summary.json"):
        for path in (run / name, run / "seed-0" / name, run / "seed-1" / name):
            path.unlink(missing_ok=True)
    assert evaluate([str(run), "--device=cpu", "--threads=1"]) == 0
    after = {p.relative_to(run): p.read_bytes() for p in run.rglob("*") if p.is_file()}
    assert {name.parts[0] for name in after.keys() - before.keys()} == {"report"}
    assert not [name for name in before if before[name] != after[name]]


def test_evaluating_bags_of_features_from_elsewhere(
    make_features, bag_options, run_of, tmp_path, monkeypatch
):
    """Paths that were relative when the run was made hold in another folder, too."""
    make_features(tmp_path / "home")
    monkeypatch.chdir(tmp_path / "home")
    options = ["--data.source=csv", "--data.root=labels.csv", "--data.bags=bags"]
    options += [*bag_options, "--data.fractions=[0.5,0.25,0.25]", "--model.encoder=identity"]
    run = run_of(*options, "--data.workers=0")
    before = contents(run)
    monkeypatch.chdir(tmp_path)
    assert evaluate([str(run), "--threads=1", "--batch_size=1"]) == 0
    table = pd.read_csv(run / "predictions.csv")
    (tmp_path / "before.csv").write_bytes(before["predictions.csv"])
    old = pd.read_csv(tmp_path / "before.csv")
    np.testing.assert_allclose(old["probability"], table["probability"], atol=1e-6)


def test_a_run_of_seeds_that_is_not_finished(seeded_bags, tmp_path, capsys):
    run = tmp_path / "a"
    shutil.copytree(seeded_bags, run)
    shutil.rmtree(run / "seed-1" / "best")
    assert evaluate([str(run)]) == 2
    message = capsys.readouterr().err
    assert "seed-1" in message
    assert "seed-0" not in message


# ---------------------------------------------------------------- every option


@pytest.mark.parametrize(
    ("extra", "columns"),
    [
        (["--model.pool=multi_branch", "--model.branches=2"], ["weight_0", "weight_1"]),
        (["--model.pool=leaky_attention", "--model.head=mlp"], ["weight"]),
        (["--model.pool=softmax_mean", "--model.num_classes=1"], ["weight"]),
        (["--model.pool=noisy_and", "--optim.name=sgd"], ["probability"]),
        (["--model.pool=max", "--model.level=instance", "--monitor=auc"], ["probability"]),
        (["--model.pool=mean", "--optim.average=0.5"], None),
        (["--model.pool=log_sum_exp", "--loss.elastic_net=0.01"], None),
        (["--model.encoder=lenet", "--model.freeze=true", "--loss.gamma=2"], ["weight"]),
        (["--data.lengths=uniform", "--data.size=[2,5]", "--data.positives=planted"], ["weight"]),
        (["--data.lengths=normal", "--data.size=[4,2]", "--precision=bf16"], ["weight"]),
        (["--data.counts=[40,20,0]", "--accumulate=2", "--loss.alpha=null"], ["weight"]),
    ],
    ids=lambda value: " ".join(value or ["none"]),
)
def test_every_option_trains(digit_options, run_of, extra, columns):
    run = run_of(*digit_options, "--epochs=1", *extra)
    metrics = read_json(run / "metrics.json")
    assert 0 <= metrics[metrics["judged_on"]]["auc"]["value"] <= 1
    assert (run / "instances.csv").exists() == (columns is not None)
    if columns is not None:
        table = pd.read_csv(run / "instances.csv")
        assert list(table) == ["index", "image", "split", "instance", *columns, "label"]
        sums = table.groupby("index")[columns].sum().to_numpy()
        assert np.allclose(sums, 1, atol=1e-6) == columns[0].startswith("weight")
        assert table[columns].to_numpy().min() >= 0
    else:
        assert metrics["instances"] is None


def test_a_frozen_encoder_stays_as_it_was(digit_options, run_of):
    options = [*digit_options, "--epochs=1", "--optim.weight_decay=0.1"]
    states = {}
    for freeze, rate in (("true", 0.01), ("false", 0.01), ("false", 0)):
        run = run_of(*options, f"--model.freeze={freeze}", f"--optim.lr={rate}")
        states[freeze, rate] = load_file(run / "best" / "model.safetensors")
    start = states["false", 0]
    for name, value in start.items():
        is_encoder = name.startswith("encoder.")
        assert torch.equal(states["true", 0.01][name], value) == is_encoder, name
        assert not torch.equal(states["false", 0.01][name], value), name


def test_penalties_shrink_the_weights(digit_options, run_of):
    norms = []
    for strength in (0, 1):
        run = run_of(*digit_options, f"--loss.attention_decay={strength}", "--epochs=1")
        state = load_file(run / "best" / "model.safetensors")
        norms.append(sum(float((v**2).sum()) for n, v in state.items() if n.startswith("pool.")))
    assert norms[1] < 0.9 * norms[0]
