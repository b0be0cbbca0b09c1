"""What an operator's check of finished pictures meets; off unless one is configured."""

from typing import Literal, Protocol

from atrium_common.catalogue import CatalogueError
from atrium_diffusion.domain import Pixels

SafetyName = Literal["off", "opennsfw"]
"""The checks that there are."""


class SafetyCheck(Protocol):
    """Looks at pictures before they are sent."""

    async def unsafe(self, pixels: Pixels) -> bool:
        """Says whether a picture is to be withheld. Never blocks the event loop."""
        ...


def open_safety_check(name: SafetyName) -> SafetyCheck | None:
    """Opens a check by its name; its library is imported only now.

    Raises:
        CatalogueError: The library is not installed.
    """
    if name == "off":
        return None
    try:
        from atrium_diffusion.safety_opennsfw import OpenNsfwCheck
    except ModuleNotFoundError as err:
        raise CatalogueError(
            f"the safety check {name!r} needs {err.name!r}; install atrium-diffusion[safety]"
        ) from err
    return OpenNsfwCheck()
