"""Accuracy and AUC through the endpoint: the same numbers as those of the run itself."""

import json
import shutil
import threading
import time

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from attnvgg.cli import endpoint_cases
from attnvgg.cli.endpoint_judge import answer_table
from attnvgg.cli.evaluate import main as evaluate
from attnvgg.cli.train import main as train
from attnvgg.deploy.endpoint import TOKEN, Endpoint
from attnvgg.deploy.wire import Answer
from attnvgg.errors import InputError
from tests.cli.test_panda import panda_options, panda_root, panda_run  # noqa: F401
from tests.live_server import served

SECRET = "a-token-of-many-letters"
SAME = 1e-6


def judged(run, url, *words):
    """Judge a copy of a run's folder through an endpoint; return its table and its figures."""
    assert evaluate([str(run), f"--endpoint={url}", *words]) == 0
    folder = run / "endpoint" if run.is_dir() else run.with_name(f"{run.stem}_endpoint")
    table = pd.read_csv(folder / "predictions.csv")
    assert (folder / "report" / "report.html").is_file() or any("--out" in w for w in words)
    return table, json.loads((folder / "metrics.json").read_text())


def assert_same_as_run(run, table, metrics):
    own = pd.read_csv(run / "predictions.csv")
    numbers = [name for name in own if name.startswith(("logit", "probability"))]
    pd.testing.assert_frame_equal(table.drop(columns=numbers), own.drop(columns=numbers))
    np.testing.assert_allclose(table[numbers], own[numbers], atol=SAME, rtol=0)
    assert metrics["difference"] == pytest.approx(
        np.abs(table[numbers] - own[numbers]).filter(like="probability").max().max()
    )
    assert metrics["difference"] < SAME
    known = json.loads((run / "metrics.json").read_text())
    split = known["judged_on"]
    assert metrics[split]["auc"]["value"] == pytest.approx(known[split]["auc"]["value"])


@pytest.fixture
def copied(tmp_path):
    """Return a function that copies a run, so that answers can be put into it."""
    return lambda run: shutil.copytree(run, tmp_path / "run")


@pytest.fixture(scope="module")
def image_url(trained):
    with served(trained) as url:
        yield url


def test_images(trained, image_url, copied, capfd):
    run = copied(trained)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    table, metrics = judged(run, image_url, "--requests=3")
    assert_same_as_run(run, table, metrics)
    assert all(path.read_bytes() == content for path, content in before.items())
    rows = table[table["split"] == "test"]
    assert metrics["test"]["auc"]["value"] == pytest.approx(
        roc_auc_score(rows["label"], rows["probability"])
    )
    threshold = json.loads((run / "best" / "config.json").read_text())["threshold"]
    called = rows["probability"] >= threshold  # what the endpoint decides by
    accuracy = metrics["accuracy"]
    assert accuracy["value"] == pytest.approx((called == rows["label"]).mean())
    assert accuracy["lower"] <= accuracy["value"] <= accuracy["upper"]
    said = capfd.readouterr().out
    assert f"answered for {len(table)} cases, by eager" in said
    assert f"Accuracy of what the endpoint calls the cases: {accuracy['value']:.4f} (95%" in said
    assert "a probability differs by at most" in said


def test_bags_of_tiles(panda_run, copied, capfd):  # noqa: F811
    with served(panda_run) as url:
        run = copied(panda_run)
        assert_same_as_run(run, *judged(run, url))
        assert evaluate([str(run), f"--endpoint={url}", f"--against={panda_run}"]) == 0
    assert "AUC less that of" in capfd.readouterr().out


def test_bags_of_digits(trained_bags, copied):
    run = copied(trained_bags)
    with served(run) as url:
        assert_same_as_run(run, *judged(run, url))


def test_bags_of_features(run_of, feature_options, copied):
    run = copied(run_of(*feature_options))
    with served(run) as url:
        assert_same_as_run(run, *judged(run, url))


def test_a_seed_is_judged_and_the_whole_of_several_refused(seeded_bags, copied, capfd):
    run = copied(seeded_bags)
    first = next(run.glob("seed-*"))
    with served(first) as url:
        assert_same_as_run(first, *judged(first, url))
        assert evaluate([str(run), f"--endpoint={url}"]) == 2
    assert str(first) in capfd.readouterr().err


def test_more_classes_than_two(pictures, small, tmp_path):
    table = pd.read_csv(pictures)
    table["image"] = [str(pictures.parent / name) for name in table["image"]]
    table["label"] = np.arange(len(table)) % 3
    table.to_csv(tmp_path / "three.csv", index=False)
    options = [*small, "--data.source=csv", f"--data.root={tmp_path / 'three.csv'}"]
    assert train([*options, "--epochs=1", f"--out={tmp_path}", "--name=run"]) == 0
    with served(tmp_path / "run") as url:
        found, metrics = judged(tmp_path / "run", url)
    assert_same_as_run(tmp_path / "run", found, metrics)
    called = found.filter(like="probability_").to_numpy().argmax(axis=1)
    rows = found["split"] == metrics["judged_on"]
    right = (called == found["label"])[rows].mean()
    assert metrics["accuracy"]["value"] == pytest.approx(right)


