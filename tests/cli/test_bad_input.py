"""Wrong input: one sentence, exit code 2, the offenders listed, and no run left behind."""

import errno
import shutil
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from attnvgg.cli import main as front
from attnvgg.cli.train import main


@pytest.fixture
def cases(pictures, tmp_path):
    """A private copy of the pictures, to spoil."""
    folder = tmp_path / "cases"
    shutil.copytree(pictures.parent, folder)
    return folder / "cases.csv"


@pytest.fixture
def refused(small, tmp_path, capsys):
    """Return the message of a refused training run."""

    def attempt(*options):
        out = tmp_path / "runs"
        code = main([*small, f"--out={out}", "--name=a", *map(str, options)])
        message = capsys.readouterr().err
        assert code == 2, message
        assert message.startswith("error: ")
        assert "Traceback" not in message
        assert not (out / "a").exists()
        return message

    return attempt


def edit(path, change):
    table = pd.read_csv(path)
    changed = change(table)
    (table if changed is None else changed).to_csv(path, index=False)


def from_csv(path):
    return "--data.source=csv", f"--data.root={path}"


def test_missing_folder(refused, tmp_path):
    assert "nowhere" in refused("--data.source=folders", f"--data.root={tmp_path / 'nowhere'}")


@pytest.mark.parametrize("source", ["kaggle", "isic2016", "isic2017", "isic-archive", "folders"])
def test_empty_folder(refused, tmp_path, source):
    (tmp_path / "empty").mkdir()
    assert "empty" in refused(f"--data.source={source}", f"--data.root={tmp_path / 'empty'}")


def test_columns_missing(refused, cases):
    edit(cases, lambda table: table.drop(columns="label"))
    assert "label" in refused(*from_csv(cases))


def test_labels_that_are_not_integers(refused, cases):
    edit(cases, lambda table: table.astype({"label": object}).assign(label="benign"))
    assert "benign" in refused(*from_csv(cases))


def test_duplicate_images(refused, cases):
    edit(cases, lambda table: pd.concat([table, table.iloc[[3]]]))
    assert "03.png" in refused(*from_csv(cases))


def test_missing_images_are_listed(refused, cases):
    for name in ("04.png", "17.png"):
        (cases.parent / name).unlink()
    message = refused(*from_csv(cases))
    assert "04.png" in message
    assert "17.png" in message


