"""What is measured of a file, and what is said of one that cannot be read."""

import hashlib

import cv2
import numpy as np
import pytest
from PIL import Image

from attnvgg.data.audit.reading import Measured, measure_image, measure_images


def test_a_picture_is_measured(cases, photos):
    path = cases["image"][0]
    found = measure_image(path)
    assert isinstance(found, Measured)
    with open(path, "rb") as stream:
        assert found.file == hashlib.sha256(stream.read()).hexdigest()
    assert (found.height, found.width) == (64, 64)
    assert found.colour == pytest.approx(photos[0].mean(axis=(0, 1)), abs=1e-6)
    assert found.fingerprint.shape == (16, 16)
    assert found.needs_convert is None


def test_the_same_pixels_in_another_file_have_the_same_digest(photos, tmp_path):
    for number, compression in enumerate((0, 9)):
        cv2.imwrite(str(tmp_path / f"{number}.png"), photos[0], [16, compression])
    first, second = (measure_image(str(tmp_path / f"{number}.png")) for number in (0, 1))
    assert first.file != second.file
    assert first.pixels == second.pixels
    assert measure_image(str(tmp_path / "0.png")).pixels == first.pixels


def test_large_pictures_are_decoded_at_a_fraction_and_keep_their_size(tmp_path):
    rng = np.random.default_rng(0)
    picture = cv2.resize(rng.integers(0, 255, (9, 12, 3), np.uint8), (1200, 900))
    cv2.imwrite(str(tmp_path / "large.jpg"), picture)
    found = measure_image(str(tmp_path / "large.jpg"))
    assert (found.height, found.width) == (900, 1200)
    assert found.colour == pytest.approx(picture[..., ::-1].mean(axis=(0, 1)), abs=1)


def test_odd_files_are_read_and_named(photos, tmp_path):
    Image.fromarray(photos[0]).convert("L").save(tmp_path / "grey.png")
    found = measure_image(str(tmp_path / "grey.png"))
    assert found.needs_convert == "is grey"
    assert found.fingerprint is not None


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "is empty"), (b"no picture", "not an image"), (None, "is missing")],
)
def test_unreadable_files_say_why(content, reason, tmp_path):
    if content is not None:
        (tmp_path / "a.jpg").write_bytes(content)
    found = measure_image(str(tmp_path / "a.jpg"))
    assert reason in found
    assert str(tmp_path) not in found


def test_a_picture_that_is_cut_off(cases, tmp_path):
    with open(cases["image"][0], "rb") as stream:
        (tmp_path / "a.jpg").write_bytes(stream.read()[:-200])
    assert "cut off" in measure_image(str(tmp_path / "a.jpg"))


def test_threads_change_nothing(cases):
    paths = [*cases["image"][:10], "missing.jpg"]
    alone, together = measure_images(paths, 0), measure_images(paths, 2)
    assert [one if isinstance(one, str) else one.pixels for one in alone] == [
        one if isinstance(one, str) else one.pixels for one in together
    ]
