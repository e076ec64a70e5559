"""The one exception that means: the input is wrong, not the program."""

from collections.abc import Iterable

SHOWN = 20


class InputError(ValueError):
    """Wrong input, told in one sentence, with the rows or files that offend.

    The command line prints it without a traceback and exits with code 2.
    """

    def __init__(self, message: str, offenders: Iterable[object] = ()) -> None:
        self.message = message
        self.offenders = [str(offender) for offender in offenders]
        super().__init__("\n".join([message, *self._listing()]))

    def _listing(self) -> list[str]:
        hidden = len(self.offenders) - SHOWN
        lines = [f"  {offender}" for offender in self.offenders[:SHOWN]]
        return [*lines, f"  ... and {hidden} more"] if hidden > 0 else lines
