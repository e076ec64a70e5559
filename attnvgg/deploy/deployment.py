"""An endpoint on Amazon SageMaker: what it is made of, told in words, and its model's archive."""

from __future__ import annotations

import gzip
import io
import re
import tarfile
from dataclasses import dataclass
from pathlib import Path

from attnvgg.deploy.training_job import S3, find_wrong
from attnvgg.errors import InputError
from attnvgg.files import atomic_path
from attnvgg.models.pretrained import CONFIG_FILE, WEIGHTS_FILE

ARCHIVE = "model.tar.gz"
IMAGE = re.compile(r"\d{12}\.dkr\.ecr\.[a-z0-9-]+\.amazonaws\.com(\.cn)?/[a-z0-9._/-]+([:@].+)?")
STARTUP_SECONDS = 480  # SageMaker's own limit for the first good answer to /ping


@dataclass(frozen=True)
class Deployment:
    """An endpoint.

    Attributes:
        name: begins the name of the endpoint, and of what it is made of.
        model: run folder or saved model here, or `s3://.../model.tar.gz`.
        role: ARN of the role that the endpoint has.
        image: URI of the container's image in ECR.
        output: S3 prefix below which the model is uploaded.
        instance_type: of the machines.
        instance_count: machines.
        region: none: that of the user's AWS settings.
    """

    name: str
    model: str
    role: str
    image: str
    output: str
    instance_type: str = "ml.c6i.xlarge"
    instance_count: int = 1
    region: str | None = None

    @property
    def is_remote(self) -> bool:
        """Tell whether the model is on S3 already."""
        return self.model.startswith("s3://")


def check_deployment(deployment: Deployment) -> None:
    """Refuse what no endpoint can have, before anything is uploaded.

    Raises:
        InputError: listing it.
    """
    wrong = find_wrong(
        deployment.name, deployment.role, deployment.output, deployment.instance_type,
        "ml.c6i.xlarge",
    )  # fmt: skip
    if not IMAGE.fullmatch(deployment.image):
        wrong.append(
            f"the image {deployment.image}: SageMaker takes those of ECR only, "
            "<account>.dkr.ecr.<region>.amazonaws.com/<repository>:<tag>"
        )
    if deployment.instance_count < 1:
        wrong.append("instances: at least 1")
    if deployment.is_remote and not (
        S3.fullmatch(deployment.model) and deployment.model.endswith(".tar.gz")
    ):
        wrong.append(f"the model {deployment.model}: s3://bucket/prefix/{ARCHIVE}")
    if wrong:
        raise InputError("These parts of the endpoint cannot be:", wrong)
    if not deployment.is_remote:
        model_folder(deployment.model)


def describe_deployment(deployment: Deployment) -> list[str]:
    """Return what `deploy` would do, line by line; nothing is imported or asked for.

    Args:
        deployment: checked.
    """
    named = f"{deployment.name}-<time>"
    lines = []
    archive = deployment.model
    if not deployment.is_remote:
        folder = model_folder(deployment.model)
        size = sum((folder / name).stat().st_size for name in (CONFIG_FILE, WEIGHTS_FILE)) / 2**20
        archive = f"{deployment.output.rstrip('/')}/{named}/{ARCHIVE}"
        lines.append(f"upload     {folder}, {size:,.1f} MiB before packing")
    return [
        *lines,
        f"model      {named}: {archive}, without network",
        f"image      {deployment.image}",
        f"role       {deployment.role}",
        f"region     {deployment.region or 'of your AWS settings'}",
        f"endpoint   {named}: {deployment.instance_count} x {deployment.instance_type}, which cost "
        "until it is deleted",
    ]


def model_folder(place: str | Path) -> Path:
    """Return the folder of a saved model, or that of the best model of a run.

    Raises:
        InputError: there is no model in it.
    """
    folder = Path(place)
    best = folder / "best" if (folder / "best").is_dir() else folder
    missing = [name for name in (CONFIG_FILE, WEIGHTS_FILE) if not (best / name).is_file()]
    if missing:
        raise InputError(
            f"{folder} is neither a run with a model nor a saved model, these files are missing:",
            [best / name for name in missing],
        )
    return best


def pack_model(place: str | Path, archive: Path) -> None:
    """Write the archive of a model: its two files as plain ones, and the same bytes every time.

    Args:
        place: see `model_folder`.
        archive: file to write, `model.tar.gz`.

    Raises:
        InputError: see `model_folder`.
    """
    folder = model_folder(place)
    with (
        atomic_path(archive) as temporary,
        temporary.open("wb") as stream,
        # neither name nor time: the archive depends on the model alone; weights hardly get smaller
        gzip.GzipFile("", "wb", compresslevel=1, fileobj=stream, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as tar,
    ):
        for name in (CONFIG_FILE, WEIGHTS_FILE):
            # links are followed: a folder of the hub's cache has nothing else
            content = (folder / name).read_bytes()
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o644
            tar.addfile(entry, io.BytesIO(content))
