import contextlib
import subprocess
import sys
import zlib
from io import BytesIO

import albumentations as A
import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from attnvgg.data.augmentation import augmentation
from attnvgg.data.cache import ImageCache
from attnvgg.data.decoding import from_pillow, read_mask, reduction
from attnvgg.data.images import (
    ImageDataset,
    inspect_image,
    prepare_images,
    read_image,
    start_worker,
)
from attnvgg.data.inspection import image_size
from attnvgg.data.transforms import Preprocess
from attnvgg.errors import InputError


def picture(height=64, width=64, seed=0):
    """A smooth colour picture without symmetries, (height, width, 3)."""
    noise = np.random.default_rng(seed).uniform(0, 255, (8, 8, 3)).astype(np.uint8)
    return cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)


def save(path, image=None, **options):
    image = picture() if image is None else image
    image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    image.save(path, **options)
    return path


def exif(orientation):
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


def cut(path, share=0.6):
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])


def huge_png(path):
    """A PNG of 20,000 x 20,000 pixels of which only the header exists."""
    save(path)
    data = bytearray(path.read_bytes())
    data[16:24] = (20000).to_bytes(4) * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4)
    path.write_bytes(data)


CONVERTIBLE = {
    "grey.jpg": ("grey", lambda p: save(p, Image.fromarray(picture()).convert("L"))),
    "grey.png": ("grey", lambda p: save(p, Image.fromarray(picture()).convert("L"))),
    "bilevel.png": ("grey", lambda p: save(p, Image.fromarray(picture()).convert("1"))),
    "palette.png": ("palette", lambda p: save(p, Image.fromarray(picture()).convert("P"))),
    "palette.gif": ("palette", lambda p: save(p, Image.fromarray(picture()).convert("P"))),
    "cmyk.jpg": ("CMYK", lambda p: save(p, Image.fromarray(picture()).convert("CMYK"))),
    "alpha.png": ("alpha", lambda p: save(p, Image.fromarray(picture()).convert("RGBA"))),
    "grey_alpha.png": ("alpha", lambda p: save(p, Image.fromarray(picture()).convert("LA"))),
    "key_colour.png": ("alpha", lambda p: save(p, transparency=(1, 2, 3))),
    "deep.png": ("16 bits", lambda p: cv2.imwrite(str(p), picture().astype(np.uint16) * 257)),
    "deep_grey.png": (
        "16 bits",
        lambda p: cv2.imwrite(str(p), picture()[..., 0].astype(np.uint16) * 257),
    ),
    "deep.tiff": ("16 bits", lambda p: cv2.imwrite(str(p), picture().astype(np.uint16) * 257)),
    "turned.jpg": ("orientation 6", lambda p: save(p, exif=exif(6))),
    "turned.png": ("orientation 3", lambda p: save(p, exif=exif(3))),
    "moving.gif": (
        "2 frames",
        lambda p: save(p, save_all=True, append_images=[Image.fromarray(picture(seed=1))]),
    ),
    "moving.png": (
        "2 frames",
        lambda p: save(p, save_all=True, append_images=[Image.fromarray(picture(seed=1))]),
    ),
}
REFUSED = {
    "missing.jpg": ("missing", lambda p: None),
    "empty.jpg": ("empty", lambda p: p.write_bytes(b"")),
    "text.jpg": ("not an image", lambda p: p.write_text("this is no picture" * 20)),
    "dot.png": ("1x1", lambda p: save(p, picture()[:1, :1])),
    "thin.jpg": ("64x8", lambda p: save(p, picture()[:8])),
    "huge.png": ("178,956,970", huge_png),
    "float.tiff": ("kind F", lambda p: save(p, Image.fromarray(picture()[..., 0] / np.float32(9)))),
}
PLAIN = ["plain.jpg", "plain.png", "plain.bmp", "plain.webp", "plain.tiff"]


@pytest.mark.parametrize("name", PLAIN)
def test_plain_files_pass(tmp_path, name):
    path = save(tmp_path / name)
    assert inspect_image(path) is None
    apart = np.abs(read_image(path).astype(int) - np.asarray(Image.open(path).convert("RGB")))
    assert apart.max() <= 1


