"""The port through which admission keeps its books; `ledger.py` is the adapter."""

from collections.abc import Awaitable, Collection, Sequence
from typing import Protocol

from atrium_gateway.quota.limits import Meter
from atrium_gateway.usage.records import OpenRecord, UsageEvent


class Ledger(Protocol):
    """Where admission records what it granted and what came of it."""

    @property
    def failing(self) -> bool:
        """Whether the last write to disk failed."""
        ...

    def open(self, record: OpenRecord) -> None:
        """Notes a granted reservation; on disk within milliseconds."""
        ...

    def close(self, events: Sequence[UsageEvent]) -> Awaitable[None]:
        """Notes the events of a reservation, at once and together.

        Args:
            events: One, or one per model that worked; the first has the reservation's id.

        Returns:
            What ends when all of them are on disk.
        """
        ...

    def forget(self, reservation_id: str) -> None:
        """Notes that another gateway process has closed a reservation."""
        ...

    async def synced(self) -> None:
        """Returns when everything noted so far is on disk."""
        ...

    async def closed(self, ids: Collection[str]) -> Collection[str]:
        """Which of these reservations have an event, whichever process closed them."""
        ...

    async def consumed(self, tenant: str, meter: Meter, apart: Sequence[str] = ()) -> int:
        """What `tenant` consumed in the running window of `meter`, internal counts.

        Args:
            tenant: Whose.
            meter: What is counted.
            apart: Ids of reservations whose events do not count.
        """
        ...
