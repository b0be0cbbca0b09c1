"""The bounded, weighted fair queue in front of an engine. Servicers enter it.

    async with queue.enter(tenant=..., cost=..., deadline=...) as ticket:
        ...  # this request holds one of the engine's slots

At most `slots` requests are inside, at most `max_queue` wait, and `FairOrder` says who is
next. Whatever can't be served is refused at once: when the queue is full, and when the
deadline will have passed before a slot is free.

A full queue is shared fairly too. If one tenant's requests fill it, the newest of them
gives way to another tenant's newcomer, so that a flood shuts out only who sent it.
"""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta

from atrium_common.errors import DeadlineExceeded, Overloaded
from atrium_common.telemetry.semantics import INFERENCE, QUEUE, REQUEST_MODEL
from atrium_common.telemetry.spans import SILENCE, hop
from atrium_common.telemetry.tally import Tally
from atrium_common.work.fair import FairOrder, Waiting
from atrium_common.work.forecast import Forecast
from atrium_common.work.scheduling import Batching, Serial

_RETRY_AFTER_UNKNOWN = timedelta(seconds=1)
"""When to try again where no work was seen yet."""


@dataclass(frozen=True, slots=True, eq=False)
class Ticket:
    """A slot of the engine, held while the `async with` block runs.

    Attributes:
        queue_time: How long the request waited for it.
        cost: Its estimated cost.
        started: Reading of the queue's clock when it got the slot.
    """

    queue_time: timedelta
    cost: float
    started: float


@dataclass(frozen=True, slots=True, eq=False)
class _Claim:
    """A request that waits: its outcome is a ticket, or ``None`` if it gave way."""

    outcome: asyncio.Future[Ticket | None]
    arrived: float


def _hop(name: str, model: str) -> AbstractContextManager[object]:
    return hop(name, {REQUEST_MODEL: model}) if model else SILENCE


