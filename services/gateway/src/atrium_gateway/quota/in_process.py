"""The quota store of the one-process gateway: dictionaries, exact because one loop runs it.

Used by `core.open_core`, which refuses a second gateway process over the same state.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from atrium_common.errors import LimitViolation, NotFound, QuotaExceeded
from atrium_gateway.quota.counters import Counter, make_counter
from atrium_gateway.quota.limits import WINDOW_LENGTH, LimitState, Meter, Window

_LEDGERED = frozenset({Window.HOUR, Window.DAY, Window.MONTH, Window.TOTAL})
_BUDGETS = frozenset({Window.DAY, Window.MONTH, Window.TOTAL})


@dataclass(slots=True)
class _Held:
    """What one reservation took: per meter, its (mark, amount) pieces in order."""

    meters: Sequence[Meter]
    counters: list[Counter]
    pieces: list[list[tuple[int, int]]]
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

    def unseeded(self, meters: Sequence[Meter]) -> Sequence[Meter]:
        return [m for m in meters if m.key not in self._counters and m.window in _LEDGERED]

    async def seed(self, meter: Meter, used: int) -> None:
        if meter.key not in self._counters:
            self._counters[meter.key] = make_counter(meter.window, self._now(), used=used)

    async def reserve(
        self,
        reservation_id: str,
        meters: Sequence[Meter],
        amounts: Sequence[int],
        *,
        lease: timedelta,
    ) -> tuple[LimitState, ...]:
        now = self._now()
        counters = [self._counter(meter, now) for meter in meters]
        self._check(meters, counters, amounts, now)
        expires = now + int(lease.total_seconds() * 1000)
        pieces = [
            [(counter.take(reservation_id, amount, now=now, expires=expires), amount)]
            for counter, amount in zip(counters, amounts, strict=True)
        ]
        self._held[reservation_id] = _Held(meters, counters, pieces, expires)
        states = [_state(m, c, now) for m, c in zip(meters, counters, strict=True)]
        if len(states) > 1:
            states.sort(key=lambda state: state.remaining / max(state.limit, 1))
        return tuple(states)

    async def renew(
        self, reservation_id: str, amounts: Sequence[int] | None, *, lease: timedelta
    ) -> None:
        now = self._now()
        held = self._held.get(reservation_id)
        if held is None or held.expires <= now:
            raise NotFound("The reservation is closed or its lease has passed.")
        expires = now + int(lease.total_seconds() * 1000)
        if amounts is not None:
            self._grow(reservation_id, held, amounts, now=now, expires=expires)
        held.expires = expires
        for counter in held.counters:
            counter.keep(reservation_id, expires)

    async def settle(self, reservation_id: str, amounts: Sequence[int]) -> None:
        held = self._held.pop(reservation_id, None)
        if held is None:
            return
        for counter, pieces, amount in zip(held.counters, held.pieces, amounts, strict=True):
            left = amount
            for index, (mark, reserved) in enumerate(pieces):
                last = index == len(pieces) - 1
                actual = left if last else min(left, reserved)
                left -= actual
                if actual != reserved:
                    counter.adjust(reservation_id, mark, actual - reserved)
            counter.release(reservation_id)

    async def abandon(self, reservation_id: str) -> None:
        held = self._held.pop(reservation_id, None)
        for counter in held.counters if held else ():
            counter.release(reservation_id)

    def _now(self) -> int:
        return int(self._clock() * 1000)

    def _counter(self, meter: Meter, now: int) -> Counter:
        counter = self._counters.get(meter.key)
        if counter is None:
            counter = self._counters[meter.key] = make_counter(meter.window, now)
        return counter

    def _grow(
        self,
        reservation_id: str,
        held: _Held,
        amounts: Sequence[int],
        *,
        now: int,
        expires: int,
    ) -> None:
        reserved = [sum(amount for _, amount in pieces) for pieces in held.pieces]
        growth = [max(new - old, 0) for new, old in zip(amounts, reserved, strict=True)]
        growing = [i for i, more in enumerate(growth) if more]
        self._check(
            [held.meters[i] for i in growing],
            [held.counters[i] for i in growing],
            [growth[i] for i in growing],
            now,
        )
        for i in growing:
            mark = held.counters[i].take(reservation_id, growth[i], now=now, expires=expires)
            held.pieces[i].append((mark, growth[i]))

    def _check(
        self,
        meters: Sequence[Meter],
        counters: Sequence[Counter],
        amounts: Sequence[int],
        now: int,
    ) -> None:
        refused = [
            (meter, counter, amount)
            for meter, counter, amount in zip(meters, counters, amounts, strict=True)
            if amount and counter.used(now) + amount > meter.limit
        ]
        if refused:
            raise _refusal(refused, now)


def _state(meter: Meter, counter: Counter, now: int) -> LimitState:
    scale = meter.unit.scale
    return LimitState(
        meter.unit.value,
        WINDOW_LENGTH[meter.window],
        meter.limit // scale,
        max(meter.limit - counter.used(now), 0) // scale,
        _time(counter.resets(now)),
    )


def _refusal(refused: Sequence[tuple[Meter, Counter, int]], now: int) -> QuotaExceeded:
    """The error for the limits that refuse, the one that holds longest first."""
    ordered = sorted(refused, key=lambda item: -item[1].resets(now))
    violations = tuple(
        LimitViolation(
            unit=state.unit,
            window=state.window,
            limit=state.limit,
            remaining=state.remaining,
            reset_time=state.reset_time,
            scope=meter.scope,
        )
        for meter, counter, _ in ordered
        for state in [_state(meter, counter, now)]
    )
    meter, counter, amount = ordered[0]
    impossible = any(m.limit < a for m, _, a in refused)
    permanent = impossible or meter.window is Window.TOTAL
    long = any(m.window in _BUDGETS for m, _, _ in refused)
    return QuotaExceeded(
        _message(meter, violations[0], amount),
        violations=violations,
        reason="QUOTA_EXHAUSTED" if permanent or long else "RATE_LIMITED",
        retry_after=None if permanent else timedelta(milliseconds=counter.resets(now) - now),
    )


def _message(meter: Meter, violation: LimitViolation, amount: int) -> str:
    unit = meter.unit.value.replace("_", " ")
    if meter.window is Window.CONCURRENT:
        return f"The limit of {violation.limit} concurrent requests ({meter.scope}) is reached."
    span = "in total" if meter.window is Window.TOTAL else f"per {meter.window.value}"
    needed = -(-amount // meter.unit.scale)
    text = (
        f"The limit of {violation.limit} {unit} {span} ({meter.scope}) leaves "
        f"{violation.remaining}; this request needs up to {needed}."
    )
    if meter.window is not Window.TOTAL:
        text += f" It begins anew at {violation.reset_time:%Y-%m-%d %H:%M:%S} UTC."
    return text


def _time(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)
