"""Amounts of a unit as people write and read them: costs in the currency, the rest as counted.

The command line, headers and messages use it; everything else keeps whole numbers.
"""

from decimal import Decimal, InvalidOperation

from atrium_common.errors import InvalidArgument
from atrium_gateway.quota.limits import Unit

_DIGITS = 6
"""Digits of a cost after the point: limits count millionths of the currency."""


def amount_text(unit: str, amount: int) -> str:
    """Writes an amount of `unit`.

    >>> amount_text("cost", 2_500_000), amount_text("tokens", 2_500_000)
    ('2.5', '2500000')
    """
    if unit != Unit.COST:
        return str(amount)
    whole, part = divmod(amount, 10**_DIGITS)
    return f"{whole}.{part:0{_DIGITS}d}".rstrip("0").rstrip(".")


def read_amount(unit: Unit, text: str) -> int:
    """Reads an amount of `unit`, 0 or more.

    Raises:
        InvalidArgument: It is no such number; costs may have up to 6 digits after the point.
    """
    try:
        value = Decimal(text).scaleb(_DIGITS) if unit is Unit.COST else Decimal(text)
    except InvalidOperation:
        value = Decimal(-1)
    if (
        not (text.isascii() and text.replace(".", "", 1).isdecimal())
        or value != value.to_integral_value()
    ):
        kind = "a cost with up to 6 digits after the point" if unit is Unit.COST else "whole"
        raise InvalidArgument(f"{text!r} is no amount: it must be {kind}.", field="amount")
    return int(value)
