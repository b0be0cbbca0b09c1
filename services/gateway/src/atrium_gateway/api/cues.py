"""Cuts a transcript into what is shown at once; `subtitles.py` writes the cues down.

A segment of a long recording is up to 30 s. Its words are laid into cues of two lines that
can be read, the best way over the whole segment: few cues, that end with sentences, at
clauses or in pauses.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import accumulate, pairwise

from atrium_gateway.upstreams.speech import Segment

LINE_COLUMNS = 42
"""Longest line; an ideograph takes two columns. A longer word has a line of its own."""
LONGEST = timedelta(seconds=7)
"""Longest cue."""

_PAUSE = timedelta(seconds=0.4)
# Of every script that Whisper writes, so the characters that look like others are meant.
_SENTENCE_ENDS = re.compile(r"[.!?…。！？]['\"”’»)\]]*$")  # noqa: RUF001
_CLAUSE_ENDS = re.compile(r"[,;:–—，、；：]['\"”’»)\]]*$")  # noqa: RUF001
_PIECES = re.compile(r"\s*(?:[\u2e80-\uffef]|[^\s\u2e80-\uffef]+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cue:
    """Text of one or two lines and when it is shown, in whole milliseconds."""

    start: timedelta
    end: timedelta
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Word:
    """A word with the space before it; `columns` counts without that space."""

    start: timedelta
    end: timedelta
    text: str
    columns: int
    spaced: bool


def make_cues(segments: Iterable[Segment]) -> Iterator[Cue]:
    """Yields the cues of a transcript: in order, without overlap, each word in one of them.

    A cue holds words of one segment, and a segment that fits into a cue stays whole. The
    times are those of the words, where they spell the segment's text; else a segment's
    time is spread over its text.

    Args:
        segments: In order.
    """
    shown = timedelta()
    for segment in segments:
        for words in _grouped(_words(segment)):
            start = max(shown, _whole(words[0].start))
            end = min(max(_whole(words[-1].end), start), start + LONGEST)
            shown = max(end, start + timedelta(milliseconds=1))
            yield Cue(start=start, end=shown, text=_lines(words))


def _words(segment: Segment) -> list[_Word]:
    spelled = "".join(word.text for word in segment.words)
    if segment.words and spelled.split() == segment.text.split():
        parts = [(word.text, word.start, word.end) for word in segment.words]
    else:
        parts = list(_spread(segment))
    return [
        _Word(
            start=start,
            end=end,
            text=" ".join(text.split()),
            columns=_columns(" ".join(text.split())),
            spaced=text[0].isspace(),
        )
        for text, start, end in parts
        if text.strip()
    ]


def _spread(segment: Segment) -> Iterator[tuple[str, timedelta, timedelta]]:
    pieces = _PIECES.findall(segment.text)
    ends = list(accumulate(_columns(piece) for piece in pieces))
    step = (segment.end - segment.start) / max(1, ends[-1] if ends else 1)
    for piece, (before, after) in zip(pieces, pairwise([0, *ends]), strict=True):
        yield piece, segment.start + before * step, segment.start + after * step


def _grouped(words: Sequence[_Word]) -> Iterator[Sequence[_Word]]:
    """Splits words where the sum of `_cost` and `_break_cost` over the cues is least."""
    best: list[tuple[float, int]] = [(0.0, 0)]
    for stop in range(1, len(words) + 1):
        after = _break_cost(words[stop - 1], words[stop]) if stop < len(words) else 0.0
        choices: list[tuple[float, int]] = []
        for start in range(stop - 1, -1, -1):
            cost = _cost(words[start:stop])
            if cost is None and choices:
                break
            choices.append((best[start][0] + (cost or 1.0) + after, start))
        best.append(min(choices))
    stops = [len(words)] if words else []
    while stops and (start := best[stops[-1]][1]):
        stops.append(start)
    for start, stop in pairwise([0, *reversed(stops)]):
        yield words[start:stop]


def _cost(words: Sequence[_Word]) -> float | None:
    """Gives 1 to 1.5, more the emptier a cue of these words is; ``None`` if they don't fit."""
    columns = _width(words)
    if words[-1].end - words[0].start > LONGEST:
        return None
    if columns > LINE_COLUMNS and _line_break(words) is None:
        return None
    return 1.0 + 0.5 * max(0.0, 1.0 - columns / (2 * LINE_COLUMNS)) ** 2


def _break_cost(before: _Word, after: _Word) -> float:
    """Says how much it disturbs to end a cue here; an additional cue costs 1."""
    if _SENTENCE_ENDS.search(before.text) and (after.spaced or not before.text.isascii()):
        return 0.0
    if _glued(before, after):
        return 5.0
    if _CLAUSE_ENDS.search(before.text) or after.start - before.end >= _PAUSE:
        return 0.5
    return 1.5


def _lines(words: Sequence[_Word]) -> str:
    middle = _line_break(words) if _width(words) > LINE_COLUMNS else None
    if middle is None:
        return _text(words)
    return f"{_text(words[:middle])}\n{_text(words[middle:])}"


def _line_break(words: Sequence[_Word]) -> int | None:
    """Finds where the second line begins, the lines as even as they can be; or ``None``."""
    fitting: list[tuple[bool, int, int]] = []
    first, whole = 0, _width(words)
    for middle, word in enumerate(words[:-1], start=1):
        first += word.columns + (word.spaced and middle > 1)
        second = whole - first - words[middle].spaced
        if max(first, second) <= LINE_COLUMNS:
            fitting.append((_glued(word, words[middle]), abs(first - second), middle))
    return min(fitting)[2] if fitting else None


def _glued(before: _Word, after: _Word) -> bool:
    """Whether both are one word to a reader; ideographs stand without spaces anyway."""
    return not after.spaced and (before.text.isascii() or after.text.isascii())


def _width(words: Sequence[_Word]) -> int:
    return sum(word.columns + word.spaced for word in words) - words[0].spaced


def _text(words: Sequence[_Word]) -> str:
    return "".join(f"{' ' * word.spaced}{word.text}" for word in words).strip()


def _columns(text: str) -> int:
    return sum(1 + (unicodedata.east_asian_width(char) in "WF") for char in text)


def _whole(moment: timedelta) -> timedelta:
    return timedelta(milliseconds=round(moment / timedelta(milliseconds=1)))
