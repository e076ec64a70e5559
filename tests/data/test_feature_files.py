"""Feature files: the layouts of CLAM and TRIDENT, written and read."""

import errno
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import torch

from attnvgg.data.bags import FeatureBags, prepare_bags
from attnvgg.data.feature_files import write_features
from attnvgg.data.features import feature_attributes, read_features
from attnvgg.errors import InputError

FEATURES = np.arange(12, dtype=np.float32).reshape(4, 3)
COORDS = np.array([[0, 0], [256, 0], [0, 256], [512, 512]], np.int64)
ATTRIBUTES = {
    "name": "a", "encoder": "resnet", "patch_size": 256, "patch_size_level0": 512,
    "patch_level": 1, "downsample": 2.0, "mpp": 0.5, "stated_mpp": None,
}  # fmt: skip


@pytest.fixture
def ours(tmp_path):
    write_features(tmp_path / "ours.h5", FEATURES, COORDS, ATTRIBUTES)
    return tmp_path / "ours.h5"


def write_clam(path, features=FEATURES):
    """As extract_features_fp.py of CLAM: resizable, in chunks, coordinates of 32 bits, no words."""
    with h5py.File(path, "w") as file:
        for name, values in {"features": features, "coords": COORDS.astype(np.int32)}.items():
            more = values.shape[1:]
            file.create_dataset(name, data=values, maxshape=(None, *more), chunks=(32, *more))


def write_trident(path, encoder="uni_v1", features=FEATURES):
    """As WSI.extract_patch_features of TRIDENT: words at both data sets."""
    with h5py.File(path, "w") as file:
        made = file.create_dataset("features", data=features, chunks=(1, features.shape[1]))
        made.attrs.update({"name": "slide", "savetodir": "/out", "encoder": encoder})
        coords = file.create_dataset("coords", data=COORDS, chunks=(1, 2))
        coords.attrs.update(
            {
                "patch_size": 256, "patch_size_level0": 512, "level0_magnification": 40,
                "target_magnification": 20, "overlap": 0, "name": "slide", "savetodir": "None",
                "level0_width": np.int64(4096), "level0_height": 2048,
            }
        )  # fmt: skip


def test_what_is_written_is_read(ours):
    bag = read_features(ours)
    assert torch.equal(bag["instances"], torch.from_numpy(FEATURES))
    assert torch.equal(bag["coords"], torch.from_numpy(COORDS))
    assert feature_attributes(ours) == {k: v for k, v in ATTRIBUTES.items() if v is not None}


def test_attributes_stand_where_clam_and_trident_look(ours):
    with h5py.File(ours) as file:
        assert (file["features"].dtype, file["coords"].dtype) == (np.float32, np.int64)
        coords = dict(file["coords"].attrs)
        assert coords == dict(file.attrs)
        # both programs multiply these for the side of a tile in level-0 pixels
        assert coords["patch_size"] * coords["downsample"] == coords["patch_size_level0"]
        assert dict(file["features"].attrs) == {"name": "a", "encoder": "resnet"}


def test_the_same_content_gives_the_same_bytes(ours, tmp_path):
    again = tmp_path / "again.h5"
    write_features(again, FEATURES.copy(), COORDS.copy(), dict(ATTRIBUTES))
    assert again.read_bytes() == ours.read_bytes()
    with h5py.File(ours) as file:  # nor does it depend on the second
        assert {h5py.h5g.get_objinfo(file[name].id).mtime for name in file} == {0}


@pytest.mark.parametrize("features", [FEATURES, FEATURES[None], FEATURES.astype(np.float16)])
def test_files_of_clam_and_trident_are_read(tmp_path, features):
    write_clam(tmp_path / "clam.h5", features)
    if features.ndim == 2:
        write_trident(tmp_path / "trident.h5", features=features)
    for path in tmp_path.glob("*.h5"):
        bag = read_features(path)
        assert torch.equal(bag["instances"], torch.from_numpy(FEATURES))
        assert torch.equal(bag["coords"], torch.from_numpy(COORDS))
        assert bag["coords"].dtype == torch.int64


def test_attributes_of_files_of_others(tmp_path):
    write_clam(tmp_path / "clam.h5")
    write_trident(tmp_path / "trident.h5")
    np.save(tmp_path / "a.npy", FEATURES)
    assert feature_attributes(tmp_path / "clam.h5") == {}
    assert feature_attributes(tmp_path / "a.npy") == {}
    found = feature_attributes(tmp_path / "trident.h5")
    assert (found["encoder"], found["patch_size_level0"], found["level0_width"]) == (
        "uni_v1",
        512,
        4096,
    )
    assert all(type(value) in (str, int) for value in found.values())


def test_attributes_of_a_broken_file(tmp_path):
    (tmp_path / "a.h5").write_bytes(b"no HDF5")
    with pytest.raises(InputError, match=r"a\.h5: is not a feature file"):
        feature_attributes(tmp_path / "a.h5")
    with pytest.raises(InputError, match="is missing"):
        feature_attributes(tmp_path / "b.h5")


def test_a_full_disk_leaves_the_old_file_and_nothing_else(ours, monkeypatch):
    before = ours.read_bytes()

    def full(path, content):
        with path.open("wb") as stream:
            stream.write(content[:100])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        write_features(ours, FEATURES + 1, COORDS, ATTRIBUTES)
    assert ours.read_bytes() == before
    assert list(ours.parent.iterdir()) == [ours]


def test_a_mix_of_tiles_is_refused_by_name(tmp_path):
    """The same encoder, but tiles of another size on the slide."""
    for number in range(3):
        path = tmp_path / f"{number}.h5"
        said = ATTRIBUTES | {"name": str(number), "mpp": 1.0 if number == 2 else 0.5}
        write_features(path, FEATURES, COORDS, said)
    paths = sorted(map(str, tmp_path.glob("*.h5")))
    with pytest.raises(InputError) as caught:
        prepare_bags(FeatureBags(pd.DataFrame({"image": paths, "label": 0})))
    (told,) = caught.value.offenders
    assert "2.h5" in told
    assert "tiles of 256 px, 1.0 microns per pixel, most have" in told


def test_a_mix_of_encoders_is_refused_by_name(tmp_path):
    for number in range(4):
        (tmp_path / str(number)).mkdir()
        path = tmp_path / str(number) / "slide.h5"
        write_trident(path, "uni_v2" if number == 2 else "uni_v1")
    write_clam(tmp_path / "silent.h5")
    paths = sorted(map(str, tmp_path.rglob("*.h5")))
    with pytest.raises(InputError) as caught:
        prepare_bags(FeatureBags(pd.DataFrame({"image": paths, "label": 0})))
    (told,) = caught.value.offenders
    assert told.startswith(f"{tmp_path}/2/slide.h5: has features of the encoder 'uni_v2'")
    alike = [path for path in paths if "/2/" not in path]
    prepare_bags(FeatureBags(pd.DataFrame({"image": alike, "label": 0})))
