"""The maps of frozen stages on disk: what is written is read, and damage shows."""

import numpy as np
import pandas as pd
import pytest
import torch

from attnvgg.data import frozen
from attnvgg.data.frozen import FrozenDataset, MapStore
from attnvgg.data.images import ImageDataset
from attnvgg.data.transforms import Preprocess

SHAPES = {3: (8, 4, 6), 4: (16, 2, 3)}


@pytest.fixture
def store(tmp_path, monkeypatch):
    """Maps of 25 images in 3 views, in parts of 16 rows; and the maps themselves."""
    monkeypatch.setattr(frozen, "PART_BYTES", 1)
    made = MapStore(tmp_path, SHAPES, 25, 3)
    generator = torch.Generator().manual_seed(0)
    maps = [torch.randn(75, *shape, generator=generator).half() for shape in SHAPES.values()]
    for number, part in enumerate(made.parts()):
        rows = made.packed([m[part.start : part.stop].float().numpy() for m in maps])
        made.write(number, rows.astype(np.float16))
    return made, maps


def test_what_is_written_is_read(store):
    made, maps = store
    assert len(made.parts()) == 5
    assert made.bytes == sum(path.stat().st_size for path in made.folder.iterdir())
    rows = [74, 0, 33, 33, 15, 16]
    first, second, pool3, pool4 = made.read(rows)
    assert first is None
    assert second is None
    assert torch.equal(pool3, maps[0][rows])
    assert torch.equal(pool4, maps[1][rows])
    assert pool3.is_contiguous(memory_format=torch.channels_last)


def test_damage_of_any_kind_shows(store):
    made, _ = store
    assert all(made.is_whole(number) for number in range(5))
    content = made.path(0).read_bytes()
    made.path(0).write_bytes(content[:-8])
    made.path(1).write_bytes(content[:100] + b"\1" + content[101:])
    made.path(2).unlink()
    made.path(3).write_bytes(b"")
    assert [made.is_whole(number) for number in range(5)] == [False, False, False, False, True]


@pytest.fixture
def dataset(store):
    made, maps = store
    table = pd.DataFrame({"image": [f"{n}.png" for n in range(25)], "label": np.arange(25) % 2})
    images = ImageDataset(table.assign(weight=np.arange(25) / 8), Preprocess(32, 32))
    return FrozenDataset(images, made), maps


@pytest.mark.parametrize("epoch", [0, 1, 5])
def test_epochs_and_occurrences_take_turns_with_the_views(dataset, epoch):
    found, maps = dataset
    found.set_epoch(epoch)
    batch = found.__getitems__([3, 25 + 3, 50 + 24])  # the first, second and third occurrence
    rows = [25 * ((epoch + r) % 3) + row for r, row in enumerate([3, 3, 24])]
    assert torch.equal(batch["maps"][3], maps[1][rows])
    assert batch["index"].tolist() == [3, 3, 24]
    assert batch["label"].tolist() == [1, 1, 0]
    assert batch["weight"].tolist() == [3 / 8, 3 / 8, 3.0]
    assert batch["weight"].dtype == torch.float32
