"""What a report's period is read from: signed pieces of roll-ups and events.

A period is told by the coarsest sums that are near its ends, and what these have too much or
too little is taken off or added from finer ones: "the month, less the hours before eight on
its first day". Counts are whole numbers, so that is exact, and never more than half a month
of days, half a day of hours and half an hour of events is read at either end.
`reports_query.py` makes SQL of it.
"""

from collections.abc import Callable, Iterator, Sequence
from enum import IntEnum
from itertools import pairwise
from typing import NamedTuple

from atrium_common.errors import InvalidArgument
from atrium_gateway.usage.reports_calendar import DAY_MS, HOUR_MS, MAX_DAYS
from atrium_gateway.usage.zones import Bounds, day_around, month_around

Around = Callable[[int], Bounds]
"""The span around a Unix millisecond: its start, and that of the next."""


class Level(IntEnum):
    """What a piece is read from, the coarsest first."""

    MONTH = 0
    DAY = 1
    HOUR = 2
    EVENT = 3


_ROWS = {Level.MONTH: 1.0 / (30 * DAY_MS), Level.DAY: 1.0 / DAY_MS, Level.HOUR: 0.8 / HOUR_MS}
_ROWS[Level.EVENT] = 4.0 / HOUR_MS
"""Rows to be read per millisecond, in those of a day: what makes a cover cheap."""


class Piece(NamedTuple):
    """Sums that count with a sign.

    Attributes:
        level: Where they are.
        start: First instant, Unix ms; a boundary of the level.
        end: The first one after it.
        sign: 1 or -1.
        bucket: Start of the bucket that they belong to, Unix ms; ``None`` where that follows
            from their own time.
    """

    level: Level
    start: int
    end: int
    sign: int
    bucket: int | None


def cover(start: int, end: int, zone: str, *, bucket: int | None = 0) -> Sequence[Piece]:
    """Covers ``[start, end)``, both Unix ms, in the cheapest way.

    Args:
        start: First instant.
        end: The one after the last, not before `start`.
        zone: Zone of the days and months that are kept.
        bucket: The bucket of all of it.
    """
    covers = (_cover(start, end, zone, coarsest, bucket) for coarsest in Level)
    return min(covers, key=_cost)


def cover_buckets(start: int, end: int, around: Around, zone: str) -> Sequence[Piece]:
    """The same, each piece within one bucket.

    Args:
        start: First instant.
        end: The one after the last.
        around: Bounds of the bucket around an instant.
        zone: Zone of the days that are kept.
    """
    return [
        piece
        for bucket, first, beyond in _split(start, end, around)
        for piece in cover(first, beyond, zone, bucket=bucket)
    ]


def cover_whole(start: int, end: int, around: Around, zone: str, level: Level) -> Sequence[Piece]:
    """The same where the buckets are the spans of `level`: whole ones are read as one piece."""
    head, tail = around(start), around(end)
    first, last = (start if head[0] == start else head[1]), tail[0]
    if first >= last:
        return cover_buckets(start, end, around, zone)
    middle = Piece(level, first, last, 1, None)
    return [
        *cover_buckets(start, first, around, zone),
        middle,
        *cover_buckets(last, end, around, zone),
    ]


def cover_from_hours(start: int, end: int) -> Sequence[Piece]:
    """Covers a day from hours, and from events where it begins within one; it is its bucket."""
    return _cover(start, end, "UTC", Level.HOUR, start)


def hour_around(ms: int) -> Bounds:
    """The hour of UTC around a Unix millisecond."""
    start = ms - ms % HOUR_MS
    return start, start + HOUR_MS


def check_days(start: int, end: int) -> None:
    """Refuses a report that is split into too many days.

    Raises:
        InvalidArgument: More than `MAX_DAYS`.
    """
    if end - start > MAX_DAYS * DAY_MS:
        raise InvalidArgument(
            f"A report by days spans at most {MAX_DAYS} of them.", field="end_time"
        )


def _split(start: int, end: int, around: Around) -> Iterator[tuple[int, int, int]]:
    """Bucket, start and end of each part of ``[start, end)`` that lies in one bucket."""
    while start < end:
        bucket, following = around(start)
        yield bucket, start, min(end, following)
        start = following


def _cover(start: int, end: int, zone: str, coarsest: Level, bucket: int | None) -> Sequence[Piece]:
    """Goes from the coarsest boundaries near both ends to the ends themselves."""
    left, right = _approach(start, zone, coarsest), _approach(end, zone, coarsest)
    pieces = [Piece(left[0][0], left[0][1], right[0][1], 1, bucket)]
    for (_, a), (level, b) in pairwise(left):
        pieces.append(Piece(level, a, b, -1, bucket))
    for (_, a), (level, b) in pairwise(right):
        pieces.append(Piece(level, a, b, 1, bucket))
    return [_forward(piece) for piece in pieces if piece.start != piece.end]


def _approach(at: int, zone: str, coarsest: Level) -> list[tuple[Level, int]]:
    """Instants from near to `at`, and what is read to get to each from the one before.

    The first says what is read between the first of both ends.
    """
    path: list[tuple[Level, int]] = []
    for step in _steps(at, zone, coarsest):
        path.append(step)
        if step[1] == at:
            break
    return path


def _steps(at: int, zone: str, coarsest: Level) -> Iterator[tuple[Level, int]]:
    if coarsest <= Level.MONTH:
        yield Level.MONTH, _nearest(at, month_around(at, zone))
    if coarsest <= Level.DAY:
        day = _nearest(at, day_around(at, zone))
        yield Level.DAY, day
        # A day may begin within an hour: events lead from it to where hours begin.
        yield Level.EVENT, _nearest(day, hour_around(day))
    if coarsest <= Level.HOUR:
        yield Level.HOUR, _nearest(at, hour_around(at))
    yield Level.EVENT, at


def _nearest(at: int, bounds: Bounds) -> int:
    return bounds[0] if at - bounds[0] <= bounds[1] - at else bounds[1]


def _forward(piece: Piece) -> Piece:
    if piece.start < piece.end:
        return piece
    return piece._replace(start=piece.end, end=piece.start, sign=-piece.sign)


def _cost(pieces: Sequence[Piece]) -> float:
    return sum((piece.end - piece.start) * _ROWS[piece.level] for piece in pieces)
