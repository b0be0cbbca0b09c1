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
from atrium_gateway.quota.store import Consumed, Found, Hold, Unseeded
from atrium_gateway.quota.verdict import Reading, fits_all, refusal, states


class _Early(msgspec.Struct):
    """A counter that must be seeded and has running work in it already, by id."""

    counter: Counter
    ids: list[str]


class _Held(msgspec.Struct):
    """What one reservation took: pieces of the meters' counters, the first of each first."""

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
        self._early: dict[str, _Early] = {}
        self._held: dict[str, _Held] = {}

    async def seed(self, tenant: str, meter: Meter, consumed: Consumed) -> None:
        while meter.key not in self._counters:
            early = self._early.get(meter.key)
            apart = tuple(early.ids) if early else ()
            used = await consumed(apart)
            if meter.key in self._counters or early is not self._early.get(meter.key):
                continue
            if early is not None and len(early.ids) != len(apart):
                continue  # more was attached meanwhile: the ledger may know it by now
            self._start(meter, used)

    async def peek(self, tenant: str, meters: Sequence[Meter]) -> Sequence[Reading]:
        now = self._now()
        counters = self._seeded(meters, now)
        return [
            counter.read(now, meter.limit, 0)
            for meter, counter in zip(meters, counters, strict=True)
        ]

    async def reserve(self, hold: Hold) -> tuple[LimitState, ...]:
        meters, amounts = hold.meters, hold.amounts
        now = self._now()
        counters = self._seeded(meters, now)
        readings = self._readings(meters, counters, amounts, now)
        expires = _end(now, hold.lease)
        pieces = [
            Piece(index, counter.take(hold.id, amount, expires=expires), amount)
            for index, (counter, amount) in enumerate(zip(counters, amounts, strict=True))
        ]
        self._held[hold.id] = _Held(hold.note, meters, counters, pieces, expires)
        return states(meters, readings, amounts)

    async def renew(self, hold: Hold, *, grow: bool) -> None:
        now = self._now()
        held = self._held.get(hold.id)
        if held is None or held.expires <= now:
            raise NotFound("The reservation is closed or its lease has passed.")
        expires = _end(now, hold.lease)
        if grow:
            if unseeded := [meter for meter in held.meters if meter.key in self._early]:
                raise Unseeded(unseeded)
            more = growth(held.pieces, hold.amounts)
            more += [0] * (len(held.counters) - len(more))
            self._readings(held.meters, held.counters, more, now)
            held.pieces += [
                Piece(at, held.counters[at].take(hold.id, extra, expires=expires), extra)
                for at, extra in enumerate(more)
                if extra
            ]
            held.note = hold.note
        held.expires = expires
        for counter in held.counters:
            counter.keep(hold.id, expires)

    async def attach(self, hold: Hold) -> bool:
        held, now = self._held.get(hold.id), self._now()
        if held is None:
            return False
        for at in range(len(held.counters), len(hold.meters)):
            meter, amount = hold.meters[at], hold.amounts[at]
            counter = self._late_counter(hold.id, meter, now)
            counter.read(now, meter.limit, 0)
            mark = counter.take(hold.id, amount, expires=held.expires)
            held.pieces.append(Piece(at, mark, amount))
            held.counters.append(counter)
        held.meters, held.note = hold.meters, hold.note
        return True

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

    async def find(self, tenant: str, reservation_id: str) -> Found | None:
        held = self._held.get(reservation_id)
        if held is None:
            return None
        return Found(held.note, timedelta(milliseconds=max(held.expires - self._now(), 0)))

    async def claim(self, tenant: str, reservation_id: str, *, note: bytes = b"") -> bytes | None:
        held = self._held.get(reservation_id)
        if held is None or held.expires > self._now():
            return None
        del self._held[reservation_id]
        for counter in held.counters:
            counter.release(reservation_id)
        return held.note

    def _now(self) -> int:
        return int(self._clock() * 1000)

    def _seeded(self, meters: Sequence[Meter], now: int) -> list[Counter]:
        """The counters of meters; raises `Unseeded` if the ledger must be asked first."""
        unseeded = [m for m in meters if m.key not in self._counters and m.window in LEDGERED]
        if unseeded:
            raise Unseeded(unseeded)
        return [self._counter(meter, now) for meter in meters]

    def _counter(self, meter: Meter, now: int) -> Counter:
        counter = self._counters.get(meter.key)
        if counter is None:
            counter = self._counters[meter.key] = make_counter(
                meter.window, now, time_zone=meter.time_zone
            )
        return counter

    def _late_counter(self, reservation_id: str, meter: Meter, now: int) -> Counter:
        """A counter that running work is counted in; it need not be seeded yet."""
        if meter.key in self._counters or meter.window not in LEDGERED:
            return self._counter(meter, now)
        early = self._early.get(meter.key)
        if early is None:
            counter = make_counter(meter.window, now, time_zone=meter.time_zone)
            early = self._early[meter.key] = _Early(counter, [])
        early.ids.append(reservation_id)
        return early.counter

    def _start(self, meter: Meter, used: int) -> None:
        """Has a counter count: with what the ledger knows, and what is in it already."""
        now, early = self._now(), self._early.pop(meter.key, None)
        if early is None:
            counter = make_counter(meter.window, now, used=used, time_zone=meter.time_zone)
        else:
            counter = early.counter
            counter.read(now, meter.limit, 0)
            counter.take("", used, expires=now)
        self._counters[meter.key] = counter

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
