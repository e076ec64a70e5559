"""The audit trail: whole lines from many hands, torn ones passed over, nothing of the image."""

import errno
import json
import math
import os
import resource
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest

from attnvgg.deploy.bag_predictor import BagPrediction
from attnvgg.deploy.predictor import Prediction
from attnvgg.deploy.serving.trail import Trail, entropy, read_trail, record_of
from attnvgg.errors import InputError

UNIFORM = np.full((4, 4), 1 / 16, np.float32)


def prediction(logits=(0.5,), probabilities=(0.62,), called=1, maps=(UNIFORM, UNIFORM[:2])):
    values = np.array(logits, np.float32), np.array(probabilities, np.float64)
    return Prediction(*values, called, *maps)


def record(number=0, **more):
    return record_of(f"r{number}", "abc", prediction(), {"brightness": 0.5}, 64, 48) | more


def test_record_holds_what_was_said_and_nothing_of_the_image():
    found = json.loads(json.dumps(record(7), allow_nan=False))
    assert found.pop("time").endswith("+00:00")
    assert found == {
        "request_id": "r7",
        "model": "abc",
        "called": 1,
        "logits": [0.5],
        "probability": 0.62,
        "entropy": {"pool-3": pytest.approx(1), "pool-4": pytest.approx(1)},
        "width": 64,
        "height": 48,
        "input": {"brightness": 0.5},
    }


def test_records_of_several_classes_without_maps_and_of_no_number():
    many = prediction((1, 2, math.nan), (0.2, 0.3, 0.5), 2, (None, None))
    found = record_of("r", "abc", many, {"sharpness": math.inf})
    assert found["probabilities"] == [0.2, 0.3, 0.5]
    assert "probability" not in found
    assert found["logits"] == [1, 2, None]
    assert found["entropy"] == {}
    assert found["input"] == {"sharpness": None}
    two = record_of("r", "abc", prediction((1, 2), (0.3, 0.7)))
    assert two["probability"] == 0.7


def test_record_of_a_bag():
    weights = np.array([[0.5, 0.0], [0.5, 0.0], [0.0, 1.0]], np.float32)
    logits, probabilities = np.zeros(1, np.float32), np.array([0.5])
    found = record_of("r", "abc", BagPrediction(logits, probabilities, 1, weights, None))
    assert found["instances"] == 3
    mean = np.array([0.25, 0.25, 0.5])
    wanted = -(mean * np.log(mean)).sum() / np.log(3)
    assert found["entropy"] == {"weights": pytest.approx(wanted)}
    single = BagPrediction(logits, probabilities, 1, np.ones((1, 1), np.float32), None)
    assert record_of("r", "abc", single)["entropy"] == {"weights": None}
    none = record_of("r", "abc", BagPrediction(logits, probabilities, 1, None, None))
    assert none["entropy"] == {}
    assert "instances" not in none


def test_entropy_is_the_share_of_the_largest():
    assert entropy(UNIFORM) == pytest.approx(1)
    assert entropy([0, 0, 1, 0]) == 0
    assert entropy([0.5, 0.5, 0, 0]) == pytest.approx(0.5)
    sigmoid = np.array([[0.9, 0.3], [0.3, 0.6]])  # sums to 2.1
    assert entropy(sigmoid) == pytest.approx(entropy(sigmoid / sigmoid.sum()))
    assert entropy([0.0, 0.0]) is None
    assert entropy([math.nan, 1.0]) is None


def test_read_back_is_what_was_written(tmp_path):
    trail = Trail(tmp_path / "trail.jsonl")
    for number in range(3):
        trail.append(record(number))
    trail.close()
    trail.close()
    assert os.stat(trail.path).st_mode & 0o777 == 0o600
    table = read_trail(trail.path)
    assert table["request_id"].tolist() == ["r0", "r1", "r2"]
    assert table["probability"].tolist() == [0.62] * 3
    assert table["entropy_pool-3"].tolist() == pytest.approx([1] * 3)
    assert table["brightness"].tolist() == [0.5] * 3
    assert table["width"].tolist() == [64] * 3
    assert str(table["time"].dt.tz) == "UTC"
    with pytest.raises(ValueError, match="closed"):
        trail.append(record())


