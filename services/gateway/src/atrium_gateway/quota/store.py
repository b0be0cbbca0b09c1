"""The ports that admission counts through; adapters are named by their technology.

`QuotaStore` is what any store does, `SharedQuotaStore` what one does that several gateways
count in. `resilient.py` makes a `GatewayQuotaStore` of a `RemoteQuotaStore`, which may be away.
"""

from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Protocol

import msgspec

from atrium_gateway.quota.limits import LimitState, Meter
from atrium_gateway.quota.verdict import Reading

Consumed = Callable[[Sequence[str]], Awaitable[int]]
"""Tells what the ledger knows of a counter's window, without the reservations of these ids."""


class Unseeded(Exception):
    """Counters need what the ledger knows before they count right: seed them, ask again.

    Attributes:
        meters: Theirs.
    """

    def __init__(self, meters: Sequence[Meter]) -> None:
        super().__init__("counters are not seeded")
        self.meters = tuple(meters)


class Found(msgspec.Struct, frozen=True):
    """A reservation that the store knows.

    Attributes:
        note: Its own while it is open; the one that it was settled with once it is closed.
        left: Time until its lease passes, zero if it has passed; ``None`` if it is closed.
    """

    note: bytes
    left: timedelta | None


class Hold(msgspec.Struct, frozen=True):
    """What a reservation holds, or asks to hold.

    Attributes:
        tenant: Whose it is; all of the meters are this tenant's.
        id: Names it in the calls that follow.
        meters: Limits that apply.
        amounts: How much of each in all, internal counts, 0 or more.
        lease: Time after which it may be claimed, from now.
        note: Kept with it in a shared store, for whoever claims it.
        paid: An outside provider charges for the work: it may be counted in the shared
            store alone.
    """

    tenant: str
    id: str
    meters: Sequence[Meter]
    amounts: Sequence[int]
    lease: timedelta
    note: bytes = b""
    paid: bool = False


class QuotaStore(Protocol):
    """Counts reservations against limits, atomically over all limits of a request.

    The limits travel with the call, so a changed limit holds at once. Every method raises
    `Unavailable` while the store can't be reached; whether it acted is then not known.
    """

    async def seed(self, tenant: str, meter: Meter, consumed: Consumed) -> None:
        """Starts the counter of `meter` with what its window has consumed already.

        Does nothing if it was started. What was restored before counts as restored: the
        ledger is asked for the rest.
        """
        ...

    async def peek(self, tenant: str, meters: Sequence[Meter]) -> Sequence[Reading]:
        """Reads counters, running work included; takes nothing.

        Returns:
            One reading per meter, in their order.

        Raises:
            Unseeded: Counters must be seeded first.
        """
        ...

    async def reserve(self, hold: Hold) -> tuple[LimitState, ...]:
        """Reserves all amounts or none.

        Returns:
            The state of each limit after the reservation, tightest first.

        Raises:
            QuotaExceeded: A limit refuses; nothing was reserved.
            Unseeded: Counters must be seeded first; nothing was reserved.
        """
        ...

    async def renew(self, hold: Hold, *, grow: bool) -> None:
        """Prolongs a lease.

        Args:
            hold: The reservation, with the meters that it was made with.
            grow: Whether it grows to the hold's amounts, and its note is replaced; what is
                smaller than before stays.

        Raises:
            QuotaExceeded: The growth does not fit; amounts and lease are as before.
            Unseeded: Counters must be seeded first; nothing changed.
            NotFound: There is no such reservation, or its lease has passed.
        """
        ...

    async def attach(self, hold: Hold) -> bool:
        """Counts a reservation in limits that were set since it was made, whatever they say.

        A counter that must be seeded still must be; the ledger is asked for the rest then.

        Args:
            hold: The reservation with all of its meters, those that it has first, and its new
                note; its lease stays as it is.

        Returns:
            False if it is closed: nothing changed.
        """
        ...

    async def settle(
        self, tenant: str, reservation_id: str, amounts: Sequence[int], *, note: bytes = b""
    ) -> bool:
        """Replaces the reserved amounts by the actual ones, above the limit too.

        Args:
            tenant: Whose it is.
            reservation_id: The reservation.
            amounts: What was consumed, by meter. Of meters that were attached and are not
                told, what was reserved stays.
            note: What `find` tells of it for a while from now on. A shared store keeps it
                until it is confirmed that the events in it are on disk.

        Returns:
            False if there was no such reservation (settled before, claimed): nothing changed.
        """
        ...

    async def find(self, tenant: str, reservation_id: str) -> Found | None:
        """Tells of a reservation; ``None`` if it never was, was lost or is long closed."""
        ...

    async def claim(self, tenant: str, reservation_id: str, *, note: bytes = b"") -> bytes | None:
        """Ends a reservation whose lease has passed: the reserved amounts stay consumed.

        Args:
            tenant: Whose it is.
            reservation_id: The reservation.
            note: What `find` tells of it from now on, as in `settle`.

        Returns:
            Its note, for one caller alone; ``None`` if it is closed or its lease holds.
        """
        ...


class SharedQuotaStore(QuotaStore, Protocol):
    """A store that several gateways count in, and which may lose what it knew."""

    async def generation(self) -> int:
        """When the store began to count, Unix milliseconds.

        Another answer than before: it lost what it knew, reservations included.
        """
        ...

    async def restore(self, hold: Hold) -> bool:
        """Makes sure that a reservation is held for its lease, whatever the limits say now.

        One that the store lost is made again: counters that must be seeded still must be,
        and then hold it as well. One whose lease has passed has it back, unless it was
        claimed.

        Returns:
            False if it is closed: nothing changed.
        """
        ...

    async def tenants(self) -> Sequence[str]:
        """Tenants that may have reservations; a sample where they are many."""
        ...

    async def lapsed(self, tenant: str) -> Sequence[str]:
        """Ids of a tenant's reservations whose lease has passed, for `claim`.

        Also of those that were closed with a note a while ago and not confirmed since: who
        closed them may not have lived to write the events.
        """
        ...


class RemoteQuotaStore(SharedQuotaStore, Protocol):
    """A shared store that is now and then away, and is told afterwards."""

    async def void(self, tenant: str, reservation_id: str) -> None:
        """Makes sure that a reservation whose answer was lost holds nothing, now or later."""
        ...

    async def book(self, hold: Hold) -> None:
        """Counts what was consumed, and is in the ledger, while the store was away.

        Its amounts are what was consumed. Idempotent by id.
        """
        ...

    async def confirm(self, tenant: str, reservation_ids: Sequence[str]) -> None:
        """Says that the events of closed reservations are on disk; `lapsed` forgets them.

        One that is open is left alone. Idempotent.
        """
        ...


class GatewayQuotaStore(SharedQuotaStore, Protocol):
    """A shared store as a gateway uses it: it keeps what the store could not be told."""

    @property
    def returning(self) -> bool:
        """Whether it was away just now: other gateways may still have to tell it something."""
        ...

    def keep(self, hold: Hold) -> None:
        """Has a renewal that failed repeated as soon as the store is back."""
        ...

    def written(self, tenant: str, reservation_id: str) -> None:
        """Has it confirmed, with others, that a reservation's events are on disk."""
        ...

    async def tend(self) -> None:
        """Tells what is left to tell, work that runs first; called twice a second."""
        ...
