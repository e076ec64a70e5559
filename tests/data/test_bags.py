"""Bags as datasets: a batch equals its samples, whatever holds the instances."""

import io
import math
import os
import sys

import cv2
import h5py
import numpy as np
import pandas as pd
import pytest
import torch

from attnvgg.data.augmentation import augmentation
from attnvgg.data.bags import ArrayBags, FeatureBags, ImageBags, open_bags, prepare_bags
from attnvgg.data.images import ImageDataset
from attnvgg.data.loaders import TrainingBatches, evaluation_loader, training_loader
from attnvgg.data.transforms import Preprocess
from attnvgg.errors import InputError

LENGTHS = (3, 1, 5, 2)


def frame(names, **columns):
    labels = [i % 2 for i in range(len(names))]
    return pd.DataFrame({"image": [str(name) for name in names], "label": labels, **columns})


def values_of(bag, dimension=4):
    """Instances that tell their bag and their place in it."""
    rows = torch.arange(LENGTHS[bag])[:, None]
    return (100 * bag + 10 * rows + torch.arange(dimension)).float()


def save_bag(path, values, **more):
    """Write a bag in the format of its suffix; `more` where it can hold names."""
    if path.suffix == ".npy":
        np.save(path, values)
    elif path.suffix == ".pt":
        named = {"features": torch.as_tensor(values)}
        named |= {key: torch.from_numpy(one) for key, one in more.items()}
        torch.save(named if more else named["features"], path)
    else:
        with h5py.File(path, "w") as file:
            for key, one in {"features": values, **more}.items():
                file[key] = one
    return path


@pytest.fixture
def array_bags():
    """Four bags whose rows lie in the array in another order than in the bags."""
    together = torch.cat([values_of(bag) for bag in range(4)])
    order = torch.randperm(len(together), generator=torch.Generator().manual_seed(0))
    place = torch.argsort(order).split(list(LENGTHS))
    rows = [" ".join(map(str, one.tolist())) for one in place]
    labels = (together[order][:, 0] % 20 == 0).long()
    return ArrayBags(frame("abcd", instances=rows, weight=[1, 2, 3, 4]), together[order], labels)


@pytest.fixture(params=[".h5", ".npy", ".pt"])
def feature_bags(request, tmp_path):
    paths = [save_bag(tmp_path / f"{i}{request.param}", values_of(i)) for i in range(4)]
    return FeatureBags(frame(paths, weight=[1.0, 2.0, 3.0, 4.0]))


@pytest.fixture
def image_folders(tmp_path):
    """Four folders of one-coloured pictures; the colour tells the picture."""
    folders = []
    for bag, length in enumerate(LENGTHS):
        folders.append(tmp_path / f"bag-{bag}")
        folders[-1].mkdir()
        for i in range(length):
            colour = np.full((32, 40, 3), 40 * bag + 5 * i, np.uint8)
            cv2.imwrite(str(folders[-1] / f"{i}.png"), colour)
    return folders


@pytest.fixture
def image_bags(image_folders):
    plain = Preprocess(16, 16, mean=(0, 0, 0), std=(1, 1, 1))
    return ImageBags(frame(image_folders, weight=[1.0, 2.0, 3.0, 4.0]), plain)


