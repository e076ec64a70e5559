"""Training end to end on small pictures: what it writes, and that nothing is lost."""

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

from attnvgg import AttnVGG, FocalLoss, load_model
from attnvgg.cli.train import main
from attnvgg.training.run import RunFolder

ROOT = Path(__file__).parent.parent.parent
SCRIPT = [sys.executable, str(ROOT / "scripts" / "train.py")]


def same_files(a, b, names):
    return [name for name in names if (a / name).read_bytes() != (b / name).read_bytes()]


def weights_of(run):
    return torch.load(run / "last" / "state.pt", weights_only=True)["states"]["model"]


def assert_same_run(a, b):
    """Weights, metrics and predictions of two runs are equal to the bit."""
    first, second = weights_of(a), weights_of(b)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    files = ["metrics.jsonl", "metrics.json", "predictions.csv", "manifest.csv"]
    assert not same_files(a, b, files)
    assert not same_files(a / "best", b / "best", ["model.safetensors"])


def test_the_run_folder_is_complete(trained):
    found = {p.relative_to(trained).as_posix() for p in trained.rglob("*") if p.is_file()}
    events = {name for name in found if name.startswith("tensorboard/")}
    assert found - events - {".lock"} == {
        "config.yaml", "manifest.csv", "metrics.jsonl", "last/state.pt",
        "best/model.safetensors", "best/config.json", "predictions.csv", "metrics.json",
    }  # fmt: skip
    assert events


def test_the_configuration_has_no_open_ends(trained):
    config = yaml.safe_load((trained / "config.yaml").read_text())
    assert config["data"]["image_size"] == config["data"]["resize"] == 32
    assert config["model"]["num_classes"] == 1
    assert config["optim"]["lr"] == 1e-3
    assert config["data"]["classes"] == ["negative", "positive"]


def test_metrics_cover_the_whole_sets(trained):
    rows = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2]
    for row in rows:
        for part in ("train", "validation"):
            assert set(row[part]) == {"loss", "auc", "average_precision"}
            assert all(np.isfinite(list(row[part].values())))


def test_predictions_are_those_of_the_loaded_model(trained):
    table = pd.read_csv(trained / "predictions.csv")
    manifest = pd.read_csv(trained / "manifest.csv")
    expected = manifest.index[manifest["split"].isin(["val", "test"])]
    assert sorted(table["index"]) == sorted(expected)
    assert (manifest.loc[table["index"], "image"].to_numpy() == table["image"]).all()
    model = load_model(trained)
    images = torch.stack([model.preprocess(path) for path in table["image"]])
    with torch.inference_mode():
        probabilities = model(images).logits.sigmoid()[:, 0].numpy()
    np.testing.assert_allclose(probabilities, table["probability"], atol=1e-6)


def test_no_group_is_on_two_sides(trained):
    manifest = pd.read_csv(trained / "manifest.csv")
    assert (manifest.groupby("group")["split"].nunique() == 1).all()


def test_the_threshold_is_locked_on_validation(trained):
    metrics = json.loads((trained / "metrics.json").read_text())
    config = json.loads((trained / "best" / "config.json").read_text())
    table = pd.read_csv(trained / "predictions.csv")
    sick = table[(table["split"] == "val") & (table["label"] == 1)]["probability"]
    threshold = config["threshold"]
    assert (sick >= threshold).mean() >= 0.9
    higher = sick[sick > threshold].min()
    assert (sick >= higher).mean() < 0.9
    assert metrics["threshold"]["value"] == threshold


def test_training_twice_gives_the_same_run(trained, csv_options, tmp_path):
    assert main([*csv_options, "--epochs=2", f"--out={tmp_path}", "--name=trained"]) == 0
    assert_same_run(trained, tmp_path / "trained")


def test_workers_change_nothing(trained, csv_options, tmp_path):
    options = [*csv_options, "--epochs=2", f"--out={tmp_path}", "--name=w", "--data.workers=2"]
    assert main(options) == 0
    assert_same_run(trained, tmp_path / "w")


def test_resuming_a_shorter_run_equals_the_longer_one(trained, csv_options, tmp_path):
    assert main([*csv_options, "--epochs=1", f"--out={tmp_path}", "--name=a"]) == 0
    assert main(["--resume", str(tmp_path / "a"), "--epochs=2"]) == 0
    assert_same_run(trained, tmp_path / "a")


def test_resume_refuses_another_run(trained, capsys):
    assert main(["--resume", str(trained), "--optim.lr=0.5"]) == 2
    assert "--optim.lr" in capsys.readouterr().err


