"""The melanoma photographs from Kaggle: fetched in pieces, verified, in place all at once."""

from __future__ import annotations

import io
import logging
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from requests.exceptions import ContentDecodingError, InvalidHeader, RequestException

from attnvgg.data.archives import BadArchive, extract_archive
from attnvgg.data.attempts import DELAYS, REJECTED, persist
from attnvgg.data.listing import KAGGLE_IMAGES
from attnvgg.data.partial import Partial, ResumingAdapter
from attnvgg.errors import InputError

logger = logging.getLogger(__name__)

DATASET = "shonenkov/melanoma-merged-external-data-512x512-jpeg"
TABLE = "marking.csv"
NOT_A_HEADER = "Invalid header value"  # says http.client, and quotes it

CREDENTIALS = (
    "Kaggle needs to know who downloads: make a token at https://www.kaggle.com/settings/api and "
    "give it as KAGGLE_API_TOKEN in the environment, or in the file ~/.kaggle/access_token, or "
    "give a user name and key as KAGGLE_USERNAME and KAGGLE_KEY in the environment, or in the "
    "file ~/.kaggle/kaggle.json."
)


def download_kaggle(
    root: Path,
    dataset: str = DATASET,
    keep_archive: bool = False,
    delays: Sequence[float] = DELAYS,
) -> Path:
    """Download a Kaggle dataset of the melanoma layout and return its folder.

    A cut download goes on where it ended, also in a later call; the folder appears only when
    everything in it has been verified, and the archive is deleted only after that. An archive
    that was put at `<root>/<name>.zip` by hand is extracted instead, and stays.

    Args:
        root: folder that will hold the folder `<name>`.
        dataset: `owner/name` as in the address of its page.
        keep_archive: keep the archive as `<root>/<name>.zip`.
        delays: seconds to wait before each further attempt; their number limits the attempts.

    Raises:
        InputError: whatever the user can set right, in one sentence without any credentials.
    """
    if not re.fullmatch(r"[\w-]+/[\w-]+", dataset):
        raise InputError(f"{dataset!r} is not the name of a Kaggle dataset: it reads owner/name.")
    root = Path(root)
    folder = root / dataset.split("/")[1]
    if _is_there(folder):
        return folder
    try:
        root.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise InputError(f"{root} is not a folder.") from error
    with _alone(folder):
        if not _is_there(folder):
            _remove_leftovers(folder)
            _download(folder, dataset, keep_archive, delays)
            logger.info("%s is complete.", folder)
    return folder


def _download(folder: Path, dataset: str, keep_archive: bool, delays: Sequence[float]) -> None:
    archive = folder.with_name(f"{folder.name}.zip")
    if archive.exists():
        logger.info("Extracting %s, which is there already.", archive)
        try:
            extract_archive(archive, folder, _check_layout)
        except BadArchive as error:
            raise error.about(f"{archive} cannot be used") from error
        return
    partial = Partial(folder.with_name(f".{folder.name}.zip.part"))
    if not partial.complete:
        api = persist(_sign_in, dataset, partial, delays)
        persist(lambda: _fetch(api, dataset, partial), dataset, partial, delays)
    try:
        extract_archive(partial.path, folder, _check_layout)
    except BadArchive as error:
        partial.discard()
        raise error.about(
            f"What Kaggle sent for {dataset} cannot be used and is deleted"
        ) from error
    if keep_archive:
        partial.path.replace(archive)
    partial.discard()


def _is_there(folder: Path) -> bool:
    """Return whether the dataset is in place; raise if something else is."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    try:
        _check_layout(folder)
    except BadArchive as error:
        raise InputError(
            f"{folder} exists but is not the dataset ({error.message}): move it away first."
        ) from error
    logger.info("%s is there already: nothing to do.", folder)
    return True


def _check_layout(folder: Path) -> None:
    if not (folder / TABLE).is_file():
        raise BadArchive(f"it holds no {TABLE}")
    if next((folder / KAGGLE_IMAGES).glob("*.jpg"), None) is None:
        raise BadArchive(f"it holds no images {KAGGLE_IMAGES}/*.jpg")


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    try:
        with FileLock(folder.with_name(f".{folder.name}.lock"), timeout=0):
            yield
    except Timeout as error:
        raise InputError(f"Another process is downloading {folder.name}: let it finish.") from error


def _remove_leftovers(folder: Path) -> None:
    """Remove what an extraction left behind that was killed; nobody else is extracting now."""
    for path in folder.parent.glob(f".{folder.name}-*"):
        if path.is_dir() and re.fullmatch(r"[a-z0-9_]{8}", path.name[len(folder.name) + 2 :]):
            shutil.rmtree(path, ignore_errors=True)


def _sign_in() -> Any:
    """Return the Kaggle API, signed in with whichever credentials the user has."""
    with _hushed():
        from kaggle.api.kaggle_api_extended import KaggleApi
        from kagglesdk.kaggle_env import get_access_token_from_env

        api = KaggleApi()
        api.args = []
        try:
            api.authenticate()
        except SystemExit:
            rejected = get_access_token_from_env()[0] is not None
            raise InputError(REJECTED if rejected else CREDENTIALS) from None
        except RequestException:
            raise
        except ValueError:  # of a file of credentials
            raise InputError(REJECTED) from None
    return api


@contextmanager
def _hushed() -> Iterator[None]:
    """Keep from the terminal what the kaggle package prints, and errors that quote credentials.

    Importing it signs in once already and prints help when it cannot; with VERBOSE set it prints
    whole requests; a token that no header can hold is quoted by the ValueError of http.client.
    Any other ValueError is the package's, at an answer that it was not made for.
    """
    try:
        with redirect_stdout(io.StringIO()):
            yield
    except InvalidHeader:
        raise InputError(REJECTED) from None
    except (InputError, RequestException):
        raise
    except ValueError as error:
        if isinstance(error, UnicodeEncodeError) or str(error).startswith(NOT_A_HEADER):
            raise InputError(REJECTED) from None
        raise ContentDecodingError("not the answer that was asked for") from None


def _fetch(api: Any, dataset: str, partial: Partial) -> None:
    """Ask Kaggle where the archive is, and append to the partial one what is missing."""
    from kagglesdk.datasets.types.dataset_api_service import ApiDownloadDatasetRequest

    request = ApiDownloadDatasetRequest()
    request.owner_slug, request.dataset_slug = dataset.split("/")
    with _hushed(), api.build_kaggle_client() as client:
        session = client.http_client()._session
        for scheme in ("https://", "http://"):
            session.mount(scheme, ResumingAdapter(partial.resume_headers))
        # The body is a stream; it stays readable after the client has closed its idle connections.
        response = client.datasets.dataset_api_client.download_dataset(request)
    with closing(response):
        partial.receive(response, request.dataset_slug)
