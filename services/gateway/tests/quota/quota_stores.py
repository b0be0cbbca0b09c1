"""Quota stores as their tests use them: a clock that they move, meters, and a store to ask."""

from datetime import UTC, datetime, timedelta

from atrium_gateway.quota.limits import Meter, Unit, Window
from atrium_gateway.quota.store import Hold, QuotaStore, Unseeded

MINUTE = timedelta(minutes=1)
START = datetime(2026, 1, 31, 23, 59, 30, tzinfo=UTC).timestamp()
TENANT = "acme"
PATIENT = timedelta(seconds=20)
"""A machine under load must not look like a store that is away."""


class Clock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> float:
        return self.now


async def nothing(apart) -> int:
    """What a ledger without events says."""
    return 0


class Counted:
    """A store as these tests use it: the tenant is known, and what is not seeded starts at 0."""

    def __init__(self, store: QuotaStore) -> None:
        self.store = store
        self.meters: dict[str, list[Meter]] = {}

    async def reserve(self, key, meters, amounts, *, lease=MINUTE, note=b""):
        self.meters[key] = meters
        for _ in range(2):
            try:
                return await self.store.reserve(Hold(TENANT, key, meters, amounts, lease, note))
            except Unseeded as err:
                for each in err.meters:
                    await self.store.seed(TENANT, each, nothing)
        raise AssertionError("seeded, and still not seeded")

    async def renew(self, key, amounts, *, lease=MINUTE):
        hold = Hold(TENANT, key, self.meters.get(key, []), amounts or [], lease)
        await self.store.renew(hold, grow=amounts is not None)

    async def settle(self, key, amounts):
        return await self.store.settle(TENANT, key, amounts)


def meter(limit: int, window: Window = Window.HOUR, unit: Unit = Unit.REQUESTS, key: str = ""):
    return Meter(
        key=key or f"acme:{unit}:{window}",
        capability="chat",
        unit=unit,
        window=window,
        limit=limit * unit.scale,
        scale=unit.scale,
        scope="tenant:acme",
    )
