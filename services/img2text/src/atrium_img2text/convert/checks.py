"""What fields are refused for; `orders.py` calls these."""

from collections.abc import Sequence
from typing import TypeVar

from atrium_common.errors import InvalidArgument

N = TypeVar("N", int, float)


def in_range(field: str, value: N, low: N, high: N) -> N:
    """Returns `value` if it is from `low` to `high`; refuses NaN, too."""
    if not low <= value <= high:
        raise InvalidArgument(f"{field} is from {low} to {high}.", field=field)
    return value


def above_zero(field: str, value: float, high: float) -> float:
    """Returns `value` if it is above 0 and at most `high`; refuses NaN, too."""
    if not 0 < value <= high:
        raise InvalidArgument(f"{field} is above 0 and at most {high}.", field=field)
    return value


def short(field: str, text: str, most: int) -> str:
    """Returns `text` if it has at most `most` characters."""
    if len(text) > most:
        raise InvalidArgument(f"{field} has at most {most} characters.", field=field)
    return text


def said(field: str, text: str) -> str:
    """Returns `text` if it says anything."""
    if not text.strip():
        raise InvalidArgument(f"{field} is required.", field=field)
    return text


def few(field: str, items: Sequence[object], most: int) -> None:
    """Refuses more than `most` items."""
    if len(items) > most:
        raise InvalidArgument(f"{field} has at most {most} items.", field=field)
