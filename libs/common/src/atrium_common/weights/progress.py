"""How a fetch tells what it is doing; the CLI draws it, tests record it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Progress:
    """One step of a fetch.

    Attributes:
        model: Catalogue id.
        stage: ``"fetch"`` while bytes arrive, ``"check"`` while they are unpacked and
            their digests are computed, ``"ready"`` once, at the end.
        done: Bytes of the stage so far.
        total: Bytes of the stage, 0 if unknown.
    """

    model: str
    stage: Literal["fetch", "check", "ready"]
    done: int = 0
    total: int = 0


Report = Callable[[Progress], None]


def silent(progress: Progress) -> None:
    """Reports nothing."""