class WorkQueue:
    """Admits requests to an engine: bounded, in weighted fair order across tenants.

    Belongs to one event loop.

    Attributes:
        slots: Requests that may run at once.
        waits: How many seconds those waited that got a slot.
    """

    def __init__(
        self, *, slots: int, max_queue: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Makes an empty queue.

        Args:
            slots: Requests that may run at once, 1 or more.
            max_queue: Requests that may wait, 0 or more.
            clock: Monotonic seconds; deadlines are readings of it.
        """
        if slots < 1 or max_queue < 0:
            raise ValueError("slots must be 1 or more and max_queue 0 or more")
        self.slots = slots
        self.waits = Tally()
        self._max_queue = max_queue
        self._clock = clock
        self._order: FairOrder[_Claim] = FairOrder()
        self._running: set[Ticket] = set()
        self._forecast = Forecast()

    @classmethod
    def for_engine(cls, scheduling: Serial | Batching, *, max_queue: int) -> "WorkQueue":
        """Makes the queue that an engine of this kind needs."""
        return cls(slots=scheduling.slots, max_queue=max_queue)

    @property
    def depth(self) -> int:
        """Requests that wait."""
        return len(self._order)

    @property
    def running(self) -> int:
        """Requests that hold a slot."""
        return len(self._running)

    @asynccontextmanager
    async def enter(
        self,
        *,
        tenant: str,
        weight: float = 1.0,
        cost: float = 1.0,
        deadline: float | None = None,
        model: str = "",
    ) -> AsyncIterator[Ticket]:
        """Waits for a slot and holds it while the block runs.

        Leaving while waiting, by cancellation or deadline, leaves no trace.

        Args:
            tenant: Whose request it is; shares are between tenants.
            weight: The tenant's weight against the others, above 0.
            cost: Estimated cost, above 0; every request of a queue uses the same unit
                (tokens, seconds of audio, megapixel-steps).
            deadline: Reading of the queue's clock at which the caller gives up.
            model: Catalogue id of what runs on the slot: wait and work are spans of the
                caller's trace then, where one is recorded.

        Raises:
            Overloaded: The queue is full, or this request gave way to a tenant with
                fewer; `retry_after` says when to try again.
            DeadlineExceeded: The deadline passed, or will before a slot is free.
        """
        if not (weight > 0 and cost > 0):
            raise ValueError("weight and cost must be above 0")
        with _hop(QUEUE, model):
            ticket = await self._ticket(tenant=tenant, weight=weight, cost=cost, deadline=deadline)
        try:
            with _hop(INFERENCE, model):
                yield ticket
        finally:
            self._forecast.observe(cost=cost, duration=self._clock() - ticket.started)
            self._release(ticket)

    async def _ticket(
        self, *, tenant: str, weight: float, cost: float, deadline: float | None
    ) -> Ticket:
        arrived = self._clock()
        remaining = None if deadline is None else deadline - arrived
        if remaining is not None and remaining <= 0:
            raise DeadlineExceeded("The deadline had passed when the request arrived.")
        claim = _Claim(asyncio.get_running_loop().create_future(), arrived)
        place = self._order.push(claim, tenant=tenant, weight=weight, cost=cost)
        try:
            self._give_slots()
            if not claim.outcome.done():
                self._check_deadline(place, remaining)
                self._check_room(place)
            async with asyncio.timeout(remaining):
                ticket = await claim.outcome
        except TimeoutError as err:
            self._withdraw(place)
            raise DeadlineExceeded("The deadline passed while the request waited.") from err
        except BaseException:
            self._withdraw(place)
            raise
        if ticket is None:
            raise self._overloaded("The queue is full, and others have less of it.")
        return ticket

    def _check_deadline(self, place: Waiting[_Claim], remaining: float | None) -> None:
        """Refuses a request whose deadline will have passed before it gets a slot."""
        if remaining is None:
            return
        ahead = itertools.takewhile(lambda other: other is not place, self._order.in_order())
        wait = self._expected_wait(ahead)
        if wait > remaining:
            raise DeadlineExceeded(
                f"The deadline is in {remaining:.1f} s, a free slot in about {wait:.1f} s.",
                reason="DEADLINE_INFEASIBLE",
                retry_after=timedelta(seconds=wait),
            )

    def _check_room(self, place: Waiting[_Claim]) -> None:
        """Refuses a request if there is one too many, or makes another one give way."""
        if len(self._order) <= self._max_queue:
            return
        loser = self._order.most_crowding()
        if loser is place:
            raise self._overloaded("The queue is full.")
        self._order.remove(loser)
        if not loser.item.outcome.done():
            loser.item.outcome.set_result(None)

    def _give_slots(self) -> None:
        """Gives free slots to whoever is next."""
        while len(self._running) < self.slots and len(self._order):
            place = self._order.first()
            claim = place.item
            if claim.outcome.done():  # cancelled, and its task has not run since
                self._order.remove(place)
                continue
            self._order.pop()
            now = self._clock()
            ticket = Ticket(timedelta(seconds=now - claim.arrived), place.cost, now)
            self._running.add(ticket)
            self.waits.observe(now - claim.arrived)
            claim.outcome.set_result(ticket)

    def _withdraw(self, place: Waiting[_Claim]) -> None:
        """Undoes what a request has when its wait is broken off at any moment."""
        self._order.remove(place)
        outcome = place.item.outcome
        if outcome.done() and not outcome.cancelled():
            ticket = outcome.result()
            if ticket is not None:  # the slot came just before the cancellation
                self._release(ticket)

    def _release(self, ticket: Ticket) -> None:
        """Takes a slot back and gives it to the next."""
        self._running.remove(ticket)
        self._give_slots()
        if not self._running:
            self._order.reset()

    def _expected_wait(self, ahead: Iterable[Waiting[_Claim]]) -> float:
        """Returns the seconds until whoever follows `ahead` gets a slot."""
        now = self._clock()
        return self._forecast.wait(
            slots=self.slots,
            running=((ticket.cost, now - ticket.started) for ticket in self._running),
            ahead=(other.cost for other in ahead),
        )

    def _overloaded(self, message: str) -> Overloaded:
        """Makes the refusal: try again when half of those who wait have had their turn."""
        half = itertools.islice(self._order.in_order(), (len(self._order) + 1) // 2)
        wait = timedelta(seconds=self._expected_wait(half))
        return Overloaded(message, retry_after=wait or _RETRY_AFTER_UNKNOWN)
