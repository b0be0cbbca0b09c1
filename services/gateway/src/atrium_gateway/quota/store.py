"""The port that admission counts through; adapters are named by their technology."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Protocol

from atrium_gateway.quota.limits import LimitState, Meter


class QuotaStore(Protocol):
    """Counts reservations against limits, atomically over all limits of a request.

    `amounts` run parallel to `meters` and are internal counts, 0 or more. The limits
    travel with the call, so a changed limit holds at once.
    """

    def unseeded(self, meters: Sequence[Meter]) -> Sequence[Meter]:
        """Those of `meters` that need what the ledger knows before they count right."""
        ...

    async def seed(self, meter: Meter, used: int) -> None:
        """Starts the counter of `meter` with what its window has consumed already.

        Does nothing if the counter exists.
        """
        ...

    async def reserve(
        self,
        reservation_id: str,
        meters: Sequence[Meter],
        amounts: Sequence[int],
        *,
        lease: timedelta,
    ) -> tuple[LimitState, ...]:
        """Reserves all amounts or none.

        Returns:
            The state of each limit after the reservation, tightest first.

        Raises:
            QuotaExceeded: A limit refuses; nothing was reserved.
        """
        ...

    async def renew(
        self, reservation_id: str, amounts: Sequence[int] | None, *, lease: timedelta
    ) -> None:
        """Prolongs the lease, and grows the reservation to the new totals if given.

        Raises:
            QuotaExceeded: The growth does not fit; amounts and lease are as before.
            NotFound: There is no such reservation, or its lease has passed.
        """
        ...

    async def settle(self, reservation_id: str, amounts: Sequence[int]) -> None:
        """Replaces the reserved amounts by the actual ones, above the limit too.

        A reservation that is not there (settled before, expired) changes nothing.
        """
        ...

    async def abandon(self, reservation_id: str) -> None:
        """Ends a reservation whose lease has passed: the reserved amounts stay consumed."""
        ...
