"""The command from images to predictions.csv: whole, again, interrupted, broken, spread."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from attnvgg.cli.evaluate import main as evaluate
from attnvgg.cli.image_case import make_case
from attnvgg.cli.predict import main
from attnvgg.deploy import prediction_job
from attnvgg.deploy.prediction_job import Job, parts_folder
from attnvgg.explain import save_panels
from attnvgg.models import AttnVGG, BagClassifier
from attnvgg.training.checkpoint import load_model

SCRIPT = str(Path(__file__).parent.parent.parent / "scripts" / "predict.py")
OPTIONS = ["--engine=eager", "--threads=1", "--workers=1", "--part=10", "--batch_size=4"]
COUNT = 24


@pytest.fixture(scope="module")
def table(pictures, tmp_path_factory):
    """A table of 24 of the pictures, beside links to them; read only."""
    folder = tmp_path_factory.mktemp("links")
    rows = pd.read_csv(pictures).iloc[:COUNT]
    for name in rows["image"]:
        (folder / name).symlink_to(pictures.parent / name)
    rows.to_csv(folder / "cases.csv", index=False)
    return folder / "cases.csv"


@pytest.fixture(scope="module")
def expected(trained, table, tmp_path_factory):
    """What is said of the pictures in one go; read only."""
    output = tmp_path_factory.mktemp("expected") / "predictions.csv"
    assert main([str(trained), str(table), *OPTIONS, "-o", str(output)]) == 0
    return output.read_bytes()


@pytest.fixture
def output(tmp_path):
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "predictions.csv"


@pytest.fixture
def mixed(table, tmp_path):
    """A folder with two good images, and one of each kind that cannot be used."""
    folder = tmp_path / "mixed"
    (folder / "deep").mkdir(parents=True)
    good = table.parent / "00.png"
    shutil.copy(good, folder / "a.png")
    shutil.copy(good, folder / "deep" / "z.png")
    (folder / "cut.png").write_bytes(good.read_bytes()[:60])
    (folder / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (folder / "text.jpg").write_text("no image")
    Image.fromarray(np.full((40, 40), 30000, np.uint16)).save(folder / "sixteen.png")
    cv2.imwrite(str(folder / "tiny.png"), np.zeros((8, 8, 3), np.uint8))
    return folder


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_table_is_that_of_the_run_itself(trained, expected, tmp_path):
    path = tmp_path / "found.csv"
    path.write_bytes(expected)
    found, own = pd.read_csv(path), pd.read_csv(trained / "predictions.csv")
    assert list(found) == [
        "index", "image", "label", "group", "split", "logit", "probability", "called", "sex",
    ]  # fmt: skip
    assert found["index"].tolist() == list(range(COUNT))
    for one in (own, found):
        one["image"] = one["image"].map(os.path.basename)
    both = own.merge(found, on="image", suffixes=("", "_found"))
    assert len(both) > 8
    for name in ("logit", "probability"):
        np.testing.assert_allclose(both[f"{name}_found"], both[name], atol=1e-5)
    for name in ("label", "group", "sex"):
        assert (both[f"{name}_found"] == both[name]).all()
    assert (found["split"] == "test").all()
    model = load_model(trained)
    positive = found["probability"] >= model.config["threshold"]
    assert (found["called"] == positive.map({True: "positive", False: "negative"})).all()


def test_evaluate_judges_the_table(trained, table, output, capsys):
    rows = pd.read_csv(table)
    rows["split"] = ["validation" if row % 2 else "test" for row in range(COUNT)]
    rows.loc[0, "group"] = "unknown"
    rows["image"] = [str(table.parent / name) for name in rows["image"]]
    rows.to_csv(output.with_name("given.csv"), index=False)
    given = str(output.with_name("given.csv"))
    assert main([str(trained), given, *OPTIONS, "-o", str(output)]) == 0
    told = capsys.readouterr().out
    assert f"Written: {output}, {COUNT} images, " in told
    assert f"attnvgg evaluate {output} --threshold " in told
    found = pd.read_csv(output)
    assert found["group"][0] == rows["image"][0]
    assert evaluate([str(output)]) == 0
    assert "AUC" in capsys.readouterr().out


def test_a_folder_and_a_single_image(trained, table, expected, output):
    assert main([str(trained), str(table.parent), *OPTIONS, f"--output={output}"]) == 0
    found = output.read_text().splitlines()
    assert found[0] == "index,image,logit,probability,called"
    known = [line.split(",") for line in expected.decode().splitlines()]
    assert found[1:] == [",".join([*line[:2], *line[5:8]]) for line in known[1:]]
    assert names(output.parent) == ["predictions.csv"]
    image = str(table.parent / "07.png")
    assert main([str(trained), image, *OPTIONS, f"--output={output}"]) == 0
    index, path, _, probability, _ = output.read_text().splitlines()[1].split(",")
    assert (index, path) == ("0", image)
    assert float(probability) == pytest.approx(float(known[8][6]), abs=1e-6)


def test_broken_images_are_passed_over(trained, mixed, output, capsys):
    words = [str(trained), str(mixed), *OPTIONS, "-o", str(output)]
    assert main(words) == 1
    told = capsys.readouterr().err
    assert told == (
        f"error: 5 of 7 images were passed over: {output.parent}/predictions.broken.csv says "
        "which and why.\n"
    )
    found = pd.read_csv(output)
    assert found["image"].tolist() == [str(mixed / "a.png"), str(mixed / "deep" / "z.png")]
    assert found["logit"].nunique() == 1
    broken = pd.read_csv(output.with_name("predictions.broken.csv"))
    reasons = dict(zip(broken["image"].map(os.path.basename), broken["problem"], strict=True))
    assert list(reasons) == ["cut.png", "gone.png", "sixteen.png", "text.jpg", "tiny.png"]
    assert reasons["gone.png"] == "is missing"
    assert reasons["sixteen.png"].startswith("has 16 bits a channel")
    assert reasons["tiny.png"].startswith("has 8x8 pixels")
    assert sorted([*broken["index"], *found["index"]]) == list(range(7))
    for name in ("cut.png", "gone.png", "text.jpg", "tiny.png"):
        (mixed / name).unlink()
    assert main([*words, "--convert"]) == 0
    assert len(pd.read_csv(output)) == 3
    assert names(output.parent) == ["predictions.csv"]


def test_only_broken_images_give_a_table_without_rows(trained, mixed, output):
    for name in ("a.png", "deep/z.png"):
        (mixed / name).unlink()
    assert main([str(trained), str(mixed), *OPTIONS, "-o", str(output)]) == 1
    assert output.read_text() == "index,image,logit,probability,called\n"
    assert len(pd.read_csv(output.with_name("predictions.broken.csv"))) == 5


def test_a_killed_process_goes_on_where_it_was(trained, table, expected, output, monkeypatch):
    """An image that never answers (a pipe) keeps the process busy until it is killed."""
    folder = output.parent / "pictures"
    shutil.copytree(table.parent, folder)
    (folder / "17.png").unlink()
    os.mkfifo(folder / "17.png")
    words = [str(trained), str(folder / "cases.csv"), *OPTIONS, f"--output={output}"]
    process = subprocess.Popen([sys.executable, SCRIPT, *words], stdout=-1, stderr=-1)
    try:
        limit = time.monotonic() + 200
        while len(list(parts_folder(output).glob("[0-9]*.json"))) < 1:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < limit
            time.sleep(0.02)
    finally:
        process.kill()
        process.communicate()
    assert not output.exists()
    (folder / "17.png").unlink()
    shutil.copy(table.parent / "17.png", folder)
    written, write = [], Job.write
    monkeypatch.setattr(
        Job, "write", lambda job, number, part: (written.append(number), write(job, number, part))
    )
    assert main(words) == 0
    assert written == [1, 2]
    assert output.read_text().replace(str(folder), str(table.parent)) == expected.decode()
    assert not parts_folder(output).exists()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_told_to_stop(trained, table, expected, output, monkeypatch, capsys, number, code):
    words = [str(trained), str(table), *OPTIONS, f"--output={output}"]
    write = Job.write

    def stop_after(*what):
        write(*what)
        os.kill(os.getpid(), number)

    with monkeypatch.context() as patch:
        patch.setattr(Job, "write", stop_after)
        assert main(words) == code
    assert capsys.readouterr().err.splitlines()[-1] == (
        "interrupted: stopped; finished parts are kept: run the same command again to go on."
    )
    assert len(list(parts_folder(output).glob("[0-9]*.json"))) == 1
    assert not output.exists()
    assert main(words) == 0
    assert f"10 of {COUNT} images are predicted already." in capsys.readouterr().out
    assert output.read_bytes() == expected


def test_a_full_disk_loses_nothing(trained, table, expected, output, monkeypatch, capsys):
    words = [str(trained), str(table), *OPTIONS, f"--output={output}"]
    write = prediction_job.write_json

    def full(path, content):
        if path.name == "000001.json":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(prediction_job, "write_json", full)
        assert main(words) == 2
    assert capsys.readouterr().err.startswith("error: The disk is full; ")
    assert main(words) == 0
    assert output.read_bytes() == expected


def test_another_job_does_not_take_the_parts(trained, table, expected, output, capsys):
    parts = parts_folder(output)
    words = [str(trained), str(table), f"--output={output}", *OPTIONS]
    parts.mkdir()
    (parts / "000000.json").write_text("{")
    for job, other in ((words, "model"), ([*words, "--part=20"], "model")):
        assert main(job) == 2
        told = capsys.readouterr().err
        assert f"{parts} holds the parts of another job (other: {other}" in told
        assert "--restart" in told
        assert names(parts) == ["000000.json", "lock"]
    assert main([*words, "--restart"]) == 0
    assert output.read_bytes() == expected


def test_what_makes_another_job(trained, table, output, monkeypatch, capsys):
    words = [str(trained), str(table), f"--output={output}", *OPTIONS]

    def fail(*what):
        raise OSError(errno.EIO, "broken")

    with monkeypatch.context() as patch:
        patch.setattr(Job, "join", fail)
        assert main(words) == 2
    parts = names(parts_folder(output))
    capsys.readouterr()
    folder = str(table.parent)
    for change, other in (
        ([*words, "--convert"], "preprocessing"),
        ([*words, "--part=20"], "part"),
        ([*words, f"--overlays={output.parent / 'drawn'}"], "overlays"),
        ([words[0], folder, *words[2:]], "images, known"),
    ):
        assert main(change) == 2
        assert f"(other: {other})" in capsys.readouterr().err
        assert names(parts_folder(output)) == parts
    monkeypatch.setattr(Job, "write", fail)  # nothing is left to do but to join
    assert main(words) == 0
    assert "none of them new" in capsys.readouterr().out


def test_overlays(trained, table, tmp_path, output):
    folder, drawn = tmp_path / "twice", tmp_path / "overlays"
    for name, picture in (("a", "00"), ("b", "01")):
        (folder / name).mkdir(parents=True)
        shutil.copy(table.parent / f"{picture}.png", folder / name / "same.png")
    (folder / "c.png").write_text("no image")
    words = [str(trained), str(folder), *OPTIONS, f"--overlays={drawn}", "-o", str(output)]
    assert main(words) == 1
    assert names(drawn) == ["0000001-same.png", "0000002-same.png"]
    case = make_case(load_model(trained), {"image": str(folder / "b" / "same.png")})
    kind = "softmax" if load_model(trained).config["arguments"]["normalize_attn"] else "sigmoid"
    save_panels(tmp_path / "one.png", case, kind=kind)
    found, one = (cv2.imread(str(p)) for p in (drawn / "0000002-same.png", tmp_path / "one.png"))
    assert found.shape == (64, 3 * 64, 3)
    assert np.abs(found.astype(int) - one).max() <= 1
    assert "image | pool-3 | pool-4" in Image.open(drawn / "0000002-same.png").text["Description"]


def test_a_model_without_maps_or_of_bags(trained, table, tmp_path, output, capsys):
    extra = {"preprocess": load_model(trained).config["preprocess"]}
    plain = AttnVGG(3, backbone="vgg11_bn", attention=False)
    torch.nn.init.constant_(plain.classifier.bias[2:], 1)
    plain.save_pretrained(tmp_path / "plain", **extra)
    words = [str(table.parent), *OPTIONS, f"--output={output}"]
    assert main([str(tmp_path / "plain"), *words, f"--overlays={tmp_path / 'drawn'}"]) == 2
    assert capsys.readouterr().err == (
        "error: This model has no attention maps to draw: leave out --overlays.\n"
    )
    assert not (tmp_path / "drawn").exists()
    assert main([str(tmp_path / "plain"), *words]) == 0
    found = pd.read_csv(output)
    columns = [f"{name}_{k}" for name in ("logit", "probability") for k in range(3)]
    assert list(found) == ["index", "image", *columns, "called"]
    assert (found["called"] == found[columns[3:]].to_numpy().argmax(1)).all()
    assert 2 in set(found["called"])
    bags = BagClassifier({"name": "identity", "in_features": 4})
    bags.save_pretrained(tmp_path / "bags", preprocess={"kind": "features"})
    assert main([str(tmp_path / "bags"), *words]) == 2
    assert capsys.readouterr().err == "error: This model is of bags: give one of images.\n"


def test_wrong_input(trained, table, tmp_path, output, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "table.csv").write_text("path,label\na.png,0\n")
    (tmp_path / "notes.txt").write_text("no images")
    (tmp_path / "holes.csv").write_text("image,label\na.png,0\n,1\n")
    images = str(table.parent)
    for target, options, told in (
        (str(tmp_path / "none"), [], "does not exist"),
        (str(tmp_path / "none.csv"), [], "does not exist"),
        (str(tmp_path / "notes.txt"), [], "is not a folder"),
        (str(tmp_path / "empty"), [], "holds no images"),
        (str(tmp_path / "table.csv"), [], "lacks the column image; its columns are: path, label"),
        (str(tmp_path / "holes.csv"), [], "names no image in line 3"),
        (images, ["--engine=warp"], 'There is no engine "warp"'),
        (images, ["-o", str(tmp_path / "nowhere" / "a.csv")], "there is no folder"),
        (images, ["-o", str(tmp_path)], "cannot be written there"),
        (images, ["-o", str(trained / "predictions.csv")], "would replace a file of the run"),
        (str(table), ["-o", str(table)], "would replace"),
        (images, ["--batch_size=0"], "--batch_size 0: must be at least 1"),
        (images, [f"--overlays={images}/drawn"], "would be taken for images"),
        (images, [f"--overlays={tmp_path / 'notes.txt'}"], "is not a folder"),
    ):
        words = [str(trained), target, *OPTIONS, f"--output={output}", *options]
        assert main(words) == 2, words
        error = capsys.readouterr().err
        assert told in error
        assert "Traceback" not in error
        assert names(output.parent) == []


@pytest.mark.parametrize("name", ["manifest.csv", "best/model.safetensors", "config.yaml"])
def test_no_file_of_the_run_is_replaced(trained, table, name, capsys):
    before = (trained / name).read_bytes()
    assert main([str(trained), str(table), *OPTIONS, "-o", str(trained / name)]) == 2
    assert "--output" in capsys.readouterr().err
    assert (trained / name).read_bytes() == before


def test_no_file_of_others_is_replaced(trained, table, output, capsys):
    words = [str(trained), str(table), *OPTIONS, "-o"]
    assert main([*words, "/dev/null"]) == 2
    assert main([*words, str(output.with_name("x" * 260 + ".csv"))]) == 2
    (output.parent / "predictions.broken.csv").write_text("my notes\n")
    assert main([*words, str(output)]) == 2
    assert "is in the way" in capsys.readouterr().err
    assert (output.parent / "predictions.broken.csv").read_text() == "my notes\n"
    assert [path.name for path in output.parent.iterdir()] == ["predictions.broken.csv"]


def test_a_name_that_can_be_none(trained, output, tmp_path):
    (tmp_path / "t.csv").write_text("image\na\0b.jpg\n")
    assert main([str(trained), str(tmp_path / "t.csv"), *OPTIONS, "-o", str(output)]) == 1
    listed = output.with_name("predictions.broken.csv").read_text()
    assert "can be no name of a file" in listed


def test_of_two_processes_one_writes(trained, table, output, capsys):
    from filelock import FileLock

    parts_folder(output).mkdir()
    with FileLock(parts_folder(output) / "lock"):
        assert main([str(trained), str(table), *OPTIONS, f"--output={output}"]) == 2
    assert "Another process writes" in capsys.readouterr().err


def test_a_ray_cluster_makes_what_one_process_makes(trained, table, expected, output, tmp_path):
    pytest.importorskip("ray")
    words = [str(trained), str(table), *OPTIONS, f"--output={output}", "--cluster=ray"]
    words += [f"--overlays={tmp_path / 'drawn'}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, SCRIPT, *words], env=environment, capture_output=True, timeout=250
    )
    assert done.returncode == 0, done.stderr.decode()
    assert output.read_bytes() == expected
    assert len(names(tmp_path / "drawn")) == COUNT