class BagContract:
    """What holds for every dataset of bags of `LENGTHS`; a subclass gives the fixture `bags`."""

    def test_samples(self, bags):
        assert len(bags) == 4
        for row in range(4):
            sample = bags[row]
            assert sample["instances"].shape == (LENGTHS[row], *bags.instance_shape)
            assert sample["instances"].dtype == torch.float32
            assert (sample["label"], sample["index"]) == (row % 2, row)
            assert sample["weight"] == row + 1

    @pytest.mark.parametrize("positions", [[0, 1, 2, 3], [2], [3, 3, 0], [6, 1, 4]])
    def test_a_batch_is_its_samples_one_after_another(self, bags, positions):
        batch = bags.__getitems__(positions)
        samples = [bags[position] for position in positions]
        assert len(batch["offsets"]) == len(positions) + 1
        assert (batch["offsets"][0], batch["offsets"][-1]) == (0, len(batch["instances"]))
        for key in ("label", "index", "weight"):
            assert batch[key].tolist() == [float(sample[key]) for sample in samples]
        assert batch["offsets"].dtype == batch["index"].dtype == batch["label"].dtype == torch.int64
        for i, sample in enumerate(samples):
            piece = slice(batch["offsets"][i], batch["offsets"][i + 1])
            torch.testing.assert_close(batch["instances"][piece], sample["instances"])
            if "instance_labels" in sample:
                assert torch.equal(batch["instance_labels"][piece], sample["instance_labels"])

    def test_positions_begin_again(self, bags):
        assert bags[6]["index"] == 2
        assert torch.equal(bags[6]["instances"], bags[2]["instances"])

    @pytest.mark.parametrize("workers", [0, 2])
    def test_loaders(self, bags, workers):
        loader = evaluation_loader(bags, 3, workers)
        batches = list(loader)
        assert [batch["index"].tolist() for batch in batches] == [[0, 1, 2], [3]]
        whole = torch.cat([batch["instances"] for batch in batches])
        assert torch.equal(whole, bags.__getitems__(range(4))["instances"])
        order = TrainingBatches([2] * 4, 4)
        trained = torch.cat([batch["index"] for batch in training_loader(bags, order, workers)])
        assert torch.bincount(trained).tolist() == [2] * 4

    def test_preparing_counts_the_instances(self, bags):
        prepare_bags(bags, workers=1)
        assert bags.lengths.tolist() == list(LENGTHS)


class TestArrayBags(BagContract):
    @pytest.fixture
    def bags(self, array_bags):
        return array_bags

    def test_the_rows_named_are_the_rows_given(self, bags):
        for row in range(4):
            assert torch.equal(bags[row]["instances"], values_of(row))
            assert bags[row]["instance_labels"].tolist() == [
                int((100 * row + 10 * i) % 20 == 0) for i in range(LENGTHS[row])
            ]

    def test_bytes_are_scaled(self):
        pixels = torch.arange(256, dtype=torch.uint8).reshape(4, 1, 8, 8)
        bags = ArrayBags(frame("ab", instances=["3 1", "0"]), pixels, mean=0.25, std=0.5)
        wanted = (pixels[[3, 1, 0]].double() / 255 - 0.25) / 0.5
        torch.testing.assert_close(bags.__getitems__([0, 1])["instances"].double(), wanted)
        assert "instance_labels" not in bags[0]

    @pytest.mark.parametrize(("rows", "told"), [("1 4", "b: 4"), ("", "b: none")])
    def test_rows_that_are_not_there(self, rows, told):
        with pytest.raises(InputError) as caught:
            ArrayBags(frame("ab", instances=["0 3", rows]), torch.zeros(4, 2))
        assert caught.value.offenders == [told]


class TestFeatureBags(BagContract):
    @pytest.fixture
    def bags(self, feature_bags):
        return feature_bags

    def test_features_come_as_they_were_written(self, bags):
        for row in range(4):
            assert torch.equal(bags[row]["instances"], values_of(row))


class TestImageBags(BagContract):
    @pytest.fixture
    def bags(self, image_bags):
        return image_bags

    def test_each_picture_is_where_it_belongs(self, bags, image_folders):
        assert bags.instance_shape == (3, 16, 16)
        for row, length in enumerate(LENGTHS):
            shades = (bags[row]["instances"].mean((1, 2, 3)) * 255).round().tolist()
            assert shades == [40 * row + 5 * i for i in range(length)]
            assert bags.files(row) == [str(image_folders[row] / f"{i}.png") for i in range(length)]

    def test_augmentation_is_that_of_images(self, image_folders, tmp_path):
        """A pure function of seed, epoch and position, drawn for every instance."""
        rng = np.random.default_rng(0)
        for path in image_folders[2].iterdir():
            cv2.imwrite(str(path), rng.integers(0, 256, (32, 32, 3), np.uint8))
        first = cv2.imread(str(image_folders[2] / "0.png"))
        cv2.imwrite(str(image_folders[2] / "1.png"), first)
        plain = Preprocess(16, 16)

        def make(seed):
            turned = augmentation("tutorial", plain)
            return ImageBags(frame(image_folders), plain, turned, seed=seed)

        bags, again, other = (make(seed) for seed in (1, 1, 2))
        one = bags[2]["instances"]
        assert torch.equal(one, again[2]["instances"])
        assert not torch.equal(one, other[2]["instances"])
        assert not torch.equal(one, bags[6]["instances"]), "another occurrence in the epoch"
        assert not torch.equal(one[0], one[1]), "two instances alike are turned differently"
        bags.set_epoch(1)
        assert not torch.equal(one, bags[2]["instances"])

    def test_a_folder_without_images(self, image_folders, tmp_path):
        (tmp_path / "empty").mkdir()
        with pytest.raises(InputError) as caught:
            ImageBags(frame([*image_folders, tmp_path / "empty"]), Preprocess())
        assert caught.value.offenders == [str(tmp_path / "empty")]

    def test_broken_pictures_are_named_with_their_bag(self, bags, image_folders):
        (image_folders[1] / "0.png").write_bytes(b"no picture")
        (image_folders[2] / "3.png").write_bytes(b"")
        with pytest.raises(InputError) as caught:
            prepare_bags(bags)
        assert [name.split(": ")[0] for name in caught.value.offenders] == [
            str(image_folders[1] / "0.png"),
            str(image_folders[2] / "3.png"),
        ]


