"""The stream of tiles: in order, bounded, overlapping; slides that fail are passed over."""

import errno
import inspect
import threading
from concurrent.futures import wait
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from attnvgg.data.features import feature_attributes, read_features
from attnvgg.data.slides import Slide
from attnvgg.data.tiles import plan_tiles, read_tile
from attnvgg.deploy import extraction, slide_job
from attnvgg.deploy.extraction import Pace, encode_tiles, extract
from attnvgg.deploy.feature_settings import FeatureSettings, unfinished
from attnvgg.deploy.reading import read_ahead
from attnvgg.errors import InputError

SETTINGS = FeatureSettings(mpp=0.5, tile=128, tissue=0.5)


def expected(count):
    x = np.arange(count)
    colours = np.stack([x, 100 - x, np.full(count, 7)], 1) / 255
    return (colours * (1, 2, 3)).astype(np.float32)


@pytest.mark.parametrize(("readers", "batch_size"), [(1, 1), (1, 64), (3, 4), (8, 5)])
def test_features_follow_the_tiles(means, fake_slide, tiles, readers, batch_size):
    slide = fake_slide(seconds=0.001)
    found = encode_tiles(
        means.network, means.preprocess, slide, tiles(22), batch_size, readers, "cpu"
    )
    np.testing.assert_allclose(found, expected(22), atol=1e-6)
    assert found.dtype == np.float32
    full, rest = divmod(22, batch_size)
    wanted = [batch_size] * full + [rest] * bool(rest)
    assert sorted(means.network.batches, reverse=True) == wanted


def test_tiles_are_read_while_others_are_computed(means, fake_slide, tiles):
    """Computing the first batch waits for a tile of the second, which must come by itself."""
    slide, later = fake_slide(), threading.Event()
    region = slide.region
    slide.region = lambda x, *rest: (later.set() if x >= 4 else None, region(x, *rest))[1]
    seen = []
    means.network.register_forward_pre_hook(lambda *_: seen.append(later.wait(10)))
    encode_tiles(means.network, means.preprocess, slide, tiles(12), 4, 1, "cpu")
    assert seen == [True] * 3


def test_on_a_cpu_batches_are_computed_side_by_side(means, fake_slide, tiles):
    """Each of two batches waits for the other to be under way, on a core of its own."""
    before, meeting, threads = torch.get_num_threads(), threading.Barrier(2, timeout=10), []

    def meet(*_):
        meeting.wait()
        threads.append(torch.get_num_threads())

    means.network.register_forward_pre_hook(meet)
    torch.set_num_threads(2)
    try:
        found = encode_tiles(means.network, means.preprocess, fake_slide(), tiles(8), 4)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    np.testing.assert_allclose(found, expected(8), atol=1e-6)
    assert threads == [1, 1]


def test_whoever_waits_for_what_is_called_off_is_woken():
    """One call runs while two wait for their turn, and are called off."""
    gate = threading.Event()
    calls = read_ahead(((n, partial(gate.wait, 10)) for n in range(4)), threads=1, ahead=2)
    next(calls)
    waiting = [future for _, future in inspect.getgeneratorlocals(calls)["begun"]]
    closing = threading.Thread(target=calls.close)
    closing.start()
    _, pending = wait(waiting, timeout=5)
    gate.set()
    closing.join()
    assert len(waiting) == 2
    assert not pending


def test_reading_ahead_is_bounded():
    begun, gate = [], threading.Semaphore(0)

    def call(number):
        begun.append(number)
        gate.release()
        return number

    found = read_ahead(((n, partial(call, n)) for n in range(100)), threads=2, ahead=5)
    for wanted in range(20):
        number, future = next(found)
        assert number == future.result() == wanted
        assert len(begun) <= wanted + 6
    for _ in range(25):  # all that may be begun is, without being asked for
        assert gate.acquire(timeout=10)
    found.close()


def test_a_tile_that_cannot_be_read(means, fake_slide, tiles):
    with pytest.raises(InputError, match="is broken, copy it again"):
        encode_tiles(means.network, means.preprocess, fake_slide(broken_at=9), tiles(22), 4)


