"""Listings, batches and parts of predictions, with a predictor that counts."""

import csv
import io
import json
import os
import tracemalloc
from pathlib import Path

import cv2
import numpy as np
import pytest

from attnvgg.data.listing import images_below
from attnvgg.data.transforms import Preprocess
from attnvgg.deploy.batch_prediction import PredictionPace, header_of, predict_parts
from attnvgg.deploy.prediction_job import Job, Part, open_job, parts_folder
from attnvgg.deploy.prediction_listing import Listing, list_images, walk_images
from attnvgg.deploy.predictor import Prediction
from attnvgg.errors import InputError


class Levels:
    """Says of each image how bright it is; remembers the sizes of its batches."""

    classes = ("dark", "bright")

    def __init__(self, preprocess=None):
        self.preprocess = preprocess or Preprocess(size=16, resize=16)
        self.batches = []

    def compute(self, images):
        self.batches.append(len(images))
        return [
            Prediction(np.float32([level]), np.float64([0.5]), int(level > 0), None, None)
            for level in images.mean(axis=(1, 2, 3))
        ]


@pytest.fixture
def pictures(tmp_path):
    """23 pictures, one brighter than the other, of which the fourth is none."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(23):
        cv2.imwrite(str(folder / f"{number:02d}.png"), np.full((16, 16, 3), 11 * number, np.uint8))
    (folder / "03.png").write_text("no image")
    return folder


def rows_of(part):
    return list(csv.reader(io.StringIO(part.rows)))


def test_batches_are_of_one_part_and_rows_in_order(pictures, tmp_path):
    predictor, seen, output = Levels(), [], tmp_path / "p.csv"
    with open_job(output, {}, list_images(pictures), 10) as job:
        pace = PredictionPace(batch_size=4, readers=2)
        done = list(predict_parts(predictor, job, job.missing(), pace, None, seen.append))
        assert [tuple(one) for one in done] == [(0, 10, False), (1, 10, False), (2, 3, False)]
        assert predictor.batches == [3, 4, 2, 4, 4, 2, 3]
        assert seen == [4, 4, 2, 4, 4, 2, 3]
        parts = list(job.parts())
        job.join(output, header_of(job.known, 1))
    assert [part.broken for part in parts] == [1, 0, 0]
    rows = [row for part in parts for row in rows_of(part)]
    assert [int(row[0]) for row in rows] == [n for n in range(23) if n != 3]
    levels = [float(row[2]) for row in rows]
    assert levels == sorted(set(levels))
    assert sum(part.called.get("bright", 0) for part in parts) == sum(level > 0 for level in levels)
    assert output.read_text().splitlines()[1:] == [",".join(row) for row in rows]
    assert output.with_name("p.broken.csv").read_text() == (
        f'index,image,problem\n3,{pictures}/03.png,"is not an image, or a broken one"\n'
    )


def test_a_part_does_not_depend_on_those_before(pictures, tmp_path):
    found = {}
    for name, numbers in (("whole", [0, 1, 2]), ("late", [2])):
        with open_job(tmp_path / f"{name}.csv", {}, list_images(pictures), 10) as job:
            list(predict_parts(Levels(), job, numbers, PredictionPace(4, 1)))
            found[name] = (job.folder / "000002.json").read_bytes()
    assert found["whole"] == found["late"]


def test_few_images_wait_in_memory(pictures, tmp_path, monkeypatch):
    waiting, most = [0], [0]

    class Slow(Levels):
        def compute(self, images):
            waiting[0] -= len(images)
            return super().compute(images)

    load = Preprocess.load

    def counting(self, source):
        waiting[0] += 1
        most[0] = max(most[0], waiting[0])
        return load(self, source)

    monkeypatch.setattr(Preprocess, "load", counting)
    listing = Listing((), iter([(str(pictures / "05.png"),)] * 300))
    with open_job(tmp_path / "p.csv", {}, listing, 64) as job:
        list(predict_parts(Slow(), job, job.missing(), PredictionPace(4, 2)))
    assert waiting == [0]
    assert most[0] <= 4 + 2 * 4 + 2


def test_a_listing_is_not_held_in_memory(tmp_path):
    listing = Listing((), ((f"/a/folder/of/images/{number:09d}.jpg",) for number in range(30_000)))
    tracemalloc.start()
    try:
        with open_job(tmp_path / "p.csv", {}, listing, 256) as job:
            last = list(job.rows(len(job.starts) - 1))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (last[-1].place, last[-1].image) == (29_999, "/a/folder/of/images/000029999.jpg")
    assert peak < 10 * 30_000  # bytes a name, of which each has 33


def test_what_is_not_finite_or_has_no_printable_name_is_passed_over(pictures, tmp_path):
    class Wild(Levels):
        def compute(self, images):
            first, *others = super().compute(images)
            return [first._replace(logits=np.float32([np.nan])), *others]

    odd = os.fsencode(pictures) + b"/\xff.png"
    os.link(pictures / "01.png", odd)
    listing = Listing((), iter([(str(pictures / "00.png"),), (os.fsdecode(odd),)]))
    with open_job(tmp_path / "p.csv", {}, listing, 10) as job:
        list(predict_parts(Wild(), job, [0], PredictionPace()))
        (part,) = job.parts()
    problems = list(csv.reader(io.StringIO(part.problems)))
    assert [row[2] for row in problems] == ["gives no finite logits", "has a name not in UTF-8"]
    assert problems[1][1] == f"{pictures}/\\udcff.png"
    assert part[:2] == (2, 2)


def test_faults_that_are_no_inputs_are_raised(pictures, tmp_path, monkeypatch):
    def fail(self, source):
        raise RuntimeError("a defect")

    monkeypatch.setattr(Preprocess, "load", fail)
    with (
        pytest.raises(RuntimeError, match="a defect"),
        open_job(tmp_path / "p.csv", {}, list_images(pictures), 10) as job,
    ):
        list(predict_parts(Levels(), job, [0], PredictionPace()))


def test_a_damaged_part_is_told(pictures, tmp_path):
    with open_job(tmp_path / "p.csv", {}, list_images(pictures), 23) as job:
        (job.folder / "000000.json").write_text('{"rows": ')
        with pytest.raises(InputError, match=r"000000.json is damaged: remove it and run again"):
            list(job.parts())


@pytest.mark.parametrize("content", ["{", "[]", '{"images": 10}', "empty"])
def test_a_damaged_part_is_made_again(pictures, tmp_path, content):
    with open_job(tmp_path / "p.csv", {}, list_images(pictures), 10) as job:
        job.write(1, Part(10, 1, {}, "x\n" * 9, "x\n"))
        assert job.missing() == [0, 2]
        if content == "empty":
            job.write(1, Part(10, 0, {}, "", ""))
        else:
            (job.folder / "000001.json").write_text(content)
        assert job.missing() == [0, 1, 2]


def test_parts_are_kept_until_the_block_succeeds(pictures, tmp_path):
    output = tmp_path / "p.csv"

    def die_with_one_part():
        with open_job(output, {"model": "a"}, list_images(pictures), 10) as job:
            job.write(1, Part(10, 0, {}, "x\n" * 10, ""))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        die_with_one_part()
    with open_job(output, {"model": "a"}, list_images(pictures), 10) as job:
        assert job.missing() == [0, 2]
    assert not parts_folder(output).exists()


def test_walking_finds_what_listing_finds(tmp_path):
    folder = tmp_path / "root"
    for name in ("b/1.jpg", "a/2.PNG", "a/deep/3.tif", ".hidden/4.jpg", "a/.5.jpg", "6.txt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "7.jpg").touch()
    (folder / "a" / "up").symlink_to(folder)
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    (folder / "again").symlink_to(tmp_path / "elsewhere")
    (folder / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (folder / "folder.png").mkdir()
    found = list(walk_images(folder))
    assert sorted(found) == sorted(str(path) for path in images_below(folder))
    assert len(found) == 5


def test_a_table_is_read_as_people_write_it(tmp_path):
    (tmp_path / "t.csv").write_text(
        "\ufeffsex,image ,label,note,split\n"
        f"male, a.png ,1,x,Validation\n\n,{tmp_path}/deep/../b.png,0,y,\n",
        encoding="utf-8",
    )
    known, rows = list_images(tmp_path / "t.csv")
    assert known == ("label", "group", "split", "sex")
    a, b = (str(tmp_path / name) for name in ("a.png", "b.png"))
    assert list(rows) == [(a, "1", a, "val", "male"), (b, "0", b, "test", "")]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"image,image\na,b\n", "columns of the same name"),
        (b"", "lacks the column image; its columns are: none"),
        (b"image\n", "holds no images"),
        (b"image\na.png\nb.png,1\n", "more values than columns in line 3"),
        (b'image\n"a.png\n', "cannot be read as CSV"),
        (b"image\n\xff.png\n", "cannot be read as CSV in UTF-8"),
    ],
)
def test_tables_that_are_none(tmp_path, content, told):
    (tmp_path / "t.csv").write_bytes(content)
    with (
        pytest.raises(InputError, match=told),
        open_job(tmp_path / "p.csv", {}, list_images(tmp_path / "t.csv"), 10),
    ):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["t.csv"]


def test_columns_of_several_classes():
    assert header_of(("label", "group", "split", "age"), 2) == [
        "index", "image", "label", "group", "split", "logit_0", "logit_1", "probability_0",
        "probability_1", "called", "age",
    ]  # fmt: skip


def test_a_job_of_another_folder_is_the_same(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "listing.jsonl").write_text(json.dumps(["/a.png"]) + "\n")
    job = Job(Path(), (), 1, 10, (0,)).absolute()
    monkeypatch.chdir("/")
    assert [row.image for row in job.rows(0)] == ["/a.png"]
