"""The port that admission counts through; adapters are named by their technology."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Protocol

import msgspec

from atrium_gateway.quota.limits import LimitState, Meter


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


class QuotaStore(Protocol):
    """Counts reservations against limits, atomically over all limits of a request.

    `amounts` run parallel to `meters` and are internal counts, 0 or more. The limits
    travel with the call, so a changed limit holds at once. Every method raises
    `Unavailable` while the store can't be reached; whether it acted is then not known.
    """

    @property
    def shared(self) -> bool:
        """Whether other processes count in it, too: notes are kept for those alone."""
        ...

    async def generation(self) -> int:
        """When the store began to count, Unix milliseconds.

        Another answer than before: it lost what it knew, reservations included.
        """
        ...

    async def tenants(self) -> Sequence[str]:
        """Tenants that may have reservations; a sample where they are many."""
        ...

    async def tend(self) -> None:
        """Does what calls without an answer left over; called twice a second."""
        ...

    async def seed(self, tenant: str, meter: Meter, used: int) -> None:
        """Starts the counter of `meter` with what its window has consumed already.

        Does nothing if it was started; what was restored before counts, too.
        """
        ...

    async def reserve(
        self,
        tenant: str,
        reservation_id: str,
        meters: Sequence[Meter],
        amounts: Sequence[int],
        *,
        lease: timedelta,
        note: bytes = b"",
    ) -> tuple[LimitState, ...]:
        """Reserves all amounts or none.

        Args:
            tenant: Whose it is; all of the meters are this tenant's.
            reservation_id: Names it in the calls that follow.
            meters: Limits that apply.
            amounts: What to reserve of each.
            lease: Time after which it may be claimed.
            note: Kept with it, for whoever claims it.

        Returns:
            The state of each limit after the reservation, tightest first.

        Raises:
            QuotaExceeded: A limit refuses; nothing was reserved.
            Unseeded: Counters must be seeded first; nothing was reserved.
        """
        ...

    async def renew(
        self,
        tenant: str,
        reservation_id: str,
        meters: Sequence[Meter],
        amounts: Sequence[int] | None,
        *,
        lease: timedelta,
        note: bytes = b"",
    ) -> None:
        """Prolongs the lease, and grows the reservation to the new totals if given.

        Args:
            tenant: Whose it is.
            reservation_id: The reservation.
            meters: Those that it was made with.
            amounts: New totals, or ``None``; what is smaller than before stays.
            lease: Time until it may be claimed, from now.
            note: Replaces the old one; ``b""`` keeps it.

        Raises:
            QuotaExceeded: The growth does not fit; amounts and lease are as before.
            NotFound: There is no such reservation, or its lease has passed.
        """
        ...

    async def restore(
        self,
        tenant: str,
        reservation_id: str,
        meters: Sequence[Meter],
        amounts: Sequence[int],
        *,
        lease: timedelta,
        note: bytes = b"",
    ) -> None:
        """Makes a reservation again that a store has lost, whatever the limits say now.

        Does nothing if there is or was one of this id. Counters that must be seeded still
        must be, and then hold it as well.
        """
        ...

    async def book(
        self, tenant: str, reservation_id: str, meters: Sequence[Meter], amounts: Sequence[int]
    ) -> None:
        """Counts what was consumed, and is in the ledger, while the store was away.

        Idempotent by id. Counters that must be seeded are left alone: the ledger tells them.
        """
        ...

    async def settle(
        self, tenant: str, reservation_id: str, amounts: Sequence[int], *, note: bytes = b""
    ) -> bool:
        """Replaces the reserved amounts by the actual ones, above the limit too.

        Args:
            tenant: Whose it is.
            reservation_id: The reservation.
            amounts: What was consumed, by meter.
            note: What `find` tells of it for a while from now on.

        Returns:
            False if there was no such reservation (settled before, claimed): nothing changed.
        """
        ...

    async def void(self, tenant: str, reservation_id: str) -> None:
        """Makes sure that a reservation whose answer was lost holds nothing, now or later."""
        ...

    async def find(self, tenant: str, reservation_id: str) -> Found | None:
        """Tells of a reservation; ``None`` if it never was, was lost or is long closed."""
        ...

    async def claim(self, tenant: str, reservation_id: str) -> bytes | None:
        """Ends a reservation whose lease has passed: the reserved amounts stay consumed.

        Returns:
            Its note, for one caller alone; ``None`` if it is closed or its lease holds.
        """
        ...

    async def lapsed(self, tenant: str) -> Sequence[str]:
        """Ids of a tenant's reservations whose lease has passed, for `claim`."""
        ...
