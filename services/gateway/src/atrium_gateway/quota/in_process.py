"""The quota store of the one-process gateway: dictionaries, exact because one loop runs it.

Used by `core.open_core`, which refuses a second gateway process over the same state.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

import msgspec

from atrium_common.errors import LimitViolation, NotFound, QuotaExceeded
from atrium_gateway.quota.counters import Counter, make_counter
from atrium_gateway.quota.limits import WINDOW_LENGTH, LimitState, Meter, Window

_LEDGERED = frozenset({Window.HOUR, Window.DAY, Window.MONTH, Window.TOTAL})
_SOON = timedelta(milliseconds=1)
_BUDGETS = frozenset({Window.DAY, Window.MONTH, Window.TOTAL})


class _Held(msgspec.Struct):
    """What one reservation took, parallel over its meters."""

    meters: Sequence[Meter]
    counters: list[Counter]
    marks: list[int]
    amounts: Sequence[int]
    expires: int
    grown: list[tuple[int, int, int]] | None = None
    """Later pieces: (index of the meter, mark, amount)."""


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
        used = [counter.used(now) for counter in counters]
        _check(meters, counters, used, amounts, now)
        expires = now + int(lease.total_seconds() * 1000)
        marks = []
        states = []
        for meter, counter, before, amount in zip(meters, counters, used, amounts, strict=True):
            marks.append(counter.take(reservation_id, amount, now=now, expires=expires))
            states.append(_state(meter, counter, before + amount, now))
        self._held[reservation_id] = _Held(meters, counters, marks, amounts, expires)
        if len(states) > 1:
            states.sort(key=_free_share)
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
        if held.grown:
            amounts = _first_pieces(reservation_id, held, amounts)
        for meter, counter, mark, reserved, actual in zip(
            held.meters, held.counters, held.marks, held.amounts, amounts, strict=True
        ):
            if actual != reserved:
                counter.adjust(reservation_id, mark, actual - reserved)
            if meter.window is Window.CONCURRENT:
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
        reserved = list(held.amounts)
        for index, _, amount in held.grown or ():
            reserved[index] += amount
        growth = [max(new - old, 0) for new, old in zip(amounts, reserved, strict=True)]
        used = [counter.used(now) for counter in held.counters]
        _check(held.meters, held.counters, used, growth, now)
        pieces = [
            (index, held.counters[index].take(reservation_id, more, now=now, expires=expires), more)
            for index, more in enumerate(growth)
            if more
        ]
        held.grown = [*(held.grown or ()), *pieces]


def _first_pieces(reservation_id: str, held: _Held, amounts: Sequence[int]) -> list[int]:
    """Spreads actual amounts over the pieces in order; the last one takes any excess.

    Adjusts the later pieces and returns what is left for the first ones.
    """
    left = list(amounts)
    for position, reserved in enumerate(held.amounts):
        later = [(mark, amount) for index, mark, amount in held.grown or () if index == position]
        actual = amounts[position]
        if not later:
            continue
        left[position] = min(actual, reserved)
        rest = actual - left[position]
        for number, (mark, amount) in enumerate(later, 1):
            part = rest if number == len(later) else min(rest, amount)
            rest -= part
            held.counters[position].adjust(reservation_id, mark, part - amount)
    return left


def _check(
    meters: Sequence[Meter],
    counters: Sequence[Counter],
    used: Sequence[int],
    amounts: Sequence[int],
    now: int,
) -> None:
    for meter, before, amount in zip(meters, used, amounts, strict=True):
        if amount and before + amount > meter.limit:
            break
    else:
        return
    refused = [
        (meter, _state(meter, counter, before, now), amount)
        for meter, counter, before, amount in zip(meters, counters, used, amounts, strict=True)
        if amount and before + amount > meter.limit
    ]
    raise _refusal(refused, now)


def _free_share(state: LimitState) -> float:
    return state.remaining / (state.limit or 1)


def _state(meter: Meter, counter: Counter, used: int, now: int) -> LimitState:
    free = meter.limit - used
    scale = meter.scale
    return LimitState(
        meter.unit,
        WINDOW_LENGTH[meter.window],
        meter.limit // scale,
        free // scale if free > 0 else 0,
        counter.resets(now),
    )


def _refusal(refused: Sequence[tuple[Meter, LimitState, int]], now: int) -> QuotaExceeded:
    """The error for the limits that refuse, the one that holds longest first."""
    ordered = sorted(refused, key=lambda item: item[1].reset_time, reverse=True)
    violations = tuple(
        LimitViolation(
            unit=state.unit,
            window=state.window,
            limit=state.limit,
            remaining=state.remaining,
            reset_time=state.reset_time,
            scope=meter.scope,
        )
        for meter, state, _ in ordered
    )
    meter, state, amount = ordered[0]
    hopeless = meter.window is Window.TOTAL or any(m.limit < a for m, _, a in refused)
    budget = any(m.window in _BUDGETS for m, _, _ in refused)
    moment = datetime.fromtimestamp(now / 1000, UTC)
    return QuotaExceeded(
        _message(meter, state, amount),
        violations=violations,
        reason="QUOTA_EXHAUSTED" if hopeless or budget else "RATE_LIMITED",
        retry_after=None if hopeless else max(state.reset_time - moment, _SOON),
    )


def _message(meter: Meter, state: LimitState, amount: int) -> str:
    unit = meter.unit.replace("_", " ")
    if meter.window is Window.CONCURRENT:
        return f"The limit of {state.limit} concurrent requests ({meter.scope}) is reached."
    span = "in total" if meter.window is Window.TOTAL else f"per {meter.window}"
    needed = -(-amount // meter.scale)
    text = (
        f"The limit of {state.limit} {unit} {span} ({meter.scope}) leaves "
        f"{state.remaining}; this request needs up to {needed}."
    )
    if meter.window is not Window.TOTAL:
        text += f" Room comes back at {state.reset_time:%Y-%m-%d %H:%M:%S} UTC."
    return text