def test_a_table_in_place_of_a_run(trained, image_url, pictures, tmp_path, capfd):
    """Without a split all are tested, by the threshold that the endpoint has."""
    cases = pd.read_csv(pictures).iloc[10:30]
    cases["image"] = [str(pictures.parent / name) for name in cases["image"]]
    cases[["image", "label"]].to_csv(tmp_path / "clinic.csv", index=False)
    table, metrics = judged(tmp_path / "clinic.csv", image_url, f"--out={tmp_path / 'out'}")
    assert table["image"].tolist() == cases["image"].tolist()
    assert set(table["split"]) == {"test"}
    threshold = json.loads((trained / "best" / "config.json").read_text())["threshold"]
    assert metrics["threshold"]["value"] == threshold
    assert metrics["difference"] is None
    assert (tmp_path / "out" / "report.html").is_file()
    assert "differs" not in capfd.readouterr().out


def test_the_token_is_taken_from_the_environment(trained, copied, monkeypatch, capfd):
    run = copied(trained)
    with served(trained, SECRET) as url:
        monkeypatch.delenv(TOKEN, raising=False)
        assert evaluate([str(run), f"--endpoint={url}"]) == 2
        assert f"set {TOKEN}" in capfd.readouterr().err
        monkeypatch.setenv(TOKEN, SECRET)
        judged(run, url)
    said = capfd.readouterr()
    assert SECRET not in said.out + said.err


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--requests=0"], "--requests 0"),
        (["--views=8"], "--views"),
        (["--batch_size=3", "--threads=1"], "--batch_size"),
        (["--against=nowhere.csv"], "nowhere.csv"),
        (["--endpoint=localhost:8080"], "is no address"),
        (["--endpoint=http://127.0.0.1:1"], "No endpoint answers"),
    ],
)
def test_what_cannot_be_is_told_before_anything_is_sent(
    trained, image_url, copied, words, reason, capfd, monkeypatch
):
    sent = []
    monkeypatch.setattr(Endpoint, "predict_image", lambda *arguments: sent.append(1))
    run = copied(trained)
    assert evaluate([str(run), f"--endpoint={image_url}", *words]) == 2
    assert reason in capfd.readouterr().err
    assert not sent
    assert not (run / "endpoint").exists()


def test_an_image_that_is_refused_is_named(trained, image_url, copied, capfd):
    run = copied(trained)
    broken = run / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    manifest = pd.read_csv(run / "manifest.csv")
    row = manifest.index[manifest["split"] == "test"][2]
    manifest.loc[row, "image"] = str(broken)
    manifest.to_csv(run / "manifest.csv", index=False)
    assert evaluate([str(run), f"--endpoint={image_url}"]) == 2
    said = capfd.readouterr().err
    assert "(422)" in said
    assert str(broken) in said
    assert not (run / "endpoint").exists()


def test_another_kind_of_model_is_told(trained_bags, image_url, copied, capfd):
    run = copied(trained_bags)
    assert evaluate([str(run), f"--endpoint={image_url}"]) == 2
    assert "(4" in capfd.readouterr().err


def answer(probability=0.5, logit=0.0, **changes):
    found = Answer(
        np.array([logit]), np.array([1 - probability, probability]), probability, "b", None,
        ("a", "b"), 0.5, "model", "eager",
    )  # fmt: skip
    return found._replace(**changes)


def cases(tmp_path, labels=(0, 1)):
    manifest = pd.DataFrame({"image": ["x", "y"], "label": labels, "split": "test"})
    return endpoint_cases.Sent(manifest, np.arange(2), lambda *_: answer(), tmp_path)


@pytest.mark.parametrize(
    ("answers", "labels", "reason"),
    [
        ([answer(), answer(model="other")], (0, 1), "Several models"),
        ([answer(), answer()], (0, 2), r"2 classes apart \(a, b\)"),
        ([answer(), answer(probability=0.6)], (0, 1), "off those of its logits"),
        ([answer(), answer(logit=float("nan"))], (0, 1), "off those of its logits"),
    ],
)
def test_answers_that_do_not_fit_are_not_written(tmp_path, answers, labels, reason):
    with pytest.raises(InputError, match=reason):
        answer_table(cases(tmp_path, labels), answers)


def test_each_case_is_asked_once_several_at_a_time_and_the_order_is_kept(tmp_path):
    seen, under_way, most = [], [0], [0]
    lock = threading.Lock()

    def call(endpoint, row):
        with lock:
            seen.append(row)
            under_way[0] += 1
            most[0] = max(most[0], under_way[0])
        time.sleep(0.002 * (row % 3))  # so that they end in another order
        with lock:
            under_way[0] -= 1
        return row

    rows = np.arange(5, 45)
    manifest = pd.DataFrame({"image": [str(row) for row in range(50)]})
    sent = endpoint_cases.Sent(manifest, rows, call, tmp_path)
    assert endpoint_cases.send_all(None, sent, 4) == rows.tolist()
    assert sorted(seen) == rows.tolist()
    assert 1 < most[0] <= 4
