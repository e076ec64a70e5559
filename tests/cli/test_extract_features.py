"""The command from slides to feature files: whole, again, interrupted, spread."""

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from attnvgg.cli import extract_features as command
from attnvgg.cli.extract_features import main
from attnvgg.data.slide_writer import write_slide
from attnvgg.deploy import extraction

ROOT = Path(__file__).parent.parent.parent
SCRIPT = str(ROOT / "scripts" / "extract_features.py")
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
OPTIONS = [
    "--weights=random", "--backbone=shufflenet_v2_x0_5", "--image_size=64", "--tile=128",
    "--threads=1", "--device=cpu", "--batch_size=8",
]  # fmt: skip
COUNT = 5


def start(*words):
    """Run the command in a process of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, *words], env=environment, stdout=-1, stderr=-1, text=True
    )


def finish(process):
    out, err = process.communicate(timeout=250)
    return process.returncode, out, err


@pytest.fixture(scope="module")
def slides(tmp_path_factory, tissue_picture):
    """Slides of 16 tiles each, or a few less; read only."""
    folder, tissue = tmp_path_factory.mktemp("slides"), tissue_picture[256:768, 256:768]
    for number in range(COUNT):
        write_slide(folder / f"s{number}.tiff", np.roll(tissue, 100 * number, 1), 0.5, levels=1)
    return folder


@pytest.fixture(scope="module")
def features(slides, tmp_path_factory):
    """What one process makes of them, in one go; read only."""
    out = tmp_path_factory.mktemp("features")
    assert main([str(slides), *OPTIONS, f"--out={out}"]) == 0
    return contents(out)


@pytest.fixture
def broken(slides, tmp_path):
    """Those slides, behind links, and three that are none."""
    folder = tmp_path / "broken"
    folder.mkdir()
    (folder / "linked").symlink_to(slides)
    (folder / "gone.tiff").symlink_to(tmp_path / "nowhere.tiff")
    (folder / "a-text.tiff").write_text("no slide")
    (folder / "cut.tiff").write_bytes((slides / "s1.tiff").read_bytes()[:9000])
    return folder


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def stamps(folder):
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in folder.iterdir()}


def test_a_file_a_slide(features, slides, tmp_path, capsys):
    assert sorted(features) == [f"s{number}.h5" for number in range(COUNT)]
    path = tmp_path / "s0.h5"
    path.write_bytes(features["s0.h5"])
    with h5py.File(path) as file:
        assert file["features"].shape == (len(file["coords"]), 1024)
        assert 8 < len(file["coords"]) <= 16
        assert not np.allclose(file["features"][0], file["features"][1])
        assert file.attrs["encoder"].startswith("torchvision:shufflenet_v2_x0_5@")


def test_again_does_nothing_and_a_new_slide_is_added(slides, features, tmp_path, capsys):
    out, first = tmp_path / "out", [str(path) for path in sorted(slides.iterdir())[:2]]
    assert main([*first, *OPTIONS, f"--out={out}"]) == 0
    before = stamps(out)
    assert main([str(slides), *OPTIONS, f"--out={out}", "--readers=1"]) == 0
    assert f"{COUNT} slides, {COUNT - 2} to do" in capsys.readouterr().out
    assert stamps(out) | before == stamps(out)
    assert contents(out) == features


def test_broken_slides_among_good_ones(broken, features, tmp_path, capsys):
    out = tmp_path / "out"
    for ending in (
        f"of {COUNT + 3} slides were passed over; the others are done:",
        "of 3 slides were passed over:",
    ):
        assert main([str(broken), *OPTIONS, f"--out={out}"]) == 1
        told = capsys.readouterr().err
        assert f"error: 3 {ending}\n" in told
        assert f"{broken}/gone.tiff does not exist" in told
        assert f"{broken}/a-text.tiff is not a slide" in told
        assert f"{broken}/cut.tiff" in told
        assert contents(out) == features


def test_other_settings_touch_nothing(slides, tmp_path, capsys):
    out, slide = tmp_path / "out", str(slides / "s0.tiff")
    assert main([slide, *OPTIONS, f"--out={out}"]) == 0
    before = stamps(out)
    for other in ("--tile=64", "--backbone=mobilenet_v3_small", "--overlap=16"):
        assert main([str(slides), *OPTIONS, f"--out={out}", other]) == 2
        assert "none is overwritten" in capsys.readouterr().err
    assert stamps(out) == before


def test_a_killed_run_goes_on_where_it_was(slides, features, tmp_path, monkeypatch):
    """A slide that never answers (a pipe) keeps the process busy until it is killed."""
    os.mkfifo(tmp_path / "z.tiff")
    out, words = tmp_path / "out", [str(slides), str(tmp_path / "z.tiff"), *OPTIONS]
    process = start(SCRIPT, *words, f"--out={out}")
    try:
        limit = time.monotonic() + 200
        while len(list(out.glob("[!.]*.h5"))) < 2:
            assert process.poll() is None, finish(process)
            assert time.monotonic() < limit
            time.sleep(0.02)
    finally:
        process.kill()
        finish(process)
    before = stamps(out)
    assert 2 <= len(before) < COUNT
    written, write = [], extraction.write_features
    monkeypatch.setattr(
        extraction,
        "write_features",
        lambda path, *rest: (written.append(path.name), write(path, *rest)),
    )
    assert main([str(slides), *OPTIONS, f"--out={out}"]) == 0
    assert stamps(out) | before == stamps(out)
    assert sorted([*written, *before]) == sorted(features)
    assert contents(out) == features


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_told_to_stop(slides, features, tmp_path, monkeypatch, capsys, number, code):
    write = extraction.write_features

    def stop_after(path, *rest):
        write(path, *rest)
        os.kill(os.getpid(), number)

    monkeypatch.setattr(extraction, "write_features", stop_after)
    out = tmp_path / "out"
    assert main([str(slides), *OPTIONS, f"--out={out}"]) == code
    assert capsys.readouterr().err.splitlines()[-1] == (
        "interrupted: stopped; finished slides are kept: run the same command again to go on."
    )
    found = contents(out)
    assert len(found) == 1
    assert found.items() <= features.items()


def test_two_processes_make_what_one_makes(broken, features, tmp_path):
    out = tmp_path / "out"
    done, told, complaint = finish(start(*TORCHRUN, SCRIPT, str(broken), *OPTIONS, f"--out={out}"))
    assert done == 1, complaint
    assert contents(out) == features
    assert told.count("Written:") == complaint.count("error: 3 of ") == 1
    assert complaint.count("a-text.tiff is not a slide") == 1


def test_a_ray_cluster_makes_what_one_process_makes(broken, features, tmp_path):
    pytest.importorskip("ray")
    out = tmp_path / "out"
    done, _, complaint = finish(
        start(SCRIPT, str(broken), *OPTIONS, f"--out={out}", "--cluster=ray")
    )
    assert done == 1, complaint
    assert contents(out) == features
    assert "error: 3 of " in complaint


def test_without_slides_the_sample_is_taken(slides, features, tmp_path, monkeypatch):
    """With random weights, because those of ImageNet would have to be fetched."""
    (tmp_path / "train_images").symlink_to(slides)
    monkeypatch.setattr(command, "slide_sample", lambda: tmp_path)
    assert main([*OPTIONS[1:], f"--out={tmp_path / 'out'}"]) == 0
    assert contents(tmp_path / "out") == features


@pytest.mark.parametrize("number", [errno.EFBIG, errno.EIO, errno.ESTALE])
def test_faults_of_the_machine_are_told_in_a_sentence(tmp_path, monkeypatch, capsys, number):
    def fail(targets):
        raise OSError(number, os.strerror(number), "a.tiff")

    monkeypatch.setattr(command, "slide_files", fail)
    assert main(["a.tiff", f"--out={tmp_path / 'out'}"]) == 2
    assert capsys.readouterr().err.startswith(f"error: {os.strerror(number)}: a.tiff;")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--batch_size=0"], "--batch_size 0: must be at least 1"),
        (["--image_size=31"], "--image_size 31: must be at least 32"),
        (["--mpp=0"], "--mpp 0.0: must be above 0"),
        (["--overlap=128"], "--overlap 128: must be at least 0 and below --tile"),
        (["--tissue=2"], "--tissue 2.0: must lie from 0 to 1"),
        (["--model=runs/a"], "--model: has a backbone, weights and image size of its own"),
        ([f"--out={__file__}"], "is not a folder"),
        (["--precision=fp16"], "needs a GPU"),
        (["--backbone=resnet19"], "no classifier 'resnet19'"),
    ],
)
def test_options_that_cannot_be(slides, tmp_path, capsys, words, told):
    assert main([str(slides), *OPTIONS, f"--out={tmp_path / 'out'}", *words]) == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
