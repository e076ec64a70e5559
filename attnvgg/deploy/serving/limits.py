"""What a request may cost, and how one is refused."""

from __future__ import annotations

from dataclasses import dataclass, fields

from attnvgg.errors import InputError

MIB = 2**20


class Refused(InputError):
    """A request that is not answered, and why.

    Attributes:
        status: of HTTP.
        retry_after: seconds after which to try again; none where that would not help.
    """

    def __init__(self, status: int, message: str, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status, self.retry_after = status, retry_after


@dataclass(frozen=True)
class Limits:
    """What a server takes at most: decided before anything is decoded."""

    body_mib: float = 32.0
    """Body of a request in MiB."""
    memory_mib: float = 512.0
    """All bodies that are held at once, in MiB; beyond it requests are told to come back."""
    pixels: int = 50_000_000
    """Pixels of an image."""
    all_pixels: int = 200_000_000
    """Pixels of all images of a request."""
    images: int = 64
    """Images of a request; those of bags do not count."""
    instances: int = 20_000
    """Instances of all bags of a request."""
    values_mib: float = 512.0
    """What is decoded and waits to be computed, of all requests, in MiB; half of it of one."""
    connections: int = 1024
    """Open connections; those beyond are closed at once."""
    requests: int = 256
    """Requests that are read, decoded, computed or answered at once."""
    queue: int = 128
    """Images, or bags, that wait for the engine."""
    body_seconds: float = 20.0
    """For the body of a request to arrive, and for the head of one."""
    seconds: float = 55.0
    """For a request from its head to its answer; SageMaker gives up after 60."""

    def check(self) -> None:
        """Raise InputError unless every limit is above zero."""
        wrong = [
            f"{item.name} {getattr(self, item.name)}: must be above 0"
            for item in fields(self)
            if not getattr(self, item.name) > 0
        ]
        if wrong:
            raise InputError("These limits cannot be:", wrong)

    @property
    def body(self) -> int:
        """Return the bytes of a body."""
        return int(self.body_mib * MIB)
