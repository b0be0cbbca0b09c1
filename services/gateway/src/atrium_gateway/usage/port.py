"""The port through which admission keeps its books; `ledger.py` is the adapter."""

from collections.abc import Awaitable
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

    def close(self, event: UsageEvent) -> Awaitable[None]:
        """Notes an event, at once; the awaitable ends when it is on disk."""
        ...

    async def synced(self) -> None:
        """Returns when everything noted so far is on disk."""
        ...

    async def knows(self, event_id: str) -> bool:
        """Whether there is an event of this id."""
        ...

    async def consumed(self, tenant: str, meter: Meter) -> int:
        """What `tenant` consumed in the running window of `meter`, internal counts."""
        ...