@pytest.mark.parametrize("name", CONVERTIBLE)
def test_odd_files_are_refused_or_converted(tmp_path, name):
    words, make = CONVERTIBLE[name]
    make(tmp_path / name)
    problem = inspect_image(tmp_path / name)
    assert words in problem
    assert "--data.convert true" in problem
    with pytest.raises(InputError) as caught:
        read_image(tmp_path / name)
    assert caught.value.offenders == [f"{tmp_path / name}: {problem}"]
    assert inspect_image(tmp_path / name, convert=True) is None
    converted = read_image(tmp_path / name, convert=True)
    assert converted.shape == (64, 64, 3)
    assert converted.dtype == np.uint8


@pytest.mark.parametrize("convert", [False, True])
@pytest.mark.parametrize("name", REFUSED)
def test_unusable_files_are_always_refused(tmp_path, name, convert):
    words, make = REFUSED[name]
    make(tmp_path / name)
    assert words in inspect_image(tmp_path / name, convert)
    with pytest.raises(InputError, match="cannot be used") as caught:
        read_image(tmp_path / name, convert=convert)
    assert words in caught.value.offenders[0]
    assert caught.value.offenders[0].startswith(str(tmp_path / name))


@pytest.mark.parametrize("share", [0.1, 0.3, 0.6, 0.95])
@pytest.mark.parametrize("name", [*PLAIN, "progressive.jpg", "camera.jpg", "grey.jpg", "grey.png"])
def test_truncated_files_are_refused(tmp_path, name, share):
    image = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    path = tmp_path / name
    image = image[..., 0] if "grey" in name else image
    if "camera" in name:  # its EXIF holds a complete thumbnail, with an end of its own
        thumbnail = BytesIO()
        save(thumbnail, picture(16, 16), format="JPEG")
        save(path, image, exif=b"Exif\0\0" + exif(1).tobytes()[6:] + thumbnail.getvalue())
    else:
        save(path, image, **({"progressive": True} if "progressive" in name else {}))
    assert read_image(path, convert=True).shape == (64, 64, 3)
    cut(path, share)
    with pytest.raises(InputError):
        read_image(path, convert=True)


def test_truncated_jpeg_is_named_as_such_and_leaves_stderr_alone(tmp_path):
    cut(save(tmp_path / "cut.jpg"))
    code = (
        "import sys; from attnvgg.data.images import read_image; from attnvgg.errors import *\n"
        "try: read_image(sys.argv[1])\nexcept InputError as e: print(e)"
    )
    found = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "cut.jpg"], capture_output=True, text=True
    )
    assert "cut off" in found.stdout
    assert found.stderr == ""


def test_jpeg_with_bytes_behind_its_end_is_read(tmp_path):
    path = save(tmp_path / "motion.jpg")
    expected = read_image(path)
    path.write_bytes(path.read_bytes() + np.random.default_rng(0).bytes(200_000))
    np.testing.assert_array_equal(read_image(path), expected)


def test_the_bomb_is_refused_before_memory_is_taken(tmp_path):
    huge_png(tmp_path / "huge.png")
    code = (
        "import resource, sys; from attnvgg.data.images import read_image\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try: read_image(sys.argv[1], convert=True)\nexcept ValueError: pass\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    found = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "huge.png"], capture_output=True, text=True
    )
    assert int(found.stdout) < 50_000  # KiB; the pixels would be 1,200,000


