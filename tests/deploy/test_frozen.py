"""Maps of frozen stages, computed once: what they are, and what becomes of them."""

import logging
import os

import numpy as np
import pandas as pd
import pytest
import torch

from attnvgg.data import frozen as store_module
from attnvgg.data.augmentation import augmentation
from attnvgg.data.images import ImageDataset
from attnvgg.data.transforms import Preprocess
from attnvgg.deploy import frozen, frozen_room
from attnvgg.deploy.frozen import compute_maps, frozen_trunk, plan_maps
from attnvgg.errors import InputError
from attnvgg.models import AttnVGG

GIB = 2**30


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    built = AttnVGG(1, backbone="vgg11_bn")
    built.stages.freeze(4)
    return built.eval()


@pytest.fixture
def images(pictures):
    """Return a function that makes a set of 20 of the pictures; they may be augmented."""
    table = pd.read_csv(pictures)[:20]
    table["image"] = [str(pictures.parent / name) for name in table["image"]]

    def make(augmented=True, seed=3, table=table):
        preprocess = Preprocess(32, 32)
        augment = augmentation("tutorial", preprocess) if augmented else None
        return ImageDataset(table, preprocess, augment, seed=seed)

    return make


@pytest.fixture
def plan(model, images, tmp_path, monkeypatch):
    """Three views of the pictures in parts of 16, to be computed eagerly."""
    monkeypatch.setattr(store_module, "PART_BYTES", 1)
    trunk = frozen_trunk(model, images(), "eager", threads=1)
    return trunk, plan_maps(trunk, images(), tmp_path / "maps", views=3, augmentation="tutorial")


def contents(dataset):
    folder = dataset.store.folder
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.maps"))}


def test_views_are_the_augmentations_of_the_epochs(plan, model, images):
    trunk, dataset = plan
    compute_maps(trunk, [dataset], GIB, workers=0)
    plain = images()
    for epoch in range(4):
        plain.set_epoch(epoch % 3)
        dataset.set_epoch(epoch)
        pixels = torch.stack([plain[row]["image"] for row in range(20)])
        with torch.inference_mode():
            expected = model.stages(pixels)[2:4]
        found = dataset.__getitems__(range(20))["maps"][2:4]
        for mine, its in zip(found, expected, strict=True):
            torch.testing.assert_close(mine.float(), its, atol=1e-3, rtol=2e-3)
    assert not torch.equal(dataset.store.read([0])[2], dataset.store.read([20])[2])


def test_workers_change_nothing(plan, images, tmp_path):
    trunk, dataset = plan
    compute_maps(trunk, [dataset], GIB, workers=0)
    other = plan_maps(trunk, images(), tmp_path / "other", views=3, augmentation="tutorial")
    compute_maps(trunk, [other], GIB, workers=2)
    assert contents(dataset) == contents(other)


class Dying:
    """An engine whose machine stops after some batches."""

    name = "dying"

    def __init__(self, engine, batches):
        self.engine, self.left = engine, batches

    def __call__(self, images):
        if not self.left:
            raise KeyboardInterrupt
        self.left -= 1
        return self.engine(images)


def test_what_was_computed_before_a_kill_is_not_computed_again(plan, monkeypatch):
    trunk, dataset = plan
    engine = trunk.open()
    with monkeypatch.context() as patch:
        patch.setattr(frozen, "open_engine", lambda *a, **k: Dying(engine, 2))
        with pytest.raises(KeyboardInterrupt):
            compute_maps(trunk, [dataset], GIB, workers=0)
    before = contents(dataset)
    assert list(before) == ["00000.maps", "00001.maps"]
    assert len(list(dataset.store.folder.iterdir())) == 3, "nothing is left half-written"
    with monkeypatch.context() as patch:
        patch.setattr(frozen, "open_engine", lambda *a, **k: Dying(engine, 2))
        compute_maps(trunk, [dataset], GIB, workers=0)  # the other two: 60 rows are four batches
        compute_maps(trunk, [dataset], GIB, workers=0)  # nothing
    assert contents(dataset).items() >= before.items()
    assert all(dataset.store.is_whole(number) for number in range(4))


def test_a_damaged_part_is_computed_again_and_a_line_says_so(plan, caplog):
    trunk, dataset = plan
    compute_maps(trunk, [dataset], GIB, workers=0)
    before = contents(dataset)
    path = dataset.store.path(1)
    path.write_bytes(b"\1" * len(before[path.name]))
    (dataset.store.folder / ".00002-half.maps").write_bytes(b"torn")
    with caplog.at_level(logging.WARNING, "attnvgg"):
        compute_maps(trunk, [dataset], GIB, workers=0)
    assert contents(dataset) == before
    told = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert [words.partition(" in ")[0] for words in told] == ["1 of 4 files of maps"]
    assert not list(dataset.store.folder.glob(".*-*"))


