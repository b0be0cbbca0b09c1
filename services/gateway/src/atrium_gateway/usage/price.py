"""The price book: what one unit of a model costs, as `Decimal`.

Two things are priced apart: what a tenant is charged, and what the work costs the operator
(an outside provider's bill). `price_list.py` tells which book was in force when.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import ROUND_HALF_EVEN, Decimal
from functools import cached_property
from typing import Final, Protocol

from atrium_common.catalogue import Catalogue, Price
from atrium_gateway.usage.records import Units

NANO: Final = Decimal(10) ** 9
"""Costs are kept as whole billionths of the currency."""

PRICED: Final[Mapping[str, tuple[str, int]]] = {
    "million_input_tokens": ("input_tokens", 1_000_000),
    "million_output_tokens": ("output_tokens", 1_000_000),
    "million_cached_input_tokens": ("cached_input_tokens", 1_000_000),
    "million_characters": ("characters", 1_000_000),
    "input_audio_minute": ("input_audio_ms", 60_000),
    "output_audio_minute": ("output_audio_ms", 60_000),
    "image": ("images", 1),
    "megapixel_step": ("millimegapixel_steps", 1000),
    "page": ("pages", 1),
}
"""Price name of the catalogue -> (field of `Units`, counts that it pays for)."""

REQUEST: Final = "request"
_INPUT: Final = "million_input_tokens"
_CACHED: Final = "million_cached_input_tokens"
_PAGE: Final = "page"
_FREE: Final = Decimal(0)
_MOST: Final = Decimal(10) ** 8
"""No unit costs more in any currency: sums of costs fit into the database's 64 bits."""
_DIGITS: Final = 18
_MOST_NANO: Final = 10**17
"""Nor does one piece of work: a slip in a price must not keep what follows out of the ledger."""

ModelPrices = Mapping[str, Decimal]
"""Price name of the catalogue -> currency, 0 or more; what is not named is free."""
Prices = Mapping[str, ModelPrices]
"""Model id -> its prices."""


@dataclass(frozen=True, slots=True)
class _Rates:
    """Prices of one model in billionths per single count."""

    request: Decimal
    counts: tuple[tuple[str, Decimal], ...]
    cached_discount: Decimal

    def total(self, units: Units, requests: int) -> int:
        """Billionths of the currency, half to even."""
        total = self.request * requests
        for field_name, rate in self.counts:
            count = getattr(units, field_name)
            if count:
                total += rate * count
        if self.cached_discount and units.cached_input_tokens:
            cached = min(units.cached_input_tokens, units.input_tokens)
            total -= self.cached_discount * cached
        return min(int(total.to_integral_value(rounding=ROUND_HALF_EVEN)), _MOST_NANO)


class PriceSource(Protocol):
    """Tells what prices are in force; `PriceList` and a single `PriceBook` do."""

    def at(self, time_ms: int) -> "PriceBook":
        """The prices in force at `time_ms`, Unix milliseconds."""
        ...


@dataclass(frozen=True)
class PriceBook:
    """All prices that are in force at one time.

    Attributes:
        version: 1 or more; 0 for a book without prices.
        prices: What tenants are charged.
        costs: What the work costs the operator.
        versions: Versions of the models that are not priced by `version`.
    """

    version: int = 0
    prices: Prices = field(default_factory=dict)
    costs: Prices = field(default_factory=dict)
    versions: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for book in (self.prices, self.costs):
            for model, prices in book.items():
                check_prices(model, prices)

    @cached_property
    def _rates(self) -> Mapping[str, _Rates]:
        return {model: _rates(prices) for model, prices in self.prices.items()}

    @cached_property
    def _dearest_page(self) -> Decimal:
        return max((each.get(_PAGE, _FREE) for each in self.prices.values()), default=_FREE) * NANO

    @cached_property
    def _cost_rates(self) -> Mapping[str, _Rates]:
        return {model: _rates(prices) for model, prices in self.costs.items()}

    def at(self, time_ms: int) -> "PriceBook":
        """Itself: a book alone holds at any time."""
        return self

    def cost(self, model: str, units: Units, *, requests: int = 1) -> tuple[int, int]:
        """Prices one piece of work for the tenant.

        Cached input tokens cost their own price where there is one, and count as input
        tokens otherwise.

        Returns:
            Billionths of the currency, half to even, and the version that priced it;
            ``(0, 0)`` for a model without prices.
        """
        rates = self._rates.get(model)
        if rates is None:
            return 0, 0
        return rates.total(units, requests), self.versions.get(model, self.version)

    def bound(self, model: str, units: Units) -> int:
        """The most that work of `model` within `units` costs the tenant, in billionths.

        A picture's text may be read by another model than describes it, and the bound of
        both is one: pages that `model` has no price for are taken at the dearest.
        """
        cost, _ = self.cost(model, units)
        if units.pages and _PAGE not in self.prices.get(model, {}):
            cost += int(units.pages * self._dearest_page)
        return cost

    def charged(self, model: str) -> bool:
        """Whether an outside provider charges for work of a model."""
        return any(self.costs.get(model, {}).values())

    def provider_cost(self, model: str, units: Units, *, requests: int = 1) -> int:
        """The same for the operator: billionths of the currency, 0 where nothing is known."""
        rates = self._cost_rates.get(model)
        return 0 if rates is None else rates.total(units, requests)


def check_prices(model: str, prices: ModelPrices) -> None:
    """Does nothing if `prices` can be.

    Raises:
        ValueError: One is of no unit, negative or no number.
    """
    for name, price in prices.items():
        if name != REQUEST and name not in PRICED:
            raise ValueError(f"the price {name!r} of model {model!r} is not a unit")
        if not price.is_finite() or price < 0:
            raise ValueError(f"the price {name!r} of model {model!r} is not 0 or more")
        if price > _MOST or int(price.as_tuple().exponent) < -_DIGITS:
            raise ValueError(
                f"the price {name!r} of model {model!r} is over {_MOST:,f} "
                f"or has more than {_DIGITS} digits after the point"
            )


def _rates(prices: ModelPrices) -> _Rates:
    rates = {
        name: price * NANO / PRICED[name][1] for name, price in prices.items() if name in PRICED
    }
    full = rates.get(_INPUT, _FREE)
    return _Rates(
        request=prices.get(REQUEST, _FREE) * NANO,
        counts=tuple((PRICED[n][0], rate) for n, rate in rates.items() if rate and n != _CACHED),
        cached_discount=full - rates.get(_CACHED, full),
    )


def catalogue_prices(catalogue: Catalogue) -> dict[str, dict[str, Decimal]]:
    """What a catalogue says that tenants are charged, without the free models and units."""
    return _without_free({entry.id: entry.price for entry in catalogue.models})


def catalogue_costs(catalogue: Catalogue) -> dict[str, dict[str, Decimal]]:
    """What a catalogue says that providers charge, without the free models and units."""
    return _without_free({entry.id: entry.cost for entry in catalogue.models})


def _without_free(stated: Mapping[str, Price]) -> dict[str, dict[str, Decimal]]:
    named = {
        model: {
            name: amount
            for name, amount in price.model_dump().items()
            if amount or (amount is not None and name == _CACHED)
        }
        for model, price in stated.items()
    }
    return {model: prices for model, prices in named.items() if prices}
