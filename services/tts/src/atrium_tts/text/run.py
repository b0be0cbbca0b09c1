"""A stretch of text in one language and at one rate, which knows where each character is from.

The readers (`plain.py`, `ssml.py`) make runs and `utterances.py` cuts them, so that
cutting is written once for both kinds of input.
"""

from dataclasses import dataclass, field
from datetime import timedelta


@dataclass(slots=True, kw_only=True)
class Run:
    """What is said between two places where speech must stop or change.

    `starts`, `ends`, `counts` and `solid` have one item per code point of `text`.

    Attributes:
        language: BCP 47; ``""`` means the job's.
        rate: Factor on the job's speed.
        pause_before: Silence before it.
        pause_after: Silence after it.
        text: What is said.
        starts: Where the character begins in the input, in code points.
        ends: Where it ends in the input, exclusive.
        counts: Code points of the input that it counts for.
        solid: True if it must stay in one utterance with the character before it,
            because both stand for one stretch of the input.
    """

    language: str = ""
    rate: float = 1.0
    pause_before: timedelta = timedelta()
    pause_after: timedelta = timedelta()
    text: str = ""
    starts: list[int] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    solid: list[bool] = field(default_factory=list)

    def add(self, text: str, starts: list[int], ends: list[int]) -> None:
        """Appends characters that each stand for their own place in the input."""
        self.text += text
        self.starts += starts
        self.ends += ends
        self.counts += [1] * len(text)
        self.solid += [False] * len(text)

    def add_solid(self, text: str, *, start: int, end: int, count: int) -> None:
        """Appends characters that together stand for one stretch of the input.

        Args:
            text: What is said instead of the stretch; not empty.
            start: Where the stretch begins.
            end: Where it ends, exclusive.
            count: Code points that the whole counts for.
        """
        self.text += text
        self.starts += [start] * len(text)
        self.ends += [end] * len(text)
        self.counts += [count] + [0] * (len(text) - 1)
        self.solid += [False] + [True] * (len(text) - 1)

    def extend(self, other: "Run") -> None:
        """Appends another run's characters, apart by a line end."""
        if self.text and other.text:
            self.add("\n", [self.ends[-1]], [self.ends[-1]])
            self.counts[-1] = 0
        self.text += other.text
        self.starts += other.starts
        self.ends += other.ends
        self.counts += other.counts
        self.solid += other.solid