def test_features_must_be_finite(means, fake_slide, tiles):
    means.network.scale[1] = torch.inf
    with pytest.raises(InputError, match="NaN or infinite"):
        encode_tiles(means.network, means.preprocess, fake_slide(), tiles(3))


@pytest.fixture
def fake_slides(monkeypatch, fake_slide, tiles):
    """Slides by path, in place of files."""
    made = {}

    def opened(path, settings):
        if path.stem == "unopened":
            raise InputError(f"{path} is not a slide.")
        broken_at = 9 if path.stem == "broken" else None
        made[path.stem] = fake_slide(path, broken_at, seconds=0.002)
        return made[path.stem], tiles(22)

    monkeypatch.setattr(extraction, "open_slide", opened)
    monkeypatch.setattr(extraction, "attributes_of", lambda slide, *_: {"name": slide.path.stem})
    return made


def test_slides_that_fail_are_passed_over(means, fake_slides, tmp_path):
    names = ["a", "unopened", "broken", "b", "unopened", "c"]
    paths = [Path(f"{name}.tiff") for name in names]
    found = list(extract(paths, tmp_path, means, SETTINGS, Pace(4, 3)))
    assert [outcome.slide for outcome in found] == paths
    assert [outcome.tiles for outcome in found] == [22, 0, 0, 22, 0, 22]
    assert [outcome.problem for outcome in found if outcome.problem] == [
        "unopened.tiff is not a slide.",
        "broken.tiff is broken, copy it again: no data.",
        "unopened.tiff is not a slide.",
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.h5", "b.h5", "c.h5"]
    for name in "abc":
        np.testing.assert_allclose(
            read_features(tmp_path / f"{name}.h5")["instances"], expected(22), atol=1e-6
        )
    assert all(slide.closed for slide in fake_slides.values())
    assert fake_slides["broken"].begun < 22  # the rest of it was not read


def test_the_next_slide_is_read_meanwhile(means, fake_slides, tmp_path):
    """While the last batch of a slide is computed, the next one is open already."""
    seen = []
    means.network.register_forward_pre_hook(lambda *_: seen.append(len(fake_slides)))
    list(extract([Path("a.tiff"), Path("b.tiff")], tmp_path, means, SETTINGS, Pace(8, 2)))
    assert seen[2] == 2


def test_a_stop_between_batches_leaves_nothing_half_written(means, fake_slides, tmp_path):
    def between():
        if len(means.network.batches) == 8:  # in the second slide
            raise KeyboardInterrupt

    paths = [Path(f"{name}.tiff") for name in "abc"]
    done = extract(paths, tmp_path, means, SETTINGS, Pace(4, 2), between)
    with pytest.raises(KeyboardInterrupt):
        list(done)
    assert [path.name for path in tmp_path.iterdir()] == ["a.h5"]
    assert not any(slide.reading for slide in fake_slides.values())


def test_a_stop_while_a_slide_is_being_opened(means, fake_slide, tiles, tmp_path, monkeypatch):
    """Neither noticing it nor leaving waits for the slide."""
    gate, waited = threading.Event(), []

    def opened(path, settings):
        waited.append(gate.wait(10))
        return fake_slide(path), tiles(1)

    def between():
        raise KeyboardInterrupt

    monkeypatch.setattr(extraction, "open_slide", opened)
    monkeypatch.setattr(slide_job, "LOOK", 0.01)
    with pytest.raises(KeyboardInterrupt):
        list(extract([Path("a.tiff")], tmp_path, means, SETTINGS, Pace(4, 2), between))
    assert not waited
    gate.set()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_told_and_keeps_what_is_done(
    means, fake_slides, tmp_path, monkeypatch, number
):
    written = Path.write_bytes

    def write(path, content):
        if "b" in path.stem.split("-")[0]:
            raise OSError(number, "No space left on device")
        return written(path, content)

    monkeypatch.setattr(Path, "write_bytes", write)
    paths = [Path(f"{name}.tiff") for name in "abc"]
    with pytest.raises(InputError, match=r"disk of .* is full; the slides that are finished"):
        list(extract(paths, tmp_path, means, SETTINGS, Pace(4, 2)))
    assert [path.name for path in tmp_path.iterdir()] == ["a.h5"]


@pytest.fixture
def extracted(means, tissue_slide, tmp_path):
    found = list(extract([tissue_slide], tmp_path / "out", means, SETTINGS, Pace(4, 2)))
    assert found[0].problem is None
    return tmp_path / "out" / "tissue.h5"


def test_a_real_slide(extracted, means, tissue_slide):
    bag = read_features(extracted)
    with Slide(tissue_slide) as slide:
        plan = plan_tiles(slide, 0.5, 128, 0, 0.5)
        images = [means.preprocess(read_tile(slide, plan, n)) for n in range(len(plan.coords))]
    assert len(images) > 10
    np.testing.assert_array_equal(bag["coords"], plan.coords)
    alone = torch.stack([means.network(image[None])[0] for image in images])
    torch.testing.assert_close(bag["instances"], alone)


def test_what_the_file_says_of_itself(extracted):
    found = feature_attributes(extracted)
    said = {
        "name": "tissue", "encoder": "means@1;16px@1", "mpp": 0.5, "tile": 128, "tissue": 0.5,
        "overlap": 0, "precision": "no", "patch_size": 128, "patch_size_level0": 128,
        "patch_level": 0, "downsample": 1.0, "level0_magnification": 20, "slide_mpp": 0.5,
        "target_magnification": 20, "level0_width": 1536, "level0_height": 1024,
    }  # fmt: skip
    assert {key: found[key] for key in said} == pytest.approx(said)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"mpp": 1.0}, "mpp is 0.5, not 1.0"),
        ({"overlap": 8, "tissue": 0.1}, "overlap is 0, not 8; tissue is 0.5, not 0.1"),
        ({"slide_mpp": 0.4}, "stated_mpp is not known, not 0.4"),
        ({"precision": "bf16"}, "precision is no, not bf16"),
    ],
)
def test_features_of_other_settings_are_not_overwritten(
    extracted, means, tissue_slide, changes, told
):
    out = extracted.parent
    assert unfinished([tissue_slide], out, SETTINGS, means) == []
    assert unfinished([Path("x.tiff"), tissue_slide], out, SETTINGS, means) == [Path("x.tiff")]
    other = FeatureSettings(**{**vars(SETTINGS), **changes})
    with pytest.raises(InputError, match="none is overwritten") as caught:
        unfinished([Path("x.tiff"), tissue_slide], out, other, means)
    assert caught.value.offenders == [f"{extracted}: {told}"]


