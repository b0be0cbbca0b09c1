"""What an operator's check of finished pictures meets; off unless one is configured."""

from typing import Protocol

from atrium_diffusion.domain import Pixels


class SafetyCheck(Protocol):
    """Looks at pictures before they are sent."""

    async def unsafe(self, pixels: Pixels) -> bool:
        """Says whether a picture is to be withheld. Never blocks the event loop."""
        ...