# Feature files


def test_a_copy_under_another_name_is_told(tmp_path):
    for name in ("a", "b", "c"):
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            file["features"] = np.zeros((3, 2))
            file.attrs["name"] = "a" if name == "b" else name
    with pytest.raises(InputError) as caught:
        prepare_bags(FeatureBags(frame([tmp_path / f"{name}.h5" for name in "abc"])))
    assert caught.value.offenders == [f"{tmp_path / 'b.h5'}: has the features of a"]


def only(path):
    return FeatureBags(frame([path]))[0]


@pytest.mark.parametrize("suffix", [".h5", ".hdf5", ".pt"])
@pytest.mark.parametrize("lead", [(), (1,)])
def test_coords_and_instance_labels_come_along(tmp_path, suffix, lead):
    coords, labels = np.arange(6).reshape(*lead, 3, 2), np.array([0, 1, 0])
    path = tmp_path / f"a{suffix}"
    save_bag(path, values_of(0).reshape(*lead, 3, 4), coords=coords, instance_labels=labels)
    bags = FeatureBags(frame([path, path]))
    assert bags[0]["coords"].tolist() == [[0, 1], [2, 3], [4, 5]]
    assert torch.equal(bags[0]["instances"], values_of(0))
    batch = bags.__getitems__([0, 1])
    assert batch["coords"].shape == (6, 2)
    assert batch["coords"].dtype == batch["instance_labels"].dtype == torch.int64
    assert batch["instance_labels"].tolist() == [0, 1, 0, 0, 1, 0]


def test_files_of_old_releases_of_pytorch(tmp_path):
    torch.save(values_of(0), tmp_path / "a.pt", _use_new_zipfile_serialization=False)
    assert torch.equal(only(tmp_path / "a.pt")["instances"], values_of(0))


def test_what_only_some_bags_know_is_left_out_of_a_batch(tmp_path):
    first = save_bag(tmp_path / "a.h5", values_of(0), coords=np.zeros((3, 2)))
    second = save_bag(tmp_path / "b.h5", values_of(1))
    assert "coords" not in FeatureBags(frame([first, second])).__getitems__([0, 1])


@pytest.mark.parametrize("kind", ["float16", "float64", ">f4", "uint8", "int32"])
@pytest.mark.parametrize("suffix", [".h5", ".npy"])
def test_other_numbers_become_float32(tmp_path, suffix, kind):
    path = save_bag(tmp_path / f"a{suffix}", values_of(1).numpy().astype(kind))
    assert only(path)["instances"].dtype == torch.float32
    assert torch.equal(only(path)["instances"], values_of(1))


@pytest.mark.parametrize("suffix", [".npy", ".pt"])
def test_a_lone_large_bag_is_mapped_not_read(tmp_path, suffix):
    """64 MiB of a file take no memory of ours, and the file cannot be changed by accident."""
    values = np.zeros((32768, 512), np.float32)
    values[-1, -1] = 7
    path = save_bag(tmp_path / f"a{suffix}", values)
    before = own_memory()
    batch = FeatureBags(frame([path])).__getitems__([0])
    assert batch["instances"][-1, -1] == 7
    assert own_memory() - before < 16 << 20
    batch["instances"][0, 0] = 5
    assert only(path)["instances"][0, 0] == 0