def test_several_classes_have_a_column_each(tmp_path):
    trail = Trail(tmp_path / "trail.jsonl")
    trail.append(record_of("r", "abc", prediction((1, 2, 3), (0.1, 0.2, 0.7), 2)))
    trail.close()
    assert read_trail(trail.path)["probability_2"].tolist() == [0.7]


WRITER = """
import sys
from attnvgg.deploy.serving.trail import Trail
trail = Trail(sys.argv[1])
for number in range(300):
    trail.append({"time": "2026-01-01T00:00:00+00:00", "request_id": f"{sys.argv[2]}-{number}",
        "model": "abc" * 400, "called": 0, "entropy": {}, "input": {}})
trail.close()
"""


def test_processes_and_threads_share_a_file(tmp_path):
    path = tmp_path / "trail.jsonl"
    trail = Trail(path)
    processes = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(path), str(number)])
        for number in range(2)
    ]
    threads = [
        threading.Thread(target=lambda k=k: [trail.append(record(f"{k}-{n}")) for n in range(300)])
        for k in ("a", "b")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [process.wait(timeout=60) for process in processes] == [0, 0]
    trail.close()
    table = read_trail(path)
    assert table.attrs["torn"] == 0
    wanted = [f"r{k}-{n}" for k in "ab" for n in range(300)]
    wanted += [f"{k}-{n}" for k in (0, 1) for n in range(300)]
    assert sorted(table["request_id"]) == sorted(wanted)


def test_torn_last_line_is_passed_over_and_not_built_on(tmp_path):
    path = tmp_path / "trail.jsonl"
    for number in range(2):
        trail = Trail(path)
        trail.append(record(number))
        trail.close()
        with path.open("ab") as stream:  # killed in the middle of a line
            stream.write(b'{"time": "2026-01-01T00:00:00+00:00", "requ')
    table = read_trail(path)
    assert table["request_id"].tolist() == ["r0", "r1"]
    assert table.attrs["torn"] == 2


def test_full_disk_is_said_once_counted_and_survived(tmp_path, caplog):
    caplog.set_level("ERROR", "attnvgg")
    trail = Trail(tmp_path / "trail.jsonl")
    trail.append(record(0))
    size = os.stat(trail.path).st_size
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20, limits[1]))  # a part of a line fits
    try:
        for number in range(1, 4):
            trail.append(record(number))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert trail.lost == 3
    assert len(caplog.records) == 1
    assert "serving goes on" in caplog.text
    trail.append(record(4))  # there is room again
    trail.close()
    table = read_trail(trail.path)
    assert table["request_id"].tolist() == ["r0", "r4"]
    assert table.attrs["torn"] == 1


def test_no_space_at_all_is_no_error(tmp_path, monkeypatch):
    trail = Trail(tmp_path / "trail.jsonl")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    trail.append(record())
    monkeypatch.setattr(os, "fsync", full)
    trail.close()
    assert trail.lost == 1


def test_a_period_is_cut_out(tmp_path):
    trail = Trail(tmp_path / "trail.jsonl")
    for hour in range(4):
        trail.append(record(hour, time=f"2026-11-22T0{hour}:00:00+00:00"))
    trail.close()

    def names(**period):
        return read_trail(trail.path, **period)["request_id"].tolist()

    assert names(since="2026-11-22T01:00") == ["r1", "r2", "r3"]
    assert names(until="2026-11-22T03:00+01:00") == ["r0", "r1"]
    assert names(since="2026-11-22T01:00", until="2026-11-22T02:00") == ["r1"]
    assert names(since="2027-01-01") == []


def test_what_is_no_trail_is_said(tmp_path):
    with pytest.raises(InputError, match="no audit trail to read"):
        read_trail(tmp_path / "none")
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="none of its 2 lines is a record"):
        read_trail(tmp_path / "other.csv")
    (tmp_path / "empty").touch()
    with pytest.raises(InputError, match="no moment"):
        read_trail(tmp_path / "empty", since="yesterday")
    assert read_trail(tmp_path / "empty").empty
    with pytest.raises(InputError, match="cannot be written"):
        Trail(tmp_path / "none" / "trail.jsonl")
