"""How much of each limit a piece of work is: what admission reserves, and what it settles.

Costs come from the price book, which is asked only where a limit counts them.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Final

from atrium_common.domain import Usage
from atrium_common.errors import QuotaExceeded
from atrium_gateway.quota.limits import MEASURES, Meter, Unit

NANO_PER_COUNT: Final = 1000
"""Prices are billionths of the currency, limits count millionths: so a bucket's numbers
stay whole in every store."""


def reserve_amounts(
    meters: Sequence[Meter], bound: Usage, cost_nano: Callable[[], int]
) -> list[int]:
    """What to reserve of each meter, in internal counts.

    Args:
        meters: The limits that apply.
        bound: Upper bound of what the work may consume.
        cost_nano: Prices `bound`, in billionths of the currency.
    """
    amounts = settle_amounts(meters, bound, cost_nano)
    for index, meter in enumerate(meters):
        if meter.unit is Unit.GPU_MILLISECONDS:
            # Nobody knows it before: a window that has any left admits.
            amounts[index] = max(amounts[index], 1)
    return amounts


def settle_amounts(
    meters: Sequence[Meter], usage: Usage, cost_nano: Callable[[], int]
) -> list[int]:
    """What was consumed of each meter, in internal counts.

    Args:
        meters: The limits that applied.
        usage: What the work consumed.
        cost_nano: Its price, in billionths of the currency.
    """
    return [
        -(-cost_nano() // NANO_PER_COUNT)
        if meter.unit is Unit.COST
        else MEASURES[meter.unit](usage)
        for meter in meters
    ]


def units_left(error: QuotaExceeded, unit: Unit) -> int | None:
    """What the refusing limits leave of `unit`; ``None`` if other units refuse."""
    if not error.violations or any(v.unit != unit for v in error.violations):
        return None
    return min(violation.remaining for violation in error.violations)


def work_left(
    error: QuotaExceeded, bound: Usage, unit: Unit, price: Callable[[Usage], int]
) -> int | None:
    """The same, where what is left of a cost counts as so much of `unit` as it buys.

    Args:
        error: The refusal.
        bound: What was to be reserved.
        unit: What there may be less of.
        price: Prices a part of `bound`, in billionths of the currency.
    """
    costs = [v.remaining for v in error.violations if v.unit == Unit.COST]
    others = [v for v in error.violations if v.unit != Unit.COST]
    if not costs:
        return units_left(error, unit)
    if any(v.unit != unit for v in others):
        return None
    low, high = 0, MEASURES[unit](bound) // unit.scale
    while low < high:  # the most that costs no more than what is left
        middle = (low + high + 1) // 2
        if price(_part(bound, unit, middle)) <= min(costs) * NANO_PER_COUNT:
            low = middle
        else:
            high = middle - 1
    return min(low, *(v.remaining for v in others)) if others else low


def _part(bound: Usage, unit: Unit, amount: int) -> Usage:
    """`bound` with so much of `unit`: of tokens, the input is there before the output."""
    if unit is Unit.AUDIO_SECONDS:
        return replace(bound, input_audio=timedelta(seconds=amount))
    if unit is Unit.PAGES:
        return replace(bound, pages=amount)
    read = min(bound.input_tokens, amount)
    return replace(bound, input_tokens=read, output_tokens=amount - read)
