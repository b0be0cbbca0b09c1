"""Who is next: weighted fair order across tenants. `WorkQueue` calls this.

Start-time fair queueing (Goyal, Vin and Cheng, "Start-time Fair Queuing", SIGCOMM 1996).
Every request has a start tag and a finish tag on a virtual clock:

    start  = max(virtual time when it arrived, finish tag of its tenant's previous request)
    finish = start + cost / weight

The request with the smallest start tag is next, and its start tag becomes the virtual
time. Nothing is measured, so a wrong cost shifts shares and never stops anyone. While
two tenants f and g both have requests waiting, what they were given differs by at most
one request each (theorem 1 of the paper):

    | given_f / weight_f - given_g / weight_g |  <=  cost_f / weight_f + cost_g / weight_g

with the largest cost of each. A tenant who arrives anew waits, in order, for at most one
request of every other tenant, however many they have waiting.

Only the first waiting request of a tenant has a tag; the tags of the others follow from
it. So a request that leaves the queue leaves no trace in anyone's share.
"""

import itertools
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class Waiting(Generic[T]):
    """One request in line; compared by identity.

    Attributes:
        item: What the caller put in line.
        tenant: Whose it is.
        weight: The tenant's weight, above 0.
        cost: Estimated cost, above 0, in any unit that all requests share.
        arrival: Virtual time when it joined the line.
        number: Order of arrival; decides between equal tags.
    """

    item: T
    tenant: str
    weight: float
    cost: float
    arrival: float
    number: int

    @property
    def span(self) -> float:
        """Virtual time that it takes from its tenant."""
        return self.cost / self.weight


@dataclass(slots=True)
class _Flow(Generic[T]):
    """One tenant: its line, and the finish tag of what it was last given."""

    line: deque[Waiting[T]] = field(default_factory=deque)
    finish: float = 0.0

    @property
    def start(self) -> float:
        """Start tag of the first in line."""
        return max(self.line[0].arrival, self.finish)

    @property
    def crowding(self) -> float:
        """How much of the line is this tenant's, for its weight."""
        return len(self.line) / self.line[-1].weight


class FairOrder(Generic[T]):
    """Requests of many tenants, in weighted fair order. Not bounded, not thread-safe.

    Each operation costs at most the number of tenants in line, `in_order` the number
    of requests; a queue is bounded to tens of either.
    """

    def __init__(self) -> None:
        self._flows: dict[str, _Flow[T]] = {}
        self._virtual_time = 0.0
        self._size = 0
        self._numbers = itertools.count()

    def __len__(self) -> int:
        return self._size

    def push(self, item: T, *, tenant: str, weight: float, cost: float) -> Waiting[T]:
        """Puts an item in its tenant's line and returns its place."""
        waiting = Waiting(item, tenant, weight, cost, self._virtual_time, next(self._numbers))
        self._flows.setdefault(tenant, _Flow()).line.append(waiting)
        self._size += 1
        return waiting

    def first(self) -> Waiting[T]:
        """Returns the next request and leaves it in line. `IndexError` if none waits."""
        return self._next().line[0]

    def pop(self) -> Waiting[T]:
        """Takes the next request. `IndexError` if none waits."""
        flow = self._next()
        self._virtual_time = flow.start
        flow.finish = flow.start + flow.line[0].span
        self._size -= 1
        given = flow.line.popleft()
        self._forget_the_caught_up()
        return given

    def remove(self, waiting: Waiting[T]) -> bool:
        """Takes a request out of line; false if it is not in line any more."""
        flow = self._flows.get(waiting.tenant)
        if flow is None or waiting not in flow.line:
            return False
        flow.line.remove(waiting)
        self._size -= 1
        self._forget_the_caught_up()
        return True

    def in_order(self) -> Iterator[Waiting[T]]:
        """Yields everyone in line in the order in which `pop` would, if no one joined."""
        tagged: list[tuple[float, int, Waiting[T]]] = []
        for flow in self._flows.values():
            finish = flow.finish
            for waiting in flow.line:
                start = max(waiting.arrival, finish)
                finish = start + waiting.span
                tagged.append((start, waiting.number, waiting))
        return (waiting for _, _, waiting in sorted(tagged, key=lambda tag: tag[:2]))

    def most_crowding(self) -> Waiting[T]:
        """Finds the request that should give way where there is one too many.

        It is the newest of the tenant that fills most of the line for its weight; of
        two that fill the same, the one that came last. Raises `ValueError` if none waits.
        """
        backlogged = (flow for flow in self._flows.values() if flow.line)
        return max(backlogged, key=lambda flow: (flow.crowding, flow.line[-1].number)).line[-1]

    def reset(self) -> None:
        """Forgets all shares; for the moment when nothing waits and nothing runs.

        An idle server owes nobody anything: what a tenant used while it was alone is
        not held against it.
        """
        self._flows.clear()
        self._virtual_time = 0.0

    def _next(self) -> _Flow[T]:
        backlogged = [flow for flow in self._flows.values() if flow.line]
        if not backlogged:
            raise IndexError("no request waits")
        return min(backlogged, key=lambda flow: (flow.start, flow.line[0].number))

    def _forget_the_caught_up(self) -> None:
        """Drops tenants whose tags say no more than the virtual time does."""
        self._flows = {
            tenant: flow
            for tenant, flow in self._flows.items()
            if flow.line or flow.finish > self._virtual_time
        }
