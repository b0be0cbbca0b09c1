"""How a cost comes about: unit prices that applied, and what each unit adds; for the bill."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from decimal import ROUND_HALF_EVEN, Decimal
from itertools import pairwise
from typing import Final

from atrium_gateway.usage.price import NANO, PRICED, REQUEST, ModelPrices
from atrium_gateway.usage.price_list import PriceList, PriceVersion
from atrium_gateway.usage.reports_views import Totals

_MILLISECOND: Final = timedelta(milliseconds=1)
_ONE_NANO: Final = 1 / NANO
_INPUT: Final = "million_input_tokens"
_CACHED: Final = "million_cached_input_tokens"


@dataclass(frozen=True, slots=True)
class ChargeLine:
    """One line of a price.

    Attributes:
        unit: Name of the price, e.g. ``million_input_tokens`` or ``request``.
        field: What is counted for it: a field of `Units`, or ``requests``.
        count: How many internal counts were charged at this price.
        unit_price: Price of one unit.
        amount: What that makes, to the billionth.
    """

    unit: str
    field: str
    count: int
    unit_price: Decimal
    amount: Decimal


def charge_lines(prices: ModelPrices, counted: Mapping[str, int]) -> Sequence[ChargeLine]:
    """The lines of what was counted, without those of units that were not.

    Cached input tokens are charged at their own price where there is one, and as input
    tokens otherwise, as `PriceBook.cost` does.

    Args:
        prices: Of the model.
        counted: ``requests`` and the fields of `Units`, internal counts.
    """
    charged = dict(counted)
    cached = min(charged.get("cached_input_tokens", 0), charged.get("input_tokens", 0))
    if _CACHED in prices:
        charged["input_tokens"] = charged.get("input_tokens", 0) - cached
        charged["cached_input_tokens"] = cached
    lines = []
    for unit, price in prices.items():
        field, pays_for = PRICED.get(unit, ("requests", 1))
        count = charged.get(field, 0)
        if count and (unit == REQUEST or unit in PRICED):
            amount = (price * count / pays_for).quantize(_ONE_NANO, rounding=ROUND_HALF_EVEN)
            lines.append(ChargeLine(unit, field, count, price, amount))
    return lines


def event_counts(totals: Totals) -> dict[str, int]:
    """What totals charge: ``requests`` and the fields of `Units`, internal counts."""
    return {
        "requests": totals.requests,
        "input_tokens": totals.input_tokens,
        "output_tokens": totals.output_tokens,
        "cached_input_tokens": totals.cached_input_tokens,
        "characters": totals.characters,
        "input_audio_ms": totals.input_audio // _MILLISECOND,
        "output_audio_ms": totals.output_audio // _MILLISECOND,
        "images": totals.images,
        "millimegapixel_steps": totals.millimegapixel_steps,
        "pages": totals.pages,
    }


class UnitPrices:
    """Every price that ever held, as the database has them.

    Args:
        versions: All versions of the price book.
    """

    def __init__(self, versions: Sequence[PriceVersion]) -> None:
        self._by_number = {version.version: version for version in versions}
        self._list = PriceList(versions)
        self._edges = sorted({version.effective_ms for version in versions})

    def of_version(self, version: int, model: str) -> ModelPrices:
        """What a version says of a model; empty for one that is free or not in it."""
        found = self._by_number.get(version)
        return {} if found is None else found.prices.get(model, {})

    def spells(
        self, model: str, start_ms: int, end_ms: int
    ) -> Sequence[tuple[int, int, ModelPrices]]:
        """The parts of ``[start_ms, end_ms)`` in which a model's prices stayed the same."""
        inside = [edge for edge in self._edges if start_ms < edge < end_ms]
        found: list[tuple[int, int, ModelPrices]] = []
        for start, end in pairwise([start_ms, *inside, end_ms]):
            prices = self._list.at(start).prices.get(model, {})
            if found and found[-1][2] == prices:
                found[-1] = (found[-1][0], end, prices)
            else:
                found.append((start, end, prices))
        return found
