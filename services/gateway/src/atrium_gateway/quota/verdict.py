"""What the limits say of a request: the states that callers are told, and the refusal.

Every store reads its counters its own way and comes here with the readings.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import msgspec

from atrium_common.errors import LimitViolation, QuotaExceeded
from atrium_gateway.quota.amounts import amount_text
from atrium_gateway.quota.limits import NEVER, WINDOW_LENGTH, LimitState, Meter, Window

_SOON = timedelta(milliseconds=1)
_BUDGETS = frozenset({Window.DAY, Window.MONTH, Window.TOTAL})
_MINUTE_MS = 60_000
_NEVER_MS = int(NEVER.timestamp()) * 1000


class Reading(msgspec.Struct, frozen=True):
    """A counter before a request.

    Attributes:
        used: What counts against the limit, internal counts.
        resets: When the window begins anew or its bucket is empty, Unix milliseconds.
        fits: When the request will fit by time alone, Unix milliseconds.
    """

    used: int
    resets: int
    fits: int


def fits_all(meters: Sequence[Meter], readings: Sequence[Reading], amounts: Sequence[int]) -> bool:
    """Whether no limit refuses; asking for nothing is never refused."""
    for meter, reading, amount in zip(meters, readings, amounts, strict=True):
        if amount and reading.used + amount > meter.limit:
            return False
    return True


def states(
    meters: Sequence[Meter], readings: Sequence[Reading], taken: Sequence[int]
) -> tuple[LimitState, ...]:
    """The limits once `taken` is taken, the tightest first."""
    found = [
        _state(meter, reading, reading.used + amount, drains=amount)
        for meter, reading, amount in zip(meters, readings, taken, strict=True)
    ]
    if len(found) > 1:
        found.sort(key=_free_share)
    return tuple(found)


def refusal(
    meters: Sequence[Meter], readings: Sequence[Reading], amounts: Sequence[int], *, now: int
) -> QuotaExceeded:
    """The error for the limits that refuse, the one that holds longest first.

    Args:
        meters: All that were asked.
        readings: Of each.
        amounts: What was asked of each; at least one does not fit.
        now: Unix milliseconds.
    """
    refused = [
        (meter, reading, amount)
        for meter, reading, amount in zip(meters, readings, amounts, strict=True)
        if amount and reading.used + amount > meter.limit
    ]
    refused.sort(key=lambda item: item[1].fits, reverse=True)
    meter, reading, amount = refused[0]
    hopeless = meter.window is Window.TOTAL or any(m.limit < a for m, _, a in refused)
    budget = any(m.window in _BUDGETS for m, _, _ in refused)
    wait = timedelta(milliseconds=reading.fits - now)
    return QuotaExceeded(
        _message(meter, reading, amount),
        violations=tuple(_violation(meter, reading) for meter, reading, _ in refused),
        reason="QUOTA_EXHAUSTED" if hopeless or budget else "RATE_LIMITED",
        retry_after=None if hopeless else max(wait, _SOON),
    )


def _free_share(state: LimitState) -> float:
    return state.remaining / (state.limit or 1)


def _state(meter: Meter, reading: Reading, used: int, *, drains: int = 0) -> LimitState:
    """The limit with `used`; of a bucket, `drains` of it came after the reading."""
    free = meter.limit - used
    resets = reading.resets
    if meter.window is Window.MINUTE and meter.limit:
        resets += -(-drains * _MINUTE_MS // meter.limit)
    return LimitState(
        meter.unit,
        WINDOW_LENGTH[meter.window],
        meter.limit // meter.scale,
        free // meter.scale if free > 0 else 0,
        _time(resets),
        meter.name,
    )


def _violation(meter: Meter, reading: Reading) -> LimitViolation:
    state = _state(meter, reading, reading.used)
    return LimitViolation(
        unit=state.unit,
        window=state.window,
        limit=state.limit,
        remaining=state.remaining,
        reset_time=_time(reading.fits),
        scope=meter.scope,
        name=meter.name,
    )


def _message(meter: Meter, reading: Reading, amount: int) -> str:
    state = _state(meter, reading, reading.used)
    unit = meter.unit.replace("_", " ")
    if meter.window is Window.CONCURRENT:
        return f"The limit of {state.limit} concurrent requests ({meter.scope}) is reached."
    span = "in total" if meter.window is Window.TOTAL else f"per {meter.window}"
    limit, left, needed = (
        amount_text(meter.unit, count)
        for count in (state.limit, state.remaining, -(-amount // meter.scale))
    )
    text = (
        f"The limit of {limit} {unit} {span} ({meter.scope}) leaves "
        f"{left}; this request needs up to {needed}."
    )
    if meter.window is not Window.TOTAL and amount <= meter.limit:
        text += f" There is room for it at {_time(reading.fits):%Y-%m-%d %H:%M:%S} UTC."
    return text


def _time(ms: int) -> datetime:
    return NEVER if ms >= _NEVER_MS else datetime.fromtimestamp(ms / 1000, UTC)
