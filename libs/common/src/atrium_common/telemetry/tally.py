"""Histograms as plain numbers, so that queues and engines count without Prometheus.

Each is written by one thread (an event loop's or an engine's) and read by the scrape's,
which turns it into samples: no lock, no lookup where the work is done.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Final

SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
"""Upper bounds for durations: from an embedding's milliseconds to a long picture's minutes."""
ROWS: Final = (1, 2, 4, 8, 16, 32, 64, 128)
"""Upper bounds for the rows of a batch."""

_MOST_REASONS: Final = 200
"""A provider's answers must not make series without end."""
_OTHER: Final = "OTHER"


class Tally:
    """Counts values by size.

    Attributes:
        bounds: Upper bounds of the buckets, ascending; a last one takes what is above.
        total: Sum of the values.
    """

    __slots__ = ("_buckets", "bounds", "total")

    def __init__(self, bounds: Sequence[float] = SECONDS) -> None:
        """Counts nothing yet."""
        self.bounds = bounds
        self.total = 0.0
        self._buckets = [0] * (len(bounds) + 1)

    def observe(self, value: float) -> None:
        """Counts a value."""
        self._buckets[bisect_left(self.bounds, value)] += 1
        self.total += value

    @property
    def count(self) -> int:
        """Values counted."""
        return sum(self._buckets)

    def buckets(self) -> Sequence[tuple[str, float]]:
        """Gives the cumulative counts by upper bound, as Prometheus writes them."""
        names: Iterable[str] = [*map(str, self.bounds), "+Inf"]
        return list(zip(names, accumulate(self._buckets), strict=True))


class Reasons:
    """Counts errors by where and why; what is past `_MOST_REASONS` is counted together."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()
        self._known: set[str] = set()

    def add(self, where: str, reason: str) -> None:
        """Counts an error."""
        if reason not in self._known:
            if len(self._known) >= _MOST_REASONS:
                reason = _OTHER
            self._known.add(reason)
        self.counts[where, reason] += 1
