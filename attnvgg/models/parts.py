"""Parts of a model that know how they were built: encoders, pools, heads."""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

from torch import nn

from attnvgg.errors import InputError


class Part(nn.Module):
    """A module that can be built again from plain values.

    Attributes:
        name: under which it stands in its registry.
        spec: `{"name": ..., **arguments}`, as JSON.

    Args:
        arguments: what the constructor needs to build the same part, as JSON.
    """

    name: ClassVar[str]
    spec: dict[str, Any]

    def __init__(self, **arguments: Any) -> None:
        super().__init__()
        self.spec = {"name": self.name, **arguments}

    @classmethod
    def build(cls, registry: Mapping[str, type[Self]], spec: Mapping[str, Any]) -> Self:
        """Return the part of this registry that `spec` describes.

        Raises:
            InputError: an unknown name, or arguments that it does not take.
        """
        arguments = dict(spec)
        name = arguments.pop("name", None)
        if name not in registry:
            known = ", ".join(registry)
            raise InputError(f"There is no {cls.__name__.lower()} {name!r}; known are {known}.")
        try:
            return registry[name](**arguments)
        except TypeError as error:
            raise InputError(
                f"The {cls.__name__.lower()} {name!r} cannot be built: {error}."
            ) from None