def test_other_maps_have_another_folder(plan, model, images, tmp_path, pictures):
    trunk, dataset = plan
    table = pd.read_csv(pictures)[:20]
    table["image"] = [str(pictures.parent / name) for name in table["image"]]
    torch.manual_seed(1)
    other = AttnVGG(1, backbone="vgg11_bn")
    other.stages.freeze(4)
    trunks = [frozen_trunk(other, images(), "eager"), frozen_trunk(model, images(), "compiled")]
    home = tmp_path / "maps"
    plans = [plan_maps(t, images(), home, views=3, augmentation="tutorial") for t in trunks]
    plans += [
        plan_maps(trunk, images(), home, views=2, augmentation="tutorial"),
        plan_maps(trunk, images(), home, views=3, augmentation="paper"),
        plan_maps(trunk, images(seed=4), home, views=3, augmentation="tutorial"),
        plan_maps(trunk, images(augmented=False), home, views=3),
        plan_maps(trunk, images(table=table[::-1]), home, views=3, augmentation="tutorial"),
    ]
    folders = {found.store.folder for found in [dataset, *plans]}
    assert len(folders) == len(plans) + 1
    again = plan_maps(trunk, images(), home, views=3, augmentation="tutorial")
    assert again.store.folder == dataset.store.folder


def test_a_changed_picture_has_other_maps(plan, images, tmp_path):
    trunk, _ = plan
    table = pd.DataFrame({"image": [str(tmp_path / "a.png")], "label": [0]})
    (tmp_path / "a.png").write_bytes(b"one")
    first = plan_maps(trunk, images(table=table), tmp_path)
    (tmp_path / "a.png").write_bytes(b"other")
    assert plan_maps(trunk, images(table=table), tmp_path).store.folder != first.store.folder


def test_what_needs_more_than_its_bound_is_refused_before_it_begins(plan):
    trunk, dataset = plan
    with pytest.raises(InputError, match=r"20 images in 3 views take .* GB, more than") as found:
        compute_maps(trunk, [dataset], 2**15, workers=0)
    assert "--frozen.cache_gib" in str(found.value)
    assert not dataset.store.folder.exists()


def test_a_full_disk_is_told_before_it_begins(plan, monkeypatch):
    trunk, dataset = plan
    usage = type("Usage", (), {"free": frozen_room.RESERVE + 1000})
    monkeypatch.setattr(frozen_room.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(InputError, match=r"has room for 0\.00 GB"):
        compute_maps(trunk, [dataset], GIB, workers=0)
    assert not dataset.store.folder.exists()


def test_maps_that_were_not_wanted_for_longest_make_room(plan, images):
    trunk, dataset = plan
    home = dataset.store.folder.parent
    others = [plan_maps(trunk, images(seed=s), home, augmentation="tutorial") for s in (7, 8)]
    compute_maps(trunk, others, GIB, workers=0)
    os.utime(others[0].store.folder / "about.json", (1, 1))
    bound = dataset.store.bytes + others[1].store.bytes
    compute_maps(trunk, [dataset], bound, workers=0)
    assert not others[0].store.folder.exists()
    assert others[1].store.folder.exists()


def test_making_room_leaves_what_is_not_of_maps_and_what_is_open(plan, images):
    trunk, dataset = plan
    home = dataset.store.folder.parent
    other = plan_maps(trunk, images(seed=7), home, augmentation="tutorial")
    compute_maps(trunk, [other], GIB, workers=0)
    foreign = home / "thesis"
    foreign.mkdir()
    (foreign / "about.json").write_text("{}")
    (foreign / "text.txt").write_text("mine")
    (other.store.folder / "notes.txt").write_text("mine")
    before = other[0]["maps"][-1].clone()
    compute_maps(trunk, [dataset], dataset.store.bytes, workers=0)
    assert (foreign / "text.txt").read_text() == "mine"
    assert [path.name for path in other.store.folder.iterdir()] == ["notes.txt"]
    assert torch.equal(other[0]["maps"][-1], before)  # whoever has opened them goes on


def test_values_beyond_half_precision_are_refused(plan, monkeypatch):
    trunk, dataset = plan

    def huge(images):
        return [np.full((len(images), *shape), 7e4, np.float32) for shape in trunk.shapes.values()]

    huge.name = "huge"
    monkeypatch.setattr(frozen, "open_engine", lambda *a, **k: huge)
    with pytest.raises(InputError, match=r"reach 7e\+04, .*_bn"):
        compute_maps(trunk, [dataset], GIB, workers=0)
    assert not contents(dataset)


def test_ranges_of_8_bits_are_those_of_training_images_as_they_are(model, images):
    """Of all of them here, in their order, without augmentation."""
    found = np.concatenate(frozen_trunk(model, images(), "eager").source.calibration())
    plain = images(augmented=False)
    assert np.array_equal(found, np.stack([plain[row]["image"] for row in range(20)]))


def test_another_engine_finds_the_same_maps(plan, model, images, tmp_path):
    pytest.importorskip("openvino")
    _, dataset = plan
    trunk = frozen_trunk(model, images(), "openvino", threads=1)
    other = plan_maps(trunk, images(), tmp_path / "maps", views=3, augmentation="tutorial")
    compute_maps(plan[0], [dataset], GIB, workers=0)
    compute_maps(trunk, [other], GIB, workers=0)
    assert other.store.folder != dataset.store.folder
    mine, its = (found.store.read(range(60))[2:4] for found in (other, dataset))
    for one, two in zip(mine, its, strict=True):
        torch.testing.assert_close(one.float(), two.float(), atol=2e-3, rtol=4e-3)
