"""How long work takes, from what recent work took. `WorkQueue` calls this.

It answers two questions: can a request start before its deadline, and when is trying
again worth while. Both answers lean to hope: a request that is refused although it would
have made it is worse than one that is let in and expires.
"""

import heapq
from collections.abc import Iterable

_SMOOTHING = 0.2
"""Weight of the newest observation: about the last ten requests count."""


class Forecast:
    """Expected service times, in seconds; knows nothing until it has seen work."""

    def __init__(self) -> None:
        self._mean_duration: float | None = None
        self._seconds_per_cost = 0.0

    def observe(self, *, cost: float, duration: float) -> None:
        """Learns from a finished request.

        Args:
            cost: What it was estimated at, above 0.
            duration: Seconds that it held its slot.
        """
        if self._mean_duration is None:
            self._mean_duration = duration
            self._seconds_per_cost = duration / cost
            return
        self._mean_duration += _SMOOTHING * (duration - self._mean_duration)
        self._seconds_per_cost += _SMOOTHING * (duration / cost - self._seconds_per_cost)

    def duration(self, cost: float) -> float:
        """Returns the seconds that a request of this cost should take; 0 if unknown.

        By its cost or by the mean, whichever is less: costs are upper bounds, and a
        chat that may fill its window rarely does.
        """
        if self._mean_duration is None:
            return 0.0
        return min(self._mean_duration, cost * self._seconds_per_cost)

    def wait(
        self, *, slots: int, running: Iterable[tuple[float, float]], ahead: Iterable[float]
    ) -> float:
        """Returns the seconds until a slot is free for the request after `ahead`.

        Plays the schedule through: each request ahead takes the slot that frees first.

        Args:
            slots: Slots of the engine.
            running: Cost and elapsed seconds of each request that holds a slot.
            ahead: Costs of the requests that go first, in order.
        """
        free_at = [max(0.0, self.duration(cost) - elapsed) for cost, elapsed in running]
        free_at += [0.0] * (slots - len(free_at))
        heapq.heapify(free_at)
        for cost in ahead:
            heapq.heapreplace(free_at, free_at[0] + self.duration(cost))
        return free_at[0]