def start_and_kill(options, ready, number):
    """Start a run of its own and send its whole process group a signal once `ready` holds.

    A batch system signals the workers as well as the main process.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [*SCRIPT, *options],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    ) as process:
        deadline = time.monotonic() + 120
        while not ready() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        os.killpg(process.pid, number)
        output = process.communicate(timeout=120)[0].decode()
    return process.returncode, output


def test_kill_and_resume_is_exact(csv_options, tmp_path):
    """A killed run goes on to the same weights, wherever the kill struck."""
    assert main([*csv_options, "--epochs=4", f"--out={tmp_path}", "--name=straight"]) == 0
    run = tmp_path / "killed"
    options = [*csv_options, "--epochs=4", f"--out={tmp_path}", "--name=killed"]
    metrics = run / "metrics.jsonl"

    def two_epochs_done():
        return metrics.exists() and len(metrics.read_text().splitlines()) >= 2

    code, _ = start_and_kill(options, two_epochs_done, signal.SIGKILL)
    assert code == -signal.SIGKILL
    subprocess.run([*SCRIPT, "--resume", str(run)], check=True, capture_output=True, timeout=200)
    assert_same_run(tmp_path / "straight", run)


def test_sigterm_saves_within_the_epoch(csv_options, tmp_path):
    """A polite stop is answered at the next step, and costs nothing."""
    options = [*csv_options, "--epochs=30", f"--out={tmp_path}", "--name=a", "--data.passes=20"]
    options.append("--data.workers=2")
    run = tmp_path / "a"
    code, output = start_and_kill(options, (run / "tensorboard").exists, signal.SIGTERM)
    assert code == 143, output
    assert "stopped in epoch" in output
    assert "--resume" in output
    progress = torch.load(run / "last" / "state.pt", weights_only=True)["progress"]
    assert progress["batch"] > 0 or progress["epoch"] > 0


def test_ctrl_c_is_told_apart(csv_options, tmp_path):
    options = [*csv_options, "--epochs=30", f"--out={tmp_path}", "--name=a", "--data.passes=20"]
    code, output = start_and_kill(options, (tmp_path / "a" / "tensorboard").exists, signal.SIGINT)
    assert code == 130, output
    assert "--resume" in output


def test_compiling_changes_no_result(csv_options, tmp_path, monkeypatch):
    options = [*csv_options, "--epochs=1", f"--out={tmp_path}"]
    assert main([*options, "--name=plain"]) == 0
    seen = []

    def compiled(module):
        seen.append(module)
        return compile_with(module, backend="eager")  # captured, but no code written: seconds

    compile_with = torch.compile
    monkeypatch.setattr(torch, "compile", compiled)
    assert main([*options, "--name=compiled", "--compile=true"]) == 0
    assert len(seen) == 1
    assert_same_run(tmp_path / "plain", tmp_path / "compiled")


def test_stop_within_an_epoch_is_exact(csv_options, tmp_path, monkeypatch):
    """Interrupted after every batch and resumed each time, a run ends with the same weights."""
    from attnvgg.training import engine

    assert main([*csv_options, "--epochs=2", f"--out={tmp_path}", "--name=straight"]) == 0
    options = [*csv_options, "--epochs=2", f"--out={tmp_path}", "--name=broken"]

    class Impatient(engine.StopRequest):
        def __bool__(self):
            return True

    with monkeypatch.context() as patch:
        patch.setattr(engine, "StopRequest", Impatient)
        codes = [main(options)]
        while codes[-1] == 143 and len(codes) < 20:
            codes.append(main(["--resume", str(tmp_path / "broken")]))
    assert codes[-1] == 0
    assert len(codes) > 4
    assert_same_run(tmp_path / "straight", tmp_path / "broken")


def test_a_non_finite_loss_names_the_batch(csv_options, tmp_path, capsys):
    options = [*csv_options, "--epochs=1", f"--out={tmp_path}", "--name=a", "--optim.lr=1e30"]
    assert main([*options, "--optim.name=sgd"]) == 1
    message = capsys.readouterr().err
    assert "epoch 1, batch" in message
    assert ".png" in message


def test_a_gradient_that_is_no_number_is_not_taken(csv_options, tmp_path, capsys, monkeypatch):
    """The loss may be finite when its gradient is not; the weights must not see it."""
    from attnvgg.training import steps

    monkeypatch.setattr(steps, "get_total_norm", lambda gradients: float("nan"))
    taken = []
    monkeypatch.setattr(torch.optim.Adam, "step", lambda *_, **__: taken.append(1))
    assert main([*csv_options, "--epochs=1", f"--out={tmp_path}", "--name=a"]) == 1
    assert "gradient" in capsys.readouterr().err
    assert not taken


def test_resuming_before_the_first_state_starts_from_the_same_weights(
    csv_options, tmp_path, monkeypatch
):
    """Killed before anything was saved, a run still has its pretrained start."""
    from torchvision.models import vgg11_bn

    from attnvgg.cli import image_member as command

    state = {k: v for k, v in vgg11_bn().state_dict().items() if k.startswith("features.")}
    torch.save(state, tmp_path / "backbone.pth")
    options = [*csv_options, f"--model.weights={tmp_path / 'backbone.pth'}", "--epochs=1"]
    assert main([*options, f"--out={tmp_path}", "--name=straight"]) == 0

    class Killed(BaseException):
        pass

    def die(*_):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(command, "fit", die)
        with pytest.raises(Killed):
            main([*options, f"--out={tmp_path}", "--name=killed"])
    assert not (tmp_path / "killed" / "last" / "state.pt").exists()
    assert main(["--resume", str(tmp_path / "killed")]) == 0
    assert_same_run(tmp_path / "straight", tmp_path / "killed")


@pytest.mark.parametrize("average", ["0.0", "0.9"])
def test_validation_judges_the_weights_as_saved(csv_options, tmp_path, average):
    """In mixed precision too, the figures of the best epoch are those of the saved model."""
    options = [*csv_options, "--precision=bf16", f"--optim.average={average}", "--epochs=1"]
    assert main([*options, f"--out={tmp_path}", "--name=a"]) == 0
    row = json.loads((tmp_path / "a" / "metrics.jsonl").read_text())["validation"]
    table = pd.read_csv(tmp_path / "a" / "predictions.csv")
    table = table[table["split"] == "val"]
    loss = FocalLoss(2.0)(
        torch.tensor(table["logit"].to_numpy()), torch.tensor(table["label"].to_numpy())
    )
    assert row["loss"] == pytest.approx(float(loss), abs=1e-6)


def test_accumulated_batches_are_one_larger_batch(csv_options, tmp_path):
    """Without batch norm, two batches of four make the step of one batch of eight."""
    plain = [
        *csv_options,
        "--model.backbone=vgg11",
        "--optim.name=sgd",
        "--optim.lr=0.01",
        "--epochs=1",
    ]
    assert main([*plain, f"--out={tmp_path}", "--name=one", "--batch_size=8"]) == 0
    two = ["--batch_size=4", "--accumulate=2"]
    assert main([*plain, f"--out={tmp_path}", "--name=two", *two]) == 0
    one, other = weights_of(tmp_path / "one"), weights_of(tmp_path / "two")
    assert all(torch.allclose(one[name], other[name], atol=1e-6) for name in one)


def test_patience_ends_a_run(csv_options, tmp_path):
    """With a rate of 0 (and no statistics that change) the first epoch stays the best."""
    options = [*csv_options, "--optim.lr=0", "--patience=2", "--epochs=50"]
    options.append("--model.backbone=vgg11")
    assert main([*options, f"--out={tmp_path}", "--name=a"]) == 0
    assert len((tmp_path / "a" / "metrics.jsonl").read_text().splitlines()) == 3


def test_weights_of_cases_reach_the_loss(pictures, small, tmp_path):
    """A case of weight 0 is as good as absent from the gradient."""
    table = pd.read_csv(pictures)
    table["image"] = [str(pictures.parent / name) for name in table["image"]]
    losses = {}
    for name, weight in (("one", 1.0), ("none", 0.0)):
        table.assign(weight=weight).to_csv(tmp_path / f"{name}.csv", index=False)
        options = [*small, "--data.source=csv", f"--data.root={tmp_path / name}.csv", "--epochs=1"]
        assert main([*options, f"--out={tmp_path}", f"--name={name}"]) == 0
        losses[name] = weights_of(tmp_path / name)["classifier.weight"]
    torch.manual_seed(1234)
    start = AttnVGG(1, True, backbone="vgg11_bn").classifier.weight
    assert torch.equal(losses["none"], start)
    assert not torch.equal(losses["one"], start)


def test_two_processes_cannot_train_one_run(trained, csv_options, tmp_path, capsys):
    shutil.copytree(trained, tmp_path / "a")
    with RunFolder(tmp_path / "a").locked():
        assert main(["--resume", str(tmp_path / "a"), "--epochs=3"]) == 2
    assert "Another process" in capsys.readouterr().err


@pytest.mark.parametrize(
    "extra",
    [
        ["--model.attention=false", "--model.dropout=0.2"],
        ["--model.normalize_attn=false", "--loss.alpha=balanced"],
        ["--model.name=gap", "--optim.name=adamw", "--optim.schedule=cosine"],
        ["--model.num_classes=2", "--optim.name=sgd", "--optim.schedule=step", "--optim.clip=1"],
        ["--data.augmentation=paper", "--data.resize=40", "--data.crop=0.8"],
        ["--monitor=loss", "--patience=1", "--data.positive_repeats=2"],
    ],
    ids=" ".join,
)
def test_every_option_trains(csv_options, tmp_path, extra):
    assert main([*csv_options, *extra, "--epochs=1", f"--out={tmp_path}", "--name=a"]) == 0
    metrics = json.loads((tmp_path / "a" / "metrics.json").read_text())
    assert 0 <= metrics["test"]["auc"]["value"] <= 1