def own_memory():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) << 10 for line in status if line.startswith("RssAnon"))


def pickled():
    stream = io.BytesIO()
    torch.save({"features": os.system}, stream)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.h5", b"", "not a feature file"),
        ("a.h5", b"no HDF5", "not a feature file"),
        ("a.npy", b"", "not a feature file"),
        ("a.npy", b"no array", "not a feature file"),
        ("a.pt", b"", "not a feature file"),
        ("a.pt", b"no tensor", "not a feature file"),
        ("a.pt", pickled(), "not a feature file"),
        ("a.npy", np.zeros((0, 4)), "no instances"),
        ("a.h5", np.zeros((0, 4)), "no instances"),
        ("a.pt", np.zeros((1, 0, 4)), "no instances"),
        ("a.npy", np.zeros(4), "shape (4,)"),
        ("a.npy", np.float32(4), "shape ()"),
        ("a.npy", np.zeros((3, 4), complex), "not an array of numbers"),
        ("a.npy", np.array([["a"]]), "not an array of numbers"),
        ("a.npy", np.array([[None]], object), "not a feature file"),
        ("a.npy", np.full((3, 4), math.nan), "NaN or infinite"),
        ("a.h5", np.full((3, 4), math.inf), "NaN or infinite"),
        ("a.h5", {"feats": np.zeros((3, 4))}, "no `features`, but feats"),
        ("a.h5", {"features/deep": np.zeros((3, 4))}, "not an array of numbers"),
        ("a.h5", {}, "but nothing"),
        ("a.h5", {"features": np.zeros((3, 4)), "coords": np.zeros((2, 2))}, "coords of shape"),
        ("a.h5", {"features": np.zeros((3, 4)), "instance_labels": np.zeros(2)}, "instance_labels"),
        ("a.npy", None, "is missing"),
        ("a.h5", None, "is missing"),
        ("a.pt", None, "is missing"),
    ],
)
def test_bad_files_are_all_told_at_once(tmp_path, name, content, told):
    good = [save_bag(tmp_path / f"good-{i}.npy", values_of(i)) for i in range(3)]
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, dict):
        with h5py.File(path, "w") as file:
            for key, one in content.items():
                file[key] = one
    elif content is not None:
        save_bag(path, content)
    other = save_bag(tmp_path / "narrow.npy", np.zeros((3, 2)))
    with pytest.raises(InputError) as caught:
        prepare_bags([FeatureBags(frame([good[0], path])), FeatureBags(frame([*good[1:], other]))])
    assert "\n" not in caught.value.message
    first, second = caught.value.offenders
    assert first.startswith(f"{path}: ")
    assert told in first
    assert "\n" not in first
    assert second == f"{other}: has instances of shape (2,), most have (4,)"


def test_h5py_is_asked_for_only_when_it_is_needed(tmp_path, monkeypatch):
    path = save_bag(tmp_path / "a.h5", values_of(0))
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(InputError, match=r'pip install "attnvgg\[bags\]"'):
        only(path)
    assert len(only(save_bag(tmp_path / "a.npy", values_of(0)))["instances"]) == 3


def test_values_that_are_nan_in_memory():
    values = torch.zeros(4, 2)
    values[2, 1] = math.nan
    bags = ArrayBags(frame("ab", instances=["0 1", "3 2"]), values)
    with pytest.raises(InputError) as caught:
        prepare_bags([bags])
    assert caught.value.offenders == ["b: has values that are NaN or infinite"]


# What the rows are


def test_bags_are_opened_by_what_they_are(image_folders, tmp_path):
    file = save_bag(tmp_path / "a.npy", values_of(0))
    assert isinstance(open_bags(frame([file])), FeatureBags)
    assert isinstance(open_bags(frame(image_folders), Preprocess(16, 16)), ImageBags)
    with pytest.raises(InputError) as caught:
        open_bags(frame([file, *image_folders]))
    assert caught.value.offenders == [str(file)]


def test_images_are_loaded_as_before(image_folders):
    """The loaders stack the samples of images."""
    files = sorted(image_folders[0].iterdir())
    dataset = ImageDataset(frame(files), Preprocess(16, 16))
    (batch,) = evaluation_loader(dataset, 8, 0)
    assert batch["image"].shape == (3, 3, 16, 16)
    assert batch["label"].tolist() == [0, 1, 0]
