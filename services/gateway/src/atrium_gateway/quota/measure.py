"""How much of each limit a piece of work is: what admission reserves, and what it settles.

Costs come from the price book, which is asked only where a limit counts them.
"""

from collections.abc import Callable, Sequence
from typing import Final

from atrium_common.domain import Usage
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
