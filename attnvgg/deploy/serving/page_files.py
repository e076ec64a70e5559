"""Where the page's uploads lie for less than a minute: a folder that nobody else can read."""

from __future__ import annotations

import atexit
import logging
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

logger = logging.getLogger(__name__)

AGE = 40.0  # seconds that a file is kept
PERIOD = 10.0  # seconds between two looks; a file is gone after their sum, which is below 60
PREFIX = "attnvgg-page-"
VARIABLE = "GRADIO_TEMP_DIR"  # where Gradio writes uploads, and the only place it serves them from


class UploadFolder:
    """A temporary folder of this process, emptied of what is old, and gone at the end.

    Gradio knows no other way to be told of it than an environment variable, so that is set.

    Args:
        age: seconds after which a file is deleted.
        period: seconds between two looks for such files.

    Attributes:
        path: of the folder; only its owner can enter it.
        also: called at each look.
    """

    def __init__(self, age: float = AGE, period: float = PERIOD) -> None:
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX)).resolve()  # mode 0700
        self._age, self._period = age, period
        self.also: Callable[[], None] = lambda: None
        self._closed = threading.Event()
        os.environ[VARIABLE] = str(self.path)
        atexit.register(self.close)
        threading.Thread(target=self._watch, name="uploads", daemon=True).start()

    def sweep(self, age: float | None = None) -> None:
        """Delete what is older.

        Args:
            age: in seconds; None: that of the folder.
        """
        before = time.time() - (self._age if age is None else age)
        for root, folders, files in os.walk(self.path, topdown=False):
            for name in [*files, *folders]:
                _delete_old(Path(root) / name, before)

    def close(self) -> None:
        """Delete everything; once is enough, twice does no harm."""
        self._closed.set()
        atexit.unregister(self.close)
        shutil.rmtree(self.path, ignore_errors=True)
        if os.environ.get(VARIABLE) == str(self.path):
            del os.environ[VARIABLE]

    def _watch(self) -> None:
        while not self._closed.wait(self._period):
            try:
                self.sweep()
                self.also()
            except OSError as error:  # tried again at the next look
                logger.error("Uploads could not be deleted: %s.", error)


def _delete_old(path: Path, before: float) -> None:
    """Delete a file, or an empty folder, that was last written before a moment."""
    try:
        if path.lstat().st_mtime >= before:
            return
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        else:
            path.unlink()
    except FileNotFoundError:
        return  # somebody else did
    except OSError:
        if not path.is_dir():
            raise  # a folder that is not empty any more is left for the next time