def test_links_to_no_image_are_listed(refused, cases, tmp_path):
    for name in ("benign", "malignant"):
        (tmp_path / "root" / name).mkdir(parents=True)
        (tmp_path / "root" / name / "a.png").touch()
    (tmp_path / "root" / "benign" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    message = refused("--data.source=folders", f"--data.root={tmp_path / 'root'}")
    assert "gone.png" in message


def test_one_class_only(refused, cases):
    edit(cases, lambda table: table.assign(label=0))
    assert "class" in refused(*from_csv(cases))


def test_one_class_in_published_validation(refused, cases):
    def publish(table):
        table["split"] = "train"
        table.loc[table["label"].eq(0) & (table.index > 50), "split"] = "val"
        table.loc[table["group"].isin(["p00", "p19"]), "split"] = "test"

    edit(cases, publish)
    assert "val" in refused(*from_csv(cases))


def test_group_on_two_sides(refused, cases):
    def publish(table):
        table["split"] = np.resize(["train", "val", "test"], len(table))
        table["group"] = np.resize(["a", "b"], len(table))

    edit(cases, publish)
    assert "group" in refused(*from_csv(cases))


def test_fewer_images_than_a_batch(refused, cases):
    assert "--batch_size" in refused(*from_csv(cases), "--batch_size=64")


def write_bytes(content):
    return lambda path: path.write_bytes(content)


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def cut_jpeg(path):
    Image.effect_noise((64, 64), 60).convert("RGB").save(path)
    cut(path)


def save_as(mode, **options):
    return lambda path: Image.new(mode, (64, 64)).save(path, **options)


def rotated(path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (64, 48)).save(path, exif=exif)


def bomb(path):
    """A PNG whose header announces 20,000 x 20,000 pixels."""
    Image.new("RGB", (16, 16)).save(path)
    content = bytearray(path.read_bytes())
    content[16:24] = (20_000).to_bytes(4, "big") * 2
    path.write_bytes(bytes(content))


BROKEN = {
    "empty": ("png", write_bytes(b"")),
    "truncated png": ("png", cut),
    "truncated jpeg": (
        "jpg",
        cut_jpeg,
    ),
    "not an image": ("png", write_bytes(b"hello, this is a text")),
    "16 bit": ("png", lambda p: cv2.imwrite(str(p), np.zeros((64, 64, 3), np.uint16))),
    "CMYK": ("jpg", save_as("CMYK")),
    "grey": ("png", save_as("L")),
    "palette": ("png", save_as("P")),
    "alpha": ("png", save_as("RGBA")),
    "EXIF": ("jpg", rotated),
    "1x1": ("png", lambda p: Image.new("RGB", (1, 1)).save(p)),
    "20,000": ("png", bomb),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_images_are_all_listed(refused, cases, kind):
    suffix, spoil = BROKEN[kind]
    names = [f"05.{suffix}", f"44.{suffix}"]
    for name in names:
        spoil(cases.parent / name)

    def rename(table):
        table.loc[[5, 44], "image"] = names

    edit(cases, rename)
    message = refused(*from_csv(cases))
    assert all(name in message for name in names)


@pytest.mark.parametrize("kind", ["16 bit", "CMYK", "grey", "palette", "alpha", "EXIF"])
def test_odd_formats_can_be_converted(cases, small, tmp_path, kind):
    suffix, spoil = BROKEN[kind]
    spoil(cases.parent / f"05.{suffix}")

    def rename(table):
        table.loc[5, "image"] = f"05.{suffix}"

    edit(cases, rename)
    options = [*small, *from_csv(cases), "--epochs=1", "--data.convert=true", f"--out={tmp_path}"]
    assert main([*options, "--name=a"]) == 0


def test_unknown_flag(refused):
    assert "--learning_rate" in refused("--learning_rate=1")


def test_unknown_key_in_the_file(refused, tmp_path):
    (tmp_path / "a.yaml").write_text("data:\n  colour: red\n")
    assert "colour" in refused(f"--config={tmp_path / 'a.yaml'}")


def test_wrong_value(refused):
    assert "epochs" in refused("--epochs=many")


@pytest.mark.parametrize(
    "option",
    [
        "--seed=-1", "--epochs=0", "--batch_size=0", "--eval_batch_size=0", "--accumulate=0",
        "--data.workers=-1", "--threads=0", "--optim.step_epochs=0", "--optim.lr=-1",
        "--optim.lr=nan", "--data.image_size=16", "--data.positive_repeats=0",
        "--optim.warmup_steps=-3", "--model.dropout=1", "--optim.average=1", "--name=../x",
        "--model.name=vgg", "--model.backbone=resnet", "--model.num_classes=3",
        "--loss.alpha=[1,2,3]", "--loss.gamma=-1", "--data.classes=[one]", "--data.crop=0",
        "--data.resize=20", "--data.fractions=[1,2,3]", "--data.keep_negatives=0",
    ],
)  # fmt: skip
def test_options_that_cannot_be(refused, cases, option):
    refused(*from_csv(cases), option)


def test_a_binary_file_of_options(refused, tmp_path):
    (tmp_path / "a.yaml").write_bytes(bytes(range(256)))
    assert "--config" in refused(f"--config={tmp_path / 'a.yaml'}")


def test_root_without_source(refused, tmp_path):
    assert "--data.source" in refused(f"--data.root={tmp_path}")


def test_gpu_that_is_not_there(refused, cases):
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert "GPU" in refused(*from_csv(cases), "--device=cuda")


def test_weights_that_cannot_be_fetched(refused, cases):
    """On real data a random start would be a silent loss: the three ways out are named."""
    message = refused(*from_csv(cases), "--model.weights=imagenet")
    assert "ImageNet" in message


def test_unwritable_run_folder(csv_options, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main([*csv_options, f"--out={tmp_path / 'file'}", "--name=a"]) == 2
    assert "--out" in capsys.readouterr().err


def test_existing_run_is_not_overwritten(trained, csv_options, capsys):
    before = (trained / "config.yaml").read_bytes()
    assert main([*csv_options, f"--out={trained.parent}", f"--name={trained.name}"]) == 2
    assert "--resume" in capsys.readouterr().err
    assert (trained / "config.yaml").read_bytes() == before


def test_too_little_disk(refused, cases, monkeypatch):
    usage = shutil.disk_usage("/")._replace(free=10_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    assert "MiB" in refused(*from_csv(cases))


def test_disk_full_while_saving(csv_options, tmp_path, capsys, monkeypatch):
    """The state on disk is the one before, whole, and training goes on from it."""
    options = [*csv_options, "--epochs=2", f"--out={tmp_path}", "--name=a"]
    write, calls = Path.write_bytes, []

    def failing(path, content):
        calls.append(path)
        if len(calls) == 3:
            write(path, content[:100])
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return write(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", failing)
        assert main(options) == 2
    assert "No space left" in capsys.readouterr().err
    assert [p.name for p in (tmp_path / "a" / "last").iterdir()] == ["state.pt"]
    assert main(["--resume", str(tmp_path / "a")]) == 0


@pytest.mark.parametrize("damage", ["cut", "text", "other"])
def test_damaged_state(trained, csv_options, tmp_path, capsys, damage):
    run = tmp_path / "a"
    shutil.copytree(trained, run)
    state = run / "last" / "state.pt"
    if damage == "cut":
        cut(state)
    elif damage == "text":
        state.write_text("not a checkpoint")
    else:
        text = (run / "config.yaml").read_text()
        (run / "config.yaml").write_text(text.replace("vgg11_bn", "vgg13_bn"))
    assert main(["--resume", str(run), "--epochs=3"]) == 2
    message = capsys.readouterr().err
    assert "state.pt" in message


def test_resume_of_nothing(tmp_path, capsys):
    assert main(["--resume", str(tmp_path / "none")]) == 2
    assert "none" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words", [[], ["fly"], ["train", "--bogus=1"], ["evaluate"], ["evaluate", "nowhere"]]
)
def test_front_door(words, capsys):
    assert front.main(words) == 2
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err + captured.out