@pytest.mark.parametrize("orientation", range(2, 9))
@pytest.mark.parametrize("name", ["turned.jpg", "turned.png"])
def test_exif_rotation_is_applied(tmp_path, name, orientation):
    image = picture(64, 96)
    upright = read_image(save(tmp_path / f"upright{name}", image))
    turns = {
        2: np.fliplr,
        3: lambda a: np.rot90(a, 2),
        4: np.flipud,
        5: lambda a: a.swapaxes(0, 1),
        6: lambda a: np.rot90(a, -1),
        7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
        8: lambda a: np.rot90(a, 1),
    }
    path = save(tmp_path / name, image, exif=exif(orientation))
    found = read_image(path, convert=True)
    np.testing.assert_array_equal(found, turns[orientation](upright))
    assert image_size(path) == found.shape[:2]
    small = read_image(path, min_side=32, convert=True)
    assert small.shape[:2] == (found.shape[0] // 2, found.shape[1] // 2)
    means = found.reshape(small.shape[0], 2, small.shape[1], 2, 3).mean((1, 3))
    assert np.abs(small - means).max() <= 1


@pytest.mark.parametrize("orientation", [0, 1, 9])
def test_exif_that_asks_for_no_rotation_is_no_reason_to_refuse(tmp_path, orientation):
    path = save(tmp_path / "camera.jpg", exif=exif(orientation))
    assert inspect_image(path) is None
    np.testing.assert_array_equal(read_image(path), read_image(save(tmp_path / "plain.jpg")))


def test_conversions_keep_the_colours(tmp_path):
    colours = picture()
    grey = np.asarray(Image.fromarray(colours).convert("L"))
    expected = {
        "deep.png": colours,
        "deep.tiff": colours,
        "deep_grey.png": np.dstack([colours[..., 0]] * 3),
        "grey.png": np.dstack([grey] * 3),
        "alpha.png": colours,
    }
    for name, wanted in expected.items():
        CONVERTIBLE[name][1](tmp_path / name)
        found = read_image(tmp_path / name, convert=True)
        # OpenCV wrote the deep colours as blue, green, red
        wanted = wanted[..., ::-1] if name in ("deep.png", "deep.tiff") else wanted
        np.testing.assert_array_equal(found, wanted)


def test_cmyk_is_not_inverted(tmp_path):
    path = save(tmp_path / "cmyk.jpg", Image.fromarray(picture()).convert("CMYK"), quality=95)
    apart = np.abs(read_image(path, convert=True).astype(int) - picture())
    assert apart.mean() < 5


def test_transparency_is_laid_over_white(tmp_path):
    image = np.dstack([picture(), np.zeros((64, 64), np.uint8)])
    assert (read_image(save(tmp_path / "clear.png", image), convert=True) == 255).all()


@pytest.mark.parametrize(("side", "factor"), [(64, 1), (128, 2), (200, 2), (256, 4), (512, 8)])
@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
def test_reduced_decoding_is_close_to_the_mean_of_blocks(tmp_path, name, side, factor):
    path = save(tmp_path / name, picture(side + 5, side + 3), **{"quality": 95})
    found = read_image(path, min_side=64)
    assert reduction(side + 5, side + 3, 64) == factor
    height, width = (side + 5) // factor, (side + 3) // factor
    assert found.shape == (height, width, 3)
    full = read_image(path)[: height * factor, : width * factor].astype(float)
    means = full.reshape(height, factor, width, factor, 3).mean((1, 3))
    assert np.abs(found - means).mean() < 1.5
    assert np.abs(found - means).max() <= 16


def test_opened_images_follow_the_rules_of_files(tmp_path):
    with Image.open(save(tmp_path / "a.jpg", exif=exif(6))) as image:
        with pytest.raises(InputError, match="orientation 6"):
            from_pillow(image)
        found = from_pillow(image, convert=True)
    np.testing.assert_array_equal(found, read_image(tmp_path / "a.jpg", convert=True))


@pytest.mark.parametrize("value", [1, 255])
def test_masks_of_ones_and_of_255_are_the_same(tmp_path, value):
    mask = np.zeros((64, 64), np.uint8)
    mask[10:30, 20:50] = value
    np.testing.assert_array_equal(read_mask(save(tmp_path / "m.png", mask)), (mask > 0) * 255)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL", "ignore::Warning:PIL.Image")
@pytest.mark.parametrize("kind", ["jpg", "png", "webp", "tiff", "gif", "bmp"])
def test_damaged_bytes_never_escape_as_another_error(tmp_path, kind):
    path = save(tmp_path / f"a.{kind}", picture(32, 32))
    data, rng = path.read_bytes(), np.random.default_rng(0)
    for _ in range(60):
        broken = bytearray(data)
        for position in rng.integers(0, min(len(data), 400), 3):
            broken[position] = rng.integers(256)
        path.write_bytes(broken)
        with contextlib.suppress(InputError):  # pixels or a refusal, and nothing else
            assert read_image(path, convert=True).ndim == 3
        assert inspect_image(path, convert=True) is None or isinstance(inspect_image(path), str)


# -- the dataset


@pytest.fixture
def manifest(tmp_path):
    rows = []
    for number in range(6):
        path = save(tmp_path / f"{number}.png", picture(40, 56, seed=number))
        mask = save(tmp_path / f"{number}_mask.png", picture(40, 56, seed=number)[..., 1])
        rows.append({"image": str(path), "label": number % 2, "mask": str(mask)})
    table = pd.DataFrame(rows)
    table.loc[5, "mask"] = float("nan")
    return table


def make_dataset(manifest, augment="tutorial", seed=0, cache=None, mask=False, **settings):
    preprocess = Preprocess(**{"size": 32, "resize": 36} | settings)
    table = manifest if mask else manifest.drop(columns="mask")
    augment = augment and augmentation(augment, preprocess)
    return ImageDataset(table, preprocess, augment, cache, seed)


def test_a_sample(manifest):
    sample = make_dataset(manifest, augment=None)[3]
    assert sorted(sample) == ["image", "index", "label"]
    assert (sample["label"], sample["index"]) == (1, 3)
    expected = Preprocess(size=32, resize=36)(manifest["image"][3])
    torch.testing.assert_close(sample["image"], expected, rtol=0, atol=0)


@pytest.mark.parametrize("augment", ["tutorial", "paper", "none"])
def test_images_are_contiguous_and_of_the_size_asked_for(manifest, augment):
    image = make_dataset(manifest, augment)[0]["image"]
    assert image.shape == (3, 32, 32)
    assert image.dtype == torch.float32
    assert image.is_contiguous()


@pytest.mark.parametrize("augment", ["tutorial", "paper"])
def test_augmentation_depends_on_seed_epoch_and_position_only(manifest, augment):
    one, other = make_dataset(manifest, augment), make_dataset(manifest, augment)
    for dataset in (one, other):
        dataset.set_epoch(2)
    other[1], other[4]  # what was loaded before does not matter
    images = [one[i]["image"] for i in range(6)]
    for i in (5, 0, 3):
        assert torch.equal(other[i]["image"], images[i])
    different = make_dataset(manifest, augment, seed=1)
    different.set_epoch(2)
    assert not all(torch.equal(different[i]["image"], images[i]) for i in range(6))
    one.set_epoch(3)
    assert not all(torch.equal(one[i]["image"], images[i]) for i in range(6))


def test_the_flips_of_the_paper_are_independent(tmp_path):
    path = save(tmp_path / "a.png")
    table = pd.DataFrame({"image": [str(path)], "label": [0]})
    preprocess = Preprocess(64, 64, mean=(0, 0, 0), std=(1, 1, 1))
    dataset = ImageDataset(table, preprocess, augmentation("paper", preprocess))
    image = torch.from_numpy(read_image(path)).permute(2, 0, 1) / 255
    eight = [torch.rot90(one, k, (1, 2)) for one in (image, image.flip(2)) for k in range(4)]
    found = [dataset[occurrence]["image"] for occurrence in range(120)]
    counts = [sum(torch.equal(one, turned) for one in found) for turned in eight]
    assert sum(counts) == 120
    assert min(counts) >= 5


def test_transforms_with_numpy_randomness_are_reproducible_too(manifest):
    preprocess = Preprocess(size=36, resize=36)
    augment = A.Compose([A.GaussNoise(p=1), A.RandomBrightnessContrast(p=0.5)])
    one = ImageDataset(manifest.drop(columns="mask"), preprocess, augment)
    first = one[2]["image"]
    assert not torch.equal(one[3]["image"], first)
    assert torch.equal(one[2]["image"], first)


def test_positions_beyond_the_last_row_are_further_occurrences(manifest):
    dataset = make_dataset(manifest)
    again = dataset[2 + 6]
    assert (again["index"], again["label"]) == (2, 0)
    assert not torch.equal(again["image"], dataset[2]["image"])
    plain = make_dataset(manifest, augment=None)
    assert torch.equal(plain[2 + 6]["image"], plain[2]["image"])
    assert [sample["index"] for sample in plain] == list(range(6))


def test_workers_change_nothing(manifest):
    cv2.setNumThreads(4)
    cv2.resize(picture(), (900, 900))  # OpenCV's threads are running: a fork would lose them
    dataset = make_dataset(manifest, mask=True)
    dataset.set_epoch(1)
    alone = next(iter(DataLoader(dataset, batch_size=6)))
    loader = DataLoader(dataset, batch_size=6, num_workers=2, worker_init_fn=start_worker)
    together = next(iter(loader))
    assert sorted(alone) == ["has_mask", "image", "index", "label", "mask"]
    for key in alone:
        assert torch.equal(alone[key], together[key])


@pytest.mark.parametrize("augment", [None, "tutorial", "paper", "none"])
def test_masks_follow_their_image(manifest, augment):
    # the mask of each picture is its green channel
    dataset = make_dataset(manifest, augment, mask=True, mean=(0, 0, 0), std=(1, 1, 1), crop=0.8)
    for sample in list(dataset)[:5]:
        assert sample["has_mask"]
        torch.testing.assert_close(sample["mask"][0], sample["image"][1], rtol=0, atol=1e-6)


def test_a_case_without_a_mask_says_so(manifest):
    sample = make_dataset(manifest, mask=True)[5]
    assert sample["has_mask"] is False
    assert sample["mask"].shape == (1, 32, 32)
    assert not sample["mask"].any()


def test_masks_change_nothing_about_the_images(manifest):
    one, other = make_dataset(manifest, mask=True), make_dataset(manifest)
    for i in range(6):
        assert torch.equal(one[i]["image"], other[i]["image"])


def test_prepare_lists_every_bad_file_once(manifest, tmp_path):
    cut(tmp_path / "1.png")
    (tmp_path / "2.png").write_bytes(b"")
    save(tmp_path / "3_mask.png", picture(20, 20)[..., 1])
    (tmp_path / "4.png").unlink()
    datasets = [make_dataset(manifest, mask=True), make_dataset(manifest, augment=None)]
    with pytest.raises(InputError, match="4 of the image files") as caught:
        prepare_images(datasets, workers=2)
    words = {"1.png": "cut off", "2.png": "empty", "3_mask.png": "its image", "4.png": "missing"}
    found = {line.split(": ", 1)[0]: line for line in caught.value.offenders}
    assert sorted(found) == [str(tmp_path / name) for name in words]
    for name, word in words.items():
        assert word in found[str(tmp_path / name)]


def test_prepare_fills_the_cache(manifest, tmp_path, monkeypatch):
    cache = ImageCache(tmp_path / "cache", 2**24, reserve_bytes=0)
    dataset = make_dataset(manifest, mask=True, cache=cache)
    uncached = make_dataset(manifest, mask=True)
    prepare_images(dataset, workers=1)
    monkeypatch.setattr(Preprocess, "load", lambda *_: pytest.fail("the file was decoded again"))
    monkeypatch.setattr(Preprocess, "load_mask", lambda *_: pytest.fail("decoded again"))
    prepare_images(dataset)
    from_cache = list(dataset)
    monkeypatch.undo()
    for hit, miss in zip(from_cache, uncached, strict=True):
        for key in hit:
            assert torch.equal(torch.as_tensor(hit[key]), torch.as_tensor(miss[key]))


def test_a_changed_file_is_read_again(manifest, tmp_path):
    cache = ImageCache(tmp_path / "cache", 2**24, reserve_bytes=0)
    dataset = make_dataset(manifest, augment=None, cache=cache)
    before = dataset[0]["image"]
    save(tmp_path / "0.png", picture(40, 56, seed=77))
    assert not torch.equal(dataset[0]["image"], before)


def test_converted_and_refused_do_not_share_entries(tmp_path):
    path = save(tmp_path / "grey.png", picture()[..., 0])
    table = pd.DataFrame({"image": [str(path)], "label": [0]})
    cache = ImageCache(tmp_path / "cache", 2**24, reserve_bytes=0)
    prepare_images(ImageDataset(table, Preprocess(32, 32, convert=True), cache=cache))
    with pytest.raises(InputError):
        prepare_images(ImageDataset(table, Preprocess(32, 32), cache=cache))
