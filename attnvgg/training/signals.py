"""Being told to stop: finish the step, save, leave."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType


class Interrupted(Exception):
    """The run was told to stop and has saved its state.

    Attributes:
        signum: number of the signal.
    """

    def __init__(self, message: str, signum: int) -> None:
        super().__init__(message)
        self.signum = signum or signal.SIGTERM  # 0 where another process was told


class StopRequest:
    """Context in which the first SIGTERM or Ctrl-C is a wish, and the second one the usual end.

    Attributes:
        signum: number of the signal received, 0 until then.
    """

    def __init__(self) -> None:
        self.signum = 0

    def __enter__(self) -> StopRequest:
        self._before = {
            number: signal.signal(number, self._receive)
            for number in (signal.SIGTERM, signal.SIGINT)
        }
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._restore()

    def __bool__(self) -> bool:
        return self.signum != 0

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.signum = number
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