def test_features_of_another_slide_of_that_name_are_not_overwritten(
    extracted, means, tissue_slide, tmp_path
):
    other = tmp_path / "elsewhere" / tissue_slide.name
    other.parent.mkdir()
    other.write_bytes(tissue_slide.read_bytes() + b"more")
    with pytest.raises(InputError, match=r"slide_origin is \d+ bytes"):
        unfinished([other], extracted.parent, SETTINGS, means)


def test_features_of_another_encoder_are_not_overwritten(extracted, means, tissue_slide):
    other = type(means)(means.network, means.preprocess, "means@2;16px@1", means.choice)
    with pytest.raises(InputError, match="encoder is means@1;16px@1, not means@2;16px@1"):
        unfinished([tissue_slide], extracted.parent, SETTINGS, other)


@pytest.mark.parametrize("spoil", [lambda whole: b"something else", lambda whole: whole[:2000]])
def test_features_that_cannot_be_read_are_to_be_removed(extracted, means, tissue_slide, spoil):
    extracted.write_bytes(spoil(extracted.read_bytes()))
    with pytest.raises(InputError, match="cannot be read; remove them") as caught:
        unfinished([tissue_slide], extracted.parent, SETTINGS, means)
    assert caught.value.offenders[0].startswith(f"{extracted}: ")


def test_a_slide_that_is_gone_is_tried_again(extracted, means, tissue_slide, tmp_path):
    gone = tmp_path / tissue_slide.name
    gone.symlink_to(tmp_path / "nowhere.tiff")
    assert unfinished([gone], extracted.parent, SETTINGS, means) == [gone]
    (outcome,) = extract([gone], extracted.parent, means, SETTINGS, Pace(4, 2))
    assert outcome.problem == f"{gone} does not exist: check the path of the slide."
