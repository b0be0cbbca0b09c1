"""The port behind which Tesseract stands: words out of a grey picture that is upright.

`strategy.py` speaks to it; `library.py` and `program.py` are its adapters.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from atrium_img2text.engines.ocr.upright import Grey
from atrium_img2text.reading import PageLayout


@dataclass(frozen=True, slots=True)
class FoundWord:
    """A word as it was found.

    Attributes:
        text: Not empty, without space around it.
        left: Its edges, in pixels of the picture.
        top: As left.
        right: As left; above it.
        bottom: As top; above it.
        confidence: 0 to 1.
        line: Which line of the picture it belongs to, from 0.
        block: Which block.
        paragraph: Which paragraph of the picture.
    """

    text: str
    left: int
    top: int
    right: int
    bottom: int
    confidence: float
    line: int
    block: int = 0
    paragraph: int = 0


@dataclass(frozen=True, slots=True)
class Orientation:
    """Which way up a picture is by its letters.

    Attributes:
        turn: Degrees to turn it clockwise for it to be upright: 0, 90, 180 or -90.
        confidence: As Tesseract tells it, 0 or more, without an upper end.
        script: ISO 15924, or ``""``.
    """

    turn: int
    confidence: float
    script: str


class Recognizer(Protocol):
    """Reads pictures; used by one thread at a time."""

    def read(
        self,
        grey: Grey,
        *,
        languages: str,
        layout: PageLayout,
        resolution: int | None,
        seconds: float,
    ) -> Sequence[FoundWord]:
        """Reads what is there, in reading order.

        Args:
            grey: The picture.
            languages: Names of Tesseract's data files, joined by ``+``.
            layout: Where lines are looked for.
            resolution: Pixels per inch; ``None`` to have it estimated.
            seconds: Longest time to take, above 0.

        Raises:
            TimeoutError: It took longer.
        """
        ...

    def orientation(self, grey: Grey, *, seconds: float) -> Orientation | None:
        """Finds out which way up the letters are; ``None`` if there are too few of them.

        Raises:
            TimeoutError: It took longer than `seconds`.
        """
        ...

    def close(self) -> None:
        """Frees memory."""
        ...


def share_of(percent: float) -> float:
    """Returns Tesseract's confidence as a share, 0 to 1."""
    return min(max(percent / 100.0, 0.0), 1.0)
