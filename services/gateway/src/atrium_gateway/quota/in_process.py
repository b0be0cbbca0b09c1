"""The quota store of the one-process gateway: dictionaries, exact because one loop runs it.

Used by `core.open_core`, which refuses a second gateway process over the same state.
"""

from collections.abc import Callable, Sequence
from datetime import timedelta

import msgspec

from atrium_common.errors import NotFound
from atrium_gateway.quota.counters import Counter, make_counter
from atrium_gateway.quota.limits import LEDGERED, LimitState, Meter
from atrium_gateway.quota.pieces import Piece, growth, spread
from atrium_gateway.quota.store import Found, Unseeded
from atrium_gateway.quota.verdict import Reading, fits_all, refusal, states


class _Held(msgspec.Struct):
    """What one reservation took: pieces of the meters' counters, the first of each first."""

    tenant: str
    note: bytes
    meters: Sequence[Meter]
    counters: list[Counter]
    pieces: list[Piece]
    expires: int


class InProcessQuotaStore:
    """Counts in this process's memory; see `QuotaStore` for the promises.

    Args:
        clock: Returns Unix seconds.
    """

    def __init__(self, *, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._counters: dict[str, Counter] = {}
        self._held: dict[str, _Held] = {}

    @property
    def shared(self) -> bool:
        return False

    async def generation(self) -> int:
        return 0

    async def tenants(self) -> Sequence[str]:
        return sorted({held.tenant for held in self._held.values()})

    async def seed(self, tenant: str, meter: Meter, used: int) -> None:
        if meter.key not in self._counters:
            self._counters[meter.key] = make_counter(
                meter.window, self._now(), used=used, time_zone=meter.time_zone
            )

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
        unseeded = [m for m in meters if m.key not in self._counters and m.window in LEDGERED]
        if unseeded:
            raise Unseeded(unseeded)
        now = self._now()
        counters = [self._counter(meter, now) for meter in meters]
        readings = self._readings(meters, counters, amounts, now)
        expires = _end(now, lease)
        pieces = [
            Piece(index, counter.take(reservation_id, amount, expires=expires), amount)
            for index, (counter, amount) in enumerate(zip(counters, amounts, strict=True))
        ]
        self._held[reservation_id] = _Held(tenant, note, meters, counters, pieces, expires)
        return states(meters, readings, amounts)

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
        """A process that ends loses this store and its reservations together."""

    async def book(
        self, tenant: str, reservation_id: str, meters: Sequence[Meter], amounts: Sequence[int]
    ) -> None:
        """This store is never away."""

    async def tend(self) -> None:
        """Nothing is left over."""

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
        now = self._now()
        held = self._held.get(reservation_id)
        if held is None or held.expires <= now:
            raise NotFound("The reservation is closed or its lease has passed.")
        expires = _end(now, lease)
        if amounts is not None:
            more = growth(held.pieces, amounts)
            self._readings(held.meters, held.counters, more, now)
            held.pieces += [
                Piece(at, held.counters[at].take(reservation_id, extra, expires=expires), extra)
                for at, extra in enumerate(more)
                if extra
            ]
        held.expires = expires
        held.note = note or held.note
        for counter in held.counters:
            counter.keep(reservation_id, expires)

    async def settle(
        self, tenant: str, reservation_id: str, amounts: Sequence[int], *, note: bytes = b""
    ) -> bool:
        held = self._held.pop(reservation_id, None)
        if held is None:
            return False
        now = self._now()
        for piece, delta in spread(held.pieces, amounts):
            held.counters[piece.meter].adjust(piece.mark, piece.amount, delta, now=now)
        for counter in held.counters:
            counter.release(reservation_id)
        return True

    async def void(self, tenant: str, reservation_id: str) -> None:
        held = self._held.get(reservation_id)
        if held is not None:
            await self.settle(tenant, reservation_id, [0] * len(held.meters))

    async def find(self, tenant: str, reservation_id: str) -> Found | None:
        held = self._held.get(reservation_id)
        if held is None:
            return None
        return Found(held.note, timedelta(milliseconds=max(held.expires - self._now(), 0)))

    async def claim(self, tenant: str, reservation_id: str) -> bytes | None:
        held = self._held.get(reservation_id)
        if held is None or held.expires > self._now():
            return None
        del self._held[reservation_id]
        for counter in held.counters:
            counter.release(reservation_id)
        return held.note

    async def lapsed(self, tenant: str) -> Sequence[str]:
        now = self._now()
        return [
            reservation_id
            for reservation_id, held in self._held.items()
            if held.tenant == tenant and held.expires <= now
        ]

    def _now(self) -> int:
        return int(self._clock() * 1000)

    def _counter(self, meter: Meter, now: int) -> Counter:
        counter = self._counters.get(meter.key)
        if counter is None:
            counter = self._counters[meter.key] = make_counter(
                meter.window, now, time_zone=meter.time_zone
            )
        return counter

    def _readings(
        self,
        meters: Sequence[Meter],
        counters: Sequence[Counter],
        amounts: Sequence[int],
        now: int,
    ) -> list[Reading]:
        """Reads the counters; raises `QuotaExceeded` if the amounts do not fit."""
        readings = [
            counter.read(now, meter.limit, amount)
            for meter, counter, amount in zip(meters, counters, amounts, strict=True)
        ]
        if not fits_all(meters, readings, amounts):
            raise refusal(meters, readings, amounts, now=now)
        return readings


def _end(now: int, lease: timedelta) -> int:
    return now + int(lease.total_seconds() * 1000)
