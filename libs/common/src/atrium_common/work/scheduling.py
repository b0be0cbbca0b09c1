"""What an engine says about itself, so that the right queue stands in front of it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Serial:
    """The engine does one thing at a time, on a `DeviceThread` of its own."""

    @property
    def slots(self) -> int:
        """Requests that run at once: 1."""
        return 1


@dataclass(frozen=True, slots=True)
class Batching:
    """The engine has its own loop that joins requests into batches.

    Attributes:
        slots: Requests that it takes at once, 1 or more.
    """

    slots: int

    def __post_init__(self) -> None:
        if self.slots < 1:
            raise ValueError("slots must be 1 or more")
